//! The diagram as an SVG without scripts and fonts of its own.

use super::{ARROWS, Arrow, BOX, Diagram, LabelAt, PLACES, SIZE, StateBox};
use crate::{
    display::palette::{self, Shade},
    draw::{
        escape,
        theme::{self, fill, frame, stroke},
    },
};

/// Pixels of a character cell.
const CELL: (f64, f64) = (9.6, 19.0);
/// Pixels around the picture.
const MARGIN: f64 = 14.0;
/// Pixels from one line of text to the next.
const LINE: f64 = 20.0;
/// Characters of a title in one line.
const TITLE: usize = 66;

impl Diagram {
    /// As SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let title = match (self.title.as_str(), &self.weights) {
            ("", None) => "The states of a TCP connection on Linux",
            (title, _) => title,
        };
        let lines = theme::wrapped(title, TITLE);
        let head = theme::title_height(&lines);
        let width = SIZE.0 as f64 * CELL.0 + 2.0 * MARGIN;
        let picture = SIZE.1 as f64 * CELL.1 + 12.0;
        let (below, below_height) = self.below(picture, width - 2.0 * MARGIN);
        let height = head + picture + below_height + 2.0 * MARGIN;
        let mut out = theme::svg((width, height), "tcp", if title.is_empty() { "TCP states" } else { title });
        out.push_str(&theme::title(&lines, MARGIN));
        out.push_str(&format!("<g transform=\"translate({MARGIN} {:.0})\">\n", MARGIN + head));
        ARROWS.iter().for_each(|arrow| out.push_str(&self.svg_arrow(arrow)));
        PLACES.iter().for_each(|place| out.push_str(&self.svg_box(place)));
        out.push_str(&below);
        out.push_str("</g></svg>\n");
        out
    }

    fn svg_arrow(&self, arrow: &Arrow) -> String {
        let count = self.count(arrow.edge);
        let (line, text) = match (self.weights.is_some(), count) {
            (true, 0) => (palette::FAINT, palette::DIM),
            (true, _) if self.highlights_path => (palette::PATH, palette::INK),
            _ => (palette::LINE, palette::INK),
        };
        let thickness = if self.weights.is_some() { self.thickness(count) } else { 1.5 };
        let dashes = if self.weights.is_some() && count == 0 { " stroke-dasharray=\"4 4\"" } else { "" };
        let (from, to) = arrow.edge;
        let mut out =
            format!("<g data-edge=\"{from} {to}\">{}", path(arrow.corners, thickness, line, dashes));
        let (anchor, (x, y)) = match arrow.label_at {
            LabelAt::Begins(x, y) | LabelAt::Two(x, y) => ("start", (x, y)),
            LabelAt::Ends(x, y) => ("end", (x + 1, y)),
        };
        for (row, label) in self.label(arrow).iter().enumerate() {
            out.push_str(&format!(
                "<text {} text-anchor=\"{anchor}\" x=\"{:.0}\" y=\"{:.0}\">{}</text>",
                fill(text),
                x as f64 * CELL.0,
                (y + row) as f64 * CELL.1 + 13.5 - row as f64 * 4.0,
                escape(label)
            ));
        }
        out.push_str("</g>\n");
        out
    }

    fn svg_box(&self, place: &StateBox) -> String {
        let is_stuck = self.now(place).1 > 0;
        let (line, thickness, text) = match (is_stuck, self.is_highlighted(place), self.highlights_path) {
            (true, ..) => (palette::STUCK, 3.5, palette::INK),
            (_, false, _) => (palette::FAINT, 1.5, palette::DIM),
            (_, _, true) => (palette::PATH, 2.5, palette::INK),
            _ => (palette::LINE, 1.5, palette::INK),
        };
        let (x, y) = (place.at.0 as f64 * CELL.0, place.at.1 as f64 * CELL.1);
        let (width, height) = (BOX.0 as f64 * CELL.0, BOX.1 as f64 * CELL.1);
        let middle = x + width / 2.0;
        let mut out = format!(
            "<g data-state=\"{}\"><rect {} stroke-width=\"{thickness}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"10\"/>",
            place.state.name(),
            frame(palette::BOX, line),
            y + 4.0,
            height - 8.0
        );
        let below = self.short_now_text(place);
        let name_y = y + height / 2.0 + if below.is_empty() { 5.0 } else { -4.0 };
        out.push_str(&format!(
            "<text {} font-size=\"14\" font-weight=\"600\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{name_y:.1}\">{}</text>",
            fill(text),
            place.state.name()
        ));
        if !below.is_empty() {
            out.push_str(&format!(
                "<text {} font-weight=\"{}\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{below}</text>",
                fill(if is_stuck { palette::STUCK } else { palette::INK }),
                if is_stuck { 700 } else { 400 },
                name_y + 19.0
            ));
        }
        out.push_str("</g>\n");
        out
    }

    /// The notes and the legend from `top` on, in a frame of this width; and their height.
    fn below(&self, top: f64, width: f64) -> (String, f64) {
        let notes = self.notes();
        let mut out = String::new();
        let mut y = top;
        if !notes.not_drawn.is_empty() {
            let height = (notes.not_drawn.len() as f64 + 1.0) * LINE + 14.0;
            out.push_str(&format!(
                "<g data-note=\"not drawn\"><rect {} x=\"0\" y=\"{y:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>",
                frame(palette::BOX, palette::RULE)
            ));
            let lines = std::iter::once("Not drawn").chain(notes.not_drawn.iter().map(String::as_str));
            for (at, line) in lines.enumerate() {
                let weight = if at == 0 { 600 } else { 400 };
                let text_y = y + 20.0 + at as f64 * LINE;
                out.push_str(&text_at((12.0, text_y), weight, line));
            }
            out.push_str("</g>\n");
            y += height + 10.0;
        }
        out.push_str(&text_at((0.0, y + 14.0), 400, notes.legend));
        y += LINE;
        if self.weights.is_some() {
            out.push_str(&self.samples(y + 14.0));
            y += LINE;
        }
        (out, y - top)
    }

    /// A sample of each kind of line and frame.
    fn samples(&self, y: f64) -> String {
        let (what, shade) = if self.highlights_path {
            ("the path of this connection", palette::PATH)
        } else {
            ("the thicker, the more transitions", palette::LINE)
        };
        let line = |x: f64, shade: Shade, more: &str| {
            format!("<path {} {more} d=\"M{x} {1:.0}H{2}\"/>", stroke(shade), y - 4.0, x + 34.0)
        };
        let frame = format!(
            "<rect {} stroke-width=\"3\" x=\"462\" y=\"{:.0}\" width=\"32\" height=\"12\" rx=\"4\"/>",
            frame(palette::BOX, palette::STUCK),
            y - 10.0
        );
        [
            line(0.0, shade, "stroke-width=\"3\""),
            text_at((42.0, y), 400, what),
            line(280.0, palette::FAINT, "stroke-dasharray=\"4 4\""),
            text_at((322.0, y), 400, "no transition"),
            frame,
            text_at((502.0, y), 400, "connections are stuck"),
        ]
        .concat()
    }
}

