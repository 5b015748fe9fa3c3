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
        Diagnosis, Examined, Filter, Home, InState, Looked, Process, Reason, SocketInfo, State, StateSet,
        Thresholds, Transport, Tuple, printable,
    },
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
        // Only of what is shown: most is of the same kind, and texts for all would take more room than all the rest.
        let explain =
            |it: &Examined| diagnose(it, look.foreign.get(&it.socket.netns).map(std::path::PathBuf::as_path));
        let time = format::look_time(pipeline::now_ns());
        if args.watch.is_some() && as_table {
            // Home, and what was there before goes.
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

/// Writes them, or what they come to.
fn show(
    args: &StuckArgs,
    as_table: bool,
    stuck: &[Looked],
    time: &str,
    reason: impl Fn(&Examined) -> Reason,
    explain: impl Fn(&Examined) -> Diagnosis,
) -> Result<()> {
    let openings = args.hunt.as_deref().map(Openings::read).transpose().map_err(Failure::usage)?;
    let groups = |by| groups(by, stuck, openings.as_ref(), &reason);
    match (args.group_by, as_table) {
        (Some(by), true) => super::print([format::groups_table(&groups(by))])?,
        (Some(by), false) => super::print(groups(by).iter().map(|group| format::group_json(group, time)))?,
        (None, true) => super::print([format::stuck_table(stuck, &reason, explain)])?,
        (None, false) => {
            let line = |looked: &Looked| format::stuck_json(looked, &explain(&looked.it), time);
            super::print(stuck.iter().map(line))?;
        }
    }
    Ok(())
}

/// What was stuck at the end of a recording, as it was found then.
fn recorded(args: &StuckArgs, path: &Path, as_table: bool) -> Result<ExitCode> {
    let story = super::story(path, &args.select)?;
    let states = union(&args.state);
    let least_ns = args.older_than.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let mut found: HashMap<(u32, Tuple), Diagnosis> = HashMap::new();
    let mut stuck = Vec::new();
    for life in story.lives.values().filter(|life| life.is_stuck) {
        let Some((it, (examined, diagnosis))) =
            life.stuck.as_ref().and_then(|it| Some((it, &**it.found.as_ref()?)))
        else {
            continue;
        };
        let since_ns = u64::try_from(story.end_ns - it.time_ns).unwrap_or(0);
        let age = InState { ns: it.age.ns.saturating_add(since_ns), ..it.age };
        if (states.is_empty() || states.contains(it.state)) && age.ns >= least_ns {
            found.insert((examined.socket.netns, it.conn.tuple), diagnosis.clone());
            let examined = Examined { age: Some(age), ..examined.clone() };
            stuck.push(Looked { it: examined, subject: Rc::clone(&life.subject) });
        }
    }
    stuck.sort_by_cached_key(|looked| Reverse(looked.it.idle_ns()));
    let explain = |it: &Examined| {
        let known = found.get(&(it.socket.netns, it.socket.tuple)).cloned();
        known.unwrap_or_else(|| diagnose(it, None))
    };
    let reason = |it: &Examined| explain(it).reason;
    show(args, as_table, &stuck, &format::look_time(story.end_ns), reason, explain)?;
    Ok(ExitCode::SUCCESS)
}

/// The end of the process frees this at once; one by one, a hundred thousand sockets take a fifth of a second.
fn leave(stuck: Vec<Looked>, look: Look) {
    std::mem::forget((stuck, look));
}

/// The sockets past their thresholds, the oldest first; then those that may be, for their ages are not known.
fn find(args: &StuckArgs, filter: &Filter) -> Result<(Vec<Looked>, Look), Failure> {
    let thresholds = Thresholds::with(&args.threshold);
    let states = union(&args.state);
    let older_than = args.older_than.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    // A socket that is younger than any threshold need not be looked for in /proc.
    let least_ns = older_than.unwrap_or_else(|| thresholds.least_ns());
    // One whose age nothing tells is 0 old, at least.
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
    let after_ns = |it: &Examined| {
        let tuple = it.socket.tuple;
        let comms: Vec<&str> = it.holders.iter().map(|holder| holder.process.comm.as_str()).collect();
        let own = thresholds.of(it.socket.state, [tuple.local_port, tuple.remote_port], &comms);
        match older_than {
            Some(time) => own.or(states.contains(it.socket.state).then_some(0)).map(|_| time),
            None => own,
        }
    };
    let mut stuck = sockets;
    stuck.retain_mut(|Looked { it, .. }| {
        let Some(after_ns) = after_ns(it) else { return false };
        let is_stuck = !it.socket.is_partial && it.idle_ns().unwrap_or(0) >= after_ns;
        // Nothing tells the age of what is partial.
        it.may_be_stuck = !is_stuck && (it.socket.is_partial || track::may_be_older(&it.socket, after_ns));
        is_stuck || it.may_be_stuck
    });
    drop_doubles(&mut stuck);
    stuck.sort_by_cached_key(|looked| (looked.it.socket.is_partial, Reverse(looked.it.idle_ns())));
    Ok((stuck, look))
}

/// An MPTCP connection that is stuck as one of its subflows is, with the same ends, counts once.
fn drop_doubles(stuck: &mut Vec<Looked>) {
    let place = |it: &SocketInfo| (it.netns, it.tuple.of_any_socket(), it.state);
    let of = |stuck: &[Looked], transport| {
        stuck.iter().filter(|it| it.it.socket.transport == transport).map(|it| place(&it.it.socket)).collect()
    };
    let mptcp: HashSet<_> = of(stuck, Transport::Mptcp);
    if !mptcp.is_empty() {
        let tcp: HashSet<_> = of(stuck, Transport::Tcp);
        stuck.retain(|it| it.it.socket.transport == Transport::Tcp || !tcp.contains(&place(&it.it.socket)));
    }
}

/// A plugin's answer.
fn check(args: &StuckArgs, stuck: &[Looked], look: &Look) -> Result<ExitCode> {
    let unsure = stuck.iter().filter(|looked| looked.it.may_be_stuck).count();
    let count = stuck.len() - unsure;
    let (word, code) = match count {
        _ if count >= args.crit => ("CRITICAL", CRITICAL),
        _ if count >= args.warn => ("WARNING", WARNING),
        _ if !look.gaps.is_empty() || stuck.len() >= args.warn => ("UNKNOWN", UNKNOWN),
        _ => ("OK", 0),
    };
    let oldest = stuck.first().and_then(|looked| looked.it.idle_ns()).unwrap_or(0) / 1_000_000_000;
    let most = groups(GroupBy::Process, stuck, None, track::reason);
    let whose =
        most.first().map(|group| format!(", {} of them {}", group.count, group.key)).unwrap_or_default();
    let gaps: String = look.gaps.iter().map(|gap| format!("; {}", gap.why)).collect();
    let unsure = match unsure {
        0 => String::new(),
        count => format!("; {count} may be, for their ages are not known"),
    };
    let (warn, crit) = (args.warn, args.crit);
    // What follows a bar is for machines, and so is what follows a line.
    let text = printable(&format!("SOCKSTATE {word} - {count} sockets stuck{unsure}{whose}{gaps}"))
        .replace('|', "/");
    super::print([format!("{text} | stuck={count};{warn};{crit};0 oldest={oldest}s\n")])?;
    Ok(ExitCode::from(code))
}

fn groups(
    by: GroupBy,
    stuck: &[Looked],
    openings: Option<&Openings>,
    reason: impl Fn(&Examined) -> Reason,
) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for looked in stuck {
        let it = &looked.it;
        let reason = reason(it);
        for key in keys(by, looked, openings, reason) {
            let group = groups.entry(key.clone()).or_insert_with(|| Group { key, ..Group::default() });
            group.count += 1;
            group.oldest_ns = group.oldest_ns.max(it.idle_ns());
            group.unread_bytes += u64::from(it.socket.unread_bytes());
            *group.states.entry(it.socket.state.name()).or_default() += 1;
            *group.reasons.entry(reason.name()).or_default() += 1;
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.count));
    groups
}

