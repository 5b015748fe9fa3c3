//! `sockstate stuck`, and `close-wait`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    process::ExitCode,
    rc::Rc,
    thread,
};

use anyhow::Result;

use super::{
    Failure, filter,
    look::{as_table, look},
    union,
};
use crate::{
    cli::{GroupBy, StuckArgs},
    format::{self, Group},
    look::Look,
    model::{
        Diagnosis, Filter, Gap, InState, Process, Reason, SocketEntry, SocketInfo, SocketReport, State,
        StateSet, Thresholds, Transport, Tuple, Workload, printable,
    },
    pipeline,
    source::Openings,
    track::{self, diagnose},
};

/// Exit codes of `--check`, as monitoring plugins have them.
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// `stuck --state CLOSE_WAIT`.
pub(super) fn close_wait(mut args: StuckArgs) -> Result<ExitCode> {
    args.state = vec![StateSet::from(State::CloseWait)];
    run(&args)
}

pub(super) fn run(args: &StuckArgs) -> Result<ExitCode> {
    let filter = filter(&args.select)?;
    if (args.group_by == Some(GroupBy::Stack)) != args.hunt.is_some() {
        let message = "--group-by stack and --hunt FILE need each other; FILE is the output of `sockstate hunt --format json`";
        return Err(Failure::usage(message).into());
    }
    let as_table = as_table(args.format);
    if let Some(path) = &args.from {
        return recorded(args, path, as_table);
    }
    loop {
        let (stuck, look) = match find(args, &filter) {
            Err(error) if args.check => {
                super::print([format!("SOCKSTATE UNKNOWN - {error}\n")])?;
                return Ok(ExitCode::from(UNKNOWN));
            }
            found => found?,
        };
        if args.check {
            let code = check(args, &stuck, &look)?;
            leave(stuck, look);
            return Ok(code);
        }
        // Texts are made only when a socket is shown: texts for all sockets would take most of the memory.
        let explain = |report: &SocketReport| {
            diagnose(report, look.foreign.get(&report.socket.netns).map(std::path::PathBuf::as_path))
        };
        let time = format::look_time(pipeline::now_ns());
        if args.watch.is_some() && as_table {
            // Cursor to the top left, and erase the screen.
            super::print(["\x1b[H\x1b[2J"])?;
        }
        show(args, as_table, &stuck, &time, track::reason, explain)?;
        super::look::show_gaps(as_table, filter.netns, &look.gaps, &time)?;
        let Some(every) = args.watch else {
            leave(stuck, look);
            return Ok(ExitCode::SUCCESS);
        };
        thread::sleep(every);
    }
}

/// Writes the sockets, or their groups.
fn show(
    args: &StuckArgs,
    as_table: bool,
    stuck: &[SocketEntry],
    time: &str,
    reason: impl Fn(&SocketReport) -> Reason,
    explain: impl Fn(&SocketReport) -> Diagnosis,
) -> Result<()> {
    let openings = args.hunt.as_deref().map(Openings::read).transpose().map_err(Failure::usage)?;
    let groups = |by| groups(by, stuck, openings.as_ref(), &reason);
    match (args.group_by, as_table) {
        (Some(by), true) => super::print([format::groups_table(&groups(by))])?,
        (Some(by), false) => super::print(groups(by).iter().map(|group| format::group_json(group, time)))?,
        (None, true) => super::print([format::stuck_table(stuck, &reason, explain)])?,
        (None, false) => {
            let line = |looked: &SocketEntry| format::stuck_json(looked, &explain(&looked.report), time);
            super::print(stuck.iter().map(line))?;
        }
    }
    Ok(())
}

/// Shows the sockets that were stuck at the end of a recording, as the tracer's last look found them.
fn recorded(args: &StuckArgs, path: &Path, as_table: bool) -> Result<ExitCode> {
    let story = super::story(path, &args.select)?;
    let states = union(&args.state);
    let least_ns = args.older_than.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let mut found: HashMap<(u32, Tuple), Diagnosis> = HashMap::new();
    let mut entries = Vec::new();
    for history in story.histories.values().filter(|history| history.is_stuck) {
        let Some((stuck, (examined, diagnosis))) =
            history.stuck.as_ref().and_then(|stuck| Some((stuck, &**stuck.found.as_ref()?)))
        else {
            continue;
        };
        let since_ns = u64::try_from(story.end_ns - stuck.time_ns).unwrap_or(0);
        let age = InState { ns: stuck.age.ns.saturating_add(since_ns), ..stuck.age };
        if (states.is_empty() || states.contains(stuck.state)) && age.ns >= least_ns {
            found.insert((examined.socket.netns, stuck.conn.tuple), diagnosis.clone());
            let examined = SocketReport { age: Some(age), ..examined.clone() };
            entries.push(SocketEntry { report: examined, subject: Rc::clone(&history.subject) });
        }
    }
    entries.sort_by_cached_key(|looked| Reverse(looked.report.idle_ns()));
    let explain = |report: &SocketReport| {
        let known = found.get(&(report.socket.netns, report.socket.tuple)).cloned();
        known.unwrap_or_else(|| diagnose(report, None))
    };
    let reason = |report: &SocketReport| explain(report).reason;
    show(args, as_table, &entries, &format::look_time(story.end_ns), reason, explain)?;
    Ok(ExitCode::SUCCESS)
}

