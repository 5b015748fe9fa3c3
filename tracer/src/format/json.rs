//! NDJSON, schema `sockstate/1` (docs/events.md), as the types of `wire` write it. Only transitions and connections are
//! written by hand, for speed; what repeats is kept ready: the two ends of a connection, and everything about its owner.

mod community_ids;
mod connection;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use community_ids::CommunityIds;
use connection::{LifespanEnd, STEP};
use serde::Serialize;

use super::{
    Content, Format, FormatName,
    line::{Fragment, Line, append, hex},
    name::Source,
    text_cache::TextCache,
    time::Times,
};
use crate::{
    model::{Cause, ClusterPeer, Connection, Nat, Record, Role, State, Subject, Transition, Tuple},
    wire,
};

pub(super) const FORMAT: FormatName = FormatName {
    name: "json",
    help: "One JSON object per line (docs/events.md)",
    content: Content::Json,
    for_sinks: true,
    source: Source::Json,
};

/// The values of a transition's line from `exact` to `errno`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct LineEnd {
    exact: bool,
    mini: bool,
    illegal: bool,
    cause: Option<Cause>,
    reset_why: Option<&'static str>,
    errno: u16,
}

impl LineEnd {
    fn of(transition: &Transition) -> Self {
        let Transition { exact, illegal, cause, reset_why, errno, .. } = *transition;
        Self { exact, mini: transition.conn.mini, illegal, cause, reset_why, errno }
    }

    /// The number of its slot: most of the frequent ones have different slots.
    fn number(self) -> u64 {
        let cause = self.cause.map_or(0, |cause| 1 + cause as u64);
        u64::from(self.errno) << 8
            | u64::from(self.illegal) << 7
            | cause << 2
            | u64::from(self.exact) << 1
            | u64::from(self.mini)
    }

    /// Keys that most transitions do not have are left out.
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.exact { br#","exact":true"# } else { br#","exact":false"# });
        if self.mini {
            out.extend_from_slice(br#","mini":true"#);
        }
        if self.illegal {
            out.extend_from_slice(br#","illegal":true"#);
        }
        text("cause", self.cause.map(Cause::name), out);
        text("reset_why", self.reset_why, out);
        if self.errno != 0 {
            error(self.errno, out);
        }
    }
}

/// Identifies the host and the run of a record, for collectors that get the records of several hosts.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Host name.
    pub host: &'a str,
    /// The instance of the stream.
    pub instance: u32,
    /// The labels of the configuration.
    pub labels: &'a BTreeMap<String, String>,
}

impl Stamp<'_> {
    /// The keys of the stamp in a line.
    #[must_use]
    pub fn keys(&self) -> wire::Stamp<'static> {
        let text = |text: &str| wire::Text::from(text.to_owned());
        wire::Stamp {
            host: Some(wire::HostName { name: text(self.host) }),
            instance: Some(format!("{:06x}", self.instance).into()),
            sample: None,
            labels: self.labels.iter().map(|(key, value)| (text(key), text(value))).collect(),
        }
    }
}

/// The format.
pub struct Json {
    times: Times,
    /// The times at which connections began, which are in other seconds than their ends.
    begin_times: Times,
    /// Both states, and the key of what follows them, by the states.
    pairs: Vec<Option<Fragment<112>>>,
    roles: [Fragment<32>; 4],
    /// Both ends, also beyond translations, the peer, and the subject, by its number.
    middles: TextCache<MiddleKey>,
    /// By the subject's number: a number never gets another subject.
    subjects: TextCache<u64>,
    line_ends: TextCache<LineEnd>,
    community_ids: CommunityIds,
    /// The beginning of a step of a path, by its state.
    steps: Vec<Option<Fragment<STEP>>>,
    lifespan_ends: TextCache<LifespanEnd>,
    stamp: wire::Stamp<'static>,
    /// The keys of `stamp` as text, for the middle of a line.
    stamp_text: Vec<u8>,
}

