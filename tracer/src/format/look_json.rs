//! One look at the sockets, as JSON lines (docs/look.schema.json).

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    community_id::community_id,
    cuts::Cuts,
    look::Group,
    seen::{Explained, MADE_IN, Place, Seen, WorkloadOf},
    time::Times,
};
use crate::model::{Address, Diagnosis, Gap, SocketEntry, State, Workload, bounds};

const SCHEMA: &str = "sockstate/1";

/// The time of a look as its lines say it.
#[must_use]
pub fn look_time(time_ns: i64) -> String {
    let mut time = Vec::new();
    Times::rfc3339().write(time_ns, 9, &mut time);
    time.push(b'Z');
    String::from_utf8_lossy(&time).into_owned()
}

/// A socket as a JSON line.
#[must_use]
pub fn socket_json(looked: &SocketEntry, time: &str) -> String {
    line_of(&SocketLine::new("socket", looked, None, time))
}

/// A stuck socket as a JSON line.
#[must_use]
pub fn stuck_json(looked: &SocketEntry, diagnosis: &Diagnosis, time: &str) -> String {
    line_of(&SocketLine::new("stuck", looked, Some(diagnosis), time))
}

/// A count as a JSON line.
#[must_use]
pub fn group_json(group: &Group, time: &str) -> String {
    let mut cuts = Cuts::default();
    let mut line = json!({
        "schema": SCHEMA,
        "kind": "stuck_group",
        "time": time,
        "key": cuts.text("key", &group.key, bounds::GROUP),
        "count": group.count,
        "oldest_ns": group.oldest_ns,
        "unread_bytes": group.unread_bytes,
        "states": group.states,
        "reasons": group.reasons,
    });
    if !cuts.is_empty() {
        line["truncated"] = json!(cuts);
    }
    line_of(&line)
}

/// What a look could not see, as a JSON line.
#[must_use]
pub fn look_json(netns: Option<u32>, gaps: &[Gap], time: &str) -> String {
    let mut cuts = Cuts::default();
    let mut line = json!({
        "schema": SCHEMA,
        "kind": "look",
        "time": time,
        "netns": netns,
        "complete": gaps.is_empty(),
        "reasons": reasons(gaps, &mut cuts),
    });
    if !cuts.is_empty() {
        line["truncated"] = json!(cuts);
    }
    line_of(&line)
}

/// What a look could not see, as a JSON array.
#[must_use]
pub fn gaps_json(gaps: &[Gap]) -> Value {
    reasons(gaps, &mut Cuts::default()).into()
}

fn reasons(gaps: &[Gap], cuts: &mut Cuts) -> Vec<Value> {
    cuts.list("reasons", gaps.iter(), bounds::GAPS, |gap, cuts| {
        let why = cuts.text("reasons[].why", &gap.why, bounds::SENTENCE);
        json!({ "reason": gap.kind.name(), "why": why })
    })
}

fn line_of(record: &impl Serialize) -> String {
    // What we write has no keys but strings.
    let mut text = serde_json::to_string(record).unwrap_or_default();
    text.push('\n');
    text
}

#[derive(Serialize)]
struct SocketLine<'a> {
    schema: &'static str,
    kind: &'a str,
    time: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_number: Option<u8>,
    age_ns: Option<u64>,
    age_at_least: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_at_most_ns: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    may_be_stuck: bool,
    network: Network,
    local: End,
    remote: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<Interface<'a>>,
    #[serde(flatten)]
    seen: Seen<'a>,
    uid: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mini: bool,
    #[serde(flatten)]
    place: Place<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_in: Option<WorkloadOf<'a>>,
    #[serde(flatten)]
    explained: Option<Explained<'a>>,
    #[serde(skip_serializing_if = "Cuts::is_empty")]
    truncated: Cuts,
}

impl<'a> SocketLine<'a> {
    fn new(kind: &'a str, looked: &'a SocketEntry, diagnosis: Option<&'a Diagnosis>, time: &'a str) -> Self {
        let SocketEntry { report: it, subject } = looked;
        let made_in = Workload::from(&**subject);
        let workloads = looked.workloads();
        let (socket, tuple) = (&it.socket, &it.socket.tuple);
        let mut cuts = Cuts::of(&it.cut);
        let place = Place::with(subject, workloads.first().copied().unwrap_or(made_in), &mut cuts);
        let is_elsewhere = made_in.is_known() && !workloads.contains(&made_in);
        Self {
            schema: SCHEMA,
            kind,
            time,
            state: socket.state.name(),
            state_number: if let State::Unknown(number) = socket.state { Some(number) } else { None },
            age_ns: it.age.map(|age| age.ns),
            age_at_least: it.age.map(|age| age.at_least),
            age_at_most_ns: it.age_at_most_ns,
            may_be_stuck: it.may_be_stuck,
            network: Network {
                transport: socket.transport.name(),
                r#type: if tuple.is_v4() { "ipv4" } else { "ipv6" },
                community_id: tuple
                    .is_complete()
                    .then(|| String::from_utf8_lossy(&community_id(tuple)).into_owned()),
            },
            local: End::new(tuple.local, tuple.local_port),
            remote: End::new(tuple.remote, tuple.remote_port),
            interface: (tuple.interface != 0)
                .then_some(Interface { index: tuple.interface, name: socket.interface.as_deref() }),
            seen: Seen::new(it, &bounds::LOOK, &mut cuts),
            uid: socket.uid,
            mini: socket.mini,
            place,
            made_in: is_elsewhere.then(|| WorkloadOf::new(made_in, MADE_IN, &mut cuts)),
            explained: diagnosis.map(|diagnosis| Explained::new(diagnosis, &mut cuts)),
            truncated: cuts,
        }
    }
}

#[derive(Serialize)]
struct Network {
    transport: &'static str,
    r#type: &'static str,
    community_id: Option<String>,
}

#[derive(Serialize)]
struct Interface<'a> {
    index: u32,
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct End {
    address: IpAddr,
    port: Option<u16>,
}

impl End {
    fn new(address: Address, port: u16) -> Self {
        Self { address: address.canonical(), port: (port != 0).then_some(port) }
    }
}
