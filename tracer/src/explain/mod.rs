//! Explains states, transitions and whole connections as text.

mod texts;
mod walk;

use std::fmt::Write;

pub use texts::Texts;
pub use walk::walk;

use crate::{
    knowledge::{EDGES, Facts, Mover, STATES, facts, is_legal, named},
    model::{State, StateSet},
};

/// The layout of the text.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Columns.
    pub width: usize,
    /// Bold and dim.
    pub styled: bool,
}

impl Page {
    fn bold(self, text: &str) -> String {
        if self.styled { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn dim(self, text: &str) -> String {
        if self.styled { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A paragraph after `first`, with its other lines indented to the same column.
    fn paragraph(self, first: &str, text: &str, out: &mut String) {
        let indent = " ".repeat(first.chars().count());
        let options = textwrap::Options::new(self.width).initial_indent(first).subsequent_indent(&indent);
        out.push_str(&textwrap::fill(text, options));
        out.push('\n');
    }

    fn section(self, heading: &str, out: &mut String) {
        // Writing to a string does not fail.
        let _ = write!(out, "\n{}\n", self.bold(heading));
    }
}

/// All states, one line each.
#[must_use]
pub fn list(texts: &Texts, page: Page) -> String {
    let mut out = lines(|_| true, texts, page);
    out.push('\n');
    page.paragraph("", texts.get("labels.more"), &mut out);
    out
}

/// The states of a group of `ss`, one line each; `None` if the word names no group.
#[must_use]
pub fn group(word: &str, texts: &Texts, page: Page) -> Option<String> {
    let (name, set) = StateSet::group(word)?;
    let mut out = format!("{}  ", page.bold(name));
    page.paragraph("", texts.get(&format!("groups.{name}")), &mut out);
    out.push('\n');
    out.push_str(&lines(|state| set.contains(state), texts, page));
    out.push('\n');
    page.paragraph("", &texts.with("labels.group_use", &[("name", name)]), &mut out);
    Some(out)
}

fn lines(is_listed: impl Fn(State) -> bool, texts: &Texts, page: Page) -> String {
    let mut out = String::new();
    for facts in STATES.iter().filter(|facts| is_listed(facts.state)) {
        let name = facts.state.name();
        let first = format!("{name:<12} ");
        let mut line = String::new();
        page.paragraph(&first, texts.get(&format!("states.{name}.short")), &mut line);
        out.push_str(&line.replacen(name, &page.bold(name), 1));
    }
    out
}

/// One state; `sysctl` reads the kernel's settings.
#[must_use]
pub fn state(state: State, texts: &Texts, page: Page, sysctl: impl Fn(&str) -> Option<String>) -> String {
    let Facts { spellings, turn, settings, look, sources, .. } = facts(state);
    let name = state.name();
    let of = |part: &str| texts.get(&format!("states.{name}.{part}")).to_owned();
    let label = |key: &str| texts.get(&format!("labels.{key}")).to_owned();
    let mut out = format!("{}  {}\n", page.bold(name), of("short"));
    match state {
        State::Unknown(number) => {
            let number = number.to_string();
            page.paragraph("", &texts.with("labels.unknown_number", &[("number", &number)]), &mut out);
        }
        _ => {
            let [rfc, ss, kernel] = spellings;
            let number = state.number();
            let line = format!("{}: RFC {rfc}, ss {ss}, {kernel} ({number}, 0x{number:02X})", label("also"));
            out.push_str(&page.dim(&line));
            out.push('\n');
        }
    }
    page.section(&label("means"), &mut out);
    page.paragraph("  ", &of("means"), &mut out);
    page.section(&label("side"), &mut out);
    page.paragraph("  ", &of("side"), &mut out);
    page.section(&label("turn"), &mut out);
    page.paragraph("  ", &turn_text(*turn, &of("turn"), texts), &mut out);
    for (heading, is_side) in [("before", false), ("next", true)] {
        let edges = edges(state, is_side);
        if edges.is_empty() {
            continue;
        }
        page.section(&label(heading), &mut out);
        for other in edges {
            let (from, to) = if is_side { (name, other) } else { (other, name) };
            let first = if is_side { format!("  -> {other:<12}") } else { format!("  {other:<12} -> ") };
            page.paragraph(&first, texts.get(&format!("edges.{from} {to}")), &mut out);
        }
        if !is_side && state == State::Close {
            let first = format!("  {:<12} -> ", label("any_state"));
            page.paragraph(&first, &label("into_close"), &mut out);
        }
        if is_side && ends_directly(state) {
            let first = format!("  -> {:<12}", State::Close.name());
            page.paragraph(&first, texts.get(&format!("ends.{name}")), &mut out);
        }
    }
    page.section(&label("timers"), &mut out);
    match texts.find(&format!("states.{name}.bounds")) {
        Some(bounds) => page.paragraph("  ", bounds, &mut out),
        None if settings.is_empty() => page.paragraph("  ", &label("unbounded"), &mut out),
        None => {}
    }
    for setting in *settings {
        let value = sysctl(setting.sysctl)
            .map_or_else(|| label("not_here"), |value| format!("{} {value}", label("now")));
        let text = format!("{value}: {}", texts.get(&format!("timers.{}", setting.text)));
        page.paragraph(&format!("  {:<31} ", setting.sysctl), &text, &mut out);
    }
    page.section(&label("fault"), &mut out);
    page.paragraph("  ", &of("fault"), &mut out);
    page.section(&label("look"), &mut out);
    look.iter().for_each(|command| out.push_str(&format!("  {command}\n")));
    page.section(&label("sources"), &mut out);
    page.paragraph("  ", &sources.join("; "), &mut out);
    out
}

/// Whether the state has ways to CLOSE beside the transitions of [`EDGES`]: a reset, a timeout, `ss -K`. A listener is closed.
fn ends_directly(state: State) -> bool {
    !matches!(state, State::Close | State::Unknown(_)) && is_legal(state, State::Close)
}

/// The names of the states after a state, or before it, without repetition.
fn edges(state: State, out: bool) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for edge in EDGES {
        let (here, there) = if out { (edge.from, edge.to) } else { (edge.to, edge.from) };
        if here.name() == state.name() && there.name() != state.name() && !names.contains(&there.name()) {
            names.push(there.name());
        }
    }
    names
}

fn turn_text(turn: Option<Mover>, how: &str, texts: &Texts) -> String {
    let key = match turn {
        Some(Mover::Application) => "turns.application",
        Some(Mover::Peer) => "turns.peer",
        Some(Mover::Kernel) => "turns.kernel",
        None => return how.to_owned(),
    };
    texts.with(key, &[("how", how)])
}

/// One transition.
#[must_use]
pub fn step(from: State, to: State, texts: &Texts, page: Page) -> String {
    let (from_name, to_name) = (from.name(), to.name());
    let mut out = format!("{}\n", page.bold(&format!("{from_name} -> {to_name}")));
    let mut known = named(from, to).peekable();
    if known.peek().is_some() {
        page.paragraph("  ", texts.get(&format!("edges.{from_name} {to_name}")), &mut out);
        let sources: Vec<&str> = known.map(|edge| edge.source).collect();
        page.section(texts.get("labels.sources"), &mut out);
        page.paragraph("  ", &sources.join("; "), &mut out);
    }
    if to == State::Close && ends_directly(from) {
        out.push('\n');
        page.paragraph("  ", texts.get(&format!("ends.{from_name}")), &mut out);
        page.paragraph("  ", texts.get("labels.cause"), &mut out);
    } else if !is_legal(from, to) && named(from, to).next().is_none() {
        let none = texts.get("labels.none");
        let names = |state, is_side| {
            let names = edges(state, is_side);
            if names.is_empty() { none.to_owned() } else { names.join(", ") }
        };
        let mut ways = names(from, true);
        if ends_directly(from) && !edges(from, true).contains(&State::Close.name()) {
            // A listener is not reset.
            let is_listener = from == State::Listen;
            let end = if is_listener { State::Close.name() } else { texts.get("labels.close_at_once") };
            ways = format!("{ways}, {end}");
        }
        let into = names(to, false);
        let words = [("from", from_name), ("out", &ways), ("to", to_name), ("into", &into)];
        page.paragraph("  ", &texts.with("labels.illegal", &words), &mut out);
    }
    out
}

/// Parses a state: a number, decimal or as in /proc/net/tcp (two hexadecimal digits), or a name in any spelling.
///
/// # Errors
/// The text is not a state; with a suggestion.
pub fn parse(word: &str, texts: &Texts) -> Result<State, String> {
    if let Some(number) = number(word) {
        return Ok(State::from_number(number));
    }
    if let Some((name, set)) = StateSet::group(word) {
        let states = STATES.iter().filter(|facts| set.contains(facts.state));
        let names: Vec<&str> = states.map(|facts| facts.state.name()).collect();
        return Err(texts.with("labels.is_group", &[("text", name), ("names", &names.join(", "))]));
    }
    if let Ok(set) = word.parse::<StateSet>() {
        // A request and its child have one name.
        let request = set.contains(State::NewSynRecv).then_some(State::SynRecv);
        let is_meant = |state: &State| set.contains(*state) || Some(*state) == request;
        let mut states = STATES.iter().map(|facts| facts.state).filter(is_meant);
        if let (Some(state), None) = (states.next(), states.next()) {
            return Ok(state);
        }
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let typed = plain(word).trim_start_matches("tcp").to_owned();
    let spellings = |facts: &'static Facts| facts.spellings.iter().copied().chain([facts.state.name()]);
    let mut near: Vec<(usize, &str)> = STATES
        .iter()
        .filter_map(|facts| {
            let distances = spellings(facts).map(|name| strsim::damerau_levenshtein(&plain(name), &typed));
            Some((distances.min()?, facts.state.name()))
        })
        .filter(|(distance, _)| *distance <= 1 + typed.chars().count() / 3)
        .collect();
    near.sort();
    let mut message = texts.with("labels.no_state", &[("text", word)]);
    let names: Vec<&str> = near.iter().take(3).map(|(_, name)| *name).collect();
    if !names.is_empty() {
        message.push_str("; ");
        message.push_str(&texts.with("labels.did_you_mean", &[("names", &names.join(", "))]));
    }
    // A question ends with a mark of its own.
    let separator = if names.is_empty() { "; " } else { " " };
    Err(format!("{message}{separator}{}", texts.get("labels.try")))
}

fn number(word: &str) -> Option<u8> {
    let hex = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    if let Some(hex) = hex {
        return u8::from_str_radix(hex, 16).ok();
    }
    let is_hex = word.len() == 2 && word.starts_with('0');
    if is_hex { u8::from_str_radix(word, 16).ok() } else { word.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood() {
        let texts = Texts::of("en");
        for (word, state) in [
            ("8", State::CloseWait),
            ("08", State::CloseWait),
            ("0A", State::Listen),
            ("0a", State::Listen),
            ("10", State::Listen),
            ("0x0B", State::Closing),
            ("close-wait", State::CloseWait),
            ("ESTAB", State::Established),
            ("TCP_NEW_SYN_RECV", State::SynRecv),
            ("unconnected", State::Close),
            ("CLOSED", State::Close),
            ("77", State::Unknown(77)),
        ] {
            assert_eq!(parse(word, &texts).map(State::name), Ok(state.name()), "{word}");
        }
        for (word, names) in [
            ("CLOSEWAITT", "CLOSE_WAIT"),
            ("etsablished", "ESTABLISHED"),
            ("FIN_WAIT", "FIN_WAIT1, FIN_WAIT2"),
        ] {
            let error = parse(word, &texts).expect_err(word);
            assert!(error.contains(names), "{word}: {error}");
        }
        let error = parse("Bucket", &texts).expect_err("a group");
        assert_eq!(error, "'bucket' is a group of states: name one of them (SYN_RECV, TIME_WAIT)");
        let error = parse("banana", &texts).expect_err("no state");
        assert_eq!(error, "'banana' is not a TCP state; `sockstate explain` lists them");
        let error = parse("CLOSEWAITT", &texts).expect_err("no state");
        assert!(error.ends_with("did you mean CLOSE_WAIT? `sockstate explain` lists them"), "{error}");
    }
}
