//! `sockstate sockets`.

use std::{cmp::Reverse, io::IsTerminal, process::ExitCode};

use anyhow::Result;

use super::{filter, look::look, union};
use crate::{
    cli::{LookFormat, SocketsArgs, SortBy},
    format,
    model::Examined,
    pipeline,
};

/// Runs it.
pub(super) fn run(args: &SocketsArgs) -> Result<ExitCode> {
    let filter = filter(&args.select)?;
    let states = union(&args.state);
    let mut look = look(&filter, args.select.cgroup.as_deref(), |socket| {
        states.is_empty() || states.contains(socket.state)
    });
    sort(&mut look.sockets, args.sort);
    for problem in &look.problems {
        eprintln!("sockstate: {problem}");
    }
    let as_table = args.format.map_or_else(|| std::io::stdout().is_terminal(), |it| it == LookFormat::Table);
    let text = if as_table {
        format::sockets_table(&look.sockets)
    } else {
        let time_ns = pipeline::now_ns();
        look.sockets.iter().map(|it| format::socket_json(it, time_ns)).collect()
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn sort(sockets: &mut [Examined], by: SortBy) {
    let process = |it: &Examined| it.holders.first().map(|holder| holder.process.clone());
    let end = |address: crate::model::Address, port: u16| (address.canonical(), port);
    match by {
        SortBy::Age => sockets.sort_by_key(|it| Reverse(it.idle_ns())),
        SortBy::State => sockets.sort_by_key(|it| it.socket.state),
        SortBy::Local => sockets.sort_by_key(|it| end(it.socket.tuple.local, it.socket.tuple.local_port)),
        SortBy::Remote => sockets.sort_by_key(|it| end(it.socket.tuple.remote, it.socket.tuple.remote_port)),
        SortBy::Process => sockets.sort_by_key(process),
        SortBy::Unread => sockets.sort_by_key(|it| Reverse(it.socket.unread_bytes())),
    }
}
