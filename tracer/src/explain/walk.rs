//! Both ends of a connection side by side, time going down.

use std::fmt::Write;

use super::{Page, Texts};
use crate::knowledge::{At, Walk, Way};

/// Columns between the ends.
const MIDDLE: usize = 24;

/// The walk as text.
#[must_use]
pub fn walk(walk: &Walk, texts: &Texts, page: Page) -> String {
    let cell = |at: &At| match at {
        At::Nothing => String::new(),
        At::Is(state) => state.name().to_owned(),
        At::Calls(call) => format!("  {call}"),
        At::Note(key) => format!("  {}", texts.get(&format!("walks.{key}"))),
    };
    let ends = walk.ends.map(|end| texts.get(&format!("walks.{end}")).to_owned());
    // What has nothing beside it may be longer.
    let beside = walk.moments.iter().filter(|(_, way, right)| (*way, *right) != (Way::Nothing, At::Nothing));
    let left = beside.map(|(left, _, _)| cell(left)).chain([ends[0].clone()]);
    let width = left.map(|text| text.chars().count()).max().unwrap_or(0);
    let mut out = format!("{}\n\n", page.bold(texts.get(&format!("walks.titles.{}", walk.name))));
    // Writing to a string does not fail.
    let _ =
        writeln!(out, "{}{}{}", page.dim(&pad(&ends[0], width)), " ".repeat(MIDDLE + 4), page.dim(&ends[1]));
    for (left, way, right) in walk.moments {
        let way = arrow(way, texts);
        let styled = |at: &At, text: String| if let At::Is(_) = at { page.bold(&text) } else { text };
        let (left, right) = (styled(left, pad(&cell(left), width)), styled(right, cell(right)));
        let line = format!("{left}  {way}  {right}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(out, "\n{}", page.dim(walk.source));
    out
}

fn arrow(way: &Way, texts: &Texts) -> String {
    let (begin, name, end) = match way {
        Way::Nothing => return " ".repeat(MIDDLE),
        Way::Right(name) => ('─', *name, '▶'),
        Way::Left(name) => ('◀', *name, '─'),
        Way::Both(name) => ('◀', *name, '▶'),
    };
    let name = if name == "data" { texts.get("walks.data") } else { name };
    let line = MIDDLE - 4 - name.chars().count();
    format!("{begin}{} {name} {}{end}", "─".repeat(line / 2), "─".repeat(line - line / 2))
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}
