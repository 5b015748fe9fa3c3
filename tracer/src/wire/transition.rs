//! The lines about changes of state: `transition`, and `aggregate`, which counts transitions.

use std::rc::Rc;

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};

#[cfg(feature = "schema")]
use super::schema_types::Address;
use super::{
    Cgroup, ClusterPeer, Container, End, Ends, HostName, Interface, Labels, Nat, Network, Owner, Part,
    Placement, Pod, Stamp, SubjectKeys, Text, Time, Workload,
    cuts::Cuts,
    errno,
    fixed_texts::FixedTexts,
    names::{named, state},
    socket::WorkloadFields,
    traffic::{Bytes, Rtt, Segments, Traffic},
};
use crate::model::{self, Connection, InState, State};
#[cfg(feature = "schema")]
use crate::model::{Cause, ConnId, Role, bounds};

/// A change of state of one socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Transition<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When the transition happened.
    pub time: Time,
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "ConnId"))]
    pub conn: Text<'a>,
    /// The state before, by netstat's name.
    #[cfg_attr(feature = "schema", schemars(with = "State"))]
    pub from: Text<'a>,
    /// The kernel's number of `from`, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_number: Option<u8>,
    /// The state afterwards, by netstat's name.
    #[cfg_attr(feature = "schema", schemars(with = "State"))]
    pub to: Text<'a>,
    /// The kernel's number of `to`, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_number: Option<u8>,
    /// The time in `from`; null for the first transition, and if a loss or a filter hid the transition into `from`.
    pub in_state_ns: Option<u64>,
    /// True if `in_state_ns` is a lower bound: the socket was in `from` before sockstate saw it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_state_at_least: bool,
    /// The side of the connection that this host is; null for a connection that is older than sockstate.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Role>"))]
    pub role: Option<Text<'a>>,
    #[serde(flatten)]
    pub stamp: Stamp<'a>,
    /// The stream has one of this many connections, so that this record stands for this many; absent if it has all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 2)))]
    pub sample: Option<u64>,
    #[serde(flatten)]
    pub ends: Ends<'a>,
    /// What Kubernetes has at the remote address; only with `peers` in the section `[kubernetes]` of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<ClusterPeer<'a>>,
    #[serde(flatten)]
    pub subject: SubjectKeys<'a>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
    /// False if the record is an estimate, or if the connection may continue in a mini-socket that sockstate cannot
    /// observe.
    // Absent in lines of the first version: all were exact.
    #[serde(default = "yes")]
    pub exact: bool,
    /// True if a mini-socket made the transition, or replaced the full socket with this transition.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mini: bool,
    /// True if TCP, as sockstate knows it, does not make this transition.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub illegal: bool,
    /// Why the transition happened; absent if the kernel leaves a doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Cause>"))]
    pub cause: Option<Text<'a>>,
    /// Why this host sent a reset; absent if it sent none, or if the reason is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("enum" = [
        "unread_data", "linger", "linger2", "fin_timeout", "memory", "data_after_close", "keepalive_timeout",
        "disconnect", "timewait_socket", "abort",
    ])))]
    pub reset_why: Option<Text<'a>>,
    /// The name of the error that ended the connection; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^E[A-Z0-9]+$")))]
    pub errno: Option<Text<'a>>,
    /// Only in the transition that ends the connection, or that begins TIME_WAIT.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

impl<'a> Transition<'a> {
    pub(super) fn of(seq: u64, transition: &'a model::Transition, stamp: Stamp<'a>) -> Self {
        let conn = &transition.conn;
        let mut cuts = Cuts::default();
        let subject = SubjectKeys::new(&conn.subject, &mut cuts);
        let (from, from_number) = state(transition.from);
        let (to, to_number) = state(transition.to);
        Self {
            seq,
            time: Time(transition.time_ns),
            conn: conn.id.to_string().into(),
            from,
            from_number,
            to,
            to_number,
            in_state_ns: transition.in_state.map(|in_state| in_state.ns),
            in_state_at_least: transition.in_state.is_some_and(|in_state| in_state.at_least),
            role: conn.role.map(|role| role.name().into()),
            sample: stamp.sample,
            stamp,
            ends: Ends::of(conn, None),
            peer: ClusterPeer::of(conn),
            subject,
            truncated: cuts.parts(),
            exact: transition.exact,
            mini: conn.mini,
            illegal: transition.illegal,
            cause: transition.cause.map(|cause| cause.name().into()),
            reset_why: transition.reset_why.map(Text::from),
            errno: errno::text(transition.errno),
            traffic: transition.traffic.as_deref().map(Traffic::of),
        }
    }

