//! One look at the sockets, as tables for people (docs/stuck.md).

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use crate::{
    display::{duration, endpoints, lower_bound, readable},
    model::{
        Diagnosis, Gap, Holder, MptcpPart, Process, Reason, SocketEntry, SocketReport, State, TimerKind,
        Transport, Via, Workload,
        bounds::{PATH, SENTENCE},
        printable,
    },
};

/// Holders, places and the like that a table lists of one socket.
const MOST_LISTED: usize = 32;

/// Stuck sockets counted by something.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What they have in common.
    pub key: String,
    /// How many.
    pub count: usize,
    /// Time that the oldest has not moved, ns.
    pub oldest_ns: Option<u64>,
    /// Bytes that nobody has read, all together.
    pub unread_bytes: u64,
    /// How many in each state.
    pub states: BTreeMap<&'static str, usize>,
    /// How many for each reason.
    pub reasons: BTreeMap<&'static str, usize>,
}

/// All sockets, one a line.
#[must_use]
pub fn sockets_table<'a>(sockets: impl IntoIterator<Item = &'a SocketReport>) -> String {
    let mut out = format!(
        "{:<11} {:>9} {:>8} {:>8} {:<24} {:<24} {}\n",
        "STATE", "AGE", "UNREAD", "UNSENT", "LOCAL", "REMOTE", "HELD BY"
    );
    for report in sockets {
        line(report, &mut out);
    }
    out
}

