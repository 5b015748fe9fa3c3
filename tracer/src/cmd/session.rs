//! One run of the tracer: loads the programs, fills the table, opens outputs, drops capabilities, runs the pipeline.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, mpsc::sync_channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::{
    Failure, awaited, exit,
    lock::{self, Sharing},
    memory,
};
use crate::{
    cli::{HookName, KernelArgs, RunArgs, StreamArgs, StuckRules, TierName},
    enrich::{Enricher, KnownCluster},
    examiner::Examiner,
    filter::{Filter, States},
    format::Format,
    hunter::Hunter,
    kernel::{self, HookChoice, Hunt, Loaded, Request, Tier},
    messages,
    metrics::Server,
    model::{ConnId, MetricLabels, RecordKinds, SocketInfo, Start, Threshold, Thresholds},
    pipeline::{
        self, Beginning, Destination, Interims, Limits, Pipeline, RecordStream, Resyncer, ServiceReports,
        Signals, Stream, Streams, Summary,
    },
    restart::{self, Kept, Resume, StateWriter, TakeOverError, TakenOver},
    route::Router,
    service::Notifier,
    sinks::Output,
    source::{self, Dump, HolderFinder, KernelSource, NatFinder, NetnsThread, WalkResult},
    track::{self, Table, Visibility},
    unwind,
};

/// A longer start is reported to a user who waits for the end.
const LONG_START: Duration = Duration::from_secs(1);

/// Is called when the API server has been asked for the first time.
pub(super) type Asked = Box<dyn FnOnce() + Send>;

/// Starts what writes the answers of the API server.
pub(super) type WatchCluster = Box<dyn FnOnce(KnownCluster, Asked) -> Result<()>>;

/// How long the start waits for the API server.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// Scripts wait for this line.
const HUNT_READY: &str = "the hunt has begun: call paths of connections opened from now on are recorded";

/// The arguments of a run.
pub(super) struct Session<'a> {
    pub(super) filter: Filter,
    pub(super) kernel: &'a KernelArgs,
    pub(super) cmdline: bool,
    /// Ask conntrack for each connection.
    pub(super) nat: bool,
    /// Write existing sockets first.
    pub(super) snapshot: bool,
    /// Rules beside the default thresholds; `None` if stuck connections are not wanted.
    pub(super) thresholds: Option<&'a [Threshold]>,
    /// Find call paths instead of writing transitions.
    pub(super) hunt: Option<Hunt>,
    pub(super) settings: pipeline::Settings,
    /// The kernel programs report all changes of state, also those that the filter excludes: paths of connections have them.
    pub(super) all_states: bool,
    /// The kernel programs report resets without a socket.
    pub(super) resets: bool,
    /// The directory of the pins.
    pub(super) pin: Option<&'a Path>,
    /// The name of this host in records; `None` for the system's.
    pub(super) host: Option<String>,
    /// Begins to ask the API server.
    pub(super) watch_cluster: Option<WatchCluster>,
    /// The service manager that gets to know how the trace goes.
    pub(super) notifier: Option<Notifier>,
    /// Opens the outputs, before capabilities are dropped.
    pub(super) open: Open<'a>,
}

impl<'a> Session<'a> {
    /// The request for the kernel programs.
    fn request(&self) -> Request {
        let args = self.kernel;
        Request {
            hook: match args.hook {
                HookName::Auto => HookChoice::Auto,
                HookName::TpBtf => HookChoice::TpBtf,
                HookName::Tracepoint => HookChoice::Tracepoint,
            },
            tier: tier(args.tier),
            btf: args.btf.clone(),
            ring_bytes: args.ring_size,
            filter: if self.all_states {
                Filter { states: States::default(), ..self.filter.clone() }
            } else {
                self.filter.clone()
            },
            resets: self.resets,
            hunt: self.hunt.clone(),
        }
    }

    /// A session with these arguments.
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
            nat: run.nat,
            snapshot: run.snapshot,
            thresholds: (!stuck.no_stuck).then_some(&stuck.threshold),
            hunt: None,
            settings: pipeline::Settings {
                limits: Limits { duration: run.duration, count: run.count },
                metrics: run.metrics.map(Server::start).transpose()?,
                leakers: run.metrics_top,
                labels: MetricLabels::new(run.metrics_by.clone(), run.metrics_by_limit),
                nap: pipeline::SHORT_NAP,
            },
            all_states: false,
            resets: false,
            pin: None,
            host: None,
            watch_cluster: None,
            notifier: None,
            open,
        })
    }
}

