//! One run of the tracer, for the commands that trace.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::{
    Failure, awaited, exit,
    handover::{self, Ground, Handover},
    lock, memory,
};
use crate::{
    cli::{HookName, KernelArgs, RunArgs, StuckRules, TierName},
    enrich::Enricher,
    examiner::Examiner,
    format::Format,
    hunter::Hunter,
    kernel::{self, HookChoice, Hunt, Loaded, Request, Tier},
    messages,
    metrics::Server,
    model::{ConnId, Filter, LostPlace, SocketInfo, Start, Threshold, Thresholds},
    pipeline::{
        self, Beginning, Keeper, Limits, Outlet, Pipeline, Resyncer, Signals, Stream, Streams, Summary,
    },
    route::Router,
    sinks::Output,
    source::{self, Finder, Found, KernelSource, Walker},
    track::{self, Sight, Table},
    unwind,
};

/// A start that takes longer is mentioned to who waits for the end.
const LONG_START: Duration = Duration::from_secs(1);

/// Scripts wait for this line.
const HUNT_READY: &str = "the hunt has begun: openings are seen from now on";

/// What to trace, and where to.
pub(super) struct Session<'a> {
    pub(super) filter: Filter,
    pub(super) kernel: &'a KernelArgs,
    /// Command lines are wanted.
    pub(super) cmdline: bool,
    /// The sockets that exist are wanted first.
    pub(super) snapshot: bool,
    /// When a connection counts as stuck, in place of the defaults; none where it is not wanted at all.
    pub(super) thresholds: Option<&'a [Threshold]>,
    pub(super) limits: Limits,
    /// Where connections are opened is wanted, in place of transitions.
    pub(super) hunt: Option<Hunt>,
    /// Where metrics are served.
    pub(super) metrics: Option<Server>,
    /// How many processes they name.
    pub(super) leakers: usize,
    /// How long it pauses when it has read something: longer is cheaper, and later.
    pub(super) nap: Duration,
    /// Where the programs are kept for the next one.
    pub(super) pin: Option<&'a Path>,
    /// Opens the ways out, while all privileges are there.
    pub(super) open: Open<'a>,
}

impl<'a> Session<'a> {
    /// What these flags say.
    pub(super) fn new(
        filter: Filter,
        run: &RunArgs,
        stuck: &'a StuckRules,
        kernel: &'a KernelArgs,
        open: Open<'a>,
    ) -> Result<Self> {
        Ok(Self {
            filter,
            kernel,
            cmdline: run.cmdline,
            snapshot: run.snapshot,
            thresholds: (!stuck.no_stuck).then_some(&stuck.threshold),
            limits: Limits { duration: run.duration, count: run.count },
            hunt: None,
            metrics: run.metrics.map(Server::start).transpose()?,
            leakers: run.metrics_top,
            nap: pipeline::SHORT_NAP,
            pin: None,
            open,
        })
    }
}

/// What is written, and where to.
pub(super) type Open<'a> = Box<dyn FnOnce(&Start, Option<Ground>) -> Result<(Vec<Stream>, Outlet)> + 'a>;

/// One stream, to where the user looks.
pub(super) fn direct<'a>(output: Output, format: Box<dyn Format>) -> Open<'a> {
    Box::new(|_, _| Ok((vec![Stream::new(format)], Outlet::Direct(output))))
}

/// Opens where the records go.
///
/// # Errors
/// It does not open.
pub(super) fn output(path: Option<&Path>) -> Result<Output, Failure> {
    let output = match path {
        Some(path) => Output::file(path),
        None => Output::stdout(),
    };
    output.map_err(|error| Failure { code: exit::FAILURE, message: error.to_string() })
}

/// A process that keeps signals until it traces.
pub(super) struct Host {
    runtime: Runtime,
    signals: Signals,
}

impl Host {
    /// From now on no signal ends the process at once.
    pub(super) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        messages::start();
        let signals = runtime.block_on(async { Signals::new() }).context("cannot listen to signals")?;
        Ok(Self { runtime, signals })
    }

    /// Runs a session to its end. `open` is asked within the runtime. The lock has this process's id from here on: its reader may send
    /// a signal at once.
    pub(super) fn run<'a>(
        self,
        open: impl FnOnce() -> Result<Session<'a>>,
        alongside: bool,
    ) -> Result<ExitCode> {
        let Self { runtime, signals } = self;
        let _lock = if alongside { None } else { lock::lock()? };
        let summary = runtime.block_on(async { trace(open()?, signals).await })?;
        report(&summary);
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs a session to its end.
pub(super) fn run<'a>(open: impl FnOnce() -> Result<Session<'a>>, alongside: bool) -> Result<ExitCode> {
    Host::start()?.run(open, alongside)
}

