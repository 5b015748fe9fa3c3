//! The lines about a connection in one state: `snapshot`, `resync`, `stuck`, `resolved`.

use std::{rc::Rc, sync::Arc};

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::schema_types::Opening;
use super::{
    ClusterPeer, Ends, Explained, Found, Nat, Opened, Part, Stamp, SubjectKeys, Text, Time, Traffic,
    cuts::Cuts,
    names::{named, state},
    opened::SEEN,
};
use crate::model::{self, Connection, Diagnosis, InState, MissingStack, SocketReport, Stack, State, bounds};
#[cfg(feature = "schema")]
use crate::model::{ConnId, Role};

/// A socket in the state that it is in, or was in until now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Socket<'a> {
    /// The state, by netstat's name.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "State"))]
    pub state: Text<'a>,
    /// The kernel's number of the state, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_number: Option<u8>,
    /// The side of the connection that this host is; null if it is not known.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Role>"))]
    pub role: Option<Text<'a>>,
    #[serde(flatten)]
    pub ends: Ends<'a>,
    /// What Kubernetes has at the remote address; only with `peers` in the section `[kubernetes]` of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<ClusterPeer<'a>>,
    #[serde(flatten)]
    pub subject: SubjectKeys<'a>,
    /// True for a mini-socket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mini: bool,
}

impl<'a> Socket<'a> {
    fn of(now: State, conn: &'a Connection, interface: Option<&'a str>, cuts: &mut Cuts) -> Self {
        let (state, state_number) = state(now);
        Self {
            state,
            state_number,
            role: conn.role.map(|role| role.name().into()),
            ends: Ends::of(conn, interface),
            peer: ClusterPeer::of(conn),
            subject: SubjectKeys::new(&conn.subject, cuts),
            mini: conn.mini,
        }
    }

    pub(super) fn state(&self) -> Option<State> {
        State::named(&self.state, self.mini, self.state_number)
    }
}

/// A socket that existed when the tracer started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Snapshot<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// The latest time at which the socket can have entered its state.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    #[cfg_attr(feature = "schema", schemars(with = "ConnId"))]
    pub conn: Text<'a>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

impl<'a> Snapshot<'a> {
    pub(super) fn of(seq: u64, snapshot: &'a model::Snapshot, stamp: Stamp<'a>) -> Self {
        let mut cuts = Cuts::default();
        let socket = Socket::of(snapshot.state, &snapshot.conn, None, &mut cuts);
        let (time, conn) = (Time(snapshot.time_ns), snapshot.conn.id.to_string().into());
        Self { seq, time, stamp, conn, socket, truncated: cuts.parts() }
    }

    /// The record of the line, which is about `conn`; `None` if a value is not known.
    pub(super) fn record(&self, conn: Connection) -> Option<model::Snapshot> {
        Some(model::Snapshot { time_ns: self.time.0, conn, state: self.socket.state()? })
    }
}

/// A correction: the kernel's tables show another state of a connection than the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Resync<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When sockstate noticed the difference.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    #[cfg_attr(feature = "schema", schemars(with = "ConnId"))]
    pub conn: Text<'a>,
    /// The last state that the stream reported; null for a connection that it had not reported.
    #[cfg_attr(feature = "schema", schemars(with = "Option<State>"))]
    pub was: Option<Text<'a>>,
    /// The kernel's number of `was`, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was_number: Option<u8>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

impl<'a> Resync<'a> {
    pub(super) fn of(seq: u64, resync: &'a model::Resync, stamp: Stamp<'a>) -> Self {
        let mut cuts = Cuts::default();
        let socket = Socket::of(resync.state, &resync.conn, None, &mut cuts);
        let (was, was_number) = resync.was.map(state).unzip();
        Self {
            seq,
            time: Time(resync.time_ns),
            stamp,
            conn: resync.conn.id.to_string().into(),
            was,
            was_number: was_number.flatten(),
            socket,
            truncated: cuts.parts(),
        }
    }

    /// The record of the line, which is about `conn`; `None` if a value is not known.
    pub(super) fn record(&self, conn: Connection) -> Option<model::Resync> {
        Some(model::Resync {
            time_ns: self.time.0,
            conn,
            was: self.was.as_ref().and_then(|name| State::named(name, false, self.was_number)),
            state: self.socket.state()?,
        })
    }
}

/// A connection that has been in a state for longer than its threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Stuck<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When sockstate found the connection stuck.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    #[cfg_attr(feature = "schema", schemars(with = "ConnId"))]
    pub conn: Text<'a>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    /// True if `age_ns` is a lower bound.
    pub age_at_least: bool,
    /// The time in the state.
    #[cfg_attr(feature = "schema", schemars(required))]
    pub age_ns: Option<u64>,
    /// How many `stuck` records the stream has for the connection in this state, this one included.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub times: u8,
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(with = "Found<'a>"))]
    pub found: Option<Found<'a>>,
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(with = "Explained<'a>"))]
    pub explained: Option<Explained<'a>>,
    /// Where the code opened the connection, in the stream of a hunt; absent unless `opening` is `seen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened<'a>>,
    /// Whether a hunt saw how the connection was opened, or why the hunt cannot tell; absent without a hunt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Opening>"))]
    pub opening: Option<Text<'a>>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

