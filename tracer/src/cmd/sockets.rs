//! `sockstate sockets`.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{
    filter,
    look::{LookFormat, as_table, look, show_gaps},
    refuse_workload, terminal_width,
};
use crate::{
    cli::SelectArgs,
    format,
    model::{SocketEntry, SocketInfo, StateSet, Transport},
    pipeline,
    values::parse_states,
};

const EXAMPLES: &str = "\
Examples:
  sockstate sockets
      like ss -tan, for all network namespaces, with ages and holders
  sockstate sockets --state LISTEN --sort unread
      the fullest accept queues first
  sockstate sockets --comm nginx --format json
      one program, for a script";

/// Show all TCP sockets of this host.
///
/// Of all network namespaces, with the age of their state and the processes that hold them.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SocketsArgs {
    /// Format of the output [default: table on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<LookFormat>,
    /// The order of the sockets.
    #[arg(long, value_enum, default_value_t, value_name = "BY", help_heading = "Output")]
    pub sort: SortBy,
    /// Only these states, by netstat's or ss's name.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub state: Vec<StateSet>,
    #[command(flatten)]
    pub select: SelectArgs,
}

/// The order of sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// The oldest first.
    #[default]
    Age,
    /// State.
    State,
    /// Local end.
    Local,
    /// Remote end.
    Remote,
    /// The first holder.
    Process,
    /// The most unread bytes first.
    Unread,
}

pub(super) fn run(args: &SocketsArgs) -> Result<ExitCode> {
    refuse_workload(&args.select)?;
    let filter = filter(&args.select)?;
    let states: StateSet = args.state.iter().collect();
    let (mut sockets, look) = look(&filter, |socket| states.is_empty() || states.contains(socket.state))?;
    sort(&mut sockets, args.sort);
    let sockets = below_their_connections(sockets);
    let (as_table, time) = (as_table(args.format), format::look_time(pipeline::now_ns()));
    if as_table {
        super::print([format::sockets_table(sockets.iter().map(|looked| &looked.report), terminal_width())])?;
    } else {
        super::print(sockets.iter().map(|looked| format::socket_json(looked, &time)))?;
    }
    show_gaps(as_table, filter.place.netns, &look.gaps, &time)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts subflows after their MPTCP socket, if that is shown.
fn below_their_connections(sockets: Vec<SocketEntry>) -> Vec<SocketEntry> {
    let whole = |socket: &SocketInfo| Some((socket.netns, socket.mptcp?.token(), socket.inode));
    let is_shown = |socket: &SocketInfo| socket.transport == Transport::Mptcp;
    let shown: HashSet<_> = sockets
        .iter()
        .map(|entry| &entry.report.socket)
        .filter(|socket| is_shown(socket))
        .filter_map(whole)
        .collect();
    if shown.is_empty() {
        return sockets;
    }
    let is_below =
        |socket: &SocketInfo| socket.is_subflow() && whole(socket).is_some_and(|key| shown.contains(&key));
    let (below, others): (Vec<_>, Vec<_>) =
        sockets.into_iter().partition(|entry| is_below(&entry.report.socket));
    let mut subflows: HashMap<_, Vec<SocketEntry>> = HashMap::new();
    for looked in below {
        subflows.entry(whole(&looked.report.socket)).or_default().push(looked);
    }
    let mut ordered = Vec::new();
    for looked in others {
        let key = whole(&looked.report.socket);
        ordered.push(looked);
        ordered.extend(key.and_then(|key| subflows.remove(&Some(key))).into_iter().flatten());
    }
    ordered
}

fn sort(sockets: &mut [SocketEntry], by: SortBy) {
    let process = |entry: &SocketEntry| {
        entry.report.holders.first().map(|holder| (holder.process.pid, holder.process.comm.clone()))
    };
    let end = |address: crate::model::Address, port: u16| (address.canonical(), port);
    match by {
        SortBy::Age => sockets.sort_by_cached_key(|entry| Reverse(entry.report.no_progress_ns())),
        SortBy::State => sockets.sort_by_cached_key(|entry| entry.report.socket.state),
        SortBy::Local => sockets.sort_by_cached_key(|entry| {
            end(entry.report.socket.tuple.local, entry.report.socket.tuple.local_port)
        }),
        SortBy::Remote => sockets.sort_by_cached_key(|entry| {
            end(entry.report.socket.tuple.remote, entry.report.socket.tuple.remote_port)
        }),
        SortBy::Process => sockets.sort_by_cached_key(process),
        SortBy::Unread => sockets.sort_by_cached_key(|entry| Reverse(entry.report.socket.unread_bytes())),
    }
}
