//! `sockstate timeline`.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::colours;
use crate::{
    cli::{Colour, SelectArgs},
    draw::Timeline,
};

/// Width without a terminal.
const COLUMNS: usize = 120;

const EXAMPLES: &str = "\
Examples:
  sockstate timeline night.zst
      on the terminal
  sockstate timeline night.zst --format html -o night.html
      for a browser
  sockstate timeline night.zst --comm nginx --port 443
      one service
  sockstate timeline night.zst --conn 004f020000000025
      one connection, step by step";

/// Show the connections of a recording over time.
///
/// One lane for each; or one connection step by step.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
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

pub(super) fn run(args: &TimelineArgs) -> Result<ExitCode> {
    let story = super::story(&args.file, &args.select)?;
    let timeline = match &args.conn {
        None => Timeline::new(&story, super::story_title(&story, &args.file), args.most),
        Some(text) => {
            let history = super::history(&story, text, &args.file)?;
            Timeline::of_one(history, &story, super::history_title(history))
        }
    };
    let is_terminal = args.output.is_none() && std::io::stdout().is_terminal();
    let width = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    let text = match args.format {
        TimelineFormat::Text => {
            let width = if width == 0 || !is_terminal { COLUMNS } else { width };
            timeline.text(width, colours(args.color, is_terminal))
        }
        TimelineFormat::Svg => timeline.svg(),
        TimelineFormat::Html => timeline.html(),
    };
    super::write(args.output.as_deref(), &text)?;
    Ok(ExitCode::SUCCESS)
}
