//! Which sockets the table shows, in which order, and which of them is selected.

use std::cmp::Reverse;

use crate::{
    display::endpoint,
    model::{ConnId, State},
    story::{Life, Story},
};

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The stuck ones first, then those that are longest in their state.
    #[default]
    Stuck,
    /// The longest in their state first.
    Age,
    /// State.
    State,
    /// Process.
    Process,
    /// Local end.
    Local,
    /// Remote end.
    Remote,
}

impl Sort {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 6] =
        [Self::Stuck, Self::Age, Self::State, Self::Process, Self::Local, Self::Remote];

    /// As the screen says it.
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

/// The table's rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    order: Vec<ConnId>,
    /// The selected one's place.
    at: usize,
    /// The first that is shown.
    pub(super) first: usize,
}

impl Rows {
    /// Puts what matches `search` in order; what was selected stays so.
    pub(super) fn arrange(&mut self, story: &Story, search: &str) {
        let selected = self.selected();
        let words: Vec<String> = search.split_whitespace().map(str::to_lowercase).collect();
        let is_wanted = |life: &&Life| life.state != State::Close && matches(life, &words);
        let mut lives: Vec<&Life> = story.lives.values().filter(is_wanted).collect();
        // There may be very many: keys side by side are quicker to compare than connections anywhere in memory.
        match self.sort {
            Sort::Stuck => lives.sort_by_cached_key(|life| {
                (Reverse(life.is_stuck), rank(life.state), life.since_ns, life.conn)
            }),
            Sort::Age => lives.sort_by_cached_key(|life| (life.since_ns, life.conn)),
            Sort::State => lives.sort_by_cached_key(|life| (rank(life.state), life.since_ns, life.conn)),
            Sort::Process => lives.sort_by_cached_key(|life| {
                let owner = life.subject.owner.as_ref().map(|owner| (owner.comm.clone(), owner.pid()));
                (owner.is_none(), owner, life.conn)
            }),
            Sort::Local => {
                lives.sort_by_cached_key(|life| (life.tuple.local.octets(), life.tuple.local_port, life.conn))
            }
            Sort::Remote => lives
                .sort_by_cached_key(|life| (life.tuple.remote.octets(), life.tuple.remote_port, life.conn)),
        }
        if self.reverse {
            lives.reverse();
        }
        self.order = lives.into_iter().map(|life| life.conn).collect();
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

/// What may be stuck comes first, what is only waiting last.
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

/// Each word is somewhere in what the table shows of it.
fn matches(life: &Life, words: &[String]) -> bool {
    words.is_empty() || {
        let owner = life.subject.owner.as_ref();
        let text = format!(
            "{} {} {} {} {} {} {}",
            life.state.name(),
            owner.map(|owner| owner.comm.as_str()).unwrap_or_default(),
            owner.map(|owner| owner.pid().to_string()).unwrap_or_default(),
            life.role.map(crate::model::Role::name).unwrap_or_default(),
            endpoint(life.tuple.local, life.tuple.local_port),
            endpoint(life.tuple.remote, life.tuple.remote_port),
            if life.is_stuck { "stuck" } else { "" },
        )
        .to_lowercase();
        words.iter().all(|word| text.contains(word))
    }
}