/// What a socket counts for; more than one where several processes have it open.
fn keys(by: GroupBy, looked: &Looked, openings: Option<&Openings>, reason: Reason) -> Vec<String> {
    let it = &looked.it;
    let tuple = it.socket.tuple;
    match by {
        GroupBy::Process => {
            let mut keys: Vec<String> = it.holders.iter().map(|holder| name(&holder.process)).collect();
            keys.dedup();
            if keys.is_empty() {
                keys.push(held_by_nobody(it, reason));
            }
            keys
        }
        GroupBy::Listener => vec![match it.listening().next() {
            Some(_) => format!("port {}", tuple.local_port),
            None => "none".into(),
        }],
        GroupBy::Peer => vec![tuple.remote.canonical().to_string()],
        GroupBy::Stack => {
            let found = openings.and_then(|openings| openings.find(it.socket.netns, &tuple));
            vec![match found {
                Some(Ok(stack)) => format!("{} at {}", stack.by.name(), format::opened_at(stack)),
                Some(Err(why)) => why.text().to_owned(),
                None => "not reported by the hunt".to_owned(),
            }]
        }
        GroupBy::Container => {
            let key = |home: Home<'_>| {
                let container = home.container.map(|container| container.id.as_str());
                container.or(home.unit).unwrap_or("none").to_owned()
            };
            let mut keys: Vec<String> = looked.homes().into_iter().map(key).collect();
            keys.sort();
            keys.dedup();
            keys
        }
    }
}

fn name(process: &Process) -> String {
    format!("{} ({})", process.comm, process.pid)
}

/// The group of what no process is known to have open.
fn held_by_nobody(it: &Examined, reason: Reason) -> String {
    let has_file = it.socket.inode != 0;
    match (it.socket.state, reason) {
        _ if it.of_kernel => "kernel".into(),
        (_, Reason::InFlight) => "in flight".into(),
        (_, Reason::HolderHidden) => "hidden".into(),
        _ if has_file && it.hidden_holders => "hidden".into(),
        (State::CloseWait, Reason::Unknown) => "unknown".into(),
        _ if has_file => "unknown".into(),
        (State::CloseWait | State::Established | State::NewSynRecv | State::SynRecv, _) => {
            let listening = track::names(it.listening());
            listening.map_or_else(|| "nobody".into(), |names| format!("never accepted by {names}"))
        }
        _ => "nobody".into(),
    }
}