async fn trace(session: Session<'_>, signals: Signals) -> Result<Summary> {
    let begun = Instant::now();
    let Session {
        filter,
        kernel: args,
        cmdline,
        snapshot,
        thresholds,
        limits,
        hunt,
        metrics,
        leakers,
        nap,
        pin,
        open,
    } = session;
    let request = Request {
        hook: match args.hook {
            HookName::Auto => HookChoice::Auto,
            HookName::TpBtf => HookChoice::TpBtf,
            HookName::Tracepoint => HookChoice::Tracepoint,
        },
        tier: tier(args.tier),
        btf: args.btf.clone(),
        ring_bytes: args.ring_size,
        filter: filter.clone(),
        hunt: hunt.clone(),
    };
    let Handover { mut loaded, estate, kept } = handover::take_over(&request, pin)?;
    kernel::show_diagnostics(&mut loaded);

    let adopted = estate.as_ref().map(|estate| estate.instance);
    let is_complete = estate.as_ref().is_some_and(|estate| estate.is_complete);
    let instance = adopted.unwrap_or_else(instance);
    let mut table = Table::new(instance, pipeline::clock_offset_ns(), sight(&mut loaded));
    let mut enricher = Enricher::new(PathBuf::from("/"), cmdline);
    let mut hunter = match hunt {
        Some(hunt) => {
            let mut pythons = loaded.pythons().map_err(Failure::from)?;
            let tell = Box::new(move |pid, layout: &_| pythons.add(pid, layout));
            let hunter = Hunter::start(hunt.pids, hunt.comms, tell);
            let hunter = hunter.context("cannot start a thread to unwind stacks")?;
            loaded.hunt().map_err(Failure::from)?;
            loaded.degraded.extend(unwind::cannot_open_mappings());
            Some(hunter)
        }
        None => None,
    };
    let (mut degraded, hook, tier) = (loaded.degraded.clone(), loaded.hook.name(), loaded.tier.name());
    let mut source = KernelSource::new(loaded).context("cannot read from the kernel programs")?;
    let beginning = match estate {
        // What the kernel has written meanwhile comes first; then the table is compared with the kernel's.
        Some(estate) => {
            let last_id = kept.as_ref().map_or(0, |kept| Keeper::last_id(&kept.ledger));
            table.inherit(estate.table, last_id, &mut enricher);
            Beginning { time_ns: pipeline::now_ns(), found: Found::default() }
        }
        None => {
            let beginning = pipeline::begin(&mut source, &mut table, &mut enricher, filter.netns);
            // Nothing more will be heard of these.
            table.dismiss_all(|tuple| filter.hides(tuple));
            beginning
        }
    };
    if let Some(hunter) = &mut hunter {
        hunter.begin(ConnId(table.last_id()), pipeline::monotonic_ns());
    }
    degraded.extend(beginning.found.problems);
    let existing = source::dump(filter.netns, source::held);
    for gap in existing.hidden_processes.iter().chain(&existing.gaps).map(ToString::to_string) {
        if !degraded.contains(&gap) {
            degraded.push(gap);
        }
    }
    for reason in &degraded {
        message!("{reason}; see `sockstate doctor`");
    }
    let awaited = awaited(&filter);
    awaited.iter().for_each(|what| message!("{what}"));
    degraded.extend(awaited);
    let can_look = source.forget_types();
    let start = Start {
        time_ns: beginning.time_ns,
        version: env!("CARGO_PKG_VERSION"),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        hook,
        tier,
        instance,
        degraded,
        adopted,
    };
    let resync = resync(args, filter.netns, can_look);
    let examiner = match thresholds {
        Some(thresholds) => watch(thresholds, &mut table, &existing.sockets),
        None => Examiner::default(),
    };
    let finder = Finder::start().unwrap_or_else(|error| {
        message!("no thread to find the owners of listeners whose process has ended: {error}");
        Finder::default()
    });
    let ground = kept.as_ref().map(|kept| Ground {
        waiting: if is_complete { 0 } else { Keeper::waiting(&kept.ledger) },
        ledger: Arc::clone(&kept.ledger),
        is_complete,
    });
    let (list, outlet) = open(&start, ground)?;
    let keeper = pin.zip(kept).map(|(directory, kept)| {
        if adopted.is_some() {
            source.set_told(Keeper::told(&kept.ledger));
        }
        Keeper::new(directory, kept.pinned, instance, kept.ledger)
    });
    if let Err(error) = kernel::drop_privileges() {
        message!("cannot drop capabilities: {error}");
    }
    memory::give_back();

    let router = Router::new(filter);
    let streams = Streams::new(list, limits.count);
    let mut pipeline = Pipeline {
        source,
        table,
        enricher,
        router,
        streams,
        limits,
        resync,
        examiner,
        finder,
        hunter,
        metrics,
        leakers,
        keeper,
        nap,
        adopted: adopted.is_some(),
    };
    let took = begun.elapsed();
    if limits.duration.is_some() && took >= LONG_START && std::io::stderr().is_terminal() {
        message!("it took {took:.1?} until tracing began; --duration counts from then on");
    }
    pipeline.start(start);
    if pipeline.hunter.is_some() {
        message!("{HUNT_READY}");
    }
    if snapshot {
        pipeline.snapshot();
    }
    Ok(pipeline.run(outlet, signals).await?)
}

