//! The lines about the stream itself: `start`, `lost`, `stop`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::schema_types::{Counts, Instance};
use super::{Labels, Stamp, Text, Time, fixed_texts::FixedTexts, names::named, text};
#[cfg(feature = "schema")]
use crate::model::LostPlace;
use crate::model::{self, bounds};

/// The first record of a stream. Another one follows when the stream's configuration changes, or when another sockstate
/// continues the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Start<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When the stream began.
    pub time: Time,
    /// The labels of the configuration.
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels<'a>,
    /// What is missing, and why.
    pub degraded: Vec<Text<'a>>,
    /// The hook that shows the transitions.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["tp_btf", "tracepoint"])))]
    pub hook: Text<'a>,
    /// The host and its kernel.
    #[cfg_attr(feature = "schema", schemars(with = "Host<'a>"))]
    pub host: Option<Host<'a>>,
    /// The instance of the stream.
    #[cfg_attr(feature = "schema", schemars(with = "Instance"))]
    pub instance: Text<'a>,
    /// How sockstate observes mini-sockets.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["fentry", "kprobe", "timers", "estimate", "none"])))]
    pub tier: Text<'a>,
    /// The version of sockstate.
    pub version: Text<'a>,
    /// The earlier process whose kernel programs and connections this process continues with; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted<'a>>,
}

impl<'a> Start<'a> {
    pub(super) fn of(seq: u64, start: &'a model::Start, stamp: Stamp<'a>) -> Self {
        Self {
            seq,
            time: Time(start.time_ns),
            // A start record has its own keys for the host and the instance.
            labels: stamp.labels,
            degraded: start.degraded.iter().map(|why| why.as_str().into()).collect(),
            hook: start.hook.into(),
            host: Some(Host { kernel: start.kernel.as_str().into(), name: start.host.as_str().into() }),
            instance: instance(start.instance),
            tier: start.tier.into(),
            version: start.version.into(),
            adopted: start.adopted.map(|before| Adopted { instance: instance(before) }),
        }
    }

    /// The record of the line; `None` if a value is not known.
    pub(super) fn record(&self, texts: &mut FixedTexts) -> Option<model::Start> {
        let host = self.host.as_ref()?;
        let degraded = self.degraded.iter().take(bounds::GAPS.items);
        Some(model::Start {
            time_ns: self.time.0,
            version: texts.keep(&self.version)?,
            host: text::name(&host.name),
            kernel: text::name(&host.kernel),
            hook: texts.keep(&self.hook)?,
            tier: texts.keep(&self.tier)?,
            instance: instance_number(&self.instance)?,
            degraded: degraded.map(|why| text::sentence(why)).collect(),
            adopted: self.adopted.as_ref().and_then(|before| instance_number(&before.instance)),
        })
    }
}

/// The host and its kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "kernel_host"))]
#[serde(default)]
pub struct Host<'a> {
    /// The release of the kernel.
    #[serde(borrow)]
    pub kernel: Text<'a>,
    /// The name of the host.
    pub name: Text<'a>,
}

/// The instance that left the programs and connections which a stream continues with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Adopted<'a> {
    /// The instance of the earlier process, which this process continues to use.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Instance"))]
    pub instance: Text<'a>,
}

/// Something was lost between `since` and `time`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Lost<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When sockstate noticed the loss.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    /// The earliest possible time of a missing record; null if it is not known.
    // Absent in recordings of earlier versions.
    pub since: Option<Time>,
    /// The number of missing items since the previous `lost` record of this place. `place` says what is counted.
    #[cfg_attr(feature = "schema", schemars(required))]
    pub count: Option<u64>,
    /// The number of records that the collector may have and that are not sent again; absent if there are none.
    #[serde(skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub in_doubt: u64,
    /// Where the items were lost.
    #[cfg_attr(feature = "schema", schemars(with = "LostPlace"))]
    pub place: Text<'a>,
}

impl<'a> Lost<'a> {
    pub(super) fn of(seq: u64, lost: &'a model::Lost, stamp: Stamp<'a>) -> Self {
        Self {
            seq,
            time: Time(lost.time_ns),
            stamp,
            since: lost.since_ns.map(Time),
            count: Some(lost.count),
            in_doubt: lost.in_doubt,
            place: lost.place.name().into(),
        }
    }

    /// The record of the line; `None` if a value is not known.
    pub(super) fn record(&self) -> Option<model::Lost> {
        Some(model::Lost {
            time_ns: self.time.0,
            since_ns: self.since.map(|since| since.0),
            count: self.count?,
            in_doubt: self.in_doubt,
            place: named(&self.place)?,
        })
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The last record of a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Stop<'a> {
    /// The number of the record in this stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub seq: u64,
    /// When the stream ended.
    pub time: Time,
    #[serde(borrow, flatten)]
    pub stamp: Stamp<'a>,
    /// The number of transitions that TCP, as sockstate knows it, does not make.
    pub illegal: u64,
    /// Total losses by place.
    #[cfg_attr(feature = "schema", schemars(with = "Counts<LostPlace>"))]
    pub lost: BTreeMap<Text<'a>, u64>,
    /// Why the stream ended.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["signal", "duration", "count"])))]
    pub reason: Text<'a>,
    /// The number of transitions.
    #[cfg_attr(feature = "schema", schemars(required))]
    pub transitions: Option<u64>,
}

impl<'a> Stop<'a> {
    pub(super) fn of(seq: u64, stop: &'a model::Stop, stamp: Stamp<'a>) -> Self {
        Self {
            seq,
            time: Time(stop.time_ns),
            stamp,
            illegal: stop.illegal,
            lost: stop.lost.iter().map(|(place, count)| (place.name().into(), *count)).collect(),
            reason: stop.reason.into(),
            transitions: Some(stop.transitions),
        }
    }

    /// The record of the line; `None` if a value is not known.
    pub(super) fn record(&self, texts: &mut FixedTexts) -> Option<model::Stop> {
        Some(model::Stop {
            time_ns: self.time.0,
            reason: texts.keep(&self.reason)?,
            transitions: self.transitions?,
            lost: self.lost.iter().filter_map(|(name, count)| Some((named(name)?, *count))).collect(),
            illegal: self.illegal,
        })
    }
}

fn instance(number: u32) -> Text<'static> {
    format!("{number:06x}").into()
}

fn instance_number(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}
