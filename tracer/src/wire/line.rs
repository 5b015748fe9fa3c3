//! The lines of a stream (docs/events.md), one type for each kind. A missing key counts as unknown, so that lines of
//! earlier versions can be read; keys of later versions are skipped.

use serde::{Deserialize, Serialize};

use super::{
    Aggregate, Lifespan, Lost, ReadError, Reset, Resolved, Resync, Snapshot, Stamp, Start, Stop, Stuck, Text,
    Time, Transition, text::append,
};
use crate::model::Record;

/// What `schema` says in all lines.
pub const SCHEMA: &str = "sockstate/1";

/// The beginning of nearly all lines.
const TRANSITION: &[u8] = br#"{"schema":"sockstate/1","kind":"transition","#;

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
    Connection(Box<Lifespan<'a>>),
    Aggregate(Aggregate<'a>),
    Resync(Resync<'a>),
    Stuck(Box<Stuck<'a>>),
    Resolved(Resolved<'a>),
    Reset(Reset<'a>),
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

/// The keys of every line, which are read first if the line begins in another way than [`TRANSITION`].
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    schema: Text<'a>,
    kind: Text<'a>,
    #[expect(dead_code, reason = "a line without it, or with another one, is not a record")]
    time: Time,
}

fn no_record(error: serde_json::Error) -> ReadError {
    ReadError::NoRecord(error.to_string())
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

    /// The line of a record.
    #[must_use]
    pub fn of(seq: u64, record: &'a Record, stamp: &Stamp<'a>) -> Self {
        let stamp = stamp.clone();
        Self::new(match record {
            Record::Start(start) => Kind::Start(Start::of(seq, start, stamp)),
            Record::Snapshot(snapshot) => Kind::Snapshot(Snapshot::of(seq, snapshot, stamp)),
            Record::Transition(transition) => Kind::Transition(Transition::of(seq, transition, stamp)),
            Record::Connection(lifespan) => Kind::Connection(Box::new(Lifespan::of(seq, lifespan, stamp))),
            Record::Aggregate(aggregate) => Kind::Aggregate(Aggregate::of(seq, aggregate, stamp)),
            Record::Resync(resync) => Kind::Resync(Resync::of(seq, resync, stamp)),
            Record::Stuck(stuck) => Kind::Stuck(Box::new(Stuck::of(seq, stuck, stamp))),
            Record::Resolved(resolved) => Kind::Resolved(Resolved::of(seq, resolved, stamp)),
            Record::Reset(reset) => Kind::Reset(Reset::of(seq, reset, stamp)),
            Record::Lost(lost) => Kind::Lost(Lost::of(seq, lost, stamp)),
            Record::Stop(stop) => Kind::Stop(Stop::of(seq, stop, stamp)),
        })
    }

    /// Appends the line, with its newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        append(self, out);
        out.push(b'\n');
    }

    /// The line of a text.
    ///
    /// # Errors
    /// The text is not a line of sockstate, or has another schema.
    pub fn read(text: &'a [u8]) -> Result<Self, ReadError> {
        fn of<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ReadError> {
            serde_json::from_slice(text).map_err(no_record)
        }
        // Whether all of the text is UTF-8 is found out faster than whether each string in it is.
        if text.starts_with(TRANSITION)
            && let Ok(text) = str::from_utf8(text)
        {
            return Ok(Self::new(Kind::Transition(serde_json::from_str(text).map_err(no_record)?)));
        }
        let head: Head<'_> = of(text)?;
        if &*head.schema != SCHEMA {
            return Err(ReadError::Schema(head.schema.to_string()));
        }
        let kind = match &*head.kind {
            "start" => Kind::Start(of(text)?),
            "snapshot" => Kind::Snapshot(of(text)?),
            "transition" => Kind::Transition(of(text)?),
            "connection" => Kind::Connection(of(text)?),
            "aggregate" => Kind::Aggregate(of(text)?),
            "resync" => Kind::Resync(of(text)?),
            "stuck" => Kind::Stuck(of(text)?),
            "resolved" => Kind::Resolved(of(text)?),
            "reset" => Kind::Reset(of(text)?),
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

impl Kind<'_> {
    /// The value of the key `kind`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Start(_) => "start",
            Self::Snapshot(_) => "snapshot",
            Self::Transition(_) => "transition",
            Self::Connection(_) => "connection",
            Self::Aggregate(_) => "aggregate",
            Self::Resync(_) => "resync",
            Self::Stuck(_) => "stuck",
            Self::Resolved(_) => "resolved",
            Self::Reset(_) => "reset",
            Self::Lost(_) => "lost",
            Self::Stop(_) => "stop",
            Self::Other(other) => &other.kind,
        }
    }
}
