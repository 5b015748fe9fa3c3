//! One look at the sockets, as tables for people (docs/stuck.md).

mod groups;
mod rows;

use std::collections::BTreeMap;

use groups::groups;
use rows::{Shape, SocketRow};

use crate::{
    display::{Column, Layout, duration, paragraph},
    model::{
        Diagnosis, Gap, Holder, Process, Reason, SocketEntry, SocketReport, TimerKind, Via, Workload,
        printable,
    },
};

/// The limit of holders, workloads and the like that a table lists for one socket.
const MOST_LISTED: usize = 32;

/// The limit of sockets of each group that a terminal shows.
const MOST_EXAMPLES: usize = 5;

/// From this width on, the table of groups has a column for unread bytes.
const UNREAD_FROM: usize = 80;

/// The widest column for the names of groups.
const GROUP: usize = 32;

/// The number of stuck sockets that have the same key: process, port, unit and the like.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The key that the sockets have in common.
    pub key: String,
    pub count: usize,
    /// The longest time without progress of a socket, ns.
    pub oldest_ns: Option<u64>,
    /// The unread bytes of all sockets together.
    pub unread_bytes: u64,
    /// The number of sockets in each state.
    pub states: BTreeMap<&'static str, usize>,
    /// The number of sockets for each reason.
    pub reasons: BTreeMap<&'static str, usize>,
}

const NOTHING_STUCK: &str = "nothing is stuck\n";

/// A table with a line for each socket.
#[must_use]
pub fn sockets_table<'a>(
    sockets: impl Iterator<Item = &'a SocketReport> + Clone,
    width: Option<usize>,
) -> String {
    let rows = || sockets.clone().map(SocketRow::of);
    if rows().next().is_none() {
        return "no such sockets\n".into();
    }
    table(rows(), &Shape::of(rows(), width))
}

fn table(rows: impl Iterator<Item = SocketRow>, shape: &Shape) -> String {
    std::iter::once(shape.header()).chain(rows.map(|row| shape.row(&row))).collect()
}

/// Stuck sockets in groups, then why they are stuck, and what to do. A terminal of `width` shows a few sockets of each group.
#[must_use]
pub fn stuck_table(
    stuck: &[SocketEntry],
    width: Option<usize>,
    reason: impl Fn(&SocketReport) -> Reason,
    explain: impl Fn(&SocketReport) -> Diagnosis,
) -> String {
    if stuck.is_empty() {
        return NOTHING_STUCK.into();
    }
    let groups = groups(stuck, reason);
    let most = if width.is_some() { MOST_EXAMPLES } else { usize::MAX };
    let shape = Shape::of(groups.iter().flat_map(|group| group.rows(most)), width);
    let mut out = String::new();
    for group in &groups {
        out.push_str(&table(group.rows(most), &shape));
        out.push_str(&group.describe(most, width, &explain));
        out.push('\n');
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    stuck.iter().for_each(|looked| *counts.entry(looked.report.socket.state.name()).or_default() += 1);
    let list: Vec<String> = counts.iter().map(|(state, count)| format!("{count} in {state}")).collect();
    let unsure = match stuck.iter().filter(|looked| looked.report.may_be_stuck).count() {
        0 => String::new(),
        count => format!("; of {count} the age is not known"),
    };
    out + &paragraph("", &format!("{} stuck: {}{unsure}", stuck.len(), list.join(", ")), width)
}

/// The gaps of a look, a line for each.
#[must_use]
pub fn gaps_table(gaps: &[Gap], width: Option<usize>) -> String {
    let lines = gaps.iter().map(|gap| paragraph("  ", &printable(&gap.why), width));
    let head = paragraph("", "this is not all, for sockstate could not see everything:", width);
    std::iter::once(head).chain(lines).collect()
}

/// The table of groups, in the order of `groups`.
#[must_use]
pub fn groups_table(groups: &[Group], width: Option<usize>) -> String {
    if groups.is_empty() {
        return NOTHING_STUCK.into();
    }
    let has_unread = width.is_none_or(|width| width >= UNREAD_FROM);
    let longest = groups.iter().map(|group| group.key.chars().count()).max().unwrap_or_default();
    let key = if width.is_some() { longest.clamp("GROUP".len(), GROUP) } else { GROUP };
    let (count, oldest, unread) = if width.is_some() { (6, 7, 8) } else { (7, 9, 12) };
    let unread = has_unread.then_some(Column::right("UNREAD", unread));
    let columns = [Column::right("COUNT", count), Column::right("OLDEST", oldest)].into_iter().chain(unread);
    let columns = columns.chain([Column::left("GROUP", key)]).collect();
    let layout = Layout { columns, width };
    let rows = groups.iter().map(|group| {
        let list = |counts: &BTreeMap<&'static str, usize>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let oldest = group.oldest_ns.map_or_else(|| "-".into(), |ns| format!(">{}", duration(ns)));
        let mut cells = vec![group.count.to_string(), oldest];
        cells.extend(has_unread.then(|| group.unread_bytes.to_string()));
        let name = printable(&group.key);
        let counts = format!("{}; {}", list(&group.states), list(&group.reasons));
        // A name that is as long as a sentence takes several lines.
        if width.is_some() && name.chars().count() > key {
            return layout.row(&cells, 1, &format!("{name} {counts}"));
        }
        cells.push(name);
        layout.row(&cells, 1, &counts)
    });
    std::iter::once(layout.header("STATES, REASONS")).chain(rows).collect()
}

/// The first elements of a list, and the number of the others.
fn listed(items: impl Iterator<Item = String>, count: usize) -> String {
    let shown: Vec<String> = items.take(MOST_LISTED).collect();
    match count - shown.len() {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

fn process(process: &Process) -> String {
    format!("{}({})", printable(&process.comm), process.pid)
}

/// What the timer of the kernel will do, and when.
fn timer(report: &SocketReport) -> String {
    if report.socket.is_partial {
        return "not known".into();
    }
    match report.socket.timer {
        Some(timer) => {
            let what = match timer.kind {
                TimerKind::Retransmit => "sends again",
                TimerKind::Keepalive => "keepalive",
                TimerKind::TimeWait => "ends",
                TimerKind::Probe => "asks for the window",
            };
            format!("{what} in {}", duration(timer.left_ns))
        }
        None => "none (no keepalive): the state can last for ever".into(),
    }
}

/// The descriptor, mapping or registered file by which a process holds a socket.
#[must_use]
pub fn held_via(holder: &Holder) -> String {
    match (holder.via, holder.tid) {
        (Via::Descriptor(fd), None) => format!("fd {fd}"),
        (Via::Descriptor(fd), Some(tid)) => format!("fd {fd} of thread {tid}"),
        (Via::IoUring(ring), _) => format!("io_uring fd {ring}"),
        (Via::Mapping, _) => "mapped".into(),
    }
}

/// The container, pod or unit of a workload, if one is known.
fn place(workload: Workload<'_>) -> Option<String> {
    let container = workload.container.map(|container| format!("container {}", container.shown_name()));
    let pod = workload.pod.map(|pod| format!("pod {pod}"));
    let unit = workload.unit.map(|unit| format!("unit {unit}"));
    let parts: Vec<String> = [container, pod, unit].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
