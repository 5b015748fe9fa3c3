//! The commands for people: those that record, and those that look at what was recorded.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Colour, FilterArgs, FormatName, KernelArgs, RunArgs, SelectArgs, StuckRules};
use crate::{
    config::{parse_duration, parse_speed, parse_threshold},
    model::Threshold,
};

/// Arguments of `record`.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// The file, which is replaced.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What, and for how long.
    #[command(flatten)]
    pub run: RunArgs,
    /// What is stuck.
    #[command(flatten)]
    pub stuck: StuckRules,
    /// Which transitions.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How the kernel is asked.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// Arguments of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// What `record`, or `trace --format json`, or a file sink has written; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to write [default: table on a terminal, else json: the lines as they are].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<FormatName>,
    /// In CSV, put ' in front of cells that a spreadsheet would take for a formula: =, +, -, @, tab.
    #[arg(long, help_heading = "Output")]
    pub escape_formulas: bool,
    /// Colour the table; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// As fast as it happened (1), or N times as fast [default: at once].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed, help_heading = "Output")]
    pub speed: Option<f64>,
    /// Which transitions.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// How a diagram is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DiagramFormat {
    /// For a terminal of 94 columns.
    #[default]
    Text,
    /// A picture, light and dark.
    Svg,
    /// Mermaid, for Markdown.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// Arguments of `diagram`.
#[derive(Args, Clone, Debug)]
pub struct DiagramArgs {
    /// How to write.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: DiagramFormat,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the text; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// Weigh it by this recording: counts, median times, where connections are and stick at its end.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub from: Option<PathBuf>,
    /// Light this connection's path in it.
    #[arg(long, value_name = "ID", requires = "from")]
    pub conn: Option<String>,
    /// Weigh it by this host's connections, and draw it again as they change.
    #[arg(long)]
    pub live: bool,
    /// Trace although another sockstate does.
    #[arg(long, requires = "live")]
    pub alongside: bool,
    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "live")]
    pub duration: Option<std::time::Duration>,
    /// Which connections.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// How a timeline is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    /// For a terminal.
    #[default]
    Text,
    /// A picture, light and dark.
    Svg,
    /// A page by itself, to zoom into.
    Html,
}

/// Arguments of `timeline`.
#[derive(Args, Clone, Debug)]
pub struct TimelineArgs {
    /// What `record`, or `trace --format json`, or a file sink has written; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// One connection, by its id.
    #[arg(long, value_name = "ID")]
    pub conn: Option<String>,
    /// How to write.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: TimelineFormat,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the text; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// The most connections shown: those that were stuck, then the longest.
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Output")]
    pub most: usize,
    /// Which connections.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// What `record`, or `trace --format json`, or a file sink has written; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Which connections.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Show this recording instead of this host.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// As fast as it happened (1), or N times as fast [default: at once].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed, requires = "from")]
    pub speed: Option<f64>,
    /// Trace although another sockstate does.
    #[arg(long, conflicts_with = "from")]
    pub alongside: bool,
    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, conflicts_with = "from")]
    pub threshold: Vec<Threshold>,
    /// The language of explanations [default: that of the locale, else en].
    #[arg(long, value_name = "LANG", value_parser = clap::builder::PossibleValuesParser::new(crate::explain::Texts::CODES))]
    pub lang: Option<String>,
    /// Which connections.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A state, or the two of a step, in any spelling: netstat's, ss's, the RFC's, the kernel's, its number.
    #[arg(value_name = "STATE", num_args = 0..=2)]
    pub words: Vec<String>,
    /// How a connection opens, both ends side by side.
    #[arg(long)]
    pub open: bool,
    /// How it closes.
    #[arg(long)]
    pub close: bool,
    /// How both ends close at once.
    #[arg(long)]
    pub simultaneous_close: bool,
    /// How one end breaks it off.
    #[arg(long)]
    pub reset: bool,
    /// The language [default: that of the locale, else en].
    #[arg(long, value_name = "LANG", value_parser = clap::builder::PossibleValuesParser::new(crate::explain::Texts::CODES))]
    pub lang: Option<String>,
}
