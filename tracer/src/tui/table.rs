//! The table of sockets: columns that fit the width of the screen and the sockets that are shown.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{App, Sort, fit};
use crate::{
    display::{duration, endpoint},
    model::{Role, State, printable},
    story::ConnHistory,
};

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    State,
    Age,
    Process,
    Local,
    Remote,
    Role,
    Unit,
    Path,
    Why,
}

impl Kind {
    /// All, in the order of the columns.
    const ALL: [Self; 9] = [
        Self::State,
        Self::Age,
        Self::Process,
        Self::Local,
        Self::Remote,
        Self::Role,
        Self::Unit,
        Self::Path,
        Self::Why,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Age => "AGE",
            Self::Process => "PROCESS",
            Self::Local => "LOCAL",
            Self::Remote => "REMOTE",
            Self::Role => "ROLE",
            Self::Unit => "UNIT",
            Self::Path => "STATES BEFORE",
            Self::Why => "WHY",
        }
    }

    /// What a click on the title sorts by.
    fn sort(self) -> Sort {
        match self {
            Self::State => Sort::State,
            Self::Age => Sort::Age,
            Self::Process | Self::Unit => Sort::Process,
            Self::Local => Sort::Local,
            Self::Remote => Sort::Remote,
            Self::Role | Self::Path | Self::Why => Sort::Stuck,
        }
    }

    /// The smallest useful width; `None` for columns that are left out first.
    fn least(self) -> Option<usize> {
        match self {
            Self::State => Some(12),
            Self::Age => Some(6),
            Self::Process => Some(10),
            Self::Local | Self::Remote => Some(14),
            Self::Role | Self::Unit | Self::Path | Self::Why => None,
        }
    }
}

/// Optional columns: their smallest useful width. The first of them is the most important.
const OPTIONAL: [(Kind, usize); 4] = [(Kind::Why, 24), (Kind::Role, 8), (Kind::Unit, 10), (Kind::Path, 24)];

/// The columns as they were drawn.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// The width of the screen, and the largest widths that were needed since it changed: columns do not jump.
    width: usize,
    needed: [usize; Kind::ALL.len()],
    shown: Vec<(Kind, usize)>,
}

impl Columns {
    /// What a click on the title at `x` sorts by.
    pub(super) fn sort_at(&self, x: u16) -> Option<Sort> {
        let mut end = 0;
        let column = self.shown.iter().find(|(_, width)| {
            end += width + 1;
            usize::from(x) < end
        });
        column.map(|(kind, _)| kind.sort())
    }

    /// Chooses columns for these rows.
    fn arrange(&mut self, rows: &[Row], width: usize) {
        if self.width != width {
            *self = Self { width, ..Self::default() };
        }
        for row in rows {
            for (needed, text) in self.needed.iter_mut().zip(&row.texts) {
                *needed = (*needed).max(fit::columns(text));
            }
        }
        self.shown = columns(&self.needed, width);
    }
}

/// Columns and their widths, one space apart, for texts of the `needed` widths.
fn columns(needed: &[usize; Kind::ALL.len()], width: usize) -> Vec<(Kind, usize)> {
    let wanted = |kind: Kind| needed[kind as usize].max(kind.title().len());
    let mut chosen: Vec<(Kind, usize)> =
        Kind::ALL.iter().filter_map(|kind| Some((*kind, kind.least()?))).collect();
    let used =
        |chosen: &[(Kind, usize)]| chosen.iter().map(|(_, width)| width + 1).sum::<usize>().saturating_sub(1);
    for kind in [Kind::Process, Kind::Remote, Kind::Age] {
        if used(&chosen) > width {
            chosen.retain(|(other, _)| *other != kind);
        }
    }
    for kind in [Kind::Age, Kind::Process, Kind::Local, Kind::Remote] {
        let room = width.saturating_sub(used(&chosen));
        if let Some((_, width)) = chosen.iter_mut().find(|(other, _)| *other == kind) {
            *width = wanted(kind).clamp(*width, *width + room);
        }
    }
    for (kind, least) in OPTIONAL {
        let room = width.saturating_sub(used(&chosen) + 1);
        if needed[kind as usize] > 0 && room >= least.min(wanted(kind)) {
            chosen.push((kind, wanted(kind).min(room)));
        }
    }
    chosen.sort_by_key(|(kind, _)| *kind as usize);
    chosen
}

/// The texts of a row, by [`Kind`].
struct Row {
    texts: [String; Kind::ALL.len()],
    state: State,
    is_stuck: bool,
    is_selected: bool,
}

