//! The part above the table: how many sockets are in each state, and which processes and services they belong to.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Paragraph, Sparkline},
};

use super::{App, fit, totals::CountRow};
use crate::{
    display::{number, palette},
    model::printable,
};

/// Columns of a list of processes or services.
const LIST: u16 = 46;
/// From this width on the processes are beside the states.
const WIDE: u16 = 104;
/// From this width on the services are beside the processes.
const WIDER: u16 = 150;
/// Columns of the counts before a sparkline.
const COUNTS: u16 = 38;

impl App {
    /// The states in as few lines as they fit into.
    pub(super) fn compact(&self, width: u16) -> Vec<Line<'static>> {
        let tally = &self.totals.states;
        let mut lines = vec![Vec::new()];
        let mut used = 0;
        for state in palette::ORDER {
            let (count, stuck) = tally.get(state.name()).copied().unwrap_or_default();
            if count == 0 && state != crate::model::State::Established {
                continue;
            }
            let stuck = if stuck > 0 { format!("({} stuck)", number(stuck)) } else { String::new() };
            let text = format!("{} {}{stuck}", state.name(), number(count));
            let gap = if used == 0 { 0 } else { 2 };
            if used + gap + text.len() > usize::from(width) && used > 0 {
                lines.push(Vec::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push(Span::raw(if used == 0 { "" } else { "  " }));
                used += if used == 0 { 0 } else { 2 } + text.len();
                line.push(Span::styled(text, self.style(state)));
            }
        }
        lines.into_iter().map(Line::from).collect()
    }

    /// States, one below another, and processes and services beside them.
    pub(super) fn draw_above(&self, frame: &mut Frame<'_>, area: Rect) {
        let processes = if area.width >= WIDE { LIST } else { 0 };
        let services = if area.width >= WIDER { LIST } else { 0 };
        let parts = [Constraint::Min(40), Constraint::Length(processes), Constraint::Length(services)];
        let [left, middle, right] = Layout::horizontal(parts).areas(area);
        self.draw_states(frame, left);
        self.draw_list(frame, middle, "PROCESS", &self.totals.processes);
        self.draw_list(frame, right, "SERVICE", &self.totals.services);
    }

    fn draw_states(&self, frame: &mut Frame<'_>, area: Rect) {
        let tally = &self.totals.states;
        let title = format!("{:<12}{:>8} {:>7} {:>7}  LAST TWO MINUTES", "STATE", "NOW", "STUCK", "NEW/S");
        frame.render_widget(Line::styled(title, self.bold()), Rect { height: 1, ..area });
        for (at, state) in (1..).zip(palette::ORDER) {
            let row = Rect { y: area.y + at, height: 1, ..area };
            if row.y >= area.bottom() {
                break;
            }
            let (count, stuck) = tally.get(state.name()).copied().unwrap_or_default();
            let shown = |count: u64| if count > 0 { number(count) } else { String::new() };
            let spans = vec![
                Span::styled(format!("{:<12}{:>8} ", state.name(), number(count)), self.style(state)),
                Span::styled(format!("{:>7} ", shown(stuck)), self.alarm()),
                Span::raw(format!("{:>7}  ", shown(self.samples.rate(state.name())))),
            ];
            frame.render_widget(Line::from(spans), row);
            let width = row.width.saturating_sub(COUNTS + 2).min(120);
            let spark = Rect { x: row.x + COUNTS, width, ..row };
            let counts = self.samples.counts(state.name(), width.into());
            frame.render_widget(Sparkline::default().data(&counts).style(self.style(state)), spark);
        }
    }

    fn draw_list(&self, frame: &mut Frame<'_>, area: Rect, title: &str, rows: &[CountRow]) {
        if area.width == 0 {
            return;
        }
        let mut lines = vec![Line::styled(format!("{title:<27}{:>8}{:>9}", "STUCK", "SOCKETS"), self.bold())];
        for row in rows.iter().take(area.height.saturating_sub(1).into()) {
            let style = if row.stuck > 0 { self.alarm() } else { Style::new() };
            let stuck = if row.stuck > 0 { number(row.stuck) } else { String::new() };
            let name = fit::padded(&fit::process(&printable(&row.name), 26), 27);
            lines.push(Line::styled(format!("{name}{stuck:>8}{:>9}", number(row.sockets)), style));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }
}