/// Opens the streams and their outputs.
pub(super) type Open<'a> = Box<dyn FnOnce(&Start, Option<Resume>) -> Result<(Vec<Stream>, Destination)> + 'a>;

/// One stream of these records to one output.
pub(super) fn direct<'a>(output: Output, format: Box<dyn Format>, args: &StreamArgs) -> Open<'a> {
    let StreamArgs { kinds, interim, sample } = args.clone();
    let kinds = RecordKinds::of(&kinds.records);
    Box::new(move |_, _| {
        let stream = RecordStream::new(format).only(kinds).with_interims(interim).sampled(sample);
        Ok((vec![Stream::Records(stream)], Destination::Direct(output)))
    })
}

/// Opens the file at `path`, or standard output.
///
/// # Errors
/// The file cannot be opened.
pub(super) fn output(path: Option<&Path>) -> Result<Output, Failure> {
    let output = match path {
        Some(path) => Output::file(path),
        None => Output::stdout(),
    };
    output.map_err(|error| Failure { code: exit::FAILURE, message: error.to_string() })
}

/// The runtime, and the signal handlers that keep signals until the tracer runs.
pub(super) struct Host {
    runtime: Runtime,
    signals: Signals,
}

impl Host {
    /// Installs the signal handlers. From here on, this process and its threads gain no privilege by an exec.
    pub(super) fn start() -> Result<Self> {
        rustix::thread::set_no_new_privs(true)
            .context("cannot give up new privileges (PR_SET_NO_NEW_PRIVS)")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let signals = runtime.block_on(async { Signals::new() }).context("cannot listen to signals")?;
        messages::start();
        Ok(Self { runtime, signals })
    }

    /// Runs a session to its end. `open` is called within the runtime. The signal handlers exist before the lock has this process's
    /// id, because a reader of the lock may send a signal.
    pub(super) fn run<'a>(
        self,
        open: impl FnOnce() -> Result<Session<'a>>,
        sharing: Sharing<'_>,
    ) -> Result<ExitCode> {
        let Self { runtime, signals } = self;
        let _lock = lock::lock(sharing)?;
        let summary = runtime.block_on(async { trace(open()?, signals).await })?;
        report(&summary);
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs the session of a command that a user runs, to its end.
pub(super) fn run<'a>(open: impl FnOnce() -> Result<Session<'a>>, kernel: &KernelArgs) -> Result<ExitCode> {
    Host::start()?.run(open, Sharing::of(kernel))
}

async fn trace(session: Session<'_>, signals: Signals) -> Result<Summary> {
    let begun = Instant::now();
    let request = session.request();
    let mut enricher = enricher(session.cmdline, watch_cluster(session.watch_cluster)?);
    let TakenOver { mut loaded, saved, earlier, kept } = take_over(&request, session.pin)?;
    kernel::show_diagnostics(&mut loaded);
    let adopted = saved.as_ref().map(|saved| saved.instance);
    let is_complete = saved.as_ref().is_some_and(|saved| saved.is_complete);
    let instance = adopted.unwrap_or_else(instance);
    let mut table = Table::new(instance, pipeline::clock_offset_ns(), visibility(&mut loaded));
    let mut hunter = session.hunt.as_ref().map(|hunt| start_hunt(hunt, &mut loaded)).transpose()?;
    let (mut degraded, hook, tier) = (loaded.degraded.clone(), loaded.hook.name(), loaded.tier.name());
    let mut source = KernelSource::new(loaded).context("cannot read from the kernel programs")?;
    source.set_earlier(kept.as_ref().map(|kept| kept.carried).unwrap_or_default(), earlier);

    let filter = &session.filter;
    let last_id = kept.as_ref().map_or(0, |kept| kept.ledger.last_id());
    let beginning = match saved {
        // The records that the kernel has written meanwhile come first. Then the table is compared with the kernel's tables.
        Some(saved) => {
            table.restore(&saved.table, last_id, is_complete, &mut enricher);
            let found = WalkResult { problems: source.load_iterators(), ..WalkResult::default() };
            Beginning { time_ns: pipeline::now_ns(), found }
        }
        None => fill(&mut source, &mut table, &mut enricher, filter),
    };
    hunter.iter_mut().for_each(|hunter| hunter.begin(ConnId(table.last_id()), pipeline::monotonic_ns()));
    let existing = source::dump(filter.place.netns, source::held_sockets);
    degraded.extend(beginning.found.problems);
    report_gaps(&mut degraded, &existing, filter);
    let resync = start_resyncer(session.kernel, filter.place.netns, source.forget_types());
    let (time_ns, settings) = (beginning.time_ns, session.settings);
    let start = Start { instance, degraded, adopted, ..start_record(time_ns, hook, tier, session.host) };
    let examiner = match session.thresholds {
        Some(thresholds) => watch(thresholds, &mut table, &existing.sockets),
        None => Examiner::default(),
    };
    let resume = kept.as_ref().map(|Kept { ledger, .. }| Resume {
        waiting: if is_complete { 0 } else { ledger.waiting() },
        ledger: Arc::clone(ledger),
        is_complete,
    });
    let (list, destination) = (session.open)(&start, resume)?;
    let (finder, nats) = (finder(), nat_finder(session.nat || list.iter().any(Stream::has_connections)));
    let interims = interims(&list, &destination);
    let state_writer = session.pin.zip(kept).map(|(directory, kept)| {
        if adopted.is_some() {
            source.set_reported(kept.ledger.losses());
        }
        StateWriter::new(directory, kept, instance)
    });
    give_back();
    let service = ServiceReports::new(session.notifier, start.degraded.clone());

    let streams = Streams::new(list, settings.limits.count);
    let (router, adopted) = (Router::new(session.filter), adopted.is_some());
    let mut pipeline = Pipeline {
        source,
        table,
        enricher,
        router,
        streams,
        resync,
        examiner,
        finder,
        nats,
        interims,
        hunter,
        state_writer,
        adopted,
        service,
        settings,
    };
    say_how_long(begun.elapsed(), &pipeline);
    pipeline.start(start);
    if pipeline.hunter.is_some() {
        message!(info: "{HUNT_READY}");
    }
    if session.snapshot {
        pipeline.snapshot();
    }
    Ok(pipeline.run(destination, signals).await?)
}

