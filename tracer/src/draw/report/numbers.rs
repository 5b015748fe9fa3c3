//! Tables of what the connections of each process and service have transferred, and of how long their handshakes took.

use std::{cmp::Reverse, collections::BTreeMap};

use super::tables::{Cell, amount, count, percent, service, share, table, text, time};
use crate::{
    display::number,
    model::{Traffic, Transferred},
    story::{ConnHistory, Story},
};

/// The sums of several connections.
#[derive(Default)]
struct Sums {
    connections: u64,
    transferred: Transferred,
    segments: u64,
}

impl Sums {
    fn add(&mut self, traffic: &Traffic) {
        self.connections += 1;
        self.transferred.add(traffic);
        self.segments = self.segments.saturating_add(traffic.segments_sent.into());
    }
}

/// The connections with known counters.
fn counted(story: &Story) -> impl Iterator<Item = (&ConnHistory, &Traffic)> {
    story.histories.values().filter_map(|history| Some((history, history.traffic.as_deref()?)))
}

/// The sums of all connections, and by process and service.
fn sums(story: &Story) -> (Sums, Vec<([String; 2], Sums)>) {
    let mut all = Sums::default();
    let mut services: BTreeMap<[String; 2], Sums> = BTreeMap::new();
    for (history, traffic) in counted(story) {
        all.add(traffic);
        services.entry(service(history)).or_default().add(traffic);
    }
    (all, services.into_iter().collect())
}

fn row(service: &[String; 2], cells: impl IntoIterator<Item = Cell>) -> Vec<Cell> {
    service.iter().map(text).chain(cells).collect()
}

/// Who has sent and received the most; empty if no counters are known.
pub(super) fn bytes(story: &Story) -> String {
    let (all, mut services) = sums(story);
    if all.connections == 0 {
        return String::new();
    }
    let bytes = |sums: &Sums| sums.transferred.bytes_sent.saturating_add(sums.transferred.bytes_received);
    services.sort_by_key(|(_, sums)| Reverse(bytes(sums)));
    let rows = services.iter().map(|(service, sums)| {
        let Transferred { bytes_sent, bytes_received, .. } = sums.transferred;
        row(service, [count(sums.connections), amount(bytes_sent), amount(bytes_received)])
    });
    let columns = ["process", "what it does", "connections", "bytes sent", "bytes received"];
    format!(
        "<p>{} bytes were sent, and {} received, by {} connections that ended.</p>\n{}",
        number(all.transferred.bytes_sent),
        number(all.transferred.bytes_received),
        number(all.connections),
        table(&columns, rows.collect())
    )
}

/// Whose segments were sent again; empty if no counters are known.
pub(super) fn retransmits(story: &Story) -> String {
    let (all, mut services) = sums(story);
    let (again, segments) = (all.transferred.retransmits, all.segments);
    if all.connections == 0 {
        return String::new();
    }
    if again == 0 {
        return format!("<p>None of {} segments was sent again.</p>\n", number(segments));
    }
    services.retain(|(_, sums)| sums.transferred.retransmits > 0);
    services.sort_by_key(|(_, sums)| Reverse(sums.transferred.retransmits));
    let rows = services.iter().map(|(service, sums)| {
        let again = sums.transferred.retransmits;
        let numbers = [count(sums.connections), amount(sums.segments), amount(again)];
        row(service, numbers.into_iter().chain([share(again, sums.segments)]))
    });
    let columns = ["process", "what it does", "connections", "segments sent", "sent again", "share"];
    format!(
        "<p>{} of {} segments were sent again ({}).</p>\n{}",
        number(again),
        number(segments),
        percent(again as f64 / segments.max(1) as f64),
        table(&columns, rows.collect())
    )
}

/// Whose handshakes took longest; empty if the time of none is known.
pub(super) fn handshakes(story: &Story) -> String {
    let mut services: BTreeMap<[String; 2], (u64, u64, u64)> = BTreeMap::new();
    for history in story.histories.values() {
        let Some(ns) = history.handshake_ns() else { continue };
        let (count, sum_ns, longest_ns) = services.entry(service(history)).or_default();
        *count += 1;
        *sum_ns = sum_ns.saturating_add(ns);
        *longest_ns = ns.max(*longest_ns);
    }
    if services.is_empty() {
        return String::new();
    }
    let mut services: Vec<_> = services.into_iter().collect();
    services.sort_by_key(|(_, (_, _, longest_ns))| Reverse(*longest_ns));
    let rows = services.iter().map(|(service, (handshakes, sum_ns, longest_ns))| {
        row(service, [count(*handshakes), time(sum_ns / handshakes), time(*longest_ns)])
    });
    table(&["process", "what it does", "handshakes", "mean", "longest"], rows.collect())
}
