//! One look at the sockets, as JSON lines (docs/look.schema.json).

use serde_json::{Value, json};

use super::look::Group;
use crate::{
    model::{Diagnosis, Gap, SocketEntry},
    wire::{self, LookLine, Text, Time},
};

/// The time of a look as its lines write it.
#[must_use]
pub fn look_time(time_ns: i64) -> String {
    Time(time_ns).to_string()
}

/// A socket as a JSON line.
#[must_use]
pub fn socket_json(looked: &SocketEntry, time: &str) -> String {
    LookLine::socket(looked, time).text()
}

/// A stuck socket as a JSON line.
#[must_use]
pub fn stuck_json(looked: &SocketEntry, diagnosis: &Diagnosis, time: &str) -> String {
    LookLine::stuck(looked, diagnosis, time).text()
}

/// A count as a JSON line.
#[must_use]
pub fn group_json(group: &Group, time: &str) -> String {
    let named = |(name, count): (&&'static str, &usize)| (Text::from(*name), *count);
    let counts = wire::Group {
        count: group.count,
        oldest_ns: group.oldest_ns,
        unread_bytes: group.unread_bytes,
        states: group.states.iter().map(named).collect(),
        reasons: group.reasons.iter().map(named).collect(),
        ..wire::Group::default()
    };
    LookLine::group(&group.key, counts, time).text()
}

/// The gaps of a look, as a JSON line.
#[must_use]
pub fn look_json(netns: Option<u32>, gaps: &[Gap], time: &str) -> String {
    LookLine::gaps(netns, gaps, time).text()
}

/// The gaps of a look, as a JSON array.
#[must_use]
pub fn gaps_json(gaps: &[Gap]) -> Value {
    json!(wire::gap_reasons(gaps))
}
