//! The diagram for a terminal, with box-drawing characters.

use super::{ARROWS, Arrow, BOX, Diagram, LabelAt, PLACES, SIZE, StateBox};
use crate::{display::palette, model::State};

/// The style of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CellStyle {
    #[default]
    Plain,
    Dim,
    Bold,
    /// Stuck connections.
    Stuck,
}

impl CellStyle {
    /// Parameters of SGR.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Stuck => palette::STUCK_SGR,
        }
    }
}

/// A grid of cells. The bits of `lines` are the directions in which lines leave a cell.
struct Canvas {
    cells: Vec<Vec<(char, CellStyle)>>,
    lines: Vec<Vec<u8>>,
}

const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

impl Canvas {
    fn new() -> Self {
        let (width, height) = SIZE;
        Self {
            cells: vec![vec![(' ', CellStyle::Plain); width]; height],
            lines: vec![vec![0; width]; height],
        }
    }

    fn set(&mut self, x: usize, y: usize, c: char, style: CellStyle) {
        if let Some(cell) = self.cells.get_mut(y).and_then(|row| row.get_mut(x)) {
            *cell = (c, style);
        }
    }

    fn text(&mut self, x: usize, y: usize, text: &str, style: CellStyle) {
        for (at, c) in text.chars().enumerate() {
            self.set(x + at, y, c, style);
        }
    }

    /// Draws a line from corner to corner, with a head at its end.
    fn arrow(&mut self, corners: &[(usize, usize)], style: CellStyle) {
        let mut point = '▶';
        for pair in corners.windows(2) {
            let ((mut x, mut y), end) = (pair[0], pair[1]);
            while (x, y) != end {
                let (out, into, next) = match (x.cmp(&end.0), y.cmp(&end.1)) {
                    (std::cmp::Ordering::Less, _) => (RIGHT, LEFT, (x + 1, y)),
                    (std::cmp::Ordering::Greater, _) => (LEFT, RIGHT, (x - 1, y)),
                    (_, std::cmp::Ordering::Less) => (DOWN, UP, (x, y + 1)),
                    _ => (UP, DOWN, (x, y - 1)),
                };
                point = match out {
                    RIGHT => '▶',
                    LEFT => '◀',
                    DOWN => '▼',
                    _ => '▲',
                };
                self.line(x, y, out, style);
                (x, y) = next;
                self.line(x, y, into, style);
            }
        }
        if let Some((x, y)) = corners.last() {
            self.set(*x, *y, point, style);
        }
    }

    fn line(&mut self, x: usize, y: usize, directions: u8, style: CellStyle) {
        let Some(line) = self.lines.get_mut(y).and_then(|row| row.get_mut(x)) else { return };
        *line |= directions;
        let c = match *line {
            LEFT | RIGHT | 12 => '─',
            UP | DOWN | 3 => '│',
            10 => '┌',
            6 => '┐',
            9 => '└',
            5 => '┘',
            11 => '├',
            7 => '┤',
            14 => '┬',
            13 => '┴',
            _ => '┼',
        };
        // A dim line does not cover a highlighted one.
        let before = self.cells.get(y).and_then(|row| row.get(x)).map(|cell| cell.1);
        let style = if style == CellStyle::Dim {
            before.filter(|style_before| *style_before != CellStyle::Plain).unwrap_or(style)
        } else {
            style
        };
        self.set(x, y, c, style);
    }

    fn into_text(self, styled: bool) -> String {
        let mut out = String::new();
        for row in self.cells {
            let end = row.iter().rposition(|(c, _)| *c != ' ').map_or(0, |at| at + 1);
            let mut now = CellStyle::Plain;
            for (c, style) in &row[..end] {
                if styled && *style != now {
                    // A style adds to the one before it.
                    let end =
                        if now == CellStyle::Plain || *style == CellStyle::Plain { "" } else { "\x1b[0m" };
                    out.push_str(&format!("{end}\x1b[{}m", style.code()));
                    now = *style;
                }
                out.push(*c);
            }
            if now != CellStyle::Plain {
                out.push_str("\x1b[0m");
            }
            out.push('\n');
        }
        out
    }
}

