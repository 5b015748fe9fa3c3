//! The diagram for a terminal, with box-drawing characters.

use super::{ARROWS, BOX, Diagram, PLACES, SIZE, StateBox};
use crate::{display::number, model::State};

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
    /// SGR parameters, as in the table; stuck ones are bold.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Stuck => "\x1b[1;31m",
        }
    }
}

/// A grid of cells; bits say in which directions a line leaves a cell.
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
                    out.push_str(if now == CellStyle::Plain { "" } else { "\x1b[0m" });
                    out.push_str(style.code());
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
    /// As text, 94 columns wide; `styled` for a terminal.
    #[must_use]
    pub fn text(&self, styled: bool) -> String {
        let mut canvas = Canvas::new();
        for arrow in &ARROWS {
            let style = match (self.weights.is_some(), self.count(arrow.way)) {
                (true, 0) => CellStyle::Dim,
                (true, _) => CellStyle::Bold,
                (false, _) => CellStyle::Plain,
            };
            canvas.arrow(arrow.corners, style);
            let (x, y) = arrow.label_at;
            let style = if style == CellStyle::Bold { CellStyle::Plain } else { style };
            canvas.text(x, y, &self.label(arrow), style);
        }
        for place in &PLACES {
            self.draw_box(place, &mut canvas);
        }
        let mut out = String::new();
        if !self.title.is_empty() {
            out.push_str(&format!("{}\n\n", self.title));
        }
        out.push_str(&canvas.into_text(styled));
        out.push('\n');
        for line in self.footnotes() {
            out.push_str(&format!("{line}\n"));
        }
        out
    }

    fn draw_box(&self, place: &StateBox, canvas: &mut Canvas) {
        let (x, y) = place.at;
        let (width, height) = BOX;
        let (now, stuck) = self.now(place);
        let style = match (stuck > 0, self.is_lit(place), self.weights.is_some() && now > 0) {
            (true, ..) => CellStyle::Stuck,
            (_, false, _) => CellStyle::Dim,
            (_, _, true) => CellStyle::Bold,
            _ => CellStyle::Plain,
        };
        let bar = "─".repeat(width - 2);
        canvas.text(x, y, &format!("╭{bar}╮"), style);
        canvas.text(x, y + 1, &format!("│{:^1$}│", place.state.name(), width - 2), style);
        let below = match (now, stuck) {
            (0, _) => String::new(),
            (now, 0) => format!("{} now", number(now)),
            (now, stuck) => format!("{} now, {} STUCK", number(now), number(stuck)),
        };
        let below =
            if below.chars().count() > width - 2 { format!("{} STUCK", number(stuck)) } else { below };
        canvas.text(x, y + 2, &format!("│{below:^0$}│", width - 2), style);
        canvas.text(x, y + height - 1, &format!("╰{bar}╯"), style);
        if place.state == State::Close && self.weights.is_none() {
            let role = if place.is_end { "the end" } else { "the beginning" };
            canvas.text(x + 1, y + 2, &format!("{role:^0$}", width - 2), CellStyle::Dim);
        }
    }
}
