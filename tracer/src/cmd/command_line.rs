//! The command line as clap's command: widths, short help and tips, which the definitions of the flags cannot express.

use std::ffi::OsString;

use clap::{
    Arg, Command, CommandFactory, Error, FromArgMatches,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Cli;
use crate::cli::in_any_case;

/// The widest line of a help text.
const WIDEST: usize = 80;

/// Flags that `-h` leaves out, beside those of the heading "Kernel".
const RARE: [&str; 9] = [
    "cmdline",
    "escape_formulas",
    "metrics_top",
    "metrics_by",
    "metrics_by_limit",
    "nat",
    "no_stuck",
    "threshold",
    "cgroup",
];

/// The flags of plain `sockstate` in `sockstate -h`, which mainly lists the commands.
const USUAL: [&str; 9] = ["format", "output", "records", "from", "to", "port", "pid", "comm", "duration"];

/// Words that users try, and what they may mean.
const TIPS: [(&str, &str); 8] = [
    ("--state", "'--from STATES' and '--to STATES' select transitions by their states"),
    ("--interface", "'--local PREFIX' selects connections by the addresses of an interface"),
    ("-i", "'--local PREFIX' selects connections by the addresses of an interface"),
    ("--process", "'--comm NAME' and '--pid PID' select processes"),
    ("--name", "'--comm NAME' selects processes by their names"),
    ("tcp", "'sockstate' alone traces TCP; 'sockstate --help' lists the commands"),
    ("list", "'sockstate sockets' lists sockets"),
    ("leaks", "'sockstate stuck' lists leaked and other stuck sockets"),
];

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let is_usual = |arg: &Arg| USUAL.contains(&arg.get_id().as_str());
    let root = Cli::command().mut_args(|arg| {
        let is_rare = !is_usual(&arg);
        arg.hide_short_help(is_rare)
    });
    adjusted(root).max_term_width(WIDEST)
}

fn adjusted(command: Command) -> Command {
    let adjust = |arg: Arg| {
        let is_rare = arg.get_help_heading() == Some("Kernel") || RARE.contains(&arg.get_id().as_str());
        in_any_case(if is_rare { arg.hide_short_help(true) } else { arg })
    };
    command.mut_args(adjust).mut_subcommands(adjusted)
}

/// Parses the arguments, of which the first is the program's name; ends this process with help or an error.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Cli {
    let mut command = command();
    let parsed = command.try_get_matches_from_mut(args);
    let parsed = parsed.and_then(|found| Cli::from_arg_matches(&found));
    parsed.unwrap_or_else(|error| with_tip(error, &command).exit())
}

/// Replaces clap's suggestion by one that fits, or removes it.
fn with_tip(mut error: Error, command: &Command) -> Error {
    let (wrong, suggested) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        _ => return error,
    };
    let Some(ContextValue::String(word)) = error.get(wrong) else { return error };
    let word = word.clone();
    let before = error.get(suggested).is_some();
    if let Some(tip) = tip(&word, command) {
        error.remove(suggested);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    } else if !is_near(&word, error.get(suggested)) {
        error.remove(suggested);
        error.remove(ContextKind::Suggested);
    }
    if before && error.get(suggested).is_none() {
        // The usage is that of the suggested flag.
        error.remove(ContextKind::Usage);
    }
    error
}

fn tip(word: &str, command: &Command) -> Option<String> {
    let known = TIPS.iter().find(|(known, _)| *known == word);
    if let Some((_, tip)) = known {
        return Some((*tip).to_owned());
    }
    let has = |command: &Command| command.get_arguments().any(|arg| arg.get_long() == Some(word));
    let is_flag = has(command) || command.get_subcommands().any(has);
    is_flag.then(|| format!("a flag has two hyphens: '--{word}'"))
}

/// Whether a suggestion is a misspelling of the word.
fn is_near(word: &str, suggested: Option<&ContextValue>) -> bool {
    let suggested = match suggested {
        Some(ContextValue::String(suggested)) => vec![suggested],
        Some(ContextValue::Strings(all)) => all.iter().collect(),
        _ => return false,
    };
    let word = word.trim_start_matches('-');
    let most = word.chars().count().div_ceil(3);
    suggested.iter().any(|other| strsim::damerau_levenshtein(word, other.trim_start_matches('-')) <= most)
}
