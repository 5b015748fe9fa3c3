//! Draws the screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Sparkline, Wrap},
};

use super::{App, Sort, View};
use crate::{
    display::{duration, endpoint, number, palette},
    draw::{Diagram, Weights},
    model::{Role, State, printable},
    story::ConnHistory,
};

/// Lines of the states' part, where there is room.
const STATES: u16 = 11;
/// From this height on they are shown one below another.
const TALL: u16 = 28;
/// From this width on the processes are beside them.
const WIDE: u16 = 104;
/// A column of the table: its name, its width, what a click on it sorts by.
type Column = (&'static str, usize, Sort);

const COLUMNS: [Column; 6] = [
    ("STATE", 12, Sort::State),
    ("AGE", 8, Sort::Age),
    ("PROCESS", 26, Sort::Process),
    ("ROLE", 9, Sort::Stuck),
    ("LOCAL", 24, Sort::Local),
    ("REMOTE", 24, Sort::Remote),
];
/// Where there is less room than [`WIDE`].
const NARROW: [Column; 4] = [
    ("STATE", 12, Sort::State),
    ("AGE", 8, Sort::Age),
    ("PROCESS", 17, Sort::Process),
    ("PEER", 23, Sort::Remote),
];

fn columns(width: u16) -> &'static [Column] {
    if width >= WIDE { &COLUMNS } else { &NARROW }
}

/// Keys and what they do, for the help.
const KEYS: [(&str, &str); 13] = [
    ("up down, k j", "select a socket"),
    ("PgUp PgDn, Home End", "by pages, first, last"),
    ("Enter", "everything about it: its way so far, what its state means, who holds it, why, what to do"),
    ("/", "search: words that must all be there: close_wait nginx 10.0. stuck; Esc ends it"),
    ("s, and 1 to 6", "sort: stuck, age, state, process, local, remote"),
    ("r", "reverse the order"),
    ("c", "only CLOSE_WAIT; again: all"),
    ("d", "the state machine, with counts and median times"),
    ("f, Space", "freeze, and go on"),
    ("?", "this"),
    ("Esc", "back"),
    ("mouse", "select, wheel; a click on a column's name sorts (ROLE: stuck first)"),
    ("q", "quit"),
];

/// What a click on the head of the column at `x` sorts by.
pub(super) fn column_at(x: u16, width: u16) -> Option<Sort> {
    let mut end = 0;
    columns(width).iter().find_map(|(_, width, sort)| {
        end += width;
        (usize::from(x) < end).then_some(*sort)
    })
}

