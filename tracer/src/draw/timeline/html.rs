//! The timeline as a page of one file, which its script zooms, moves and filters.

use super::{Lane, Timeline, describe_lane};
use crate::{
    display::{duration, palette},
    draw::{escape, theme},
};

/// Units of the lanes' width: the browser scales them to the width of the window.
const UNITS: f64 = 1_000_000.0;

/// The style of the lanes, in this page and in a report. On a narrow screen the names are above the plot.
pub(crate) const LANES_STYLE: &str = include_str!("lanes.css");

/// The script of the lanes. The view is a part of the lanes' units; only the view boxes change, and the axis.
pub(crate) const LANES_SCRIPT: &str = include_str!("lanes.js");

const PAGE_STYLE: &str = "body{margin:0 14px 20px;background:var(--paper);color:var(--ink);font:13px/1.45 ui-sans-serif,system-ui,'Segoe UI',\
'DejaVu Sans',sans-serif}h1{font-size:17px;margin:12px 0 8px;overflow-wrap:anywhere}";

impl Timeline {
    /// As HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title><style>{}{}{PAGE_STYLE}{LANES_STYLE}</style>\n\
             <body data-keys=\"all\"><h1>{title}</h1>\n{}<script>{LANES_SCRIPT}</script></body></html>\n",
            theme::variables(":root"),
            theme::rules(),
            self.lanes_html(),
        )
    }

    /// The filter, the legend, the axis and the lanes.
    pub(crate) fn lanes_html(&self) -> String {
        let mut out = format!(
            "<div class=\"lanes\" tabindex=\"0\" data-ns=\"{}\"><div class=\"head\"><input class=\"filter\" \
             placeholder=\"filter: a process, an address, a state\" aria-label=\"filter\"><div class=\"legend\">",
            self.end_ns - self.begin_ns
        );
        for state in palette::ORDER {
            out.push_str(&format!(
                "<span><i style=\"background:var(--{})\"></i>{}</span>",
                palette::of(state).shade.name,
                state.name()
            ));
        }
        out.push_str(&format!("</div><div class=\"axis\">{}</div></div>\n", self.axis_html()));
        self.lanes.iter().for_each(|lane| out.push_str(&self.lane_html(lane)));
        out.push_str(
            "<p class=\"hint\">Point at a span to see what it is. Ctrl and wheel, or + and -: zoom. Drag, or arrow keys: move. \
             Double click, or 0: everything.",
        );
        if let Some(more) = self.note() {
            out.push_str(&format!(" {more}."));
        }
        out.push_str("</p></div>\n");
        out
    }

    /// The axis, for browsers without scripts; the script replaces it.
    fn axis_html(&self) -> String {
        let length = (self.end_ns - self.begin_ns) as f64;
        let mark = |offset: i64| {
            let label = if offset == 0 { "0".into() } else { duration(offset as u64) };
            format!("<b style=\"left:{:.2}%\">{label}</b>", offset as f64 / length * 100.0)
        };
        self.ticks(3).into_iter().map(mark).collect()
    }

    fn lane_html(&self, lane: &Lane) -> String {
        let states: Vec<&str> = lane.spans.iter().map(|span| span.state.name()).collect();
        let text = format!("{} {} {} {}", lane.owner, lane.endpoints, lane.conn, states.join(" "));
        let class = if lane.was_stuck { "lane stuck" } else { "lane" };
        let others = match lane.others {
            0 => String::new(),
            others => format!(" <i>and {others} more</i>"),
        };
        format!(
            "<div class=\"{class}\" data-text=\"{}\"><span title=\"{}\"><b>{}</b>{others} <small>{}</small></span>\
             <svg class=\"plot\" viewBox=\"0 0 {UNITS} 22\" preserveAspectRatio=\"none\">{}</svg></div>\n",
            escape(&text),
            describe_lane(lane),
            escape(&lane.owner),
            escape(&lane.endpoints),
            self.bars(lane, UNITS)
        )
    }
}
