//! The timeline as an SVG without scripts and fonts of its own.

use super::{Lane, Timeline, describe, describe_lane};
use crate::{
    display::{duration, palette},
    draw::{
        escape,
        theme::{self, fill, stroke},
    },
};

/// Pixels around the picture.
const MARGIN: f64 = 14.0;
/// Pixels of the plot, of a lane's height, and of the row with the axis.
const PLOT: f64 = 900.0;
const LANE: f64 = 22.0;
const AXIS: f64 = 26.0;

impl Timeline {
    /// As SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let (owners, ends) = self.columns();
        let left = MARGIN + owners + ends;
        let width = left + PLOT + 60.0;
        let title = theme::wrapped(&self.title, (width / 12.0) as usize);
        let top = MARGIN + theme::title_height(&title) + AXIS;
        let bottom = top + self.lanes.len() as f64 * LANE;
        let more = self.note();
        let height = bottom + 44.0 + if more.is_some() { 24.0 } else { 0.0 };
        let mut out = theme::svg((width, height), "lanes", &self.title);
        out.push_str(&theme::title(&title, MARGIN));
        let length = (self.end_ns - self.begin_ns) as f64;
        for offset in self.ticks(8) {
            let x = left + offset as f64 / length * PLOT;
            let label = if offset == 0 { "0".into() } else { duration(offset as u64) };
            out.push_str(&format!(
                "<path {} d=\"M{x:.1} {:.0}V{bottom:.0}\"/><text {} text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.0}\">{label}</text>\n",
                stroke(palette::RULE),
                top - 6.0,
                fill(palette::DIM),
                top - 12.0
            ));
        }
        for (at, lane) in self.lanes.iter().enumerate() {
            let y = top + at as f64 * LANE;
            out.push_str(&format!("<g data-lane=\"{}\" transform=\"translate(0 {y:.0})\">", lane.conn));
            out.push_str(&names(lane, MARGIN + owners));
            out.push_str(&format!(
                "<g transform=\"translate({left:.0} 0)\">{}</g></g>\n",
                self.bars(lane, PLOT)
            ));
        }
        out.push_str(&legend(bottom + 28.0));
        if let Some(more) = more {
            out.push_str(&format!(
                "<text {} x=\"{MARGIN}\" y=\"{:.0}\">{more}</text>\n",
                fill(palette::DIM),
                bottom + 54.0
            ));
        }
        out.push_str("</svg>\n");
        out
    }

    /// The widths of the columns with owners and endpoints, for the longest of them.
    fn columns(&self) -> (f64, f64) {
        let widest = |text: fn(&Lane) -> &str, size: f64| {
            self.lanes.iter().map(|lane| pixels(text(lane), size)).fold(60.0, f64::max) + 14.0
        };
        (widest(|lane| &lane.owner, 8.6), widest(|lane| &lane.endpoints, 7.8))
    }

    /// The spans of a lane, scaled to `width`, each with a tooltip.
    pub(super) fn bars(&self, lane: &Lane, width: f64) -> String {
        let length = (self.end_ns - self.begin_ns) as f64;
        let mut out = String::new();
        for span in &lane.spans {
            let begin = (span.begin_ns - self.begin_ns).max(0) as f64 / length * width;
            let end = (span.end_ns - self.begin_ns).max(0) as f64 / length * width;
            let shade = palette::of(span.state).shade;
            out.push_str(&format!(
                "<rect {} stroke-width=\"1\" vector-effect=\"non-scaling-stroke\" x=\"{begin:.2}\" y=\"4\" width=\"{:.2}\" height=\"14\">\
                 <title>{}</title></rect>",
                theme::frame(shade, shade),
                // A span without width would be invisible.
                (end - begin).max(0.01),
                escape(&describe(span))
            ));
        }
        out
    }
}

/// An upper bound of the width of a text, if no character of ASCII is wider than `size` pixels.
fn pixels(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if c.is_ascii() { size } else { size * 1.6 }).sum()
}

/// Owner and ends of a connection; the ends begin at `ends_x`.
fn names(lane: &Lane, ends_x: f64) -> String {
    let shade = if lane.was_stuck { palette::STUCK } else { palette::INK };
    format!(
        "<text {} font-weight=\"600\" x=\"{MARGIN}\" y=\"15\">{}<title>{}</title></text>\
         <text {} x=\"{ends_x:.0}\" y=\"15\">{}</text>",
        fill(shade),
        escape(&lane.owner),
        describe_lane(lane),
        fill(palette::DIM),
        escape(&lane.endpoints)
    )
}

fn legend(y: f64) -> String {
    let mut out = String::new();
    let mut x = MARGIN;
    for state in palette::ORDER {
        let name = state.name();
        out.push_str(&format!(
            "<rect {} x=\"{x:.0}\" y=\"{:.0}\" width=\"14\" height=\"12\"/><text {} x=\"{:.0}\" y=\"{y:.0}\">{name}</text>",
            fill(palette::of(state).shade),
            y - 10.0,
            fill(palette::INK),
            x + 19.0
        ));
        x += 34.0 + pixels(name, 8.8);
    }
    out.push('\n');
    out
}
