//! The timeline as a self-contained SVG.

use super::{Lane, Timeline, describe};
use crate::{
    display::{duration, palette},
    draw::escape,
};

/// Pixels: names, lanes, a lane's height, the head above them.
const NAMES: f64 = 390.0;
const PLOT: f64 = 1000.0;
const LANE: f64 = 22.0;
const HEAD: f64 = 64.0;

/// The looks, for both kinds of picture.
pub(super) const STYLE: &str = ".lanes{--ink:#1f2328;--dim:#6e7781;--rule:#d0d7de;--paper:#fff;--stuck:#d55e00}\
@media(prefers-color-scheme:dark){.lanes{--ink:#e6edf3;--dim:#8d96a0;--rule:#30363d;--paper:#0d1117;--stuck:#ff9e64}}\
.lanes{font-family:ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif;background:var(--paper)}\
.lanes text{font-size:12px;fill:var(--ink)}.lanes .t{font-size:16px;font-weight:600}.lanes .w{font-weight:600}.lanes .e,.lanes .k{fill:var(--dim)}\
.lanes .stuck .w{fill:var(--stuck)}\
.lanes .p{fill:currentColor;stroke:currentColor;stroke-width:1;vector-effect:non-scaling-stroke}.lanes .r{stroke:var(--rule)}";

impl Timeline {
    /// As SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let rows = self.lanes.len() as f64;
        let height = HEAD + rows * LANE + 60.0;
        let width = NAMES + PLOT + 40.0;
        let mut out = format!(
            "<svg class=\"lanes\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
             aria-label=\"connections over time\"><style>{STYLE}</style>\n<text class=\"t\" x=\"14\" y=\"26\">{}</text>\n",
            escape(&self.title)
        );
        let length = (self.end_ns - self.begin_ns) as f64;
        for offset in self.ticks(10) {
            let x = NAMES + offset as f64 / length * PLOT;
            let label = if offset == 0 { "0".into() } else { duration(offset as u64) };
            out.push_str(&format!(
                "<line class=\"r\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{:.0}\"/><text class=\"k\" x=\"{x:.1}\" y=\"{:.0}\">{label}</text>\n",
                HEAD - 6.0,
                HEAD + rows * LANE,
                HEAD - 12.0
            ));
        }
        for (at, lane) in self.lanes.iter().enumerate() {
            let y = HEAD + at as f64 * LANE;
            let class = if lane.was_stuck { " class=\"stuck\"" } else { "" };
            out.push_str(&format!("<g{class} transform=\"translate(0 {y:.0})\">"));
            out.push_str(&names(lane));
            out.push_str(&format!(
                "<g transform=\"translate({NAMES} 0)\">{}</g></g>\n",
                self.bars(lane, PLOT)
            ));
        }
        out.push_str(&legend(HEAD + rows * LANE + 30.0));
        if let Some(more) = self.more() {
            out.push_str(&format!(
                "<text class=\"e\" x=\"14\" y=\"{:.0}\">{more}</text>\n",
                HEAD + rows * LANE + 52.0
            ));
        }
        out.push_str("</svg>\n");
        out
    }

    /// The spans of a lane, scaled to `width`, each with a tooltip.
    pub(super) fn bars(&self, lane: &Lane, width: f64) -> String {
        let length = (self.end_ns - self.begin_ns) as f64;
        let mut out = String::new();
        for span in &lane.spans {
            let begin = (span.begin_ns - self.begin_ns).max(0) as f64 / length * width;
            let end = (span.end_ns - self.begin_ns).max(0) as f64 / length * width;
            let fill = palette::of(span.state).colour;
            out.push_str(&format!(
                "<rect class=\"p\" x=\"{begin:.2}\" y=\"4\" width=\"{:.2}\" height=\"14\" color=\"{fill}\"><title>{}</title></rect>",
                                // A span without width would be invisible.
                (end - begin).max(0.01),
                escape(&describe(span))
            ));
        }
        out
    }
}

/// Owner and ends of a connection.
pub(super) fn names(lane: &Lane) -> String {
    let whose: String = lane.whose.chars().take(22).collect();
    let ends: String = lane.ends.chars().take(36).collect();
    format!(
        "<text class=\"w\" x=\"14\" y=\"15\">{}<title>connection {}</title></text><text class=\"e\" x=\"158\" y=\"15\">{}<title>{}</title></text>",
        escape(&whose),
        lane.conn,
        escape(&ends),
        escape(&lane.ends)
    )
}

fn legend(y: f64) -> String {
    let mut out = String::new();
    let mut x = 14.0;
    for state in palette::ORDER {
        let name = state.name();
        out.push_str(&format!(
            "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"14\" height=\"12\" fill=\"{}\"/><text x=\"{:.0}\" y=\"{y:.0}\">{name}</text>",
            y - 10.0,
            palette::of(state).colour,
            x + 19.0
        ));
        x += 42.0 + 8.0 * name.len() as f64;
    }
    out
}
