//! Arguments of the commands that record, and of those that show connections to people.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Colour, FilterArgs, KernelArgs, RunArgs, SelectArgs, StuckRules};
use crate::{
    format::FormatName,
    model::Threshold,
    values::{parse_duration, parse_speed, parse_threshold},
};

/// Arguments of `record`.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// The file to write; an existing one is replaced.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub stuck: StuckRules,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// Arguments of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// A recording: the output of `record`, of `trace --format json`, or of a file sink; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Format of the output [default: table on a terminal, otherwise json: the lines of the recording].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<FormatName>,
    /// In CSV, put ' before cells that a spreadsheet would read as a formula: =, +, -, @, tab.
    #[arg(long, help_heading = "Output")]
    pub escape_formulas: bool,
    /// Colour the table; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// Play in real time (1), or FACTOR times as fast [default: without waiting].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed, help_heading = "Output")]
    pub speed: Option<f64>,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// The format of a diagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DiagramFormat {
    /// Text for a terminal of 94 columns.
    #[default]
    Text,
    /// A picture for light and dark backgrounds.
    Svg,
    /// Mermaid, for Markdown.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// Arguments of `diagram`.
#[derive(Args, Clone, Debug)]
pub struct DiagramArgs {
    /// Format of the output.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: DiagramFormat,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the text; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// Add numbers from this recording: counts, median times, and at its end connections and stuck ones in each state.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub from: Option<PathBuf>,
    /// Highlight the path of this connection.
    #[arg(long, value_name = "ID", requires = "from")]
    pub conn: Option<String>,
    /// Add numbers from this host's connections, and redraw the picture as they change.
    #[arg(long)]
    pub live: bool,
    /// Trace although another sockstate is tracing; every transition then costs twice.
    #[arg(long, requires = "live")]
    pub alongside: bool,
    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "live")]
    pub duration: Option<std::time::Duration>,
    #[command(flatten)]
    pub select: SelectArgs,
}

/// The format of a timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    /// Text for a terminal.
    #[default]
    Text,
    /// A picture for light and dark backgrounds.
    Svg,
    /// A self-contained page that can be zoomed.
    Html,
}

/// Arguments of `timeline`.
#[derive(Args, Clone, Debug)]
pub struct TimelineArgs {
    /// A recording: the output of `record`, of `trace --format json`, or of a file sink; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show one connection, by its id.
    #[arg(long, value_name = "ID")]
    pub conn: Option<String>,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: TimelineFormat,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the text; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// Limit of connections: stuck ones come first, then the longest.
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Output")]
    pub most: usize,
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// A recording: the output of `record`, of `trace --format json`, or of a file sink; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Show this recording instead of this host.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Play in real time (1), or FACTOR times as fast [default: without waiting].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed, requires = "from")]
    pub speed: Option<f64>,
    /// Trace although another sockstate is tracing; every transition then costs twice.
    #[arg(long, conflicts_with = "from")]
    pub alongside: bool,
    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, conflicts_with = "from")]
    pub threshold: Vec<Threshold>,
    /// Language of explanations [default: the language of the locale, or en].
    #[arg(long, value_name = "LANG", value_parser = clap::builder::PossibleValuesParser::new(crate::explain::Texts::CODES))]
    pub lang: Option<String>,
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A state, or two states of a transition, in the spelling of netstat, ss, the RFC or the kernel, or as a number.
    #[arg(value_name = "STATE", num_args = 0..=2)]
    pub words: Vec<String>,
    /// Explain how a connection opens, with both ends side by side.
    #[arg(long)]
    pub open: bool,
    /// Explain how a connection closes.
    #[arg(long)]
    pub close: bool,
    /// Explain how both ends close at the same time.
    #[arg(long)]
    pub simultaneous_close: bool,
    /// Explain how one end resets a connection.
    #[arg(long)]
    pub reset: bool,
    /// Language of the texts [default: the language of the locale, or en].
    #[arg(long, value_name = "LANG", value_parser = clap::builder::PossibleValuesParser::new(crate::explain::Texts::CODES))]
    pub lang: Option<String>,
}
