//! The timeline for a terminal.

use super::{Lane, Timeline, describe};
use crate::{
    display::{duration, palette},
    model::printable,
};

/// Columns of the names before the lanes.
const NAMES: usize = 52;

impl Timeline {
    /// As text of this width; `styled` for a terminal.
    #[must_use]
    pub fn text(&self, width: usize, styled: bool) -> String {
        let paint = |sgr: &str, text: &str| {
            if styled { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let mut out = format!("{}\n\n", self.title);
        let plot = width.saturating_sub(NAMES + 1).max(20);
        if let [lane] = &self.lanes[..] {
            return out + &self.one(lane, plot.min(60), &paint);
        }
        out.push_str(&format!("{:NAMES$} {}\n", "", self.axis(plot).trim_end()));
        for lane in &self.lanes {
            let owner = printable(&lane.owner);
            let name: String = format!("{owner:<18} {}", lane.endpoints).chars().take(NAMES).collect();
            let name = format!("{name:<NAMES$}");
            let name = if lane.was_stuck { paint(palette::STUCK_SGR, &name) } else { name };
            let mut line = String::new();
            for cell in self.cells(lane, plot) {
                match cell {
                    Some(at) => {
                        let look = palette::of(lane.spans[at].state);
                        line.push_str(&paint(look.sgr, &look.letter.to_string()));
                    }
                    None => line.push(' '),
                }
            }
            out.push_str(&format!("{name} {}\n", line.trim_end()));
        }
        out.push('\n');
        let legend: Vec<String> = palette::ORDER
            .iter()
            .map(|state| {
                format!(
                    "{} {}",
                    paint(palette::of(*state).sgr, &palette::of(*state).letter.to_string()),
                    state.name()
                )
            })
            .collect();
        out.push_str(&format!("{}\n", legend.join("  ")));
        out.extend(self.left_out_note().map(|more| format!("{more}\n")));
        out
    }

    /// A line for each state.
    fn one(&self, lane: &Lane, plot: usize, paint: &dyn Fn(&str, &str) -> String) -> String {
        let mut out = String::new();
        let length = (self.end_ns - self.begin_ns) as f64;
        for span in &lane.spans {
            let look = palette::of(span.state);
            let begin = ((span.begin_ns - self.begin_ns) as f64 / length * plot as f64) as usize;
            let end = ((span.end_ns - self.begin_ns) as f64 / length * plot as f64).ceil() as usize;
            let begin = begin.min(plot - 1);
            let bar: String = "█".repeat(end.max(begin + 1) - begin);
            let offset = u64::try_from(span.begin_ns - self.begin_ns).unwrap_or(0);
            let bar = format!(
                "{}{}{}",
                " ".repeat(begin),
                paint(look.sgr, &bar),
                " ".repeat(plot - end.max(begin + 1).min(plot))
            );
            let text = printable(&describe(span));
            out.push_str(format!("+{:<7} {bar} {text}", duration(offset)).trim_end());
            out.push('\n');
        }
        out
    }

    /// For each column the span that covers most of its time.
    fn cells(&self, lane: &Lane, plot: usize) -> Vec<Option<usize>> {
        let length = (self.end_ns - self.begin_ns) as f64;
        let column = |at: usize| self.begin_ns + (length * at as f64 / plot as f64) as i64;
        (0..plot)
            .map(|at| {
                let (begin, end) = (column(at), column(at + 1).max(column(at) + 1));
                let share = |span: &super::StateSpan| span.end_ns.min(end) - span.begin_ns.max(begin);
                let is_here = |span: &super::StateSpan| span.begin_ns < end && span.end_ns >= begin;
                let here = lane.spans.iter().enumerate().filter(|(_, span)| is_here(span));
                here.max_by_key(|(_, span)| share(span)).map(|(at, _)| at)
            })
            .collect()
    }

    fn axis(&self, plot: usize) -> String {
        let mut axis = vec![' '; plot + 8];
        let length = (self.end_ns - self.begin_ns) as f64;
        for offset in self.ticks(plot as i64 / 12) {
            let at = (offset as f64 / length * plot as f64) as usize;
            let label = format!("|{}", if offset == 0 { "0".into() } else { duration(offset as u64) });
            for (cell, c) in axis.iter_mut().skip(at).zip(label.chars()) {
                *cell = c;
            }
        }
        axis.into_iter().collect()
    }
}
