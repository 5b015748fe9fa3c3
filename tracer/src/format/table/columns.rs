//! The columns of a trace's table, by the width of the terminal: the least important ones are shortened or left out first.

use crate::display::{Column, Layout};

/// What a column shows. A number is the column's width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The time with milliseconds.
    Time,
    /// The time in seconds.
    Clock,
    Pid,
    Comm(usize),
    Role,
    Local(usize),
    /// The local port without the address: it names the service.
    LocalPort,
    Remote(usize),
    /// The state before the transition.
    From,
    /// An arrow, and the state after the transition.
    To,
    /// The state after the transition, where the one before it has no column.
    State,
    /// The time in the state before, in milliseconds.
    Ms,
    /// The time in the state before, or of a connection, in two or three digits.
    Lasted,
    /// Bytes that a connection has sent, in two or three digits.
    Sent,
    Received,
}

impl Field {
    pub(super) const fn column(self) -> Column {
        match self {
            Self::Time => Column::left("TIME", 12),
            Self::Clock => Column::left("TIME", 8),
            Self::Pid => Column::right("PID", 7),
            Self::Comm(width) => Column::left("COMM", width),
            Self::Role => Column::left("ROLE", 8),
            Self::Local(width) => Column::left("LOCAL", width),
            Self::LocalPort => Column::left("LOCAL", 6),
            Self::Remote(width) => Column::left("REMOTE", width),
            Self::From => Column::left("FROM", 11),
            Self::To => Column::left("   TO", 14),
            Self::State => Column::left("STATE", 11),
            Self::Ms => Column::right("MS", 12),
            Self::Lasted => Column::right("LASTED", 8),
            Self::Sent => Column::right("SENT", 6),
            Self::Received => Column::right("RECVD", 6),
        }
    }
}

use Field::{
    Clock, Comm, From, Lasted, Local, LocalPort, Ms, Pid, Received, Remote, Role, Sent, State, Time, To,
};

/// All columns, with room for addresses of IPv4.
const ALL: &[Field] = &[Time, Pid, Comm(15), Role, Local(22), Remote(22), From, To, Ms];

/// From the widest to the narrowest.
const NARROW: [&[Field]; 4] = [
    &[Clock, Pid, Comm(15), Local(21), Remote(21), From, To, Lasted],
    &[Clock, Pid, Comm(12), LocalPort, Remote(21), From, To, Lasted],
    &[Clock, Comm(10), LocalPort, Remote(21), From, To],
    &[Clock, Comm(10), LocalPort, Remote(21), State],
];

/// The columns for a stream of connections instead of transitions, from the widest, which fits 120 columns, to the
/// narrowest.
const CONNECTIONS: [&[Field]; 4] = [
    &[Clock, Pid, Comm(15), Role, Local(21), Remote(21), Sent, Received, Lasted],
    &[Clock, Pid, Comm(12), LocalPort, Remote(21), Sent, Received, Lasted],
    &[Clock, Comm(10), LocalPort, Remote(21), Sent, Received, Lasted],
    &[Clock, LocalPort, Remote(21), Lasted],
];

/// Room for the most frequent cause, `fin`, after the columns.
const CAUSE: usize = 5;

/// The columns for a terminal of `width`; all of them where no terminal shows the table. `connections`: the table has
/// connections instead of transitions.
pub(super) fn fields(width: Option<usize>, connections: bool) -> &'static [Field] {
    let (widest, narrow) = if connections {
        let [widest, narrow @ ..] = CONNECTIONS;
        (widest, narrow.to_vec())
    } else {
        (ALL, NARROW.to_vec())
    };
    let Some(width) = width else { return widest };
    let needs = |fields: &[Field]| {
        Layout::needs(&fields.iter().map(|field| field.column()).collect::<Vec<_>>()) + CAUSE
    };
    let narrowest = narrow.last().copied().unwrap_or(widest);
    std::iter::once(widest).chain(narrow).find(|fields| needs(fields) <= width).unwrap_or(narrowest)
}