impl Default for Json {
    fn default() -> Self {
        let role = |role: Option<Role>| {
            let mut text = Vec::new();
            text_or_null("role", role.map(Role::name), &mut text);
            Fragment::new(&text)
        };
        Self {
            times: Times::rfc3339(),
            begin_times: Times::rfc3339(),
            pairs: vec![None; 1 << 10],
            roles: [
                role(None),
                role(Some(Role::Client)),
                role(Some(Role::Server)),
                role(Some(Role::Listener)),
            ],
            middles: TextCache::new(256),
            subjects: TextCache::new(64),
            line_ends: TextCache::new(256),
            community_ids: CommunityIds::default(),
            steps: vec![None; 1 << 5],
            lifespan_ends: TextCache::new(64),
            stamp: wire::Stamp::default(),
            stamp_text: Vec::new(),
        }
    }
}

impl Format for Json {
    fn record(&mut self, seq: u64, record: &Record, out: &mut Vec<u8>) {
        match record {
            Record::Transition(transition) => self.transition(seq, transition, out),
            Record::Connection(lifespan) => self.connection(seq, lifespan, out),
            record => wire::Line::of(seq, record, &self.stamp).write(out),
        }
    }

    fn is_of_lines(&self) -> bool {
        true
    }

    fn line(&mut self, _: &Record, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(text);
    }
}

