//! `sockstate diagram`.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Failure, colours,
    feed::{Feed, Wanted},
};
use crate::{
    cli::{Colour, DiagramArgs, DiagramFormat, RunArgs},
    draw::{Diagram, Weights},
    story::Story,
};

/// How often `--live` redraws the picture.
const FRAME: Duration = Duration::from_millis(500);

/// The name of the source in the title of a live picture.
const NOW: &str = "now";

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
