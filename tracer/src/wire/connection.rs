//! The lines about a connection in one state: `snapshot`, `resync`, `stuck`, `resolved`.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::schema_types::Opening;
use super::{Ends, Explained, Found, Opened, Part, Stamp, SubjectKeys, Text, Time};
#[cfg(feature = "schema")]
use crate::model::{ConnId, Role, State};

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
    #[serde(flatten)]
    pub subject: SubjectKeys<'a>,
    /// True for a mini-socket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mini: bool,
}

/// A socket that existed when the tracer started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Snapshot<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// The time of the `start` record.
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
}