impl Json {
    /// The line of a [`wire::Transition`], written by hand: nearly all records are transitions.
    fn transition(&mut self, seq: u64, transition: &Transition, out: &mut Vec<u8>) {
        append(out, |line| {
            line.text(br#"{"schema":"sockstate/1","kind":"transition","seq":"#);
            line.number(seq);
            line.text(br#","time":""#);
            self.times.nanoseconds(transition.time_ns, line);
            line.text(br#"Z","conn":""#);
            line.text(&hex(transition.conn.id.0));
            let pair = usize::from(transition.from.number()) << 5 | usize::from(transition.to.number());
            match self.pairs.get_mut(pair) {
                Some(known) => {
                    line.fragment(known.get_or_insert_with(|| states(transition.from, transition.to)))
                }
                None => line.fragment(&states(transition.from, transition.to)),
            }
            match transition.in_state {
                Some(in_state) => {
                    line.number(in_state.ns);
                    if in_state.at_least {
                        line.text(br#","in_state_at_least":true"#);
                    }
                }
                None => line.text(b"null"),
            }
            line.fragment(&self.roles[transition.conn.role.map_or(0, |role| 1 + role as usize)]);
        });
        out.extend_from_slice(&self.stamp_text);
        self.middle(&transition.conn, out);
        let line_end = LineEnd::of(transition);
        out.extend_from_slice(
            self.line_ends.get(line_end.number(), line_end, |line_end, out| line_end.write(out)),
        );
        if let Some(traffic) = &transition.traffic {
            connection::traffic(traffic, out);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Both ends, also beyond translations, and the subject.
    fn middle(&mut self, conn: &Connection, out: &mut Vec<u8>) {
        if !conn.tuple.is_complete() {
            return self.last_middle(conn, out);
        }
        let (subjects, ids) = (&mut self.subjects, &mut self.community_ids);
        out.extend_from_slice(self.middles.get(
            conn.id.0,
            middle_key(conn),
            |(tuple, nat, peer, id), out| {
                ends(tuple, nat.as_ref(), peer.as_deref(), ids, out);
                out.extend_from_slice(subjects.get(*id, *id, |_, out| subject(&conn.subject, out)));
            },
        ));
    }

    /// The same where it is not needed again.
    fn last_middle(&mut self, conn: &Connection, out: &mut Vec<u8>) {
        let id = conn.subject.id;
        if let Some(text) = self.middles.known(conn.id.0, &middle_key(conn)) {
            return out.extend_from_slice(text);
        }
        let (nat, peer) = (conn.nat.as_deref(), conn.peer.as_deref());
        ends(&conn.tuple, nat, peer, &mut self.community_ids, out);
        out.extend_from_slice(self.subjects.get(id, id, |_, out| subject(&conn.subject, out)));
    }

    /// With these keys in every record.
    #[must_use]
    pub fn stamped(stamp: &Stamp<'_>) -> Self {
        Self::with(stamp.keys())
    }

    /// Of a stream that has one of `sample` connections.
    #[must_use]
    pub fn sampled(self, sample: u64) -> Self {
        if sample <= 1 {
            return self;
        }
        Self::with(wire::Stamp { sample: Some(sample), ..self.stamp })
    }

    fn with(stamp: wire::Stamp<'static>) -> Self {
        let mut stamp_text = Vec::new();
        members(&stamp, &mut stamp_text);
        if let Some(sample) = stamp.sample {
            stamp_text.extend_from_slice(b",\"sample\":");
            number(sample, &mut stamp_text);
        }
        Self { stamp, stamp_text, ..Self::default() }
    }
}

/// All that the text of both ends and the subject is made of; the last one is the subject's number.
type MiddleKey = (Tuple, Option<Nat>, Option<Arc<ClusterPeer>>, u64);

fn middle_key(conn: &Connection) -> MiddleKey {
    (conn.tuple, conn.nat.as_deref().copied(), conn.peer.clone(), conn.subject.id)
}

/// The keys of an object, behind those already written.
fn members(object: &impl Serialize, out: &mut Vec<u8>) {
    let before = out.len();
    // Writing a value of ours to a vector does not fail.
    let _ = serde_json::to_writer(&mut *out, object);
    out.pop();
    // A comma instead of the opening brace and nothing instead of the closing one: the keys continue an open object.
    match out.get_mut(before..) {
        Some([brace, _, ..]) => *brace = b',',
        _ => out.truncate(before),
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Both states, and the key of what follows them.
fn states(from: State, to: State) -> Fragment<112> {
    let mut text = br#"","from":""#.to_vec();
    state(from, "from", &mut text);
    text.extend_from_slice(br#","to":""#);
    state(to, "to", &mut text);
    text.extend_from_slice(br#","in_state_ns":"#);
    Fragment::new(&text)
}

/// The name and its closing quote; an unknown one keeps its number beside it.
fn state(value: State, key: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(value.name().as_bytes());
    out.push(b'"');
    if let State::Unknown(code) = value {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"_number\":");
        number(code.into(), out);
    }
}

/// A member whose value needs no escaping.
fn text_or_null(key: &str, value: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    match value {
        Some(value) => {
            out.extend_from_slice(b"\":\"");
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"\":null"),
    }
}

/// A member whose value needs no escaping; none if the value is not known.
fn text(key: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if value.is_some() {
        text_or_null(key, value, out);
    }
}

fn error(errno: u16, out: &mut Vec<u8>) {
    match wire::errno_name(errno) {
        Some(name) => text_or_null("errno", Some(name), out),
        None => text_or_null("errno", Some(&format!("E{errno}")), out),
    }
}

/// Both ends, the interface that the socket is bound to, the ends beyond translations, and the peer.
fn ends(
    tuple: &Tuple,
    nat: Option<&Nat>,
    peer: Option<&ClusterPeer>,
    ids: &mut CommunityIds,
    out: &mut Vec<u8>,
) {
    append(out, |line| {
        line.text(br#","network":{"transport":"tcp","type":"ipv"#);
        line.text(if tuple.is_v4() { b"4" } else { b"6" });
        line.text(br#"","community_id":"#);
        if tuple.is_complete() {
            line.text(b"\"");
            line.text(ids.get(tuple));
            line.text(b"\"");
        } else {
            line.text(b"null");
        }
        line.text(br#"},"local":{"address":""#);
        end(tuple.local.canonical(), tuple.local_port, line);
        line.text(br#","remote":{"address":""#);
        end(tuple.remote.canonical(), tuple.remote_port, line);
    });
    if tuple.interface != 0 {
        out.extend_from_slice(br#","interface":{"index":"#);
        number(tuple.interface.into(), out);
        out.extend_from_slice(br#","name":null}"#);
    }
    if let Some(nat) = nat {
        out.extend_from_slice(br#","nat":"#);
        // Writing a value of ours to a vector does not fail.
        let _ = serde_json::to_writer(&mut *out, &wire::Nat::new(nat));
    }
    if let Some(peer) = peer {
        out.extend_from_slice(br#","peer":"#);
        let _ = serde_json::to_writer(out, &wire::ClusterPeer::new(peer));
    }
}

/// Address and port, and the end of the object.
fn end(address: IpAddr, port: u16, line: &mut Line<'_>) {
    line.address(address);
    line.text(br#"","port":"#);
    if port == 0 {
        line.text(b"null");
    } else {
        line.number(port.into());
    }
    line.text(b"}");
}

fn subject(subject: &Subject, out: &mut Vec<u8>) {
    let mut cuts = wire::Cuts::default();
    members(&wire::SubjectKeys::new(subject, &mut cuts), out);
    if !cuts.is_empty() {
        members(&wire::Truncated { truncated: cuts.parts() }, out);
    }
}