/// Gives back the capabilities and the memory that only the start needs.
fn give_back() {
    if let Err(error) = kernel::drop_privileges() {
        message!("cannot drop capabilities: {error}");
    }
    memory::give_back();
}

/// Loads the kernel programs, or takes over those that are pinned.
fn take_over(request: &Request, pin: Option<&Path>) -> Result<TakenOver> {
    restart::take_over(request, pin).map_err(|error| match error {
        TakeOverError::Kernel(error) => Failure::from(error).into(),
        error => error.into(),
    })
}

/// Fills the table with the existing sockets.
fn fill(source: &mut KernelSource, table: &mut Table, enricher: &mut Enricher, filter: &Filter) -> Beginning {
    let beginning = pipeline::begin(source, table, enricher, filter.place.netns);
    // The kernel programs hide all further events of these.
    table.dismiss_all(|tuple| filter.hides(tuple));
    beginning
}

fn enricher(cmdline: bool, cluster: KnownCluster) -> Enricher {
    let mut enricher = Enricher::new(PathBuf::from("/"), cmdline);
    enricher.know_cluster(cluster);
    // The thread begins before the main thread drops its capabilities, which also reports a failure.
    let drop_privileges = || drop(kernel::drop_privileges());
    if let Err(error) = enricher.read_names_in_thread(drop_privileges) {
        message!("cannot start the thread that reads the names of pods and containers: {error}");
    }
    enricher
}

/// Starts the thread that asks the API server. The sockets that exist at the start get their names once, so the start waits a
/// moment for the first answer.
fn watch_cluster(begin: Option<WatchCluster>) -> Result<KnownCluster> {
    let cluster = KnownCluster::default();
    if let Some(begin) = begin {
        let (sender, asked) = sync_channel(1);
        let done = move || {
            let _ = sender.try_send(());
        };
        begin(cluster.clone(), Box::new(done))?;
        let _ = asked.recv_timeout(FIRST_ANSWER);
    }
    Ok(cluster)
}

fn finder() -> HolderFinder {
    HolderFinder::start().unwrap_or_else(|error| {
        message!(
            "cannot start the thread that finds the owners of listeners whose process has ended: {error}"
        );
        HolderFinder::default()
    })
}

/// Finds nothing unless translations are wanted.
fn nat_finder<T>(is_wanted: bool) -> NatFinder<T> {
    if !is_wanted {
        return NatFinder::default();
    }
    NatFinder::start().unwrap_or_else(|error| {
        message!("cannot start the thread that asks conntrack for translations: {error}");
        NatFinder::default()
    })
}

