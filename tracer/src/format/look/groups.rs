//! Groups of stuck sockets. Each group has a text: why its sockets are stuck, and what to do.

use std::collections::{BTreeMap, HashMap};

use super::{MOST_LISTED, listed, place, process, rows::SocketRow, timer};
use crate::{
    display::{command, duration, paragraph, readable},
    model::{
        Diagnosis, Reason, SocketEntry, SocketReport, State, Workload,
        bounds::{PATH, SENTENCE},
        printable,
    },
};

/// More groups than these with the same state and reason, which differ only in their processes or timers, become one
/// group.
const MOST_ALIKE: usize = 3;

/// The limit of programs that the text about a group names.
const MOST_PROGRAMS: usize = 5;

/// Sockets that are stuck for one reason.
pub(super) struct SocketGroup<'a> {
    /// Lists of sockets with the same processes and the same timer. The same text would fit all sockets of a list.
    parts: Vec<Vec<&'a SocketEntry>>,
}

/// Groups the sockets. The groups are in the order of their first sockets.
pub(super) fn groups(
    stuck: &[SocketEntry],
    reason: impl Fn(&SocketReport) -> Reason,
) -> Vec<SocketGroup<'_>> {
    let mut groups: Vec<((State, Reason, bool), SocketGroup<'_>)> = Vec::new();
    let mut known = HashMap::new();
    for looked in stuck {
        let report = &looked.report;
        let kind = (report.socket.state, reason(report), report.may_be_stuck);
        // The text about a socket without a holder names the processes that listen.
        let holders = report.holders.iter().map(|holder| holder.process.pid);
        let pids: Vec<u32> = holders.chain(report.listening().map(|process| process.pid)).collect();
        let timer = report.socket.timer.map(|timer| timer.kind);
        let at = *known.entry((kind, timer, pids, report.of_kernel)).or_insert(groups.len());
        match groups.get_mut(at).and_then(|(_, group)| group.parts.first_mut()) {
            Some(part) => part.push(looked),
            None => groups.push((kind, SocketGroup { parts: vec![vec![looked]] })),
        }
    }
    merge(groups)
}

