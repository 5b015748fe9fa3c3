//! `sockstate explain`.

use std::{fs, io::IsTerminal, process::ExitCode};

use anyhow::Result;

use super::{Failure, colours};
use crate::{
    cli::{Colour, ExplainArgs},
    explain::{self, Page, Texts},
    knowledge::{CLOSE, OPEN, RESET, SIMULTANEOUS_CLOSE},
};

/// Lines longer than this are hard to read.
const WIDEST: usize = 100;

pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let texts = args.lang.as_deref().map_or_else(Texts::of_locale, Texts::of);
    let page = page();
    let wanted = [args.open, args.close, args.simultaneous_close, args.reset];
    let walks = [&OPEN, &CLOSE, &SIMULTANEOUS_CLOSE, &RESET].into_iter().zip(wanted);
    let mut pieces: Vec<String> =
        walks.filter(|(_, wanted)| *wanted).map(|(walk, _)| explain::walk(walk, &texts, page)).collect();
    let parse = |word: &String| explain::parse(word, &texts).map_err(Failure::usage);
    match &args.words[..] {
        [] if pieces.is_empty() => pieces.push(explain::list(&texts, page)),
        [] => {}
        [word] => pieces.push(explain::state(parse(word)?, &texts, page, sysctl)),
        [from, to, ..] => pieces.push(explain::step(parse(from)?, parse(to)?, &texts, page)),
    }
    super::print([pieces.join("\n")])?;
    Ok(ExitCode::SUCCESS)
}

fn page() -> Page {
    let stdout = std::io::stdout();
    let width = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
    let width = if width == 0 { WIDEST } else { width.clamp(40, WIDEST) };
    Page { width, styled: colours(Colour::Auto, stdout.is_terminal()) }
}

/// The running kernel's setting; some are a network namespace's own, and this is ours.
fn sysctl(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}
