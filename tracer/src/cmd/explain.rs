//! `sockstate explain`: prints the knowledge about states, transitions and whole connections.

use std::{fs, io::IsTerminal, process::ExitCode};

use anyhow::Result;
use clap::{Args, builder::PossibleValuesParser};

use super::{Failure, colours};
use crate::{
    cli::Colour,
    explain::{self, Page, Texts},
    knowledge::{CLOSE, OPEN, RESET, SIMULTANEOUS_CLOSE},
};

/// Lines longer than this are hard to read.
const WIDEST: usize = 100;

const EXAMPLES: &str = "\
Examples:
  sockstate explain
      every state in one line
  sockstate explain CLOSE_WAIT
      what it means, who must act, what limits it, when it is a fault
  sockstate explain FIN_WAIT2 TIME_WAIT
      one step
  sockstate explain --close
      both ends, side by side
  sockstate explain --lang uk CLOSE_WAIT
      in Ukrainian";

/// Explain a state, a step, or both ends of a connection.
///
/// A state is CLOSE_WAIT, close-wait, 8, or 08 as in /proc/net/tcp; a step is FROM TO. A group of ss (connected,
/// synchronized, bucket, big, all) lists its states.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
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
    #[arg(long, value_name = "LANG", value_parser = PossibleValuesParser::new(Texts::CODES))]
    pub lang: Option<String>,
}

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
        [word] => pieces.push(match explain::group(word, &texts, page) {
            Some(group) => group,
            None => explain::state(parse(word)?, &texts, page, sysctl),
        }),
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

/// The value of a sysctl of the running kernel. If each network namespace has its own value, that of this process's
/// namespace.
fn sysctl(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}
