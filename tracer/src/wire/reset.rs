//! The line about a reset without a socket: `reset`.

use serde::{Deserialize, Deserializer, Serialize};

#[cfg(feature = "schema")]
use super::schema_types::{SegmentEnds, TcpFlag};
use super::{Ends, Stamp, Text, Time};
use crate::model::{self, Answered, TCP_FLAGS, Transport};

/// This host has answered a segment by a reset, because there is no socket for it: no listener on the port, or a connection
/// that this host no longer knows. A record without a segment has the number of resets that have no record of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Reset<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When the reset was sent, or the number was read.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    #[serde(flatten, deserialize_with = "segment", skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment<'a>>,
    /// How many resets the record stands for: 1, or in a record without a segment the number since the last such record.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub count: u64,
}

/// A line without ends has no segment.
fn segment<'de: 'a, 'a, D: Deserializer<'de>>(keys: D) -> Result<Option<Segment<'a>>, D::Error> {
    Ok(Some(Segment::deserialize(keys)?).filter(|segment| segment.ends.network.is_some()))
}

/// The segment that was answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Segment<'a> {
    #[serde(borrow, flatten)]
    #[cfg_attr(feature = "schema", schemars(with = "SegmentEnds<'a>"))]
    pub ends: Ends<'a>,
    /// The inode number of the network namespace that received the segment; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub netns: Option<u32>,
    /// The TCP flags of the segment, absent if it has none: SYN alone asks for a connection, and ACK belongs to a connection
    /// that this host does not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<TcpFlag>"))]
    pub flags: Vec<Text<'a>>,
}

impl<'a> Reset<'a> {
    pub(super) fn of(seq: u64, reset: &'a model::Reset, stamp: Stamp<'a>) -> Self {
        let segment = reset.answered.as_ref().map(|answered| Segment {
            ends: Ends::new(&answered.tuple, Transport::Tcp, None),
            netns: answered.netns,
            flags: answered.flags().map(Text::from).collect(),
        });
        Self { seq, time: Time(reset.time_ns), stamp, segment, count: reset.count }
    }

    /// The record of the line; `None` if a value is not known.
    pub(super) fn record(&self) -> Option<model::Reset> {
        let answered = match &self.segment {
            Some(segment) => Some(segment.answered()?),
            None => None,
        };
        Some(model::Reset { time_ns: self.time.0, answered, count: self.count })
    }
}

impl Segment<'_> {
    fn answered(&self) -> Option<Answered> {
        let bit = |name: &Text<'_>| TCP_FLAGS.iter().position(|known| *known == &**name);
        let flags = self.flags.iter().filter_map(bit).fold(0, |flags, bit| flags | 1 << bit);
        Some(Answered { netns: self.netns, tuple: self.ends.tuple()?, flags })
    }
}