impl Diagram {
    /// As text, at most 79 columns wide below the title; `styled` for a terminal.
    #[must_use]
    pub fn text(&self, styled: bool) -> String {
        let mut canvas = Canvas::new();
        ARROWS.iter().for_each(|arrow| canvas.arrow(arrow.corners, self.arrow_style(arrow)));
        ARROWS.iter().for_each(|arrow| self.draw_label(arrow, &mut canvas));
        PLACES.iter().for_each(|place| self.draw_box(place, &mut canvas));
        let mut out = String::new();
        if !self.title.is_empty() {
            out.push_str(&format!("{}\n\n", self.title));
        }
        out.push_str(&canvas.into_text(styled));
        let notes = self.notes();
        if !notes.not_drawn.is_empty() {
            out.push_str("\nNot drawn:\n");
            notes.not_drawn.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
        out.push_str(&format!("\n{}\n", notes.legend));
        out
    }

    /// How many columns the text needs.
    #[must_use]
    pub fn columns(&self) -> usize {
        SIZE.0
    }

    /// The states and transitions with counts as a list, for less than [`Diagram::columns`] columns.
    #[must_use]
    pub fn list(&self, width: usize) -> String {
        let mut out = String::new();
        for place in PLACES.iter().filter(|place| !place.is_end) {
            let now = self.short_now_text(place);
            out.push_str(format!("{} {now}", place.state.name()).trim_end());
            out.push('\n');
            for arrow in
                ARROWS.iter().filter(|arrow| arrow.edge.0 == place.state && self.count(arrow.edge) > 0)
            {
                let line = format!("  -> {:<12}{}", arrow.edge.1.name(), self.label(arrow).join(" "));
                out.extend(line.chars().take(width));
                out.push('\n');
            }
        }
        for line in self.notes().not_drawn {
            out.push_str(&format!("{line}\n"));
        }
        out
    }

    fn arrow_style(&self, arrow: &Arrow) -> CellStyle {
        match (self.weights.is_some(), self.count(arrow.edge)) {
            (true, 0) => CellStyle::Dim,
            (true, _) => CellStyle::Bold,
            (false, _) => CellStyle::Plain,
        }
    }

    fn draw_label(&self, arrow: &Arrow, canvas: &mut Canvas) {
        let style = match self.arrow_style(arrow) {
            CellStyle::Dim => CellStyle::Dim,
            _ => CellStyle::Plain,
        };
        for (row, line) in self.label(arrow).iter().enumerate() {
            let (x, y) = match arrow.label_at {
                LabelAt::Begins(x, y) | LabelAt::Two(x, y) => (x, y),
                LabelAt::Ends(x, y) => ((x + 1).saturating_sub(line.chars().count()), y),
            };
            canvas.text(x, y + row, line, style);
        }
    }

    fn draw_box(&self, place: &StateBox, canvas: &mut Canvas) {
        let (x, y) = place.at;
        let (width, height) = BOX;
        let (now, stuck) = self.now(place);
        let style = match (stuck > 0, self.is_highlighted(place), self.weights.is_some() && now > 0) {
            (true, ..) => CellStyle::Stuck,
            (_, false, _) => CellStyle::Dim,
            (_, _, true) => CellStyle::Bold,
            _ => CellStyle::Plain,
        };
        let bar = "─".repeat(width - 2);
        canvas.text(x, y, &format!("╭{bar}╮"), style);
        canvas.text(x, y + 1, &format!("│{:^1$}│", place.state.name(), width - 2), style);
        let below = self.short_now_text(place);
        canvas.text(x, y + 2, &format!("│{below:^0$}│", width - 2), style);
        canvas.text(x, y + height - 1, &format!("╰{bar}╯"), style);
        if place.state == State::Close && self.weights.is_none() {
            let role = if place.is_end { "the end" } else { "the start" };
            canvas.text(x + 1, y + 2, &format!("{role:^0$}", width - 2), CellStyle::Dim);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Weights;

    /// A diagram with this count and time at each arrow, and its cells without and with labels.
    fn cells(count: u64, ns: u64) -> (Diagram, [Vec<Vec<char>>; 2]) {
        let edges =
            ARROWS.iter().map(|arrow| ((arrow.edge.0.name(), arrow.edge.1.name()), (count, Some(ns))));
        let weights = Weights { edges: edges.collect(), ..Weights::default() };
        let diagram = Diagram::weighed(weights, String::new());
        let mut canvas = Canvas::new();
        ARROWS.iter().for_each(|arrow| canvas.arrow(arrow.corners, CellStyle::Plain));
        PLACES.iter().for_each(|place| diagram.draw_box(place, &mut canvas));
        let letters =
            |canvas: &Canvas| canvas.cells.iter().map(|row| row.iter().map(|(c, _)| *c).collect()).collect();
        let lines = letters(&canvas);
        ARROWS.iter().for_each(|arrow| diagram.draw_label(arrow, &mut canvas));
        let labelled = letters(&canvas);
        (diagram, [lines, labelled])
    }

    #[test]
    fn labels_cover_no_line_no_box_and_no_other_label() {
        for (count, ns) in [(1, 9), (999, 350_000), (12_345, 59_000)] {
            let (diagram, [lines, labelled]) = cells(count, ns);
            for (before, after) in lines.iter().flatten().zip(labelled.iter().flatten()) {
                assert!(*before == ' ' || before == after, "{before} is now {after} at {count}x {ns}");
            }
            let text: Vec<String> = labelled.iter().map(|row| row.iter().collect()).collect();
            for label in ARROWS.iter().flat_map(|arrow| diagram.label(arrow)) {
                let whole = |row: &String| row.contains(&format!(" {label} ")) || row.ends_with(&label);
                assert!(text.iter().any(whole), "{label} is not whole: {text:#?}");
            }
        }
        // A label that is too long covers the line beside it.
        let (_, [lines, labelled]) = cells(12_345, 7_000_000_000_000);
        assert_ne!(
            lines.iter().flatten().filter(|c| **c == '│').count(),
            labelled.iter().flatten().filter(|c| **c == '│').count()
        );
    }

    #[test]
    fn the_picture_fits_80_columns() {
        let text = Diagram::default().text(false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
