//! Totals of the store: how many sockets are in each state, which processes have stuck ones, and how many ports are in use.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, BuildHasherDefault},
};

use rustc_hash::{FxHashMap, FxHasher};

use super::conns::{Conn, Conns};
use crate::model::{CountedSocket, MetricLabels, Role, SocketCounts, SocketTotals, State};

/// The totals of the `wanted` sockets, with at most `leakers` names of processes.
pub(super) fn totals(
    conns: &Conns,
    labels: &MetricLabels,
    leakers: usize,
    wanted: impl Fn(&Conn) -> bool,
) -> SocketTotals {
    let sockets: Vec<&Conn> = conns.iter().filter(|conn| wanted(conn)).collect();
    let stuck = || sockets.iter().copied().filter(|conn| conn.stuck > 0);
    SocketTotals {
        tally: tally(&sockets),
        leakers: owners(stuck(), leakers),
        sockets_by: labels.count(sockets.iter().copied().map(counted)),
        stuck_by: labels.count(stuck().map(counted)),
        ports_used: ports_used(&sockets),
    }
}

fn counted(conn: &Conn) -> CountedSocket<'_> {
    let Conn { subject, tuple, role, state, .. } = conn;
    CountedSocket { subject, tuple, role: *role, state: state.name() }
}

/// How many sockets are in each state, and how many of them are stuck there; states without any as 0.
fn tally(sockets: &[&Conn]) -> SocketCounts {
    let mut counts = [(0, 0); 256];
    for conn in sockets {
        let (all, stuck) = &mut counts[usize::from(conn.state.number())];
        *all += 1;
        *stuck += i64::from(conn.stuck > 0);
    }
    let mut tally = SocketCounts::default();
    for (number, (all, stuck)) in (0_u8..=255).zip(counts) {
        let state = State::from_number(number);
        if all > 0 || !matches!(state, State::Unknown(_) | State::Close) {
            *tally.sockets.entry(state.name()).or_default() += all;
            *tally.stuck.entry(state.name()).or_default() += stuck;
        }
    }
    tally
}

/// The names of the processes that own the most of these sockets, at most `limit` names, each with its number of sockets.
fn owners<'a>(sockets: impl Iterator<Item = &'a Conn>, limit: usize) -> Vec<(String, i64)> {
    if limit == 0 {
        return Vec::new();
    }
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for owner in sockets.filter_map(|conn| conn.subject.owner.as_ref()) {
        *counts.entry(&owner.comm).or_default() += 1;
    }
    let mut counts: Vec<(String, i64)> =
        counts.into_iter().map(|(comm, count)| (comm.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(limit);
    counts
}

/// The local ports that outgoing connections of one address to one address and port use, where these are the most: the kernel needs
/// another local port for each of them, also for those in TIME_WAIT.
fn ports_used(sockets: &[&Conn]) -> i64 {
    let hasher = BuildHasherDefault::<FxHasher>::default();
    // By a hash, because a host may have very many destinations.
    let mut used: FxHashMap<u64, i64> = FxHashMap::default();
    for conn in sockets.iter().filter(|conn| conn.role == Some(Role::Client)) {
        let tuple = &conn.tuple;
        let ends = (conn.subject.netns, tuple.local.octets(), tuple.remote.octets(), tuple.remote_port);
        *used.entry(hasher.hash_one(ends)).or_default() += i64::from(tuple.is_complete());
    }
    used.into_values().max().unwrap_or(0)
}