fn text_at((x, y): (f64, f64), weight: u32, text: &str) -> String {
    format!(
        "<text {} font-weight=\"{weight}\" x=\"{x:.0}\" y=\"{y:.0}\">{}</text>\n",
        fill(palette::INK),
        escape(text)
    )
}

/// The middle of a cell.
fn centre((x, y): (usize, usize)) -> (f64, f64) {
    ((x as f64 + 0.5) * CELL.0, (y as f64 + 0.5) * CELL.1)
}

/// A line, and its head.
fn path(corners: &[(usize, usize)], thickness: f64, shade: Shade, more: &str) -> String {
    let mut points: Vec<(f64, f64)> = corners.iter().map(|corner| centre(*corner)).collect();
    let (last, before) = (points[points.len() - 1], points[points.len() - 2]);
    let direction = toward(before, last);
    // From box to box: cells beside a box are half a cell away, and boxes are a little smaller than their cells.
    let first = points[0];
    let from = toward(first, points[1]);
    points[0] = (first.0 - from.0 * CELL.0 / 2.0, first.1 - from.1 * (CELL.1 / 2.0 + 4.0));
    let tip = (last.0 + direction.0 * CELL.0 / 2.0, last.1 + direction.1 * (CELL.1 / 2.0 + 4.0));
    let size = 7.0 + thickness;
    let neck = (tip.0 - direction.0 * size, tip.1 - direction.1 * size);
    let end = points.len() - 1;
    points[end] = neck;
    let text: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let half = size / 2.2;
    let (wing_x, wing_y) = (direction.1 * half, direction.0 * half);
    format!(
        "<path {} stroke-width=\"{thickness:.1}\"{more} d=\"M{}\"/><path {} d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}Z\"/>",
        stroke(shade),
        text.join("L"),
        fill(shade),
        tip.0,
        tip.1,
        neck.0 + wing_x,
        neck.1 + wing_y,
        neck.0 - wing_x,
        neck.1 - wing_y
    )
}

/// One step along an axis.
fn toward(from: (f64, f64), to: (f64, f64)) -> (f64, f64) {
    let step = |from: f64, to: f64| if from == to { 0.0 } else { (to - from).signum() };
    (step(from.0, to.0), step(from.1, to.1))
}