impl App {
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let compact = (area.height < TALL).then(|| self.compact(area.width));
        let states = compact.as_ref().map_or(STATES + 1, |lines| lines.len() as u16);
        let parts =
            [Constraint::Length(1), Constraint::Length(states), Constraint::Min(3), Constraint::Length(1)];
        let [head, above, below, foot] = Layout::vertical(parts).areas(area);
        frame.render_widget(Paragraph::new(self.head()), head);
        match compact {
            Some(lines) => frame.render_widget(Paragraph::new(lines), above),
            None => self.draw_above(frame, above),
        }
        match self.view {
            View::Sockets => self.draw_table(frame, below),
            View::Detail => {
                let lines = self.selected().map(|history| self.detail(history)).unwrap_or_default();
                self.draw_long(frame, below, " socket ", lines, true);
            }
            View::Diagram => {
                let text = Diagram::weighed(Weights::of(self.shown()), String::new()).text(false);
                let lines = text.lines().map(|line| Line::raw(line.to_owned())).collect();
                // It is larger than most terminals: all of the screen is for it.
                let whole = Rect { y: head.y + 1, height: area.height.saturating_sub(2), ..area };
                self.draw_long(
                    frame,
                    whole,
                    " states: number of transitions, and median time in the state before ",
                    lines,
                    false,
                );
            }
            View::Help => {
                let lines = KEYS.iter().map(|(key, what)| {
                    Line::from(vec![Span::styled(format!("{key:<20} "), self.bold()), Span::raw(*what)])
                });
                self.draw_long(frame, below, " keys ", lines.collect(), true);
            }
        }
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn head(&self) -> Line<'static> {
        let story = self.shown();
        let host = story.host.as_ref().map(|(host, _)| format!("{host} ")).unwrap_or_default();
        let lost: u64 = story.lost.values().sum();
        let mut spans = vec![
            Span::styled("sockstate ", self.bold()),
            Span::raw(format!(
                "{host}{} | {} sockets | {} transitions, {}/s",
                self.source,
                number(story.histories.len() as u64),
                number(story.transitions),
                number(self.samples.total_rate())
            )),
        ];
        if lost > 0 {
            spans.push(Span::styled(format!(" | {} LOST", number(lost)), self.alarm()));
        }
        if self.frozen.is_some() {
            spans.push(Span::styled(" | FROZEN", self.alarm()));
        } else if self.ended {
            spans.push(Span::styled(" | the end", self.bold()));
        }
        Line::from(spans)
    }

    fn foot(&self) -> Line<'static> {
        if self.typing || !self.search.is_empty() {
            let cursor = if self.typing { "_" } else { "  (Esc: all)" };
            return Line::from(vec![
                Span::styled("search: ", self.bold()),
                Span::raw(format!("{}{cursor}", self.search)),
            ]);
        }
        Line::styled(
            "Enter detail  / search  s sort  c CLOSE_WAIT  d diagram  f freeze  ? help  q quit",
            Style::new().add_modifier(Modifier::DIM),
        )
    }

    /// The states in as few lines as they fit into.
    fn compact(&self, width: u16) -> Vec<Line<'static>> {
        let tally = &self.totals.states;
        let mut lines = vec![Vec::new()];
        let mut used = 0;
        for state in palette::ORDER {
            let (count, stuck) = tally.get(state.name()).copied().unwrap_or_default();
            if count == 0 && state != State::Established {
                continue;
            }
            let stuck = if stuck > 0 { format!("({} stuck)", number(stuck)) } else { String::new() };
            let text = format!("{} {}{stuck}  ", state.name(), number(count));
            if used + text.len() > usize::from(width) && used > 0 {
                lines.push(Vec::new());
                used = 0;
            }
            used += text.len();
            if let Some(line) = lines.last_mut() {
                line.push(Span::styled(text, self.style(state)));
            }
        }
        lines.into_iter().map(Line::from).collect()
    }

    /// States, one below another, and the processes beside them.
    fn draw_above(&self, frame: &mut Frame<'_>, area: Rect) {
        let processes = if area.width >= WIDE { 44 } else { 0 };
        let [left, right] =
            Layout::horizontal([Constraint::Min(40), Constraint::Length(processes)]).areas(area);
        let tally = &self.totals.states;
        let title = format!("{:<12}{:>8} {:>7} {:>7}  LAST TWO MINUTES", "STATE", "NOW", "STUCK", "NEW/S");
        frame.render_widget(Line::styled(title, self.bold()), Rect { height: 1, ..left });
        for (at, state) in (1..).zip(palette::ORDER) {
            let row = Rect { y: left.y + at, height: 1, ..left };
            if row.y >= left.bottom() {
                break;
            }
            let (count, stuck) = tally.get(state.name()).copied().unwrap_or_default();
            let stuck_text = if stuck > 0 { number(stuck) } else { String::new() };
            let text = format!("{:<12}{:>8} ", state.name(), number(count));
            let rate = match self.samples.rate(state.name()) {
                0 => String::new(),
                rate => number(rate),
            };
            let spans = vec![
                Span::styled(text, self.style(state)),
                Span::styled(format!("{stuck_text:>7} "), self.alarm()),
                Span::raw(format!("{rate:>7}  ")),
            ];
            frame.render_widget(Line::from(spans), row);
            let spark = Rect { x: row.x + 38, width: row.width.saturating_sub(40).min(120), ..row };
            let counts = self.samples.counts(state.name(), spark.width.into());
            frame.render_widget(Sparkline::default().data(&counts).style(self.style(state)), spark);
        }
        if processes > 0 {
            self.draw_processes(frame, right);
        }
    }

    fn draw_processes(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut lines =
            vec![Line::styled(format!("{:<25}{:>8}{:>9}", "PROCESS", "STUCK", "SOCKETS"), self.bold())];
        for process in self.totals.processes.iter().take(area.height.saturating_sub(1).into()) {
            let (stuck, count) = (process.stuck, process.sockets);
            let name: String = printable(&process.name).chars().take(24).collect();
            let style = if stuck > 0 { self.alarm() } else { Style::new() };
            let stuck = if stuck > 0 { number(stuck) } else { String::new() };
            lines.push(Line::styled(format!("{name:<25}{stuck:>8}{:>9}", number(count)), style));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let lines = area.height.saturating_sub(1);
        self.table_at = area;
        let mut head: String =
            columns(area.width).iter().map(|(name, width, _)| format!("{name:<width$}")).collect();
        let direction = if self.rows.reverse { " reversed" } else { "" };
        let (at, len) = ((self.rows.at() + 1).min(self.rows.len()), self.rows.len());
        let place = format!("{at} of {len}, by {}{direction}", self.rows.sort.name());
        let room = usize::from(area.width).saturating_sub(place.chars().count());
        head = format!("{:<room$}{place}", head.chars().take(room).collect::<String>());
        let style = self.bold().add_modifier(Modifier::UNDERLINED);
        frame.render_widget(Line::styled(head, style), Rect { height: 1, ..area });
        let selected = self.rows.selected();
        let shown: Vec<_> = self.rows.window(lines.into()).to_vec();
        for (at, conn) in (1..).zip(shown) {
            let Some(history) = self.shown().histories.get(&conn) else { continue };
            let mut line = self.row(history, area.width);
            if Some(conn) == selected {
                line = line.style(Style::new().add_modifier(Modifier::REVERSED));
            }
            frame.render_widget(line, Rect { y: area.y + at, height: 1, ..area });
        }
        if self.rows.len() == 0 {
            let text = if self.search.is_empty() { "no socket yet" } else { "nothing matches" };
            frame.render_widget(Line::raw(text), Rect { y: area.y + 1, height: 1, ..area });
        }
    }

    fn row(&self, history: &ConnHistory, width: u16) -> Line<'static> {
        let at_least = if history.at_least { ">" } else { "" };
        let owner = history
            .subject
            .owner
            .as_ref()
            .map_or_else(String::new, |owner| format!("{} ({})", owner.comm, owner.pid()));
        let tuple = &history.tuple;
        let local = endpoint(tuple.local, tuple.local_port);
        let listens = history.state == State::Listen;
        let remote = if listens { String::new() } else { endpoint(tuple.remote, tuple.remote_port) };
        let mut spans = Vec::new();
        for (name, width, _) in columns(width) {
            let text = match *name {
                "STATE" => history.state.name().to_owned(),
                "AGE" => format!("{at_least}{}", duration(self.age_ns(history))),
                "PROCESS" => printable(&owner),
                "ROLE" => history.role.map_or("", Role::name).to_owned(),
                "LOCAL" => local.clone(),
                "PEER" if listens => local.clone(),
                _ => remote.clone(),
            };
            let style = if *name == "STATE" { self.style(history.state) } else { Style::new() };
            let text: String = text.chars().take(width - 1).collect();
            spans.push(Span::styled(format!("{text:<width$}"), style));
        }
        if history.is_stuck {
            let reason = history
                .stuck
                .as_ref()
                .and_then(|stuck| stuck.found.as_ref())
                .map(|found| found.1.why.clone());
            spans.push(Span::styled(
                format!("STUCK {}", printable(&reason.unwrap_or_default())),
                self.alarm(),
            ));
        }
        Line::from(spans)
    }

    fn draw_long(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        title: &str,
        lines: Vec<Line<'static>>,
        wrap: bool,
    ) {
        let room = area.height.saturating_sub(2);
        let most = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(room.min(1));
        self.scroll = self.scroll.min(most);
        let text =
            Paragraph::new(lines).block(Block::bordered().title(title.to_owned())).scroll((self.scroll, 0));
        frame.render_widget(Clear, area);
        frame.render_widget(if wrap { text.wrap(Wrap { trim: false }) } else { text }, area);
    }

    pub(super) fn bold(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn alarm(&self) -> Style {
        if self.coloured { self.bold().fg(Color::LightRed) } else { self.bold() }
    }

    /// As `palette` says it.
    pub(super) fn style(&self, state: State) -> Style {
        palette::of(state).sgr.split(';').fold(Style::new(), |style, part| match part {
            "1" => style.add_modifier(Modifier::BOLD),
            "2" => style.add_modifier(Modifier::DIM),
            _ if !self.coloured => style,
            "31" => style.fg(Color::LightRed),
            "32" => style.fg(Color::Green),
            "33" => style.fg(Color::Yellow),
            "34" => style.fg(Color::Blue),
            "35" => style.fg(Color::Magenta),
            "36" => style.fg(Color::Cyan),
            _ => style,
        })
    }
}