/// Started before privileges are dropped; without BTF there is nothing to compare with.
fn resync(args: &KernelArgs, only: Option<u32>, can_look: bool) -> Option<Resyncer> {
    if args.resync.is_zero() || !can_look {
        return None;
    }
    match Walker::start() {
        Ok(walker) => Some(Resyncer { walker, every: args.resync, only }),
        Err(error) => {
            message!("no thread to compare with the kernel's tables: {error}");
            None
        }
    }
}

/// From now on what is stuck is said.
fn watch(thresholds: &[Threshold], table: &mut Table, existing: &[SocketInfo]) -> Examiner {
    table.set_thresholds(Thresholds::with(thresholds));
    let ages = existing.iter().filter_map(|socket| Some((socket, track::age(socket)?.ns)));
    table.backdate(pipeline::monotonic_ns(), ages);
    Examiner::start().unwrap_or_else(|error| {
        message!("no thread to find out why connections are stuck: {error}");
        Examiner::default()
    })
}

fn tier(name: TierName) -> Option<Tier> {
    match name {
        TierName::Auto => None,
        TierName::Fentry => Some(Tier::Fentry),
        TierName::Kprobe => Some(Tier::Kprobe),
        TierName::Timers => Some(Tier::Timers),
        TierName::Estimate => Some(Tier::Estimate),
        TierName::None => Some(Tier::None),
    }
}

fn sight(loaded: &mut Loaded) -> Sight {
    // They live as long as the program, and are some dozens.
    let leak = |name: String| &*name.leak();
    Sight {
        minis: loaded.tier.is_exact(),
        estimates: loaded.tier == Tier::Estimate,
        resets: loaded.sees_resets,
        reset_reasons: std::mem::take(&mut loaded.reset_reasons).into_iter().map(leak).collect(),
    }
}

/// 24 bits that tell this run's connection ids from another's.
fn instance() -> u32 {
    let seed = pipeline::now_ns() as u64 ^ u64::from(std::process::id()) << 32;
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
}

/// What was lost, for whoever watches.
fn report(summary: &Summary) {
    let lost: Vec<String> = LostPlace::ALL
        .iter()
        .filter_map(|place| {
            let count = *summary.lost.get(place)?;
            (count > 0).then(|| format!("{count} ({})", place.name()))
        })
        .collect();
    let doubt = Some(summary.in_doubt).filter(|count| *count > 0);
    let doubt = doubt.map(|count| format!("; {count} in doubt")).unwrap_or_default();
    if !lost.is_empty() {
        message!("{} transitions; lost {}{doubt}", summary.transitions, lost.join(", "));
    } else if !doubt.is_empty() {
        message!("{} transitions; nothing lost{doubt}", summary.transitions);
    } else if std::io::stderr().is_terminal() {
        message!("{} transitions; nothing lost", summary.transitions);
    }
}
