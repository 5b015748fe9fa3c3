//! Connections over time: one lane for each connection, with a span for each state.

mod html;
mod svg;
mod text;

pub(crate) use html::{LANES_SCRIPT, LANES_STYLE};

use std::{cmp::Reverse, collections::BTreeMap};

use super::scale::ticks;
use crate::{
    display::{duration, endpoint},
    model::{Role, State},
    story::{ConnHistory, Story},
};

/// A state that a connection was in.
#[derive(Clone, Debug)]
struct StateSpan {
    state: State,
    begin_ns: i64,
    end_ns: i64,
    /// The state continued when the recording ended.
    lasts: bool,
    /// Why the state ended.
    cause: Option<&'static str>,
    /// The owner in this state, if the owner before was another one.
    owner: Option<String>,
}

/// One connection.
#[derive(Clone, Debug)]
struct Lane {
    conn: String,
    owner: String,
    endpoints: String,
    was_stuck: bool,
    spans: Vec<StateSpan>,
    /// How many other connections this lane stands for: see [`Timeline::of_kinds`].
    others: usize,
    /// What the connection has transferred, and the times of its handshake and its segments, as far as they are known.
    numbers: Option<String>,
}

/// The lanes of several connections.
#[derive(Clone, Debug)]
pub struct Timeline {
    title: String,
    begin_ns: i64,
    end_ns: i64,
    lanes: Vec<Lane>,
    /// How many connections were left out.
    left_out: usize,
}

impl Timeline {
    /// Up to `limit` connections of a story: stuck ones first, then the longest.
    #[must_use]
    pub fn new(story: &Story, title: String, limit: usize) -> Self {
        let mut histories = story.in_order();
        let left_out = histories.len().saturating_sub(limit);
        if left_out > 0 {
            histories.sort_by_cached_key(|history| {
                Reverse((history.stuck.is_some(), active_ns(history, story.end_ns)))
            });
            histories.truncate(limit);
            histories.sort_by_key(|history| (history.begin_ns(), history.conn));
        }
        let lanes = histories.iter().map(|history| lane(history, story.end_ns)).collect();
        Self::of(story, title, lanes, left_out)
    }

    fn of(story: &Story, title: String, lanes: Vec<Lane>, left_out: usize) -> Self {
        let first_ns = lanes.iter().filter_map(|lane| Some(lane.spans.first()?.begin_ns)).min();
        // A connection that is older than the recording begins with the recording.
        let begin_ns = story.begin_ns.max(first_ns.unwrap_or(0));
        Self { title, begin_ns, end_ns: story.end_ns.max(begin_ns + 1), lanes, left_out }
    }

    /// One lane for each kind of connection, up to `limit`: those that were stuck first, then the most frequent kind. Connections
    /// are of one kind if they have the same process, the same service and the same states. The lane is that of the longest.
    #[must_use]
    pub fn of_kinds(story: &Story, title: String, limit: usize) -> Self {
        let mut kinds: BTreeMap<String, Vec<&ConnHistory>> = BTreeMap::new();
        for history in story.in_order() {
            kinds.entry(kind(history)).or_default().push(history);
        }
        let mut lanes: Vec<(Lane, i64)> = kinds
            .into_values()
            .filter_map(|histories| {
                let length =
                    |history: &&&ConnHistory| (Reverse(active_ns(history, story.end_ns)), history.conn);
                let longest = *histories.iter().min_by_key(length)?;
                let lane = Lane { others: histories.len() - 1, ..lane(longest, story.end_ns) };
                Some((lane, longest.begin_ns()))
            })
            .collect();
        lanes.sort_by_key(|(lane, begin_ns)| (Reverse((lane.was_stuck, lane.others)), *begin_ns));
        let left_out = lanes.iter().skip(limit).map(|(lane, _)| lane.others + 1).sum();
        lanes.truncate(limit);
        Self::of(story, title, lanes.into_iter().map(|(lane, _)| lane).collect(), left_out)
    }

    /// One connection, from its beginning.
    #[must_use]
    pub fn of_one(history: &ConnHistory, story: &Story, title: String) -> Self {
        let lane = lane(history, story.end_ns);
        let begin_ns = lane.spans.first().map_or(story.begin_ns, |span| span.begin_ns);
        let end_ns = lane.spans.last().map_or(story.end_ns, |span| span.end_ns).max(begin_ns + 1);
        Self { title, begin_ns, end_ns, lanes: vec![lane], left_out: 0 }
    }

    /// The note below the lanes: the numbers of a single connection, or how many connections were left out.
    fn note(&self) -> Option<String> {
        match (&self.lanes[..], self.left_out) {
            ([lane], 0) => lane.numbers.clone(),
            (_, 0) => None,
            (_, more) => {
                Some(format!("and {more} more connections: use a filter, or `sockstate timeline --most N`"))
            }
        }
    }

