//! `sockstate timeline`.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Result;

use super::colours;
use crate::{
    cli::{TimelineArgs, TimelineFormat},
    draw::Timeline,
};

/// Width without a terminal.
const COLUMNS: usize = 120;

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
