//! Draws the screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Paragraph},
};

use super::{App, View, fit};
use crate::{
    display::{number, palette},
    draw::{Diagram, Weights},
    model::{State, printable},
};

/// Lines of the part with the states, where there is room.
const STATES: u16 = 11;
/// From this height on the states are shown one below another.
const TALL: u16 = 28;

/// Keys and what they do, for the help.
const KEYS: [(&str, &str); 14] = [
    ("up down, k j", "select a socket"),
    ("PgUp PgDn, Home End", "by pages, first, last"),
    ("Enter", "everything about a socket: its states so far, who holds it, why, what to do"),
    ("left right", "in the view of a socket: the previous socket, the next one"),
    ("/", "search: words that a row must contain: close_wait nginx 10.0. stuck; Esc ends it"),
    ("s, and 1 to 6", "sort by: stuck, age, state, process, local, remote"),
    ("r", "reverse the order"),
    ("c", "only CLOSE_WAIT; again: all"),
    ("d", "the state machine, with counts and median times"),
    ("f, Space", "freeze the screen; again: continue"),
    ("?", "this help"),
    ("Esc", "back"),
    ("mouse", "select; wheel: scroll; a click on the title of a column sorts"),
    ("q", "quit"),
];

/// Keys in the last line: those that have room, the first ones before others.
const HINTS: [(u8, &str); 8] = [
    (6, "? help"),
    (7, "q quit"),
    (0, "Enter detail"),
    (1, "/ search"),
    (2, "s sort"),
    (4, "d diagram"),
    (3, "c CLOSE_WAIT"),
    (5, "f freeze"),
];