/// Leaves the memory to the end of the process: to drop a hundred thousand sockets takes a fifth of a second.
fn leave(stuck: Vec<SocketEntry>, look: Look) {
    std::mem::forget((stuck, look));
}

/// The sockets past their thresholds, the oldest first; then sockets that may be stuck, whose ages are not known.
fn find(args: &StuckArgs, filter: &Filter) -> Result<(Vec<SocketEntry>, Look), Failure> {
    let thresholds = Thresholds::with(&args.threshold);
    let states = union(&args.state);
    let older_than = args.older_than.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    // For a socket that is younger than all thresholds, /proc is not searched.
    let least_ns = older_than.unwrap_or_else(|| thresholds.least_ns());
    // A socket of unknown age has the lower bound 0.
    let is_old = |socket: &SocketInfo| {
        let age_ns = track::age(socket).map(|age| age.ns);
        let known_ns = age_ns.max(track::unanswered_ns(socket)).unwrap_or(0);
        known_ns.max(track::age_at_most_ns(socket).unwrap_or(0)) >= least_ns
    };
    let (sockets, look) = look(filter, |socket| {
        let wanted = if states.is_empty() {
            !matches!(socket.state, State::Established | State::Listen | State::TimeWait)
                || !args.threshold.is_empty()
        } else {
            states.contains(socket.state)
        };
        wanted && socket.state != State::Listen && (socket.is_partial || is_old(socket))
    })?;
    let after_ns = |report: &SocketReport| {
        let tuple = report.socket.tuple;
        let comms: Vec<&str> = report.holders.iter().map(|holder| holder.process.comm.as_str()).collect();
        let own = thresholds.of(report.socket.state, [tuple.local_port, tuple.remote_port], &comms);
        match older_than {
            Some(time) => own.or(states.contains(report.socket.state).then_some(0)).map(|_| time),
            None => own,
        }
    };
    let mut stuck = sockets;
    stuck.retain_mut(|SocketEntry { report, .. }| {
        let Some(after_ns) = after_ns(report) else { return false };
        let is_stuck = !report.socket.is_partial && report.idle_ns().unwrap_or(0) >= after_ns;
        // The age of a partial socket is not known.
        report.may_be_stuck =
            !is_stuck && (report.socket.is_partial || track::may_be_older(&report.socket, after_ns));
        is_stuck || report.may_be_stuck
    });
    drop_doubles(&mut stuck);
    stuck.sort_by_cached_key(|looked| (looked.report.may_be_stuck, Reverse(looked.report.idle_ns())));
    Ok((stuck, look))
}

/// Drops an MPTCP connection that is stuck in the same state as a subflow with the same ends, so that it counts once.
fn drop_doubles(stuck: &mut Vec<SocketEntry>) {
    let place = |socket: &SocketInfo| (socket.netns, socket.tuple.of_any_socket(), socket.state);
    let of = |stuck: &[SocketEntry], transport| {
        stuck
            .iter()
            .filter(|entry| entry.report.socket.transport == transport)
            .map(|entry| place(&entry.report.socket))
            .collect()
    };
    let mptcp: HashSet<_> = of(stuck, Transport::Mptcp);
    if !mptcp.is_empty() {
        let tcp: HashSet<_> = of(stuck, Transport::Tcp);
        stuck.retain(|entry| {
            entry.report.socket.transport == Transport::Tcp || !tcp.contains(&place(&entry.report.socket))
        });
    }
}

fn check(args: &StuckArgs, stuck: &[SocketEntry], look: &Look) -> Result<ExitCode> {
    let (line, code) = status(args.warn, args.crit, stuck, &look.gaps);
    super::print([line])?;
    Ok(ExitCode::from(code))
}

/// The line and exit code of a monitoring plugin.
fn status(warn: usize, crit: usize, stuck: &[SocketEntry], gaps: &[Gap]) -> (String, u8) {
    let certain = || stuck.iter().filter(|looked| !looked.report.may_be_stuck);
    let count = certain().count();
    let unsure = stuck.len() - count;
    let (word, code) = match count {
        _ if count >= crit => ("CRITICAL", CRITICAL),
        _ if count >= warn => ("WARNING", WARNING),
        _ if !gaps.is_empty() || stuck.len() >= warn => ("UNKNOWN", UNKNOWN),
        _ => ("OK", 0),
    };
    let oldest = stuck.first().and_then(|looked| looked.report.idle_ns()).unwrap_or(0) / 1_000_000_000;
    let most = groups(GroupBy::Process, certain(), None, track::reason);
    let whose =
        most.first().map(|group| format!(", {} of them {}", group.count, group.key)).unwrap_or_default();
    let gaps: String = gaps.iter().map(|gap| format!("; {}", gap.why)).collect();
    let unsure = match unsure {
        0 => String::new(),
        count => format!("; {count} may be stuck, because their ages are not known"),
    };
    // In a plugin's output, performance data follows a bar or a line feed.
    let text = printable(&format!("SOCKSTATE {word} - {count} sockets stuck{whose}{unsure}{gaps}"))
        .replace('|', "/");
    (format!("{text} | stuck={count};{warn};{crit};0 oldest={oldest}s\n"), code)
}

