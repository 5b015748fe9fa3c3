//! A socket as a row of a table, and the columns that fit a terminal.

use super::{held_via, listed, process};
use crate::{
    display::{Column, Layout, duration, endpoints, lower_bound},
    model::{Holder, MptcpPart, SocketReport, State, Transport},
};

/// The value in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    State,
    Age,
    Unread,
    Unsent,
    Local,
    /// The local port without the address: it names the service.
    LocalPort,
    Remote,
}

use Field::{Age, Local, LocalPort, Remote, State as StateField, Unread, Unsent};

/// Sets of columns, from the widest to the narrowest. The least important columns are left out first.
const SHAPES: [&[Field]; 4] = [
    &[StateField, Age, Unread, Unsent, Local, Remote],
    &[StateField, Age, Unread, Local, Remote],
    &[StateField, Age, Local, Remote],
    &[StateField, Age, LocalPort, Remote],
];

/// The width of an endpoint: an IPv4 address with its port fits, or a short IPv6 address.
const ENDPOINT: usize = 24;

/// The smallest width for the holders, such as `python3(12737) fd 5`. They may take several lines.
const HELD: usize = 20;

impl Field {
    /// The column in an output that is not a terminal.
    const fn column(self) -> Column {
        match self {
            StateField => Column::left("STATE", 11),
            Age => Column::right("AGE", 9),
            Unread => Column::right("UNREAD", 8),
            Unsent => Column::right("UNSENT", 8),
            Local | LocalPort => Column::left("LOCAL", ENDPOINT),
            Remote => Column::left("REMOTE", ENDPOINT),
        }
    }
}

/// The cells of a socket.
pub(super) struct SocketRow {
    state: &'static str,
    age: String,
    unread: String,
    unsent: String,
    local: String,
    remote: String,
    held: String,
}

impl SocketRow {
    pub(super) fn of(report: &SocketReport) -> Self {
        let (socket, tuple) = (&report.socket, &report.socket.tuple);
        let (local, remote) = endpoints(tuple, socket.interface.as_deref());
        let age = match (report.age, report.unanswered_ns) {
            (Some(age), _) if report.may_be_stuck => format!("?{}{}", lower_bound(age), duration(age.ns)),
            (Some(age), _) => format!("{}{}", lower_bound(age), duration(age.ns)),
            (None, Some(ns)) => format!("({})", duration(ns)),
            (None, None) => "-".into(),
        };
        let (unread, unsent) = match socket.state {
            _ if socket.is_partial => ("?".to_owned(), "?".to_owned()),
            State::Listen => {
                let full = if socket.is_full() { " full" } else { "" };
                (socket.receive_queue.to_string(), format!("/{}{full}", socket.send_queue))
            }
            // For MPTCP sockets the kernel counts memory, and not bytes.
            _ if socket.transport == Transport::Mptcp => ("-".into(), "-".into()),
            _ => (socket.unread_bytes().to_string(), socket.unsent_bytes().to_string()),
        };
        let held = match (&report.holders[..], report.socket.inode, report.hidden_holders) {
            ([], 0, _) => "-".to_owned(),
            ([], _, _) if report.of_kernel => "kernel".to_owned(),
            ([], _, true) => "?".to_owned(),
            // The socket has a file, so there is a holder that was not found.
            ([], _, false) => "unknown".to_owned(),
            (holders, _, _) => {
                let holder = |holder: &Holder| format!("{} {}", process(&holder.process), held_via(holder));
                listed(holders.iter().map(holder), report.holder_count())
            }
        };
        let mptcp = match socket.mptcp {
            Some(MptcpPart::Whole { subflows: 1, .. }) => " (MPTCP, 1 subflow)".to_owned(),
            Some(MptcpPart::Whole { subflows, .. }) => format!(" (MPTCP, {subflows} subflows)"),
            Some(MptcpPart::Subflow { .. }) => " (MPTCP subflow)".to_owned(),
            None => String::new(),
        };
        let held = format!("{held}{mptcp}");
        Self { state: socket.state.name(), age, unread, unsent, local, remote, held }
    }

    fn cell(&self, field: Field) -> String {
        match field {
            StateField => self.state.to_owned(),
            Age => self.age.clone(),
            Unread => self.unread.clone(),
            Unsent => self.unsent.clone(),
            Local => self.local.clone(),
            LocalPort => format!(":{}", self.local.rsplit(':').next().unwrap_or_default()),
            Remote => self.remote.clone(),
        }
    }
}

/// The columns of a table of sockets, with their widths.
pub(super) struct Shape {
    fields: &'static [Field],
    layout: Layout,
}

impl Shape {
    /// Chooses the columns for `rows` on a terminal of `width`; all columns if the output is not a terminal.
    pub(super) fn of(rows: impl Iterator<Item = SocketRow>, width: Option<usize>) -> Self {
        let [all, .., narrowest] = SHAPES;
        let Some(width) = width else {
            let columns = all.iter().map(|field| field.column()).collect();
            return Self { fields: all, layout: Layout { columns, width: None } };
        };
        let mut longest = [0; 7];
        let mut held = "HELD BY".len();
        for row in rows {
            for (field, longest) in
                [StateField, Age, Unread, Unsent, Local, LocalPort, Remote].iter().zip(&mut longest)
            {
                *longest = (*longest).max(row.cell(*field).len());
            }
            held = held.max(row.held.len().min(HELD));
        }
        let column = |field: &Field| {
            let column = field.column();
            let width = longest.get(*field as usize).copied().unwrap_or_default();
            Column { width: width.clamp(column.title.len(), ENDPOINT), ..column }
        };
        let columns = |fields: &[Field]| fields.iter().map(column).collect::<Vec<_>>();
        let fits = |fields: &&[Field]| Layout::needs(&columns(fields)) + 1 + held <= width;
        let fields = SHAPES.into_iter().find(fits).unwrap_or(narrowest);
        Self { fields, layout: Layout { columns: columns(fields), width: Some(width) } }
    }

    pub(super) fn header(&self) -> String {
        self.layout.header("HELD BY")
    }

    pub(super) fn row(&self, row: &SocketRow) -> String {
        let cells: Vec<String> = self.fields.iter().map(|field| row.cell(*field)).collect();
        self.layout.row(&cells, 1, &row.held)
    }
}