    /// The record of the line, which is about `conn`; `None` if a value is not known.
    pub(super) fn record(&self, conn: Connection, texts: &mut FixedTexts) -> Option<model::Transition> {
        let (mini, at_least) = (self.mini, self.in_state_at_least);
        Some(model::Transition {
            time_ns: self.time.0,
            conn,
            from: State::named(&self.from, mini, self.from_number)?,
            to: State::named(&self.to, mini, self.to_number)?,
            in_state: self.in_state_ns.map(|ns| InState { ns, at_least }),
            exact: self.exact,
            illegal: self.illegal,
            cause: self.cause.as_deref().and_then(named),
            reset_why: self.reset_why.as_deref().map(|why| texts.keep(why).unwrap_or("unknown")),
            errno: self.errno.as_deref().and_then(errno::number).unwrap_or(0),
            traffic: self.traffic.as_ref().map(|traffic| Rc::new(traffic.record())),
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Transition<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Keys::deserialize(deserializer).map(Self::from)
    }
}

/// The keys as they are read. serde reads a group of keys (`flatten`) from a copy of all keys, which takes several times
/// as long, so there are no groups here.
#[derive(Deserialize)]
struct Keys<'a> {
    #[expect(dead_code, reason = "a line that has it twice is not a record")]
    schema: IgnoredAny,
    #[expect(dead_code, reason = "as above")]
    kind: IgnoredAny,
    #[serde(default)]
    seq: u64,
    time: Time,
    #[serde(borrow)]
    host: Option<HostName<'a>>,
    instance: Option<Text<'a>>,
    sample: Option<u64>,
    #[serde(default)]
    labels: Labels<'a>,
    #[serde(default)]
    conn: Text<'a>,
    #[serde(default)]
    from: Text<'a>,
    from_number: Option<u8>,
    #[serde(default)]
    to: Text<'a>,
    to_number: Option<u8>,
    in_state_ns: Option<u64>,
    #[serde(default)]
    in_state_at_least: bool,
    role: Option<Text<'a>>,
    network: Option<Network<'a>>,
    local: Option<End>,
    remote: Option<End>,
    interface: Option<Interface<'a>>,
    nat: Option<Nat<'a>>,
    peer: Option<ClusterPeer<'a>>,
    owner: Option<Owner<'a>>,
    netns: Option<u32>,
    cgroup: Option<Cgroup<'a>>,
    container: Option<Container<'a>>,
    pod: Option<Pod<'a>>,
    unit: Option<Text<'a>>,
    #[serde(default)]
    truncated: Vec<Part<'a>>,
    /// Absent in lines of the first version: all were exact.
    #[serde(default = "yes")]
    exact: bool,
    #[serde(default)]
    mini: bool,
    #[serde(default)]
    illegal: bool,
    cause: Option<Text<'a>>,
    reset_why: Option<Text<'a>>,
    errno: Option<Text<'a>>,
    bytes: Option<Bytes>,
    segments: Option<Segments>,
    retransmits: Option<u32>,
    rtt: Option<Rtt>,
    unread_bytes: Option<u64>,
}

impl Keys<'_> {
    fn traffic(&self) -> Option<Traffic> {
        Some(Traffic {
            bytes: self.bytes?,
            segments: self.segments?,
            retransmits: self.retransmits?,
            rtt: self.rtt?,
            unread_bytes: self.unread_bytes?,
        })
    }
}

fn yes() -> bool {
    true
}

impl<'a> From<Keys<'a>> for Transition<'a> {
    fn from(keys: Keys<'a>) -> Self {
        let traffic = keys.traffic();
        let Keys {
            network,
            local,
            remote,
            interface,
            nat,
            peer,
            owner,
            netns,
            cgroup,
            container,
            pod,
            unit,
            ..
        } = keys;
        Self {
            seq: keys.seq,
            time: keys.time,
            conn: keys.conn,
            from: keys.from,
            from_number: keys.from_number,
            to: keys.to,
            to_number: keys.to_number,
            in_state_ns: keys.in_state_ns,
            in_state_at_least: keys.in_state_at_least,
            role: keys.role,
            stamp: Stamp { host: keys.host, instance: keys.instance, sample: None, labels: keys.labels },
            sample: keys.sample,
            ends: Ends { network, local, remote, interface, nat },
            peer,
            subject: SubjectKeys {
                owner,
                placement: Placement { netns, cgroup, workload: Workload { container, pod, unit } },
            },
            truncated: keys.truncated,
            exact: keys.exact,
            mini: keys.mini,
            illegal: keys.illegal,
            cause: keys.cause,
            reset_why: keys.reset_why,
            errno: keys.errno,
            traffic,
        }
    }
}