fn groups<'a>(
    by: GroupBy,
    stuck: impl IntoIterator<Item = &'a SocketEntry>,
    openings: Option<&Openings>,
    reason: impl Fn(&SocketReport) -> Reason,
) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for looked in stuck {
        let report = &looked.report;
        let reason = reason(report);
        for key in keys(by, looked, openings, reason) {
            let group = groups.entry(key.clone()).or_insert_with(|| Group { key, ..Group::default() });
            group.count += 1;
            group.oldest_ns = group.oldest_ns.max(report.idle_ns());
            group.unread_bytes += u64::from(report.socket.unread_bytes());
            *group.states.entry(report.socket.state.name()).or_default() += 1;
            *group.reasons.entry(reason.name()).or_default() += 1;
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.count));
    groups
}

/// The groups of a socket; several if several processes hold it.
fn keys(by: GroupBy, looked: &SocketEntry, openings: Option<&Openings>, reason: Reason) -> Vec<String> {
    let report = &looked.report;
    let tuple = report.socket.tuple;
    match by {
        GroupBy::Process => {
            let mut keys: Vec<String> = report.holders.iter().map(|holder| name(&holder.process)).collect();
            keys.dedup();
            if keys.is_empty() {
                keys.push(held_by_nobody(report, reason));
            }
            keys
        }
        GroupBy::Listener => vec![match report.listening().next() {
            Some(_) => format!("port {}", tuple.local_port),
            None => "none".into(),
        }],
        GroupBy::Peer => vec![tuple.remote.canonical().to_string()],
        GroupBy::Stack => {
            let found = openings.and_then(|openings| openings.find(report.socket.netns, &tuple));
            vec![match found {
                Some(Ok(stack)) => format!("{} at {}", stack.by.name(), format::opened_at(stack)),
                Some(Err(why)) => why.text().to_owned(),
                None => "not reported by the hunt".to_owned(),
            }]
        }
        GroupBy::Container => {
            let key = |workload: Workload<'_>| {
                let container = workload.container.map(|container| container.id.as_str());
                container.or(workload.unit).unwrap_or("none").to_owned()
            };
            let mut keys: Vec<String> = looked.workloads().into_iter().map(key).collect();
            keys.sort();
            keys.dedup();
            keys
        }
    }
}

fn name(process: &Process) -> String {
    format!("{} ({})", process.comm, process.pid)
}

/// The group of a socket without a known holder.
fn held_by_nobody(report: &SocketReport, reason: Reason) -> String {
    let has_file = report.socket.inode != 0;
    match (report.socket.state, reason) {
        _ if report.of_kernel => "kernel".into(),
        (_, Reason::InFlight) => "in flight".into(),
        (_, Reason::HolderHidden) => "hidden".into(),
        _ if has_file && report.hidden_holders => "hidden".into(),
        (State::CloseWait, Reason::Unknown) => "unknown".into(),
        _ if has_file => "unknown".into(),
        (State::CloseWait | State::Established | State::NewSynRecv | State::SynRecv, _) => {
            let listening = track::names(report.listening());
            listening.map_or_else(|| "nobody".into(), |names| format!("never accepted by {names}"))
        }
        _ => "nobody".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Connection, Holder, Via};

    #[test]
    fn only_certain_sockets_count_for_a_process() {
        let entry = |may_be_stuck, pid, comm: &str| {
            let mut report = SocketReport::new(SocketInfo::bare(1, State::CloseWait, Tuple::example()));
            report.may_be_stuck = may_be_stuck;
            let process = Arc::new(Process { pid, comm: comm.into(), ..Process::default() });
            let via = Via::Descriptor(7);
            report.holders.push(Holder { process, via, tid: None, close_on_exec: Some(false), watch: None });
            SocketEntry { report, subject: Rc::clone(&Connection::example().subject) }
        };
        let unsure = || entry(true, 12, "nginx");
        for (stuck, start, code) in [
            (
                vec![unsure(), unsure()],
                "SOCKSTATE UNKNOWN - 0 sockets stuck; 2 may be stuck, because",
                UNKNOWN,
            ),
            (
                vec![entry(false, 34, "python3"), unsure(), unsure()],
                "SOCKSTATE WARNING - 1 sockets stuck, 1 of them python3 (34); 2 may be stuck, because",
                WARNING,
            ),
        ] {
            let (line, exit) = status(1, 10, &stuck, &[]);
            assert!(line.starts_with(start) && !line.contains("nginx"), "{line}");
            assert_eq!(exit, code, "{line}");
        }
    }
}
