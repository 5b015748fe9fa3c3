//! The timeline for a terminal.

use textwrap::core::display_width;

use super::{Lane, StateSpan, Timeline, describe};
use crate::{
    display::{duration, palette, paragraph},
    model::{State, printable},
};

/// Columns of the names before the lanes.
const NAMES: usize = 52;
/// Columns of a plot that stands beside names or texts, at least. With less room, the plot stands below them.
const LEAST_PLOT: usize = 20;
/// Columns of the plot of a single connection, at most.
const MOST_PLOT: usize = 60;
/// Columns of the time before a state of a single connection.
const OFFSET: usize = 9;

/// The text under construction, for a terminal of this width.
struct Text {
    out: String,
    width: usize,
    styled: bool,
}

impl Text {
    fn paint(&self, sgr: &str, text: &str) -> String {
        if self.styled { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    /// Writes a text, in as many lines as it needs.
    fn paragraph(&mut self, head: &str, text: &str) {
        self.out.push_str(&paragraph(head, text, Some(self.width)));
    }

    /// Writes the letter and the name of each state.
    fn legend(&mut self) {
        let mut line = String::new();
        for state in palette::ORDER {
            let item = format!("{} {}", self.letter(state), state.name());
            if !line.is_empty() && display_width(&line) + 2 + display_width(&item) > self.width {
                self.line(&std::mem::take(&mut line));
            }
            line.push_str(if line.is_empty() { "" } else { "  " });
            line.push_str(&item);
        }
        self.line(&line);
    }

    fn letter(&self, state: State) -> String {
        let look = palette::of(state);
        self.paint(look.sgr, &look.letter.to_string())
    }
}

impl Timeline {
    /// As text of this width; `styled` for a terminal.
    #[must_use]
    pub fn text(&self, width: usize, styled: bool) -> String {
        let mut text = Text { out: String::new(), width: width.max(1), styled };
        text.paragraph("", &self.title);
        text.line("");
        if let [lane] = &self.lanes[..] {
            self.one(lane, &mut text);
            if let Some(numbers) = self.note() {
                text.line("");
                text.paragraph("", &numbers);
            }
            return text.out;
        }
        self.many(&mut text);
        text.line("");
        text.legend();
        if let Some(more) = self.note() {
            text.paragraph("", &more);
        }
        text.out
    }

    /// A line for each connection; two where its name has no room before the plot.
    fn many(&self, text: &mut Text) {
        let is_beside = text.width > NAMES + LEAST_PLOT;
        let left = if is_beside { NAMES + 1 } else { 0 };
        let plot = text.width - left;
        text.line(&format!("{:left$}{}", "", self.axis(plot)));
        for lane in &self.lanes {
            let owner_width = if is_beside { 18 } else { 0 };
            let name = format!("{:<owner_width$} {}", printable(&lane.owner), lane.endpoints);
            let sgr = if lane.was_stuck { palette::STUCK_SGR } else { "" };
            let paint = |text: &Text, name: &str| {
                if sgr.is_empty() { name.to_owned() } else { text.paint(sgr, name) }
            };
            let mut head = String::new();
            if is_beside && display_width(&name) <= NAMES {
                let spare = NAMES - display_width(&name);
                head = paint(text, &format!("{name}{:spare$}", "")) + " ";
            } else {
                for line in paragraph("", &name, Some(text.width)).lines() {
                    text.line(&paint(text, line));
                }
                head.extend(std::iter::repeat_n(' ', left));
            }
            for cell in self.cells(lane, plot) {
                head.push_str(&cell.map_or_else(|| " ".to_owned(), |at| text.letter(lane.spans[at].state)));
            }
            text.line(&head);
        }
    }

    /// A line for each state; two where its description has no room after the plot.
    fn one(&self, lane: &Lane, text: &mut Text) {
        let told = |span: &StateSpan| printable(&describe(span));
        let longest = lane.spans.iter().map(|span| display_width(&told(span))).max().unwrap_or(0);
        let beside = text.width.saturating_sub(OFFSET + longest + 1);
        let is_beside = beside >= LEAST_PLOT;
        let plot = if is_beside { beside } else { text.width }.min(MOST_PLOT);
        for span in &lane.spans {
            let offset = u64::try_from(span.begin_ns - self.begin_ns).unwrap_or(0);
            let offset = format!("+{:<7} ", duration(offset));
            let (begin, end) = self.columns_of(span, plot);
            let bar = text.paint(palette::of(span.state).sgr, &"█".repeat(end - begin));
            let bar = format!("{:begin$}{bar}", "");
            if is_beside {
                text.line(&format!("{offset}{bar}{:1$} {2}", "", plot - end, told(span)));
            } else {
                text.paragraph(&offset, &told(span));
                text.line(&bar);
            }
        }
    }

    /// The first column of a span in a plot, and the column after its last; at least one column.
    fn columns_of(&self, span: &StateSpan, plot: usize) -> (usize, usize) {
        let length = (self.end_ns - self.begin_ns) as f64;
        let column = |at_ns: i64| (at_ns - self.begin_ns) as f64 / length * plot as f64;
        let begin = (column(span.begin_ns) as usize).min(plot.saturating_sub(1));
        (begin, (column(span.end_ns).ceil() as usize).clamp(begin + 1, plot.max(begin + 1)))
    }

    /// For each column the span that covers most of its time.
    fn cells(&self, lane: &Lane, plot: usize) -> Vec<Option<usize>> {
        let length = (self.end_ns - self.begin_ns) as f64;
        let column = |at: usize| self.begin_ns + (length * at as f64 / plot as f64) as i64;
        (0..plot)
            .map(|at| {
                let (begin, end) = (column(at), column(at + 1).max(column(at) + 1));
                let share = |span: &StateSpan| span.end_ns.min(end) - span.begin_ns.max(begin);
                let is_here = |span: &StateSpan| span.begin_ns < end && span.end_ns >= begin;
                let here = lane.spans.iter().enumerate().filter(|(_, span)| is_here(span));
                here.max_by_key(|(_, span)| share(span)).map(|(at, _)| at)
            })
            .collect()
    }

    /// The marks of the times that have room.
    fn axis(&self, plot: usize) -> String {
        let mut axis = String::new();
        let length = (self.end_ns - self.begin_ns) as f64;
        for offset in self.ticks((plot as i64 / 12).max(1)) {
            let at = (offset as f64 / length * plot as f64) as usize;
            let label = format!("|{}", if offset == 0 { "0".into() } else { duration(offset as u64) });
            let end = axis.len();
            let has_room = at + label.len() <= plot && (end == 0 || at > end);
            if has_room {
                axis.push_str(&format!("{:1$}{label}", "", at - end));
            }
        }
        axis
    }
}
