//! `sockstate diagram`.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::{
    Failure, colours,
    feed::{Feed, Wanted},
};
use crate::{
    cli::{Colour, RunArgs, SelectArgs},
    draw::{Diagram, Weights},
    story::Story,
    values::parse_duration,
};

/// How often `--live` redraws the picture.
const FRAME: Duration = Duration::from_millis(500);

/// The name of the source in the title of a live picture.
const NOW: &str = "now";

const EXAMPLES: &str = "\
Examples:
  sockstate diagram
      the state machine
  sockstate diagram --format svg -o tcp.svg
      as a picture
  sockstate diagram --live
      with this host's connections, live
  sockstate diagram --from night.zst --format svg
      with the connections of a recording
  sockstate diagram --from night.zst --conn 004f020000000025
      the path of one connection";

/// Draw TCP's state machine, alone or with connections.
///
/// The counts are those of a recording, or of this host's connections.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
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
    /// Do not ask whether a daemon is tracing.
    #[arg(long, requires = "live")]
    pub alongside: bool,
    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "live")]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub select: SelectArgs,
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

pub(super) fn run(args: &DiagramArgs) -> Result<ExitCode> {
    if args.live {
        return live(args);
    }
    let Some(path) = &args.from else {
        return draw(args, &Diagram::default());
    };
    let story = super::story(path, &args.select)?;
    let diagram = match &args.conn {
        None => Diagram::weighed(Weights::of(&story), super::story_title(&story, path)),
        Some(text) => {
            let history = super::history(&story, text, path)?;
            Diagram::path(history, super::history_title(history))
        }
    };
    draw(args, &diagram)
}

fn draw(args: &DiagramArgs, diagram: &Diagram) -> Result<ExitCode> {
    let is_terminal = args.output.is_none() && std::io::stdout().is_terminal();
    let text = match args.format {
        DiagramFormat::Text => diagram.text(colours(args.color, is_terminal)),
        DiagramFormat::Svg => diagram.svg(),
        DiagramFormat::Mermaid => diagram.mermaid(),
        DiagramFormat::Dot => diagram.dot(),
    };
    super::write(args.output.as_deref(), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// Redraws the picture until the tracer ends.
fn live(args: &DiagramArgs) -> Result<ExitCode> {
    if !std::io::stdout().is_terminal() && args.duration.is_none() {
        return Err(Failure::usage("--live without a terminal needs --duration").into());
    }
    let is_terminal = std::io::stdout().is_terminal() && args.output.is_none();
    let run = RunArgs { duration: args.duration, ..RunArgs::default() };
    let wanted = Wanted { run, ..Wanted::of(&args.select, args.alongside) };
    let mut story = Story::forgetful();
    let mut drawn_at = Instant::now();
    Feed::live(wanted)?.each(|record, _| {
        story.record(&record);
        if is_terminal && drawn_at.elapsed() >= FRAME {
            drawn_at = Instant::now();
            let diagram = Diagram::weighed(Weights::of(&story), super::story_title(&story, NOW.as_ref()));
            let mut out = std::io::stdout().lock();
            // Cursor to the top left; erase each line's end, and everything below.
            let text = diagram.text(colours(Colour::Auto, true)).replace('\n', "\x1b[K\n");
            write!(out, "\x1b[H{text}\x1b[J").and_then(|()| out.flush()).context("cannot draw")?;
        }
        Ok(())
    })?;
    draw(args, &Diagram::weighed(Weights::of(&story), super::story_title(&story, NOW.as_ref())))
}
