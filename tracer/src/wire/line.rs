//! The lines of a stream (docs/events.md), one type per kind. A missing key counts as unknown, so that lines of earlier
//! versions can be read; keys of later versions are skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Ends, Explained, Found, Opened, Part, ReadError, SubjectKeys, Text, Time};

/// What `schema` says in all lines.
pub const SCHEMA: &str = "sockstate/1";

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line<'a> {
    schema: &'static str,
    #[serde(flatten)]
    pub kind: Kind<'a>,
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind<'a> {
    Start(Start<'a>),
    Snapshot(Snapshot<'a>),
    Transition(Transition<'a>),
    Aggregate(Aggregate<'a>),
    Resync(Resync<'a>),
    Stuck(Box<Stuck<'a>>),
    Resolved(Resolved<'a>),
    Lost(Lost<'a>),
    Stop(Stop<'a>),
    #[serde(untagged)]
    Other(Other<'a>),
}

/// A line of a kind that this version does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Other<'a> {
    #[serde(borrow)]
    pub kind: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    #[serde(flatten)]
    pub keys: serde_json::Map<String, serde_json::Value>,
}

/// Identifies the host and the run of a line, for collectors that get the lines of several hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stamp<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Text<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels<'a>,
}

/// The labels of the configuration.
pub type Labels<'a> = BTreeMap<Text<'a>, Text<'a>>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostName<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
}

/// The first line of a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels<'a>,
    pub degraded: Vec<Text<'a>>,
    pub hook: Text<'a>,
    pub host: Option<Host<'a>>,
    pub instance: Text<'a>,
    pub tier: Text<'a>,
    pub version: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted<'a>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host<'a> {
    #[serde(borrow)]
    pub kernel: Text<'a>,
    pub name: Text<'a>,
}

/// The instance that had the programs and connections which a stream continues with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adopted<'a> {
    #[serde(borrow)]
    pub instance: Text<'a>,
}

/// A socket in the state that it is in, or was in until now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Socket<'a> {
    #[serde(borrow)]
    pub state: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_number: Option<u8>,
    pub role: Option<Text<'a>>,
    #[serde(flatten)]
    pub ends: Ends<'a>,
    #[serde(flatten)]
    pub subject: SubjectKeys<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mini: bool,
}

/// A socket that existed when the tracer started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    pub conn: Text<'a>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

/// One change of state of one socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transition<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow)]
    pub conn: Text<'a>,
    pub from: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_number: Option<u8>,
    pub to: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_number: Option<u8>,
    pub in_state_ns: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_state_at_least: bool,
    pub role: Option<Text<'a>>,
    #[serde(flatten)]
    pub stamp: Stamp<'a>,
    #[serde(flatten)]
    pub ends: Ends<'a>,
    #[serde(flatten)]
    pub subject: SubjectKeys<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
    /// Absent in lines of the first version: all were exact.
    #[serde(default = "yes")]
    pub exact: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mini: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub illegal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_why: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<Text<'a>>,
}

fn yes() -> bool {
    true
}

/// Transitions of one kind, of one service with one peer, counted together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Aggregate<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    pub from: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_number: Option<u8>,
    pub to: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_number: Option<u8>,
    pub comm: Option<Text<'a>>,
    pub count: u64,
    pub in_state: Dwell,
    pub peer: Option<Peer<'a>>,
    pub port: Option<u16>,
    pub role: Option<Text<'a>>,
    pub window_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerId<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub other: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

/// Times in a state, as a histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dwell {
    pub buckets: Vec<Bucket>,
    pub sum_ns: u64,
}

/// The number of times that are at most `le_ns` and greater than the previous bucket's: not cumulative, unlike a
/// bucket of Prometheus. In the last bucket `le_ns` is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    pub count: u64,
    pub le_ns: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer<'a> {
    #[serde(borrow)]
    pub address: Text<'a>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerId<'a> {
    #[serde(borrow)]
    pub id: Text<'a>,
}

/// A correction: the kernel's tables show another state of a connection than the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resync<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    pub conn: Text<'a>,
    pub was: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was_number: Option<u8>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

/// A connection that has been in a state for longer than it should.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stuck<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    pub conn: Text<'a>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    pub age_at_least: bool,
    pub age_ns: Option<u64>,
    pub times: u8,
    #[serde(flatten)]
    pub found: Option<Found<'a>>,
    #[serde(flatten)]
    pub explained: Option<Explained<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opening: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

/// A connection that was stuck has moved on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolved<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    pub conn: Text<'a>,
    pub to: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_number: Option<u8>,
    #[serde(flatten)]
    pub socket: Socket<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
    pub age_at_least: bool,
    pub age_ns: Option<u64>,
}

/// Something was lost. `place` says what `count` counts: mostly transitions, but also evidence or stacks
/// (docs/events.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lost<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    /// Absent in recordings of earlier versions.
    pub since: Option<Time>,
    pub count: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub in_doubt: u64,
    pub place: Text<'a>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The last line of a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stop<'a> {
    pub seq: u64,
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    pub illegal: u64,
    /// By place.
    pub lost: BTreeMap<Text<'a>, u64>,
    pub reason: Text<'a>,
    pub transitions: Option<u64>,
}

/// The keys of every line, which are read first.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    schema: Text<'a>,
    kind: Text<'a>,
    #[expect(dead_code, reason = "a line without it, or with another one, is not a record")]
    time: Time,
}

impl Default for Line<'_> {
    fn default() -> Self {
        Self::new(Kind::Other(Other::default()))
    }
}

impl<'a> Line<'a> {
    #[must_use]
    pub fn new(kind: Kind<'a>) -> Self {
        Self { schema: SCHEMA, kind }
    }

    /// The line of a text.
    ///
    /// # Errors
    /// The text is not a line of sockstate, or has another schema.
    pub fn read(text: &'a [u8]) -> Result<Self, ReadError> {
        fn of<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ReadError> {
            serde_json::from_slice(text).map_err(|error| ReadError::NoRecord(error.to_string()))
        }
        let head: Head<'_> = of(text)?;
        if &*head.schema != SCHEMA {
            return Err(ReadError::Schema(head.schema.to_string()));
        }
        let kind = match &*head.kind {
            "start" => Kind::Start(of(text)?),
            "snapshot" => Kind::Snapshot(of(text)?),
            "transition" => Kind::Transition(of(text)?),
            "aggregate" => Kind::Aggregate(of(text)?),
            "resync" => Kind::Resync(of(text)?),
            "stuck" => Kind::Stuck(of(text)?),
            "resolved" => Kind::Resolved(of(text)?),
            "lost" => Kind::Lost(of(text)?),
            "stop" => Kind::Stop(of(text)?),
            _ => {
                let mut other: Other<'_> = of(text)?;
                other.keys.remove("schema");
                Kind::Other(other)
            }
        };
        Ok(Self::new(kind))
    }
}