    /// About `count` tick marks at round distances: offsets in ns.
    fn ticks(&self, about: i64) -> Vec<i64> {
        ticks(self.end_ns - self.begin_ns, about)
    }
}

/// What connections of one kind have in common.
fn kind(history: &ConnHistory) -> String {
    let states: Vec<&str> = history.states().iter().map(|(state, _)| state.name()).collect();
    let tuple = &history.tuple;
    let service = match history.role {
        Some(Role::Client) => endpoint(tuple.remote, tuple.remote_port),
        _ => endpoint(tuple.local, tuple.local_port),
    };
    format!("{} {service} {} {:?}", owner_name(history), states.join(" "), history.stuck.is_some())
}

/// How long a connection was in other states than TIME_WAIT and LISTEN, which are long and carry little information.
fn active_ns(history: &ConnHistory, story_end_ns: i64) -> i64 {
    let states = history.states();
    let end = states.iter().find(|(state, _)| matches!(state, State::TimeWait | State::Listen));
    let last_ns = if history.is_over() { history.since_ns } else { story_end_ns };
    end.map_or(last_ns, |(_, since_ns)| *since_ns) - history.begin_ns()
}

fn owner_name(history: &ConnHistory) -> String {
    let owner = history.subject.owner.as_ref();
    owner.map_or_else(|| "-".into(), |owner| format!("{} ({})", owner.comm, owner.pid()))
}

fn lane(history: &ConnHistory, end_ns: i64) -> Lane {
    let states = history.states();
    let owner = |history: &ConnHistory, at: usize| {
        let owner = history.steps.get(at)?.subject.owner.as_ref()?;
        Some(format!("{} ({})", owner.comm, owner.pid()))
    };
    // If the first state is from `found`, state i was entered by step i - 1.
    let shift = usize::from(history.found.is_some());
    let mut spans = Vec::new();
    for (at, (state, begin_ns)) in states.iter().enumerate() {
        if *state == State::Close && at > 0 {
            continue;
        }
        let next = states.get(at + 1);
        let step =
            (at + 1).checked_sub(shift).and_then(|step| history.steps.get(step)).filter(|_| next.is_some());
        let now = at.checked_sub(shift).and_then(|step| owner(history, step));
        let before = at.checked_sub(shift + 1).and_then(|step| owner(history, step));
        spans.push(StateSpan {
            state: *state,
            begin_ns: *begin_ns,
            end_ns: next.map_or(end_ns, |next| next.1).max(*begin_ns),
            lasts: next.is_none(),
            cause: step.and_then(|step| step.cause).map(crate::model::Cause::name),
            owner: now.filter(|now| at > shift && before.as_ref() != Some(now)),
        });
    }
    let tuple = &history.tuple;
    let (local, remote) =
        (endpoint(tuple.local, tuple.local_port), endpoint(tuple.remote, tuple.remote_port));
    let endpoints = if history.state == State::Listen || tuple.remote_port == 0 {
        local
    } else {
        format!("{local} - {remote}")
    };
    Lane {
        conn: history.conn.to_string(),
        owner: owner_name(history),
        endpoints,
        was_stuck: history.stuck.is_some(),
        spans,
        others: 0,
        numbers: numbers(history),
    }
}

/// The numbers of one connection; `None` if none are known.
fn numbers(history: &ConnHistory) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(traffic) = &history.traffic {
        parts.push(format!("sent {} bytes", traffic.bytes_sent));
        parts.push(format!("received {} bytes", traffic.bytes_received));
        parts.push(match traffic.retransmits {
            1 => "1 retransmit".to_owned(),
            count => format!("{count} retransmits"),
        });
        parts.extend(traffic.rtt_smoothed_ns.map(|ns| format!("RTT {}", duration(ns))));
        parts.extend(traffic.rtt_min_ns.map(|ns| format!("least RTT {}", duration(ns))));
    }
    parts.extend(history.handshake_ns().map(|ns| format!("handshake {}", duration(ns))));
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The tooltip of a connection's name.
fn describe_lane(lane: &Lane) -> String {
    let numbers = lane.numbers.as_ref().map(|numbers| format!(": {numbers}")).unwrap_or_default();
    format!("connection {}{numbers}", lane.conn)
}

/// The tooltip of a span.
fn describe(span: &StateSpan) -> String {
    let time = duration(u64::try_from(span.end_ns - span.begin_ns).unwrap_or(0));
    let mut text = format!("{} {time}", span.state.name());
    if span.lasts {
        text.push_str(", still at the end");
    }
    if let Some(cause) = span.cause {
        text.push_str(&format!(", then {cause}"));
    }
    if let Some(owner) = &span.owner {
        text.push_str(&format!(", by {owner}"));
    }
    text
}