impl<'a> Stuck<'a> {
    pub(super) fn of(seq: u64, stuck: &'a model::Stuck, stamp: Stamp<'a>) -> Self {
        let found = stuck.found.as_deref();
        let interface = found.and_then(|(examined, _)| examined.socket.interface.as_deref());
        let mut cuts = Cuts::of(found.map_or(&[], |(examined, _)| &examined.cut));
        let mut socket = Socket::of(stuck.state, &stuck.conn, interface, &mut cuts);
        // The look finds out about connections that are older than the trace, too.
        if let Some(nat) = found.and_then(|(examined, _)| examined.nat.as_ref()) {
            socket.ends.nat = Some(Nat::new(nat));
        }
        let opening = stuck.opened.as_ref().map(|opened| match opened {
            Ok(_) => SEEN,
            Err(why) => why.name(),
        });
        let stack = stuck.opened.as_ref().and_then(|opened| opened.as_deref().ok());
        Self {
            seq,
            time: Time(stuck.time_ns),
            stamp,
            conn: stuck.conn.id.to_string().into(),
            socket,
            age_at_least: stuck.age.at_least,
            age_ns: Some(stuck.age.ns),
            times: stuck.times,
            found: found.map(|(examined, _)| Found::new(examined, &bounds::STREAM, &mut cuts)),
            explained: found.map(|(_, diagnosis)| Explained::new(diagnosis, &mut cuts)),
            opened: stack.map(|stack| Opened::new(stack, &mut cuts)),
            opening: opening.map(Text::from),
            truncated: cuts.parts(),
        }
    }

    /// The record of the line, which is about `conn`; `None` if a value is not known. `found` is what the look found.
    pub(super) fn record(
        &self,
        conn: Connection,
        found: Option<(SocketReport, Diagnosis)>,
    ) -> Option<model::Stuck> {
        Some(model::Stuck {
            time_ns: self.time.0,
            conn,
            state: self.socket.state()?,
            age: self.age()?,
            times: self.times,
            before_trace: false,
            found: found.map(Box::new),
            opened: self.opened(),
        })
    }

    pub(super) fn age(&self) -> Option<InState> {
        Some(InState { ns: self.age_ns?, at_least: self.age_at_least })
    }

    /// Where the connection was opened, or why that is not known.
    fn opened(&self) -> Option<Result<Arc<Stack>, MissingStack>> {
        let stack = self.opened.as_ref().and_then(Opened::stack);
        stack.map(|stack| Ok(Arc::new(stack))).or_else(|| Some(Err(named(self.opening.as_deref()?)?)))
    }
}

/// A connection that was stuck has moved on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Resolved<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When the connection moved on.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    #[cfg_attr(feature = "schema", schemars(with = "ConnId"))]
    pub conn: Text<'a>,
    /// The next state; `CLOSE` if the connection has ended.
    #[cfg_attr(feature = "schema", schemars(with = "State"))]
    pub to: Text<'a>,
    /// The kernel's number of `to`, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_number: Option<u8>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
    /// True if `age_ns` is a lower bound.
    pub age_at_least: bool,
    /// The time in the state.
    #[cfg_attr(feature = "schema", schemars(required))]
    pub age_ns: Option<u64>,
    /// Only where the connection has ended, or has gone to TIME_WAIT.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

impl<'a> Resolved<'a> {
    pub(super) fn of(seq: u64, resolved: &'a model::Resolved, stamp: Stamp<'a>) -> Self {
        let mut cuts = Cuts::default();
        let socket = Socket::of(resolved.state, &resolved.conn, None, &mut cuts);
        let (to, to_number) = state(resolved.to);
        Self {
            seq,
            time: Time(resolved.time_ns),
            stamp,
            conn: resolved.conn.id.to_string().into(),
            to,
            to_number,
            socket,
            truncated: cuts.parts(),
            age_at_least: resolved.age.at_least,
            age_ns: Some(resolved.age.ns),
            traffic: resolved.traffic.as_deref().map(Traffic::of),
        }
    }

    /// The record of the line, which is about `conn`; `None` if a value is not known.
    pub(super) fn record(&self, conn: Connection) -> Option<model::Resolved> {
        Some(model::Resolved {
            time_ns: self.time.0,
            conn,
            state: self.socket.state()?,
            to: State::named(&self.to, false, self.to_number)?,
            age: InState { ns: self.age_ns?, at_least: self.age_at_least },
            traffic: self.traffic.as_ref().map(|traffic| Rc::new(traffic.record())),
        })
    }
}
