//! The lines of a look at the sockets (docs/look.schema.json).

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Ends, Explained, Found, Part, Placement, SCHEMA, Text, Workload, cuts::Cuts, names::state,
    socket::WorkloadFields, text::append,
};
#[cfg(feature = "schema")]
use super::{Time, schema_types::Counts};
use crate::model::{self, Diagnosis, Gap, SocketEntry, bounds};

/// A line of a look.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "LookKind<'a>"))]
pub struct LookLine<'a> {
    schema: &'static str,
    #[serde(flatten)]
    kind: LookKind<'a>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
enum LookKind<'a> {
    Socket(SocketFields<'a>),
    Stuck(StuckFields<'a>),
    StuckGroup(Group<'a>),
    Look(Gaps<'a>),
}

impl<'a> LookLine<'a> {
    /// A socket.
    #[must_use]
    pub fn socket(looked: &'a SocketEntry, time: &'a str) -> Self {
        let mut cuts = Cuts::of(&looked.report.cut);
        let fields = SocketFields::new(looked, time, &mut cuts);
        Self::new(LookKind::Socket(SocketFields { truncated: cuts.parts(), ..fields }))
    }

    /// A socket that is stuck.
    #[must_use]
    pub fn stuck(looked: &'a SocketEntry, diagnosis: &'a Diagnosis, time: &'a str) -> Self {
        let mut cuts = Cuts::of(&looked.report.cut);
        let fields = SocketFields::new(looked, time, &mut cuts);
        let explained = Explained::new(diagnosis, &mut cuts);
        Self::new(LookKind::Stuck(StuckFields { socket: fields, explained, truncated: cuts.parts() }))
    }

    /// Stuck sockets counted by something that all of them have, the key. `counts` are without it.
    #[must_use]
    pub fn group(key: &'a str, counts: Group<'a>, time: &'a str) -> Self {
        let mut cuts = Cuts::default();
        let key = cuts.text("key", key, bounds::GROUP).into();
        Self::new(LookKind::StuckGroup(Group { key, time: time.into(), truncated: cuts.parts(), ..counts }))
    }

    /// What a look could not see.
    #[must_use]
    pub fn gaps(netns: Option<u32>, gaps: &'a [Gap], time: &'a str) -> Self {
        let mut cuts = Cuts::default();
        let reasons = reasons(gaps, &mut cuts);
        let (time, complete) = (time.into(), gaps.is_empty());
        Self::new(LookKind::Look(Gaps { complete, netns, reasons, time, truncated: cuts.parts() }))
    }

    fn new(kind: LookKind<'a>) -> Self {
        Self { schema: SCHEMA, kind }
    }

    /// The line as text, with its newline.
    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        append(self, &mut bytes);
        bytes.push(b'\n');
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A socket.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct SocketFields<'a> {
    /// The time of the look.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    time: Text<'a>,
    /// The state, by netstat's name.
    #[cfg_attr(feature = "schema", schemars(with = "model::State"))]
    state: Text<'a>,
    /// The kernel's number of the state, only with `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_number: Option<u8>,
    /// The time in the state; null if it is not known.
    age_ns: Option<u64>,
    /// True if `age_ns` is a lower bound; null if `age_ns` is null.
    age_at_least: Option<bool>,
    /// The upper bound of the time in the state; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_at_most_ns: Option<u64>,
    /// True if the socket is listed although its age may be below the threshold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    may_be_stuck: bool,
    #[serde(flatten)]
    ends: Ends<'a>,
    #[serde(flatten)]
    found: Found<'a>,
    /// The uid of the socket; null if it is not known.
    uid: Option<u32>,
    /// True for a mini-socket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mini: bool,
    #[serde(flatten)]
    placement: Placement<'a>,
    /// Where the socket was created, if its holders run elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("minProperties" = 1)))]
    made_in: Option<Workload<'a>>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    truncated: Vec<Part<'a>>,
}

impl<'a> SocketFields<'a> {
    fn new(looked: &'a SocketEntry, time: &'a str, cuts: &mut Cuts) -> Self {
        let SocketEntry { report: examined, subject } = looked;
        let made_in = model::Workload::from(&**subject);
        let workloads = looked.workloads();
        let socket = &examined.socket;
        let placement = Placement::with(subject, workloads.first().copied().unwrap_or(made_in), cuts);
        let is_elsewhere = made_in.is_known() && !workloads.contains(&made_in);
        let (state, state_number) = state(socket.state);
        Self {
            time: time.into(),
            state,
            state_number,
            age_ns: examined.age.map(|age| age.ns),
            age_at_least: examined.age.map(|age| age.at_least),
            age_at_most_ns: examined.age_at_most_ns,
            may_be_stuck: examined.may_be_stuck,
            ends: Ends::new(&socket.tuple, socket.transport, socket.interface.as_deref())
                .beyond(examined.nat.as_ref()),
            found: Found::new(examined, &bounds::LOOK, cuts),
            uid: socket.uid,
            mini: socket.mini,
            placement,
            made_in: is_elsewhere.then(|| Workload::new(made_in, WorkloadFields::MADE_IN, cuts)),
            truncated: Vec::new(),
        }
    }
}

/// A stuck socket.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct StuckFields<'a> {
    /// The socket, without its `truncated`.
    #[serde(flatten)]
    socket: SocketFields<'a>,
    #[serde(flatten)]
    explained: Explained<'a>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    truncated: Vec<Part<'a>>,
}

/// Stuck sockets that have something in common, counted.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group<'a> {
    /// The number of sockets.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub count: usize,
    /// What the sockets have in common.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::GROUP)))]
    pub key: Text<'a>,
    /// The largest age in the group; null if none is known.
    pub oldest_ns: Option<u64>,
    /// The number of sockets for each reason.
    #[cfg_attr(feature = "schema", schemars(with = "Counts<model::Reason>"))]
    pub reasons: BTreeMap<Text<'a>, usize>,
    /// The number of sockets in each state.
    #[cfg_attr(feature = "schema", schemars(with = "Counts<model::State>"))]
    pub states: BTreeMap<Text<'a>, usize>,
    /// The time of the look.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    pub time: Text<'a>,
    /// The number of bytes that were not read.
    pub unread_bytes: u64,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Part<'a>>,
}

/// What a look could not see. It ends an incomplete look.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Gaps<'a> {
    /// Always false: a complete look has no such record.
    #[cfg_attr(feature = "schema", schemars(extend("const" = false)))]
    complete: bool,
    /// The network namespace that was asked for; null for all.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    netns: Option<u32>,
    /// What the look could not see.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::GAPS.items)))]
    reasons: Vec<GapReason<'a>>,
    /// The time of the look.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    time: Text<'a>,
    /// The values of the record that are cut; absent if the record is complete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    truncated: Vec<Part<'a>>,
}

/// Something that a look could not see.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GapReason<'a> {
    /// What the look could not see.
    #[cfg_attr(feature = "schema", schemars(with = "model::GapKind"))]
    pub reason: Text<'a>,
    /// Why, as a sentence.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SENTENCE)))]
    pub why: Text<'a>,
}

/// Why a look does not show all.
fn reasons<'a>(gaps: &'a [Gap], cuts: &mut Cuts) -> Vec<GapReason<'a>> {
    cuts.list("reasons", gaps.iter(), bounds::GAPS, |gap, cuts| GapReason {
        reason: gap.kind.name().into(),
        why: cuts.text("reasons[].why", &gap.why, bounds::SENTENCE).into(),
    })
}

/// Why a look does not show all, for a list without `truncated`.
#[must_use]
pub fn gap_reasons(gaps: &[Gap]) -> Vec<GapReason<'_>> {
    reasons(gaps, &mut Cuts::default())
}