impl App {
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let compact = (area.height < TALL).then(|| self.compact(area.width));
        let states = compact.as_ref().map_or(STATES + 1, |lines| lines.len() as u16);
        let parts =
            [Constraint::Length(1), Constraint::Length(states), Constraint::Min(3), Constraint::Length(1)];
        let [head, above, below, foot] = Layout::vertical(parts).areas(area);
        frame.render_widget(Paragraph::new(self.head(area.width)), head);
        match compact {
            Some(lines) => frame.render_widget(Paragraph::new(lines), above),
            None => self.draw_above(frame, above),
        }
        // Long views need more room than the table, where the screen is small.
        let whole = Rect { y: head.y + 1, height: area.height.saturating_sub(2), ..area };
        let long = if area.height < TALL { whole } else { below };
        match self.view {
            View::Sockets => self.draw_table(frame, below),
            View::Detail => {
                let width = usize::from(area.width.saturating_sub(2));
                let lines = self.selected().map(|history| self.detail(history, width)).unwrap_or_default();
                self.draw_long(frame, long, "socket", Borders::ALL, lines);
            }
            View::Diagram => {
                let diagram = Diagram::weighed(Weights::of(self.shown()), String::new());
                let text = if usize::from(area.width) >= diagram.columns() {
                    diagram.text(false)
                } else {
                    diagram.list(area.width.into())
                };
                let lines = text.lines().map(|line| Line::raw(line.to_owned())).collect();
                self.draw_long(frame, whole, "state machine", Borders::TOP, lines);
            }
            View::Help => {
                let lines = self.help(area.width.saturating_sub(2).into());
                self.draw_long(frame, long, "keys", Borders::ALL, lines);
            }
        }
        frame.render_widget(Paragraph::new(self.foot(area.width)), foot);
    }

    fn head(&self, width: u16) -> Line<'static> {
        let story = self.shown();
        let lost: u64 = story.lost.values().sum();
        let lost = if lost > 0 { format!(" | {} LOST", number(lost)) } else { String::new() };
        let alarm = match (self.frozen.is_some(), self.ended) {
            (true, _) => format!("{lost} | FROZEN"),
            (_, true) => format!("{lost} | the end"),
            _ => lost,
        };
        let name = "sockstate ";
        let room = usize::from(width).saturating_sub(name.len() + alarm.chars().count());
        let host = story.host.as_ref().map(|(host, _)| format!("{} ", printable(host))).unwrap_or_default();
        let parts = vec![
            (1, format!("{} sockets", number(story.histories.len() as u64))),
            (3, format!("{}/s", number(self.samples.total_rate()))),
            (0, fit::start(&format!("{host}{}", self.source), 40)),
            (2, format!("{} transitions", number(story.transitions))),
        ];
        Line::from(vec![
            Span::styled(name, self.bold()),
            Span::raw(fit::parts(parts, " | ", room)),
            Span::styled(alarm, self.alarm()),
        ])
    }

    fn foot(&self, width: u16) -> Line<'static> {
        if self.typing || !self.search.is_empty() {
            let cursor = if self.typing { "_" } else { "  (Esc: all)" };
            let place = self.place();
            return Line::from(vec![
                Span::styled("search: ", self.bold()),
                Span::raw(format!("{}{cursor}  {place}", self.search)),
            ]);
        }
        let mut parts: Vec<(u8, String)> =
            HINTS.iter().map(|(at, hint)| (at + 1, (*hint).to_owned())).collect();
        if self.view == View::Sockets {
            // Help and the way out are more important than the place.
            parts.insert(2, (0, self.place()));
        }
        let text = fit::parts(parts, "  ", width.into());
        Line::styled(text, Style::new().add_modifier(Modifier::DIM))
    }

    /// Which of how many rows is selected, and the order of the rows.
    fn place(&self) -> String {
        let (at, len) = ((self.rows.at() + 1).min(self.rows.len()), self.rows.len());
        let direction = if self.rows.reverse { " reversed" } else { "" };
        format!("{at} of {len}, by {}{direction}", self.rows.sort.name())
    }

    fn help(&self, width: usize) -> Vec<Line<'static>> {
        const KEY: usize = 21;
        let mut lines = Vec::new();
        for (key, what) in KEYS {
            for (at, text) in fit::wrap(what, width.saturating_sub(KEY)).into_iter().enumerate() {
                let key = if at == 0 { key } else { "" };
                lines.push(Line::from(vec![
                    Span::styled(format!("{key:<KEY$}"), self.bold()),
                    Span::raw(text),
                ]));
            }
        }
        lines
    }

    /// A view that may be longer than the screen; its title says which part of it is shown.
    fn draw_long(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        title: &str,
        borders: Borders,
        lines: Vec<Line<'static>>,
    ) {
        let edges = if borders == Borders::ALL { 2 } else { 1 };
        let room = area.height.saturating_sub(edges);
        let count = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        self.scroll = self.scroll.min(count.saturating_sub(room));
        let mut parts = vec![(0, title.to_owned())];
        if count > room {
            let end = self.scroll.saturating_add(room).min(count);
            parts.push((1, format!("lines {} to {end} of {count}", self.scroll + 1)));
            parts.push((2, "up and down: scroll".to_owned()));
        }
        let title = format!(" {} ", fit::parts(parts, ", ", area.width.saturating_sub(4).into()));
        let block = Block::new().borders(borders).title(title);
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(lines).block(block).scroll((self.scroll, 0)), area);
    }

    pub(super) fn bold(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The style of stuck sockets and lost records.
    pub(super) fn alarm(&self) -> Style {
        self.sgr(palette::STUCK_SGR)
    }

    pub(super) fn style(&self, state: State) -> Style {
        self.sgr(palette::of(state).sgr)
    }

    /// The style for parameters of SGR.
    fn sgr(&self, parameters: &str) -> Style {
        parameters.split(';').fold(Style::new(), |style, part| match part {
            "1" => style.add_modifier(Modifier::BOLD),
            "2" => style.add_modifier(Modifier::DIM),
            _ if !self.coloured => style,
            "31" => style.fg(Color::LightRed),
            "33" => style.fg(Color::Yellow),
            "35" => style.fg(Color::Magenta),
            "36" => style.fg(Color::Cyan),
            "94" => style.fg(Color::LightBlue),
            _ => style,
        })
    }
}
