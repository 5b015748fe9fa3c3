//! One look at the sockets, as JSON lines (docs/look.schema.json), and the parts of them that the stream's records have too.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use super::{community_id::community_id, look::Group, time::Times};
use crate::model::{
    Address, Container, Diagnosis, Examined, Gap, Holder, Home, Listener, Looked, Message, MptcpPart,
    Process, State, Subject, Transport, Via, Watch,
};

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
pub fn socket_json(looked: &Looked, time: &str) -> String {
    line_of(&SocketLine::new("socket", looked, None, time))
}

/// A stuck socket as a JSON line.
#[must_use]
pub fn stuck_json(looked: &Looked, diagnosis: &Diagnosis, time: &str) -> String {
    line_of(&SocketLine::new("stuck", looked, Some(diagnosis), time))
}

/// A count as a JSON line.
#[must_use]
pub fn group_json(group: &Group, time: &str) -> String {
    line_of(&json!({
        "schema": SCHEMA,
        "kind": "stuck_group",
        "time": time,
        "key": group.key,
        "count": group.count,
        "oldest_ns": group.oldest_ns,
        "unread_bytes": group.unread_bytes,
        "states": group.states,
        "reasons": group.reasons,
    }))
}

/// What a look could not see, as a JSON line.
#[must_use]
pub fn look_json(netns: Option<u32>, gaps: &[Gap], time: &str) -> String {
    line_of(&json!({
        "schema": SCHEMA,
        "kind": "look",
        "time": time,
        "netns": netns,
        "complete": gaps.is_empty(),
        "reasons": gaps_json(gaps),
    }))
}

/// What a look could not see, as a JSON array.
#[must_use]
pub fn gaps_json(gaps: &[Gap]) -> Value {
    gaps.iter().map(|gap| json!({ "reason": gap.kind.name(), "why": gap.why })).collect()
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
    made_in: Option<HomeOf<'a>>,
    #[serde(flatten)]
    explained: Option<Explained<'a>>,
}

impl<'a> SocketLine<'a> {
    fn new(kind: &'a str, looked: &'a Looked, diagnosis: Option<&'a Diagnosis>, time: &'a str) -> Self {
        let Looked { it, subject } = looked;
        let made_in = Home::from(&**subject);
        let homes = looked.homes();
        let (socket, tuple) = (&it.socket, &it.socket.tuple);
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
            seen: Seen::new(it),
            uid: socket.uid,
            mini: socket.mini,
            place: Place { home: homes.first().copied().unwrap_or(made_in).into(), ..Place::new(subject) },
            made_in: (made_in.is_known() && !homes.contains(&made_in)).then(|| made_in.into()),
            explained: diagnosis.map(Explained::new),
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

/// What only a look shows.
#[derive(Serialize)]
pub(super) struct Seen<'a> {
    holders: Vec<HolderOf<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    held_by_kernel: bool,
    creator: Option<Creator<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<ListenerOf<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    in_flight_in: Vec<MessageOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<Backlog>,
    /// A listener has no bytes; of a partial socket they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_bytes: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsent_bytes: Option<Option<u32>>,
    timer: Option<TimerOf>,
    retransmits: Option<u8>,
    unanswered_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mptcp: Option<MptcpOf>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(it: &'a Examined) -> Self {
        let socket = &it.socket;
        let listens = socket.state == State::Listen;
        let is_known = !socket.is_partial;
        let counts_bytes = !listens && socket.transport == Transport::Tcp;
        Self {
            holders: it.holders.iter().map(HolderOf::new).collect(),
            held_by_kernel: it.of_kernel,
            creator: it.creator().map(Creator::new),
            listeners: it.listeners.iter().map(ListenerOf::new).collect(),
            in_flight_in: it
                .elsewhere
                .iter()
                .flat_map(|elsewhere| &elsewhere.messages)
                .map(MessageOf::new)
                .collect(),
            backlog: (listens && is_known).then(|| Backlog {
                queued: socket.receive_queue,
                limit: socket.send_queue,
                full: socket.is_full(),
            }),
            unread_bytes: counts_bytes.then(|| is_known.then(|| socket.unread_bytes())),
            unsent_bytes: counts_bytes.then(|| is_known.then(|| socket.unsent_bytes())),
            timer: socket.timer.map(|timer| TimerOf { name: timer.kind.name(), left_ns: timer.left_ns }),
            retransmits: is_known.then_some(socket.retransmits),
            unanswered_ns: it.unanswered_ns,
            mptcp: socket.mptcp.map(MptcpOf::new),
        }
    }
}

/// The MPTCP connection that it is, or is a subflow of.
#[derive(Serialize)]
struct MptcpOf {
    token: Option<String>,
    subflow: bool,
    /// Of the connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    subflows: Option<usize>,
}

impl MptcpOf {
    fn new(part: MptcpPart) -> Self {
        let subflows = if let MptcpPart::Whole { subflows, .. } = part { Some(subflows) } else { None };
        // As `ss` shows it.
        let token = part.token().map(|token| format!("{token:x}"));
        Self { token, subflow: subflows.is_none(), subflows }
    }
}

#[derive(Serialize)]
struct HolderOf<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<u32>,
    /// Only where that is no descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ring_fd: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    comm: &'a str,
    exe: Option<&'a str>,
    epoll: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(flatten)]
    home: HomeOf<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serves: Option<ServedOf<'a>>,
}