/// Transitions from one state to another, of one service with one peer, counted together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Aggregate<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// The end of the window.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    /// The stream has one of this many connections, so that this record stands for this many; absent if it has all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 2)))]
    pub sample: Option<u64>,
    /// The state before, by netstat's name.
    #[cfg_attr(feature = "schema", schemars(with = "State"))]
    pub from: Text<'a>,
    /// The kernel's number of `from`, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_number: Option<u8>,
    /// The state afterwards, by netstat's name.
    #[cfg_attr(feature = "schema", schemars(with = "State"))]
    pub to: Text<'a>,
    /// The kernel's number of `to`, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_number: Option<u8>,
    /// The name of the service's process; null if it is not known, or if the record counts several services.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub comm: Option<Text<'a>>,
    /// The number of transitions.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub count: u64,
    /// The times in `from` that are not lower bounds.
    pub in_state: Dwell,
    /// The times of the handshakes: only in records from `SYN_SENT` or `SYN_RECV` to `ESTABLISHED`, and the same as
    /// `in_state` there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Dwell>,
    /// What the connections that ended by these transitions have transferred; absent if none ended, or if their counters
    /// are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// The segments of these connections that this host sent again; absent with `bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
    /// The other side; null if the record counts several peers.
    pub peer: Option<Peer<'a>>,
    /// The port of the service; null if the record counts several peers or services.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: Option<u16>,
    /// The side of the connections that this host is; null for connections that are older than sockstate.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Role>"))]
    pub role: Option<Text<'a>>,
    /// The length of the window.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub window_ns: u64,
    #[serde(flatten)]
    pub workload: Workload<'a>,
    /// True if the record counts connections that were never established and have no record of their own, because there were too
    /// many. They ended by the transition from `from` to `to`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub of_connections: bool,
    /// Why these connections ended; absent if it is not known, or if the record counts transitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Cause>"))]
    pub cause: Option<Text<'a>>,
    /// True if the record counts all services beyond the limit together.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub other: bool,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

impl<'a> Aggregate<'a> {
    pub(super) fn of(seq: u64, aggregate: &'a model::Aggregate, stamp: Stamp<'a>) -> Self {
        let (from, from_number) = state(aggregate.from);
        let (to, to_number) = state(aggregate.to);
        let mut cuts = Cuts::default();
        let workload = Workload::new(aggregate.into(), WorkloadFields::PLACE, &mut cuts);
        Self {
            seq,
            time: Time(aggregate.time_ns),
            sample: stamp.sample,
            stamp,
            from,
            from_number,
            to,
            to_number,
            comm: aggregate.comm.as_deref().map(Text::from),
            count: aggregate.count,
            in_state: Dwell::of(&aggregate.dwell),
            handshake: aggregate.handshakes().map(Dwell::of),
            bytes: aggregate.transferred.as_ref().map(Bytes::of_several),
            retransmits: aggregate.transferred.map(|transferred| transferred.retransmits),
            peer: aggregate.peer.map(|peer| Peer { address: peer.canonical().to_string().into() }),
            port: (aggregate.port != 0).then_some(aggregate.port),
            role: aggregate.role.map(|role| role.name().into()),
            window_ns: aggregate.window_ns,
            workload,
            of_connections: aggregate.of_connections,
            cause: aggregate.cause.map(|cause| cause.name().into()),
            other: aggregate.other,
            truncated: cuts.parts(),
        }
    }
}

/// Times in a state, as a histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Dwell {
    /// The histogram.
    #[cfg_attr(feature = "schema", schemars(length(equal = model::Dwell::ENDS_S.len())))]
    pub buckets: Vec<Bucket>,
    /// The sum of the times.
    pub sum_ns: u64,
}

impl Dwell {
    pub(super) fn of(dwell: &model::Dwell) -> Self {
        let ends = model::Dwell::ENDS_S.iter().zip(&dwell.counts);
        let bucket = |(end, count): (&f64, &u64)| Bucket {
            count: *count,
            le_ns: end.is_finite().then_some(end * 1e9).map(|ns| ns as u64),
        };
        Self { buckets: ends.map(bucket).collect(), sum_ns: dwell.sum_ns }
    }
}

/// A bucket of a histogram: not cumulative, unlike a bucket of Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Bucket {
    /// The number of times above the limit of the previous bucket and not above `le_ns`.
    pub count: u64,
    /// The upper limit of the bucket; null for the last bucket, which has none.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub le_ns: Option<u64>,
}

/// The other side of connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Peer<'a> {
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Address"))]
    pub address: Text<'a>,
}
