//! The diagram as a self-contained SVG: no script, no embedded font, light or dark as the reader's system.

use super::{ARROWS, BOX, Diagram, PLACES, SIZE, StateBox};
use crate::draw::escape;

/// Pixels of a character cell.
const CELL: (f64, f64) = (9.6, 19.0);
/// Around the picture.
const MARGIN: f64 = 14.0;
/// Of a line of text.
const LINE: f64 = 20.0;

/// The colours: of the reader's system, and for print.
const STYLE: &str = ".tcp{--ink:#1f2328;--dim:#8c959f;--line:#57606a;--paper:#fff;--box:#f6f8fa;--stuck:#d55e00;--lit:#0072b2;\
background:var(--paper);font-family:ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif}\
@media(prefers-color-scheme:dark){.tcp{--ink:#e6edf3;--dim:#6e7681;--line:#9198a1;--paper:#0d1117;--box:#161b22;--stuck:#ff9e64;--lit:#56b4e9}}\
.tcp .b{fill:var(--box);stroke:var(--line);stroke-width:1.5}.tcp .n{font-weight:600;font-size:14px;fill:var(--ink);text-anchor:middle}\
.tcp .s{font-size:12px;fill:var(--ink);text-anchor:middle}.tcp .a{fill:none;stroke:var(--line)}.tcp .h{fill:var(--line)}.tcp .l{font-size:12px;fill:var(--ink);\
paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}.tcp .dim{opacity:.4}.tcp .lit .b{stroke:var(--lit);stroke-width:2.5}\
.tcp .lit .a{stroke:var(--lit)}.tcp .lit .h{fill:var(--lit)}.tcp .stuck .b{stroke:var(--stuck);stroke-width:3.5}.tcp .stuck .s{fill:var(--stuck);font-weight:700}\
.tcp .t{font-size:16px;font-weight:600;fill:var(--ink)}.tcp .f{font-size:12px;fill:var(--ink)}";

impl Diagram {
    /// As SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let footnotes = self.footnotes();
        let head = if self.title.is_empty() { 0.0 } else { LINE + 10.0 };
        let width = SIZE.0 as f64 * CELL.0 + 2.0 * MARGIN;
        let picture = SIZE.1 as f64 * CELL.1;
        let height = picture + head + (footnotes.len() as f64 + 1.0) * LINE + 2.0 * MARGIN;
        let mut out = format!(
            "<svg class=\"tcp\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
             role=\"img\" aria-label=\"TCP state diagram\"><style>{STYLE}</style>\n"
        );
        if head > 0.0 {
            let y = MARGIN + 14.0;
            out.push_str(&format!(
                "<text class=\"t\" x=\"{MARGIN}\" y=\"{y}\">{}</text>\n",
                escape(&self.title)
            ));
        }
        out.push_str(&format!("<g transform=\"translate({MARGIN} {:.0})\">\n", MARGIN + head));
        let (mut shapes, mut labels) = (String::new(), String::new());
        for arrow in &ARROWS {
            let count = self.count(arrow.way);
            let class = match (self.weights.is_some(), count) {
                (true, 0) => " class=\"dim\"",
                (true, _) if self.lit => " class=\"lit\"",
                _ => "",
            };
            let thickness = if self.weights.is_some() { self.thickness(count) } else { 1.5 };
            shapes.push_str(&format!("<g{class}>{}</g>\n", path(arrow.corners, thickness)));
            let (x, y) = centre(arrow.label_at);
            let text = escape(&self.label(arrow));
            labels.push_str(&format!(
                "<g{class}><text class=\"l\" x=\"{:.0}\" y=\"{:.0}\">{text}</text></g>\n",
                x - CELL.0 / 2.0,
                y + 4.0
            ));
        }
        out.push_str(&shapes);
        PLACES.iter().for_each(|place| out.push_str(&self.svg_box(place)));
        out.push_str(&labels);
        for (at, line) in footnotes.iter().enumerate() {
            let y = picture + (at as f64 + 1.0) * LINE;
            out.push_str(&format!("<text class=\"f\" x=\"0\" y=\"{y:.0}\">{}</text>\n", escape(line)));
        }
        out.push_str("</g></svg>\n");
        out
    }

    fn svg_box(&self, place: &StateBox) -> String {
        let class = match (self.now(place).1 > 0, self.is_lit(place), self.lit) {
            (true, ..) => "stuck",
            (_, false, _) => "dim",
            (_, _, true) => "lit",
            _ => "",
        };
        let (x, y) = (place.at.0 as f64 * CELL.0, place.at.1 as f64 * CELL.1);
        let (width, height) = (BOX.0 as f64 * CELL.0, BOX.1 as f64 * CELL.1);
        let middle = x + width / 2.0;
        let mut out = format!(
            "<g class=\"{class}\"><rect class=\"b\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"10\"/>",
            y + 4.0,
            height - 8.0
        );
        let below = self.now_text(place);
        let name_y = y + height / 2.0 + if below.is_empty() { 5.0 } else { -4.0 };
        out.push_str(&format!(
            "<text class=\"n\" x=\"{middle:.1}\" y=\"{name_y:.1}\">{}</text>",
            place.state.name()
        ));
        if !below.is_empty() {
            out.push_str(&format!(
                "<text class=\"s\" x=\"{middle:.1}\" y=\"{:.1}\">{below}</text>",
                name_y + 19.0
            ));
        }
        out.push_str("</g>\n");
        out
    }
}

/// The middle of a cell.
fn centre((x, y): (usize, usize)) -> (f64, f64) {
    ((x as f64 + 0.5) * CELL.0, (y as f64 + 0.5) * CELL.1)
}

/// A line, and its head.
fn path(corners: &[(usize, usize)], thickness: f64) -> String {
    let mut points: Vec<(f64, f64)> = corners.iter().map(|corner| centre(*corner)).collect();
    let (last, before) = (points[points.len() - 1], points[points.len() - 2]);
    let direction = toward(before, last);
    // From box to box: cells beside a box are half a cell away, and boxes are a little smaller than theirs.
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
        "<path class=\"a\" stroke-width=\"{thickness:.1}\" d=\"M{}\"/><path class=\"h\" d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}Z\"/>",
        text.join("L"),
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
