//! `sockstate sockets`.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    process::ExitCode,
};

use anyhow::Result;

use super::{
    filter,
    look::{as_table, look, show_gaps},
    union,
};
use crate::{
    cli::{SocketsArgs, SortBy},
    format,
    model::{Looked, SocketInfo, Transport},
    pipeline,
};

/// Runs it.
pub(super) fn run(args: &SocketsArgs) -> Result<ExitCode> {
    let filter = filter(&args.select)?;
    let states = union(&args.state);
    let (mut sockets, look) = look(&filter, |socket| states.is_empty() || states.contains(socket.state))?;
    sort(&mut sockets, args.sort);
    let sockets = below_their_connections(sockets);
    let (as_table, time) = (as_table(args.format), format::look_time(pipeline::now_ns()));
    if as_table {
        super::print([format::sockets_table(sockets.iter().map(|looked| &looked.it))])?;
    } else {
        super::print(sockets.iter().map(|looked| format::socket_json(looked, &time)))?;
    }
    show_gaps(as_table, filter.netns, &look.gaps, &time)?;
    Ok(ExitCode::SUCCESS)
}

/// Subflows stand below their MPTCP socket, where that is shown.
fn below_their_connections(sockets: Vec<Looked>) -> Vec<Looked> {
    let whole = |it: &SocketInfo| Some((it.netns, it.mptcp?.token(), it.inode));
    let is_shown = |it: &SocketInfo| it.transport == Transport::Mptcp;
    let shown: HashSet<_> =
        sockets.iter().map(|it| &it.it.socket).filter(|it| is_shown(it)).filter_map(whole).collect();
    if shown.is_empty() {
        return sockets;
    }
    let is_below = |it: &SocketInfo| it.is_subflow() && whole(it).is_some_and(|key| shown.contains(&key));
    let (below, others): (Vec<_>, Vec<_>) = sockets.into_iter().partition(|it| is_below(&it.it.socket));
    let mut subflows: HashMap<_, Vec<Looked>> = HashMap::new();
    for looked in below {
        subflows.entry(whole(&looked.it.socket)).or_default().push(looked);
    }
    let mut ordered = Vec::new();
    for looked in others {
        let key = whole(&looked.it.socket);
        ordered.push(looked);
        ordered.extend(key.and_then(|key| subflows.remove(&Some(key))).into_iter().flatten());
    }
    ordered
}

fn sort(sockets: &mut [Looked], by: SortBy) {
    let process =
        |it: &Looked| it.it.holders.first().map(|holder| (holder.process.pid, holder.process.comm.clone()));
    let end = |address: crate::model::Address, port: u16| (address.canonical(), port);
    match by {
        SortBy::Age => sockets.sort_by_cached_key(|it| Reverse(it.it.idle_ns())),
        SortBy::State => sockets.sort_by_cached_key(|it| it.it.socket.state),
        SortBy::Local => {
            sockets.sort_by_cached_key(|it| end(it.it.socket.tuple.local, it.it.socket.tuple.local_port))
        }
        SortBy::Remote => {
            sockets.sort_by_cached_key(|it| end(it.it.socket.tuple.remote, it.it.socket.tuple.remote_port))
        }
        SortBy::Process => sockets.sort_by_cached_key(process),
        SortBy::Unread => sockets.sort_by_cached_key(|it| Reverse(it.it.socket.unread_bytes())),
    }
}