/// Stuck sockets: those with one reason, one kind of timer and one holder together, then why, and what to do.
#[must_use]
pub fn stuck_table(
    stuck: &[SocketEntry],
    reason: impl Fn(&SocketReport) -> Reason,
    explain: impl Fn(&SocketReport) -> Diagnosis,
) -> String {
    if stuck.is_empty() {
        return "nothing is stuck\n".into();
    }
    let mut out = String::new();
    for section in sections(stuck, reason) {
        out.push_str(&sockets_table(section.iter().map(|looked| &looked.report)));
        if let Some(looked) = section.first() {
            describe(looked, &explain(&looked.report), &mut out);
        }
        out.push('\n');
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    stuck.iter().for_each(|looked| *counts.entry(looked.report.socket.state.name()).or_default() += 1);
    let list: Vec<String> = counts.iter().map(|(state, count)| format!("{count} in {state}")).collect();
    let unsure = match stuck.iter().filter(|looked| looked.report.may_be_stuck).count() {
        0 => String::new(),
        count => format!("; of {count} the age is not known"),
    };
    let _ = writeln!(out, "{} stuck: {}{unsure}", stuck.len(), list.join(", "));
    out
}

/// Those that one text is about, together.
fn sections(stuck: &[SocketEntry], reason: impl Fn(&SocketReport) -> Reason) -> Vec<Vec<&SocketEntry>> {
    let mut sections: Vec<Vec<&SocketEntry>> = Vec::new();
    let mut known = HashMap::new();
    for looked in stuck {
        let report = &looked.report;
        // The text names who listens where nobody holds it.
        let holders = report.holders.iter().map(|holder| holder.process.pid);
        let pids: Vec<u32> = holders.chain(report.listening().map(|process| process.pid)).collect();
        let timer = report.socket.timer.map(|timer| timer.kind);
        let at = *known
            .entry((report.socket.state, reason(report), timer, pids, report.of_kernel, report.may_be_stuck))
            .or_insert(sections.len());
        match sections.get_mut(at) {
            Some(section) => section.push(looked),
            None => sections.push(vec![looked]),
        }
    }
    sections
}

/// What is known of a section's sockets, by its first one.
fn describe(looked: &SocketEntry, diagnosis: &Diagnosis, out: &mut String) {
    let SocketEntry { report, subject } = looked;
    let Diagnosis { why, advice, commands, more_commands, cannot_destroy, .. } = diagnosis;
    // Writing to a string does not fail.
    let _ = writeln!(out, "  why   {}", readable(why, SENTENCE));
    if let (true, Some(age), Some(most_ns)) = (report.may_be_stuck, report.age, report.age_at_most_ns) {
        let (least, most) = (duration(age.ns), duration(most_ns));
        let _ = writeln!(
            out,
            "  age   not known: at least {least}, at most {most}; what was acknowledged later hides it, and a trace \
             knows it"
        );
    }
    if let Some(creator) = report.creator() {
        let _ = writeln!(out, "  made  by {}, which listens", process(creator));
    } else if report.listeners.len() > 1 && report.holders.is_empty() {
        let all = listed(report.listening().map(|candidate| process(candidate)), report.listening().count());
        let _ = writeln!(out, "  made  by one of {all}, which listen");
    }
    if let Some(exe) = report.holders.first().and_then(|holder| holder.process.exe.as_deref()) {
        let _ = writeln!(out, "  exe   {}", readable(exe, PATH));
    }
    let places: Vec<String> = looked.workloads().into_iter().filter_map(place).collect();
    for place in places.iter().take(MOST_LISTED) {
        let _ = writeln!(out, "  in    {}", printable(place));
    }
    if let more @ 1.. = places.len().saturating_sub(MOST_LISTED) {
        let _ = writeln!(out, "  in    {more} more");
    }
    let served = report.holders.iter().filter_map(|holder| holder.process.serves.as_deref());
    for served in served.take(MOST_LISTED) {
        let inside = place(Workload::from(served)).map(|place| format!(", {place}")).unwrap_or_default();
        let _ = writeln!(out, "  for   network namespace {}{}", served.netns, printable(&inside));
    }
    let made_in = Workload::from(&**subject);
    if let Some(place) = place(made_in).filter(|_| !looked.workloads().contains(&made_in)) {
        let _ = writeln!(out, "  from  {}", printable(&place));
    }
    let _ = writeln!(out, "  timer {}", timer(report));
    let _ = writeln!(out, "  do    {}", readable(advice, SENTENCE));
    for command in commands {
        let _ = writeln!(out, "        $ {}", printable(command));
    }
    if *more_commands > 0 {
        let _ = writeln!(out, "        and {more_commands} commands more, for other holders");
    }
    if let Some(how) = cannot_destroy {
        let _ = writeln!(out, "  end   {}", readable(how, SENTENCE));
    }
}

/// What a look could not see, a line each.
#[must_use]
pub fn gaps_table(gaps: &[Gap]) -> String {
    let lines = gaps.iter().map(|gap| format!("  {}\n", printable(&gap.why)));
    std::iter::once("this is not all, for sockstate could not see everything:\n".to_owned())
        .chain(lines)
        .collect()
}

/// Counts, the greatest first.
#[must_use]
pub fn groups_table(groups: &[Group]) -> String {
    let mut out =
        format!("{:>7} {:>9} {:>12} {:<32} {}\n", "COUNT", "OLDEST", "UNREAD", "GROUP", "STATES, REASONS");
    for group in groups {
        let list = |counts: &BTreeMap<&'static str, usize>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let oldest = group.oldest_ns.map_or_else(|| "-".into(), |ns| format!(">{}", duration(ns)));
        let _ = writeln!(
            out,
            "{:>7} {oldest:>9} {:>12} {:<32} {}; {}",
            group.count,
            group.unread_bytes,
            printable(&group.key),
            list(&group.states),
            list(&group.reasons)
        );
    }
    out
}

fn line(report: &SocketReport, out: &mut String) {
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
        // Memory tells no bytes.
        _ if socket.transport == Transport::Mptcp => ("-".into(), "-".into()),
        _ => (socket.unread_bytes().to_string(), socket.unsent_bytes().to_string()),
    };
    let held = match (&report.holders[..], report.socket.inode, report.hidden_holders) {
        ([], 0, _) => "-".to_owned(),
        ([], _, _) if report.of_kernel => "kernel".to_owned(),
        ([], _, true) => "?".to_owned(),
        // It has a file, which somebody keeps.
        ([], _, false) => "unknown".to_owned(),
        (holders, _, _) => {
            let holder = |holder: &Holder| format!("{} {}", process(&holder.process), held_via(holder));
            listed(holders.iter().map(holder), report.holder_count())
        }
    };
    let state = socket.state.name();
    let mptcp = match socket.mptcp {
        Some(MptcpPart::Whole { subflows: 1, .. }) => " (MPTCP, 1 subflow)".to_owned(),
        Some(MptcpPart::Whole { subflows, .. }) => format!(" (MPTCP, {subflows} subflows)"),
        Some(MptcpPart::Subflow { .. }) => " (MPTCP subflow)".to_owned(),
        None => String::new(),
    };
    let _ =
        writeln!(out, "{state:<11} {age:>9} {unread:>8} {unsent:>8} {local:<24} {remote:<24} {held}{mptcp}");
}

/// The first of some, and how many more there are.
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

/// What the kernel will do by itself, and when.
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
        None => "none, not even keepalive: it may stay so for ever".into(),
    }
}

/// By what a process has a socket open.
#[must_use]
pub fn held_via(holder: &Holder) -> String {
    match (holder.via, holder.tid) {
        (Via::Descriptor(fd), None) => format!("fd {fd}"),
        (Via::Descriptor(fd), Some(tid)) => format!("fd {fd} of thread {tid}"),
        (Via::IoUring(ring), _) => format!("io_uring fd {ring}"),
        (Via::Mapping, _) => "mapped".into(),
    }
}

/// Container, pod or unit, where one is known.
fn place(workload: Workload<'_>) -> Option<String> {
    let container = workload.container.map(|container| format!("container {}", container.id));
    let pod = workload.pod_uid.map(|uid| format!("pod {uid}"));
    let unit = workload.unit.map(|unit| format!("unit {unit}"));
    let parts: Vec<String> = [container, pod, unit].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
