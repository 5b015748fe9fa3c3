//! `sockstate stuck`, and `close-wait`.

use std::{cmp::Reverse, collections::BTreeMap, process::ExitCode, thread};

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
    model::{Diagnosis, Examined, Filter, Looked, Process, SocketInfo, State, StateSet, Subject, Thresholds},
    pipeline,
    source::Openings,
    track::{self, diagnose},
};

/// Exit codes of monitoring plugins.
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// `stuck --state CLOSE_WAIT`.
pub(super) fn close_wait(mut args: StuckArgs) -> Result<ExitCode> {
    args.state = vec![StateSet::from(State::CloseWait)];
    run(&args)
}

/// Runs it.
pub(super) fn run(args: &StuckArgs) -> Result<ExitCode> {
    let filter = filter(&args.select)?;
    if (args.group_by == Some(GroupBy::Stack)) != args.hunt.is_some() {
        let message = "--group-by stack and --hunt FILE go together: the file is what `sockstate hunt --format json` writes";
        return Err(Failure::usage(message).into());
    }
    let as_table = as_table(args.format);
    loop {
        let (stuck, look) = match find(args, &filter) {
            Err(error) if args.check => {
                super::print(&format!("SOCKSTATE UNKNOWN - {error}\n"))?;
                return Ok(ExitCode::from(UNKNOWN));
            }
            found => found?,
        };
        if args.check {
            return check(args, &stuck, &look);
        }
        let openings = args.hunt.as_deref().map(Openings::read).transpose().map_err(Failure::usage)?;
        let groups = |by| groups(by, &stuck, openings.as_ref());
        let time_ns = pipeline::now_ns();
        let text = match (args.group_by, as_table) {
            (Some(by), true) => format::groups_table(&groups(by)),
            (Some(by), false) => groups(by).iter().map(|group| format::group_json(group, time_ns)).collect(),
            (None, true) => format::stuck_table(&stuck),
            (None, false) => {
                stuck.iter().map(|(it, diagnosis)| format::stuck_json(it, diagnosis, time_ns)).collect()
            }
        };
        if args.watch.is_some() && as_table {
            // Home, and what was there before goes.
            super::print("\x1b[H\x1b[2J")?;
        }
        super::print(&text)?;
        match args.watch {
            Some(every) => thread::sleep(every),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// The sockets past their thresholds, the oldest first.
fn find(args: &StuckArgs, filter: &Filter) -> Result<(Vec<(Looked, Diagnosis)>, Look), Failure> {
    let thresholds = Thresholds::with(&args.threshold);
    let states = union(&args.state);
    let older_than = args.older_than.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    // Whoever is younger than any threshold need not be looked for in /proc.
    let least_ns = older_than.unwrap_or_else(|| thresholds.least_ns());
    let is_old = |socket: &SocketInfo| {
        track::age(socket).map(|age| age.ns).max(track::unanswered_ns(socket)) >= Some(least_ns)
    };
    let (sockets, look) = look(filter, args.select.cgroup.as_deref(), |socket| {
        let wanted = if states.is_empty() {
            !matches!(socket.state, State::Established | State::Listen | State::TimeWait)
                || !args.threshold.is_empty()
        } else {
            states.contains(socket.state)
        };
        wanted && socket.state != State::Listen && is_old(socket)
    })?;
    let is_stuck = |it: &Examined| {
        let tuple = it.socket.tuple;
        let comms: Vec<&str> = it.holders.iter().map(|holder| holder.process.comm.as_str()).collect();
        let own = thresholds.of(it.socket.state, [tuple.local_port, tuple.remote_port], &comms);
        let after = match older_than {
            Some(time) => own.or(states.contains(it.socket.state).then_some(0)).map(|_| time),
            None => own,
        };
        after.is_some_and(|after| it.idle_ns().is_some_and(|idle| idle >= after))
    };
    let mut stuck: Vec<(Looked, Diagnosis)> = sockets
        .into_iter()
        .filter(|looked| is_stuck(&looked.it))
        .map(|looked| {
            let netns = look.foreign.get(&looked.it.socket.netns);
            let diagnosis = diagnose(&looked.it, netns.map(std::path::PathBuf::as_path));
            (looked, diagnosis)
        })
        .collect();
    stuck.sort_by_key(|(looked, _)| Reverse(looked.it.idle_ns()));
    Ok((stuck, look))
}

/// A plugin's answer.
fn check(args: &StuckArgs, stuck: &[(Looked, Diagnosis)], look: &Look) -> Result<ExitCode> {
    let count = stuck.len();
    let (word, code) = match count {
        _ if count >= args.crit => ("CRITICAL", CRITICAL),
        _ if count >= args.warn => ("WARNING", WARNING),
        _ if !look.problems.is_empty() => ("UNKNOWN", UNKNOWN),
        _ => ("OK", 0),
    };
    let oldest = stuck.first().and_then(|(looked, _)| looked.it.idle_ns()).unwrap_or(0) / 1_000_000_000;
    let most = groups(GroupBy::Process, stuck, None);
    let whose =
        most.first().map(|group| format!(", {} of them {}", group.count, group.key)).unwrap_or_default();
    let problem = look.problems.first().map(|problem| format!("; {problem}")).unwrap_or_default();
    let (warn, crit) = (args.warn, args.crit);
    super::print(&format!(
        "SOCKSTATE {word} - {count} sockets stuck{whose}{problem} | stuck={count};{warn};{crit};0 oldest={oldest}s\n"
    ))?;
    Ok(ExitCode::from(code))
}

fn groups(by: GroupBy, stuck: &[(Looked, Diagnosis)], openings: Option<&Openings>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (Looked { it, subject }, diagnosis) in stuck {
        for key in keys(by, it, subject, openings) {
            let group = groups.entry(key.clone()).or_insert_with(|| Group { key, ..Group::default() });
            group.count += 1;
            group.oldest_ns = group.oldest_ns.max(it.idle_ns());
            group.unread_bytes += u64::from(it.socket.unread_bytes());
            *group.states.entry(it.socket.state.name()).or_default() += 1;
            *group.reasons.entry(diagnosis.reason.name()).or_default() += 1;
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.count));
    groups
}

/// What a socket counts for; more than one where several processes have it open.
fn keys(by: GroupBy, it: &Examined, subject: &Subject, openings: Option<&Openings>) -> Vec<String> {
    let name = |process: &Process| format!("{} ({})", process.comm, process.pid);
    let tuple = it.socket.tuple;
    match by {
        GroupBy::Process => {
            let mut keys: Vec<String> = it.holders.iter().map(|holder| name(&holder.process)).collect();
            keys.dedup();
            if keys.is_empty() && it.hidden_holders && it.socket.inode != 0 {
                keys.push("hidden".into());
            }
            if keys.is_empty() {
                let listener = it.listener.as_ref().and_then(|listener| listener.holders.first());
                keys.push(
                    listener.map_or_else(|| "nobody".into(), |it| format!("never accepted by {}", name(it))),
                );
            }
            keys
        }
        GroupBy::Listener => vec![match &it.listener {
            Some(_) => format!("port {}", tuple.local_port),
            None => "none".into(),
        }],
        GroupBy::Peer => vec![tuple.remote.canonical().to_string()],
        GroupBy::Stack => {
            let stack = openings.and_then(|openings| openings.find(it.socket.netns, &tuple));
            vec![stack.map_or_else(
                || "opening not seen".into(),
                |stack| format!("{} at {}", stack.by.name(), format::opened_at(stack)),
            )]
        }
        GroupBy::Container => {
            let container = subject.container.as_ref().map(|container| container.id.clone());
            vec![container.or_else(|| subject.unit.clone()).unwrap_or_else(|| "none".into())]
        }
    }
}
