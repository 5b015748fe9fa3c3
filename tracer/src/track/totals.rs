//! Totals of the store: how many sockets are in each state, and which processes have stuck ones.

use std::collections::BTreeMap;

use super::conns::{Conn, Conns};
use crate::model::{LabelledCounts, MetricLabels, SocketCounts, State};

/// How many `wanted` sockets are in each state, and how many of them are stuck there; states without any as 0.
pub(super) fn tally(conns: &Conns, wanted: impl Fn(&Conn) -> bool) -> SocketCounts {
    let mut counts = [(0, 0); 256];
    for conn in conns.iter().filter(|conn| wanted(conn)) {
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

/// The stuck sockets that are `wanted`, by the values of labels.
pub(super) fn stuck_by(
    conns: &Conns,
    labels: &MetricLabels,
    wanted: impl Fn(&Conn) -> bool,
) -> Vec<LabelledCounts> {
    let stuck = conns.iter().filter(|conn| conn.stuck > 0 && wanted(conn));
    labels.count(stuck.map(|conn| (&*conn.subject, conn.state.name())))
}

/// The names of the processes that own the most stuck sockets that are `wanted`, at most `limit` names, each with its number of stuck
/// sockets.
pub(super) fn leakers(conns: &Conns, limit: usize, wanted: impl Fn(&Conn) -> bool) -> Vec<(String, i64)> {
    if limit == 0 {
        return Vec::new();
    }
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for conn in conns.iter().filter(|conn| conn.stuck > 0 && wanted(conn)) {
        if let Some(owner) = &conn.subject.owner {
            *counts.entry(&owner.comm).or_default() += 1;
        }
    }
    let mut counts: Vec<(String, i64)> =
        counts.into_iter().map(|(comm, count)| (comm.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(limit);
    counts
}