/// What a network stack in user space holds sockets for.
#[derive(Serialize)]
struct ServedOf<'a> {
    netns: u32,
    #[serde(flatten)]
    home: HomeOf<'a>,
}

impl<'a> HolderOf<'a> {
    fn new(it: &'a Holder) -> Self {
        let epoll = it.watch.as_ref().map(|watch| match watch {
            Watch::Epoll(events) => events.as_slice(),
            Watch::NoEpoll => &[],
        });
        let Process { pid, comm, exe, cgroup, serves, .. } = &*it.process;
        let (via, ring_fd) = match it.via {
            Via::Descriptor(_) => (None, None),
            Via::IoUring(ring) => (Some("io_uring"), Some(ring)),
            Via::Mapping => (Some("mapping"), None),
        };
        Self {
            pid: *pid,
            fd: it.fd(),
            via,
            ring_fd,
            tid: it.tid,
            comm,
            exe: exe.as_deref(),
            epoll,
            cgroup: cgroup.as_deref(),
            home: Home::from(&*it.process).into(),
            serves: serves
                .as_deref()
                .map(|served| ServedOf { netns: served.netns, home: Home::from(served).into() }),
        }
    }
}

#[derive(Serialize)]
struct Creator<'a> {
    pid: u32,
    comm: &'a str,
}

impl<'a> Creator<'a> {
    fn new(process: &'a Process) -> Self {
        Self { pid: process.pid, comm: &process.comm }
    }
}

/// A listener that it came out of, may have come out of, or goes to.
#[derive(Serialize)]
struct ListenerOf<'a> {
    queued: u32,
    limit: u32,
    full: bool,
    holders: Vec<Creator<'a>>,
}

impl<'a> ListenerOf<'a> {
    fn new(listener: &'a Listener) -> Self {
        Self {
            queued: listener.queued,
            limit: listener.backlog,
            full: listener.is_full(),
            holders: listener.holders.iter().map(|process| Creator::new(process)).collect(),
        }
    }
}

/// A unix socket in whose queue descriptors lie.
#[derive(Serialize)]
struct MessageOf<'a> {
    pid: u32,
    fd: u32,
    comm: &'a str,
    descriptors: u32,
}

impl<'a> MessageOf<'a> {
    fn new(message: &'a Message) -> Self {
        Self {
            pid: message.process.pid,
            fd: message.fd,
            comm: &message.process.comm,
            descriptors: message.count,
        }
    }
}

#[derive(Serialize)]
struct Backlog {
    queued: u32,
    limit: u32,
    full: bool,
}

#[derive(Serialize)]
struct TimerOf {
    name: &'static str,
    left_ns: u64,
}

/// What it means.
#[derive(Serialize)]
pub(super) struct Explained<'a> {
    reason: &'static str,
    why: &'a str,
    advice: &'a str,
    commands: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    cannot_destroy: Option<&'a str>,
}

impl<'a> Explained<'a> {
    pub(super) fn new(it: &'a Diagnosis) -> Self {
        Self {
            reason: it.reason.name(),
            why: &it.why,
            advice: &it.advice,
            commands: &it.commands,
            cannot_destroy: it.cannot_destroy.as_deref(),
        }
    }
}

/// Where a socket runs. Null for what could be known of every socket; absent what most have not.
#[derive(Serialize)]
pub(super) struct Place<'a> {
    netns: Option<u32>,
    cgroup: Option<CgroupOf<'a>>,
    #[serde(flatten)]
    home: HomeOf<'a>,
}

/// Container, pod and unit; absent where there is none.
#[derive(Serialize)]
struct HomeOf<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<ContainerOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
}

impl<'a> From<Home<'a>> for HomeOf<'a> {
    fn from(home: Home<'a>) -> Self {
        let container = |it: &'a Container| ContainerOf { id: &it.id, runtime: it.runtime };
        Self {
            container: home.container.map(container),
            pod: home.pod_uid.map(|uid| Pod { uid }),
            unit: home.unit,
        }
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(it: &'a Subject) -> Self {
        Self {
            netns: it.netns,
            cgroup: it.cgroup.as_ref().map(|it| CgroupOf { id: it.id.to_string(), path: it.path.as_deref() }),
            home: Home::from(it).into(),
        }
    }
}

#[derive(Serialize)]
struct CgroupOf<'a> {
    id: String,
    path: Option<&'a str>,
}

#[derive(Serialize)]
struct ContainerOf<'a> {
    id: &'a str,
    runtime: Option<&'static str>,
}

#[derive(Serialize)]
struct Pod<'a> {
    uid: &'a str,
}
