//! The lines of a stream (docs/events.md), one type for each kind. A missing key counts as unknown, so that lines of
//! earlier versions can be read; keys of later versions are skipped.

use serde::{Deserialize, Serialize};

use super::{
    Aggregate, Lost, ReadError, Resolved, Resync, Snapshot, Start, Stop, Stuck, Text, Time, Transition,
};

/// What `schema` says in all lines.
pub const SCHEMA: &str = "sockstate/1";

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "Kind<'a>"))]
pub struct Line<'a> {
    schema: &'static str,
    #[serde(flatten)]
    pub kind: Kind<'a>,
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    #[cfg_attr(feature = "schema", schemars(skip))]
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