impl App {
    pub(super) fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        self.table_at = area;
        let selected = self.rows.selected();
        let shown = self.rows.window(area.height.saturating_sub(1).into()).to_vec();
        let rows: Vec<Row> = shown
            .iter()
            .filter_map(|conn| Some(self.row(self.shown().histories.get(conn)?, Some(*conn) == selected)))
            .collect();
        self.columns.arrange(&rows, area.width.into());
        let titles: Vec<String> = self
            .columns
            .shown
            .iter()
            .map(|(kind, width)| format!("{:<width$}", fit::start(kind.title(), *width)))
            .collect();
        let style = self.bold().add_modifier(Modifier::UNDERLINED);
        let head = format!("{:<1$}", titles.join(" "), usize::from(area.width));
        frame.render_widget(Line::styled(head, style), Rect { height: 1, ..area });
        for (at, row) in (1..).zip(&rows) {
            frame.render_widget(self.line(row), Rect { y: area.y + at, height: 1, ..area });
        }
        if self.rows.len() == 0 {
            let text = if self.search.is_empty() { "no socket yet" } else { "nothing matches" };
            frame.render_widget(Line::raw(text), Rect { y: area.y + 1, height: 1, ..area });
        }
    }

    fn row(&self, history: &ConnHistory, is_selected: bool) -> Row {
        let at_least = if history.at_least { ">" } else { "" };
        let owner = history.subject.owner.as_ref();
        let tuple = &history.tuple;
        let text = |kind: Kind| match kind {
            Kind::State => format!("{}{}", history.state.name(), if history.is_stuck { "!" } else { "" }),
            Kind::Age => format!("{at_least}{}", duration(self.age_ns(history))),
            Kind::Process => owner
                .map_or_else(String::new, |owner| printable(&format!("{} ({})", owner.comm, owner.pid()))),
            Kind::Local => endpoint(tuple.local, tuple.local_port),
            Kind::Remote if history.state == State::Listen => String::new(),
            Kind::Remote => endpoint(tuple.remote, tuple.remote_port),
            Kind::Role => history.role.map_or("", Role::name).to_owned(),
            Kind::Unit => printable(&place(history)),
            Kind::Path => path(history),
            Kind::Why => why(history),
        };
        Row { texts: Kind::ALL.map(text), state: history.state, is_stuck: history.is_stuck, is_selected }
    }

    fn line(&self, row: &Row) -> Line<'static> {
        let mut spans = Vec::new();
        for (at, (kind, width)) in self.columns.shown.iter().enumerate() {
            let text = &row.texts[*kind as usize];
            let text = match kind {
                Kind::Process => fit::process(text, *width),
                Kind::Local | Kind::Remote => fit::endpoint(text, *width),
                _ => fit::start(text, *width),
            };
            let style = match kind {
                Kind::State if row.is_stuck => self.alarm(),
                Kind::State => self.style(row.state),
                Kind::Why => self.alarm(),
                _ => Style::new(),
            };
            let gap = if at == 0 { "" } else { " " };
            spans.push(Span::raw(gap));
            spans.push(Span::styled(fit::padded(&text, *width), style));
        }
        let line = Line::from(spans);
        if row.is_selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
    }
}

/// The unit or the container.
fn place(history: &ConnHistory) -> String {
    let subject = &history.subject;
    let container = || subject.container.as_ref().map(|container| fit::start(container.shown_name(), 12));
    subject.unit.clone().or_else(container).unwrap_or_default()
}

/// The states of the connection before the current one, with the time in each.
fn path(history: &ConnHistory) -> String {
    let step = |step: &crate::story::Step| {
        let time = step.in_state.map_or_else(String::new, |time| format!(" {}", duration(time.ns)));
        format!("{}{time}", step.from.name())
    };
    let steps = history.steps.iter().filter(|step| !matches!(step.from, State::Close | State::Listen));
    steps.map(step).collect::<Vec<_>>().join(", ")
}

/// Why it is stuck.
fn why(history: &ConnHistory) -> String {
    if !history.is_stuck {
        return String::new();
    }
    let found = history.stuck.as_ref().and_then(|stuck| stuck.found.as_ref());
    printable(&format!("STUCK {}", found.map_or("", |found| &found.1.why))).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_every_width() {
        let needed = [11, 6, 23, 45, 45, 8, 20, 70, 80];
        for width in 0..400 {
            let columns = columns(&needed, width);
            let used: usize = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(used <= width.max(28) + 1, "{width}: {columns:?}");
            let has = |kind| columns.iter().any(|(other, _)| *other == kind);
            assert!(has(Kind::State) && has(Kind::Local), "{width}: {columns:?}");
            assert!(width < 60 || (has(Kind::Remote) && has(Kind::Process) && has(Kind::Age)), "{width}");
        }
        // With room for all, nothing is shortened.
        for (kind, width) in columns(&needed, 400) {
            assert!(width >= needed[kind as usize], "{kind:?}");
        }
    }
}
