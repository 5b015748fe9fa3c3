//! The rows of the table: filter, order, selection.

use std::cmp::Reverse;

use crate::{
    display::endpoint,
    model::{ConnId, State},
    story::{ConnHistory, Story},
};

/// The order of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Stuck connections first, then the longest in their state.
    #[default]
    Stuck,
    /// The longest in their state first.
    Age,
    /// By state.
    State,
    /// By process.
    Process,
    /// By local address and port.
    Local,
    /// By remote address and port.
    Remote,
}

impl Sort {
    /// All orders, in the order of their keys.
    pub const ALL: [Self; 6] =
        [Self::Stuck, Self::Age, Self::State, Self::Process, Self::Local, Self::Remote];

    /// The name on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::Age => "age",
            Self::State => "state",
            Self::Process => "process",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// The rows of the table.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    order: Vec<ConnId>,
    /// The index of the selected row.
    at: usize,
    /// The index of the first row that is shown.
    pub(super) first: usize,
}

impl Rows {
    /// Filters by `search` and sorts; the same socket stays selected.
    pub(super) fn arrange(&mut self, story: &Story, search: &str) {
        let selected = self.selected();
        let words: Vec<String> = search.split_whitespace().map(str::to_lowercase).collect();
        let is_wanted = |history: &&ConnHistory| history.state != State::Close && matches(history, &words);
        let mut histories: Vec<&ConnHistory> = story.histories.values().filter(is_wanted).collect();
        // With many connections, cached keys are faster to compare than scattered ones.
        match self.sort {
            Sort::Stuck => histories.sort_by_cached_key(|history| {
                (Reverse(history.is_stuck), rank(history.state), history.since_ns, history.conn)
            }),
            Sort::Age => histories.sort_by_cached_key(|history| (history.since_ns, history.conn)),
            Sort::State => {
                histories.sort_by_cached_key(|history| (rank(history.state), history.since_ns, history.conn))
            }
            Sort::Process => histories.sort_by_cached_key(|history| {
                let owner = history.subject.owner.as_ref().map(|owner| (owner.comm.clone(), owner.pid()));
                (owner.is_none(), owner, history.conn)
            }),
            Sort::Local => histories.sort_by_cached_key(|history| {
                (history.tuple.local.octets(), history.tuple.local_port, history.conn)
            }),
            Sort::Remote => histories.sort_by_cached_key(|history| {
                (history.tuple.remote.octets(), history.tuple.remote_port, history.conn)
            }),
        }
        if self.reverse {
            histories.reverse();
        }
        self.order = histories.into_iter().map(|history| history.conn).collect();
        if let Some(conn) = selected {
            self.select(conn);
        }
        self.at = self.at.min(self.order.len().saturating_sub(1));
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn selected(&self) -> Option<ConnId> {
        self.order.get(self.at).copied()
    }

    pub(super) fn select(&mut self, conn: ConnId) {
        if let Some(at) = self.order.iter().position(|other| *other == conn) {
            self.at = at;
        }
    }

    /// Selects the row `by` rows below.
    pub(super) fn step(&mut self, by: isize) {
        self.at = self.at.saturating_add_signed(by).min(self.order.len().saturating_sub(1));
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The rows that fit into `lines` lines, the selected one among them.
    pub(super) fn window(&mut self, lines: usize) -> &[ConnId] {
        let lines = lines.max(1);
        if self.at < self.first {
            self.first = self.at;
        }
        if self.at >= self.first + lines {
            self.first = self.at + 1 - lines;
        }
        self.first = self.first.min(self.order.len().saturating_sub(lines));
        let end = (self.first + lines).min(self.order.len());
        &self.order[self.first..end]
    }
}

/// The rank of a state: states that may be stuck first, LISTEN and TIME_WAIT last.
fn rank(state: State) -> u8 {
    match state {
        State::CloseWait => 0,
        State::LastAck => 1,
        State::Closing => 2,
        State::FinWait1 => 3,
        State::FinWait2 => 4,
        State::SynSent => 5,
        State::SynRecv | State::NewSynRecv => 6,
        State::Unknown(_) => 7,
        State::Established => 8,
        State::Listen => 9,
        State::TimeWait => 10,
        State::Close => 11,
    }
}

/// Whether each word is in one of the columns.
fn matches(history: &ConnHistory, words: &[String]) -> bool {
    words.is_empty() || {
        let owner = history.subject.owner.as_ref();
        let text = format!(
            "{} {} {} {} {} {} {}",
            history.state.name(),
            owner.map(|owner| owner.comm.as_str()).unwrap_or_default(),
            owner.map(|owner| owner.pid().to_string()).unwrap_or_default(),
            history.role.map(crate::model::Role::name).unwrap_or_default(),
            endpoint(history.tuple.local, history.tuple.local_port),
            endpoint(history.tuple.remote, history.tuple.remote_port),
            if history.is_stuck { "stuck" } else { "" },
        )
        .to_lowercase();
        words.iter().all(|word| text.contains(word))
    }
}