fn interims(streams: &[Stream], destination: &Destination) -> Interims {
    // A daemon may get such a sink later, when it can start no thread with capabilities.
    if !streams.iter().any(Stream::has_interims) && matches!(destination, Destination::Direct(_)) {
        return Interims::default();
    }
    Interims::start().unwrap_or_else(|error| {
        message!("cannot start the thread that reads the counters of connections that go on: {error}");
        Interims::default()
    })
}

/// Starts the thread that unwinds stacks, and attaches the hooks that copy them.
fn start_hunt(hunt: &Hunt, loaded: &mut Loaded) -> Result<Hunter> {
    let mut pythons = loaded.pythons().map_err(Failure::from)?;
    let report_python = Box::new(move |pid, layout: &_| pythons.add(pid, layout));
    let hunter = Hunter::start(hunt.processes.clone(), report_python);
    let hunter = hunter.context("cannot start a thread to unwind stacks")?;
    let gap = loaded.hunt().map_err(Failure::from)?;
    loaded.degraded.extend(gap.map(|gap| format!("{gap}; {}", gap.todo)));
    loaded.degraded.extend(unwind::cannot_open_mappings());
    Ok(hunter)
}

/// Adds gaps of the look, and what the filter waits for, to `degraded`, and writes all of it as messages.
fn report_gaps(degraded: &mut Vec<String>, existing: &Dump, filter: &Filter) {
    for gap in existing.hidden_processes.iter().chain(&existing.gaps).map(ToString::to_string) {
        if !degraded.contains(&gap) {
            degraded.push(gap);
        }
    }
    for reason in &*degraded {
        message!("{reason}; see `sockstate doctor`");
    }
    let awaited = awaited(filter);
    awaited.iter().for_each(|what| message!(info: "{what}"));
    degraded.extend(awaited);
}

/// The `start` record without the fields of this run.
fn start_record(time_ns: i64, hook: &'static str, tier: &'static str, host: Option<String>) -> Start {
    let system = rustix::system::uname();
    Start {
        time_ns,
        version: env!("CARGO_PKG_VERSION"),
        host: host.unwrap_or_else(|| system.nodename().to_string_lossy().into_owned()),
        kernel: system.release().to_string_lossy().into_owned(),
        hook,
        tier,
        instance: 0,
        degraded: Vec::new(),
        adopted: None,
    }
}

/// Tells a user who waits for `--duration` that the start took long.
fn say_how_long(took: Duration, pipeline: &Pipeline) {
    let is_awaited = pipeline.settings.limits.duration.is_some() && std::io::stderr().is_terminal();
    if is_awaited && took >= LONG_START {
        message!(info: "tracing began after {took:.1?}; --duration counts from that moment");
    }
}

/// Starts the thread for resyncs, before capabilities are dropped. Without BTF there are no resyncs.
fn start_resyncer(args: &KernelArgs, only: Option<u32>, has_btf: bool) -> Option<Resyncer> {
    if args.resync.is_zero() || !has_btf {
        return None;
    }
    match NetnsThread::start() {
        Ok(walker) => Some(Resyncer { walker, every: args.resync, only }),
        Err(error) => {
            message!("cannot start the thread that compares with the kernel's tables: {error}");
            None
        }
    }
}

/// Sets the thresholds, and starts the examiner.
fn watch(thresholds: &[Threshold], table: &mut Table, existing: &[SocketInfo]) -> Examiner {
    table.set_thresholds(Thresholds::with(thresholds));
    let ages = existing.iter().filter_map(|socket| Some((socket, track::age(socket)?.ns)));
    table.backdate(pipeline::monotonic_ns(), ages);
    Examiner::start().unwrap_or_else(|error| {
        message!("cannot start the thread that finds out why connections are stuck: {error}");
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

fn visibility(loaded: &mut Loaded) -> Visibility {
    // A few dozen names, which are needed until the process ends.
    let leak = |name: String| &*name.leak();
    Visibility {
        minis: loaded.tier.is_exact(),
        estimates: loaded.tier == Tier::Estimate,
        resets: loaded.sees_resets,
        reset_reasons: std::mem::take(&mut loaded.reset_reasons).into_iter().map(leak).collect(),
    }
}

/// 24 bits that differ from run to run, from the time and the pid: the upper part of this run's connection ids.
fn instance() -> u32 {
    let seed = pipeline::now_ns() as u64 ^ u64::from(std::process::id()) << 32;
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
}

/// Writes the number of transitions and losses to standard error.
fn report(summary: &Summary) {
    if !summary.is_complete() {
        message!(error: "{summary}");
    } else if std::io::stderr().is_terminal() {
        message!(info: "{summary}");
    }
}
