//! The line about a whole connection: `connection`.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::{
    ClusterPeer, Ends, Part, Stamp, SubjectKeys, Text, Time, Traffic, cuts::Cuts, errno,
    fixed_texts::FixedTexts, names::named,
};
use crate::model::{self, Connection, State, bounds::MOST_STEPS};
#[cfg(feature = "schema")]
use crate::model::{Cause, ClosedFirst, ConnId, Role};

/// A connection that has ended, or with `interim` one that goes on, with its path through the states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "ended_connection"))]
#[serde(default)]
pub struct Lifespan<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When the connection ended, or until when the record has it: the same as `end`.
    pub time: Time,
    /// False if the connection goes on: the record has its path and its counters until `end`, and a later record with the
    /// same `conn` has all of them again. A line without the key is final.
    #[serde(rename = "final", default = "yes")]
    #[cfg_attr(feature = "schema", schemars(required))]
    pub is_final: bool,
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "ConnId"))]
    pub conn: Text<'a>,
    /// The side of the connection that this host was; null if it is not known.
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
    /// When the connection began: the first SYN.
    pub begin: Time,
    /// When the connection ended for both sides: when TIME_WAIT began, otherwise when the socket was closed. If the
    /// connection goes on, the time of the record.
    pub end: Time,
    /// The time from `begin` to `end`.
    #[cfg_attr(feature = "schema", schemars(required))]
    pub duration_ns: Option<u64>,
    /// True if the connection is older than the trace: it began at `begin` or before, `duration_ns` is a lower bound, and
    /// `path` may lack its first states.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// The time from the first SYN to ESTABLISHED; absent if the connection was not established, or if it is older than
    /// the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_ns: Option<u64>,
    /// The states in their order, each with the time in it. The last one is TIME_WAIT if the connection ended there, or the
    /// state that it is in if it goes on.
    pub path: Vec<Step<'a>>,
    /// The side that sent the first FIN; null if neither side has closed the connection with a FIN, or if it is not known.
    #[cfg_attr(feature = "schema", schemars(with = "Option<ClosedFirst>"))]
    pub closed_first: Option<Text<'a>>,
    /// Why the connection ended; null if the kernel leaves a doubt, or if the connection goes on.
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
    /// False if a part of the path is an estimate, or if the connection may go on in a mini-socket that sockstate cannot
    /// observe.
    pub exact: bool,
    /// True if something of the connection was lost: `path` may lack states, and the connection may have ended before `end`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

fn yes() -> bool {
    true
}

/// A state of a path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Step<'a> {
    /// The state, by netstat's name.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "State"))]
    pub state: Text<'a>,
    /// The kernel's number of the state, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_number: Option<u8>,
    /// The time in the state; absent if it is not known, and in TIME_WAIT, which goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns: Option<u64>,
}

impl Step<'_> {
    fn of(step: &model::PathStep) -> Self {
        let (state, state_number) = super::names::state(step.state);
        Self { state, state_number, ns: step.ns }
    }

    fn record(&self) -> Option<model::PathStep> {
        Some(model::PathStep { state: State::named(&self.state, false, self.state_number)?, ns: self.ns })
    }
}

impl<'a> Lifespan<'a> {
    pub(super) fn of(seq: u64, lifespan: &'a model::Lifespan, stamp: Stamp<'a>) -> Self {
        let conn = &lifespan.conn;
        let mut cuts = Cuts::default();
        let subject = SubjectKeys::new(&conn.subject, &mut cuts);
        Self {
            seq,
            time: Time(lifespan.time_ns),
            is_final: lifespan.is_final,
            conn: conn.id.to_string().into(),
            role: conn.role.map(|role| role.name().into()),
            sample: stamp.sample,
            stamp,
            ends: Ends::of(conn, None),
            peer: ClusterPeer::of(conn),
            subject,
            truncated: cuts.parts(),
            begin: Time(lifespan.begin_ns),
            end: Time(lifespan.time_ns),
            duration_ns: Some(lifespan.duration_ns),
            at_least: lifespan.at_least,
            handshake_ns: lifespan.handshake_ns(),
            path: lifespan.path.iter().map(Step::of).collect(),
            closed_first: lifespan.closed_first().map(|side| side.name().into()),
            cause: lifespan.cause.map(|cause| cause.name().into()),
            reset_why: lifespan.reset_why.map(Text::from),
            errno: errno::text(lifespan.errno),
            exact: lifespan.exact,
            incomplete: lifespan.incomplete,
            traffic: lifespan.traffic.as_deref().map(Traffic::of),
        }
    }

    /// The record of the line, which is about `conn`; `None` if a value is not known.
    pub(super) fn record(&self, conn: Connection, texts: &mut FixedTexts) -> Option<model::Lifespan> {
        Some(model::Lifespan {
            time_ns: self.time.0,
            is_final: self.is_final,
            conn,
            begin_ns: self.begin.0,
            at_least: self.at_least,
            duration_ns: self.duration_ns?,
            // A path ends with TIME_WAIT, or before CLOSE.
            path: self.path.iter().take(MOST_STEPS + 1).map(Step::record).collect::<Option<_>>()?,
            cause: self.cause.as_deref().and_then(named),
            reset_why: self.reset_why.as_deref().map(|why| texts.keep(why).unwrap_or("unknown")),
            errno: self.errno.as_deref().and_then(errno::number).unwrap_or(0),
            exact: self.exact,
            incomplete: self.incomplete,
            traffic: self.traffic.as_ref().map(|traffic| Rc::new(traffic.record())),
        })
    }
}
