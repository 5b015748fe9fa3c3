//! How a sink's records are written, for sinks whose collectors take more than one format.

use std::{collections::BTreeMap, sync::LazyLock};

use clap::{Args, ValueEnum, builder::PossibleValue};

use super::{common::CommonArgs, delivery::Convert, problem::Problem};
use crate::{
    format::{Content, Format, FormatName, FormatOptions, Stamp, convert},
    model::RecordKinds,
};

/// How a sink's records are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SinkFormat(FormatName);

/// The formats for sinks; those that leave out records come last.
static FORMATS: LazyLock<Vec<SinkFormat>> = LazyLock::new(|| {
    let (partial, complete): (Vec<FormatName>, Vec<FormatName>) = (FormatName::ALL.iter())
        .filter(|format| format.for_sinks)
        .partition(|format| format.content == Content::OneKind);
    complete.into_iter().chain(partial).map(SinkFormat).collect()
});

impl Default for SinkFormat {
    fn default() -> Self {
        Self(FormatName::default(false))
    }
}

impl ValueEnum for SinkFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &FORMATS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let Self(format) = self;
        let transitions =
            if format.content == Content::OneKind { "; only transitions, or only connections" } else { "" };
        Some(PossibleValue::new(format.name).help(format!("{}{transitions}", format.help)))
    }
}

/// The records' format.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct FormatArgs {
    /// The format of the records.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: SinkFormat,
    /// In CSV, put ' in front of cells that a spreadsheet would take for a formula: =, +, -, @, tab.
    #[arg(long)]
    pub escape_formulas: bool,
}

impl FormatArgs {
    /// The format.
    pub(super) fn name(&self) -> FormatName {
        self.format.0
    }

    /// What the thread that makes records writes for this sink, which gets these kinds of records of one in `sample` connections.
    #[must_use]
    pub fn make(&self, kinds: RecordKinds, sample: u64, stamp: &Stamp<'_>) -> Box<dyn Format> {
        let escape_formulas = self.escape_formulas;
        let options = FormatOptions { escape_formulas, sample, ..FormatOptions::of(kinds) };
        self.name().make_for_sink(options, stamp)
    }

    pub(super) fn is_ecs(&self) -> bool {
        self.name().name == "ecs"
    }

    /// What the thread of the sink does with each line of JSON.
    pub(super) fn converter(&self) -> Option<Convert> {
        Some(Box::new(self.name().converter()?))
    }

    pub(super) fn problems(&self, common: &CommonArgs) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.escape_formulas && self.name().name != "csv" {
            problems.push(Problem::of_section("'escape-formulas' is for the format \"csv\""));
        }
        let FormatName { name, content, .. } = self.name();
        if content == Content::OneKind && common.aggregate.is_some() {
            problems.push(Problem::of_section(format!(
                "'aggregate' goes with no {name}, which has only transitions, or only connections"
            )));
        }
        problems.extend(self.name().problem(RecordKinds::of(&common.records)).map(|problem| Problem {
            key: "records",
            message: format!("{problem}: name one of the two in 'records', or set another 'format'"),
        }));
        problems
    }

    /// Two labels whose names are one in ECS.
    pub(super) fn label_problem(&self, name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        if !self.is_ecs() {
            return None;
        }
        let written = convert::ecs_label(name);
        let before = labels.keys().take_while(|other| *other != name);
        let same = before.into_iter().find(|other| convert::ecs_label(other) == written)?;
        Some(format!("the labels '{same}' and '{name}' are both '{written}' in ECS"))
    }
}
