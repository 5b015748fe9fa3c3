//! `sockstate stuck`.

mod check;
mod groups;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    thread,
};

use anyhow::Result;
use clap::Args;
use groups::{GroupBy, groups};

use super::{
    Failure, filter,
    look::{LookFormat, as_table, look},
    refuse_workload, terminal_width,
};
use crate::{
    cli::SelectArgs,
    filter::Filter,
    format,
    look::Look,
    model::{
        Diagnosis, InState, Reason, SocketEntry, SocketInfo, SocketReport, State, StateSet, Threshold,
        Thresholds, Transport, Tuple,
    },
    pipeline,
    source::Openings,
    track::{self, diagnose},
    values::{parse_duration, parse_duration_or_zero, parse_states, parse_threshold},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  sockstate stuck
      sockets past the threshold of their state, holders, reasons
  sockstate close-wait --group-by process
      which processes leak, and how many sockets
  sockstate stuck --older-than 10s --port 443
      one service, ten seconds or longer in a state
  sockstate stuck --check --warn 10 --crit 100
      for Nagios and compatible monitoring
  sockstate stuck --from night.zst
      at the end of a recording";

/// Show stuck sockets: since when, whose, why, and what to do.
///
/// Shows for how long they are stuck, which process holds them, why, and what to do. Needs no running tracer.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct StuckArgs {
    /// Format of the output [default: table on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<LookFormat>,
    /// Count sockets in groups instead of listing each one.
    #[arg(long, value_enum, value_name = "BY", help_heading = "Output")]
    pub group_by: Option<GroupBy>,
    /// For --group-by stack: the output of `sockstate hunt --format json`, which may still be running.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hunt: Option<PathBuf>,
    /// Show the sockets that were stuck at the end of this recording, instead of this host's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "watch", "threshold"])]
    pub from: Option<PathBuf>,
    /// Repeat every TIME (2s if TIME is left out).
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_duration, conflicts_with = "check", help_heading = "Output")]
    pub watch: Option<std::time::Duration>,

    /// Only these states, by netstat's or ss's name.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Threshold")]
    pub state: Vec<StateSet>,
    /// Use TIME instead of the time of each threshold; states without a threshold are shown only with --state.
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_zero, help_heading = "Threshold")]
    pub older_than: Option<std::time::Duration>,
    /// When a socket counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    ///
    /// Examples: CLOSE_WAIT=5m, :8080=30s, CLOSE_WAIT@backup=never.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Threshold")]
    pub threshold: Vec<Threshold>,

    /// Write one line as a monitoring plugin does, with exit status 0, 1 (warning), 2 (critical) or 3 (unknown).
    #[arg(long, help_heading = "Check")]
    pub check: bool,
    /// Number of stuck sockets for a warning.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "check", help_heading = "Check")]
    pub warn: usize,
    /// Number of stuck sockets for the critical status.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "check", help_heading = "Check")]
    pub crit: usize,

    #[command(flatten)]
    pub select: SelectArgs,
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
    refuse_workload(&args.select)?;
    if args.group_by == Some(GroupBy::Workload) {
        let message =
            "--group-by workload needs --from FILE, a recording of `sockstate run` with [kubernetes]";
        return Err(Failure::usage(message).into());
    }
    loop {
        let (stuck, look) = match find(args, &filter) {
            Err(error) if args.check => {
                super::print([format!("SOCKSTATE UNKNOWN - {error}\n")])?;
                return Ok(ExitCode::from(check::UNKNOWN));
            }
            found => found?,
        };
        if args.check {
            let (line, code) = check::status(args.warn, args.crit, &stuck, &look.gaps);
            super::print([line])?;
            leave(stuck, look);
            return Ok(ExitCode::from(code));
        }
        // Texts are made only when a socket is shown: texts for all sockets would take most of the memory.
        let explain = |report: &SocketReport| {
            diagnose(report, look.foreign.get(&report.socket.netns).map(PathBuf::as_path))
        };
        let time = format::look_time(pipeline::now_ns());
        if args.watch.is_some() && as_table {
            // On a terminal: cursor to the top left, and erase the screen.
            let head =
                if io::stdout().is_terminal() { "\x1b[H\x1b[2J".to_owned() } else { format!("{time}\n") };
            super::print([head])?;
        }
        show(args, as_table, &stuck, &time, track::reason, explain)?;
        super::look::show_gaps(as_table, filter.place.netns, &look.gaps, &time)?;
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
        (Some(by), true) => super::print([format::groups_table(&groups(by), terminal_width())])?,
        (Some(by), false) => super::print(groups(by).iter().map(|group| format::group_json(group, time)))?,
        (None, true) => super::print([format::stuck_table(stuck, terminal_width(), &reason, explain)])?,
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
    let states: StateSet = args.state.iter().collect();
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
    entries.sort_by_cached_key(|looked| Reverse(looked.report.no_progress_ns()));
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
    let states: StateSet = args.state.iter().collect();
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
        let is_stuck = !report.socket.is_partial && report.no_progress_ns().unwrap_or(0) >= after_ns;
        // The age of a partial socket is not known.
        report.may_be_stuck =
            !is_stuck && (report.socket.is_partial || track::may_be_older(&report.socket, after_ns));
        is_stuck || report.may_be_stuck
    });
    drop_doubles(&mut stuck);
    stuck.sort_by_cached_key(|looked| (looked.report.may_be_stuck, Reverse(looked.report.no_progress_ns())));
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
