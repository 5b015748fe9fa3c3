//! Both ends of a connection side by side, time going down.

use std::fmt::Write;

use super::{Page, Texts};
use crate::knowledge::{EndEvent, Segment, Walk};

/// Columns between the ends.
const MIDDLE: usize = 24;

/// The walk as text.
#[must_use]
pub fn walk(walk: &Walk, texts: &Texts, page: Page) -> String {
    let cell = |at: &EndEvent| match at {
        EndEvent::Nothing => String::new(),
        EndEvent::Is(state) => state.name().to_owned(),
        EndEvent::Calls(call) => format!("  {call}"),
        EndEvent::Note(key) => format!("  {}", texts.get(&format!("walks.{key}"))),
    };
    let ends = walk.ends.map(|end| texts.get(&format!("walks.{end}")).to_owned());
    // What has nothing beside it may be longer.
    let beside =
        walk.moments.iter().filter(|(_, way, right)| (*way, *right) != (Segment::Nothing, EndEvent::Nothing));
    let left = beside.map(|(left, _, _)| cell(left)).chain([ends[0].clone()]);
    let width = left.map(|text| text.chars().count()).max().unwrap_or(0);
    let mut out = format!("{}\n\n", page.bold(texts.get(&format!("walks.titles.{}", walk.name))));
    // Writing to a string does not fail.
    let _ =
        writeln!(out, "{}{}{}", page.dim(&pad(&ends[0], width)), " ".repeat(MIDDLE + 4), page.dim(&ends[1]));
    for (left, way, right) in walk.moments {
        let way = arrow(way, texts);
        let styled =
            |at: &EndEvent, text: String| if let EndEvent::Is(_) = at { page.bold(&text) } else { text };
        let (left, right) = (styled(left, pad(&cell(left), width)), styled(right, cell(right)));
        let line = format!("{left}  {way}  {right}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(out, "\n{}", page.dim(walk.source));
    out
}

fn arrow(way: &Segment, texts: &Texts) -> String {
    let (begin, name, end) = match way {
        Segment::Nothing => return " ".repeat(MIDDLE),
        Segment::Right(name) => ('─', *name, '▶'),
        Segment::Left(name) => ('◀', *name, '─'),
        Segment::Both(name) => ('◀', *name, '▶'),
    };
    let name = if name == "data" { texts.get("walks.data") } else { name };
    let line = MIDDLE - 4 - name.chars().count();
    format!("{begin}{} {name} {}{end}", "─".repeat(line / 2), "─".repeat(line - line / 2))
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}