/// Merges groups with the same state and reason, if there are many.
fn merge(groups: Vec<((State, Reason, bool), SocketGroup<'_>)>) -> Vec<SocketGroup<'_>> {
    let mut alike: HashMap<_, usize> = HashMap::new();
    groups.iter().for_each(|(kind, _)| *alike.entry(*kind).or_default() += 1);
    let mut merged: Vec<SocketGroup<'_>> = Vec::new();
    let mut places = HashMap::new();
    for (kind, group) in groups {
        let is_one_of_many = alike.get(&kind).is_some_and(|count| *count > MOST_ALIKE);
        let place = if is_one_of_many { *places.entry(kind).or_insert(merged.len()) } else { merged.len() };
        match merged.get_mut(place) {
            Some(all) => all.parts.extend(group.parts),
            None => merged.push(group),
        }
    }
    merged
}

impl SocketGroup<'_> {
    /// Up to `most` sockets of the group: first one socket of each list, then the others.
    pub(super) fn rows(&self, most: usize) -> impl Iterator<Item = SocketRow> {
        let firsts = self.parts.iter().filter_map(|part| part.first());
        let others = self.parts.iter().flat_map(|part| part.iter().skip(1));
        firsts.chain(others).take(most).map(|looked| SocketRow::of(&looked.report))
    }

    fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// The text about the first socket, and the number of other sockets. The table above the text shows `shown` of
    /// them.
    pub(super) fn describe(
        &self,
        shown: usize,
        width: Option<usize>,
        explain: impl Fn(&SocketReport) -> Diagnosis,
    ) -> String {
        let mut text = Text { out: String::new(), width };
        if self.parts.len() > 1 {
            let all =
                format!("{} sockets of {}; what follows is about the first one", self.len(), self.programs());
            text.line("count", &all);
        }
        if let more @ 1.. = self.len().saturating_sub(shown) {
            let all = "`sockstate stuck --format json` lists all of them";
            text.line("more", &format!("{more} more sockets; {all}"));
        }
        if let Some(looked) = self.parts.first().and_then(|part| part.first()) {
            describe(looked, &explain(&looked.report), &mut text);
        }
        text.out
    }

    /// The programs that hold the sockets, with the number of sockets of each.
    fn programs(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for looked in self.parts.iter().flatten() {
            let holder = looked.report.holders.first();
            *counts.entry(holder.map_or("no process", |holder| holder.process.comm.as_str())).or_default() +=
                1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let named =
            counts.iter().take(MOST_PROGRAMS).map(|(comm, count)| format!("{} ({count})", printable(comm)));
        let named: Vec<String> = named.collect();
        match counts.len().saturating_sub(MOST_PROGRAMS) {
            0 => named.join(", "),
            more => format!("{} and {more} other programs", named.join(", ")),
        }
    }
}

/// Lines that each begin with a word.
struct Text {
    out: String,
    width: Option<usize>,
}

impl Text {
    fn line(&mut self, word: &str, text: &str) {
        self.out.push_str(&paragraph(&format!("  {word:<6}"), text, self.width));
    }
}

/// Writes why a socket is stuck, who is involved, and what to do.
fn describe(looked: &SocketEntry, diagnosis: &Diagnosis, text: &mut Text) {
    let SocketEntry { report, subject } = looked;
    let Diagnosis { why, advice, commands, more_commands, cannot_destroy, .. } = diagnosis;
    text.line("why", &readable(why, SENTENCE));
    if let (true, Some(age), Some(most_ns)) = (report.may_be_stuck, report.age, report.age_at_most_ns) {
        let (least, most) = (duration(age.ns), duration(most_ns));
        let why = "what was acknowledged later hides it, and a trace knows it";
        text.line("age", &format!("not known: at least {least}, at most {most}; {why}"));
    }
    if let Some(creator) = report.creator() {
        text.line("made", &format!("by {}, which listens", process(creator)));
    } else if report.listeners.len() > 1 && report.holders.is_empty() {
        let all = listed(report.listening().map(|candidate| process(candidate)), report.listening().count());
        text.line("made", &format!("by one of {all}, which listen"));
    }
    if let Some(exe) = report.holders.first().and_then(|holder| holder.process.exe.as_deref()) {
        text.line("exe", &readable(exe, PATH));
    }
    describe_places(looked, text);
    let made_in = Workload::from(&**subject);
    if let Some(place) = place(made_in).filter(|_| !looked.workloads().contains(&made_in)) {
        text.line("from", &printable(&place));
    }
    text.line("timer", &timer(report));
    text.line("do", &readable(advice, SENTENCE));
    for line in commands {
        text.out.push_str(&command("        $ ", &printable(line), text.width));
    }
    if *more_commands > 0 {
        text.line("", &format!("and {more_commands} commands more, for other holders"));
    }
    if let Some(how) = cannot_destroy {
        text.line("end", &readable(how, SENTENCE));
    }
}

/// Writes the workloads of a socket's holders, and the network namespaces that they serve.
fn describe_places(looked: &SocketEntry, text: &mut Text) {
    let places: Vec<String> = looked.workloads().into_iter().filter_map(place).collect();
    for place in places.iter().take(MOST_LISTED) {
        text.line("in", &printable(place));
    }
    if let more @ 1.. = places.len().saturating_sub(MOST_LISTED) {
        text.line("in", &format!("{more} more"));
    }
    let served = looked.report.holders.iter().filter_map(|holder| holder.process.serves.as_deref());
    for served in served.take(MOST_LISTED) {
        let inside = place(Workload::from(served)).map(|place| format!(", {place}")).unwrap_or_default();
        text.line("for", &format!("network namespace {}{}", served.netns, printable(&inside)));
    }
}
