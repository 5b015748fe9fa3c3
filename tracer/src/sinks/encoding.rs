//! How a sink's records are written, for sinks whose collectors take more than one format.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};

use super::{common::CommonArgs, delivery::Convert, problem::Problem};
use crate::format::convert;

/// How a sink's records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SinkFormat {
    /// One JSON object per line (docs/events.md).
    #[default]
    Json,
    /// The Elastic Common Schema, one JSON object per line.
    Ecs,
    /// OpenTelemetry's log data model as JSON, one log record per line.
    Otlp,
    /// bcc tcpstates' header and columns; transitions only.
    Csv,
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
    /// Whether the thread that makes records writes CSV for this sink, instead of sockstate's JSON.
    #[must_use]
    pub fn is_csv(&self) -> bool {
        self.format == SinkFormat::Csv
    }

    pub(super) fn is_ecs(&self) -> bool {
        self.format == SinkFormat::Ecs
    }

    /// Runs in the sink's thread: the thread that makes records only writes sockstate's JSON, which is fast.
    pub(super) fn converter(&self) -> Option<Convert> {
        match self.format {
            SinkFormat::Ecs => Some(Box::new(convert::ecs)),
            SinkFormat::Otlp => Some(Box::new(convert::otlp_json)),
            SinkFormat::Json | SinkFormat::Csv => None,
        }
    }

    pub(super) fn problems(&self, common: &CommonArgs) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.escape_formulas && !self.is_csv() {
            problems.push(Problem::of_section("'escape-formulas' is for the format \"csv\""));
        }
        if self.is_csv() && common.aggregate.is_some() {
            problems.push(Problem::of_section("'aggregate' goes with no csv, which has transitions only"));
        }
        problems
    }

    /// Two labels whose names are one in ECS.
    pub(super) fn label_problem(&self, name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        if self.format != SinkFormat::Ecs {
            return None;
        }
        let written = convert::ecs_label(name);
        let before = labels.keys().take_while(|other| *other != name);
        let same = before.into_iter().find(|other| convert::ecs_label(other) == written)?;
        Some(format!("the labels '{same}' and '{name}' are both '{written}' in ECS"))
    }
}
