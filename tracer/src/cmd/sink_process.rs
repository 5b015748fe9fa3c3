//! The process of the sinks (`sinks-user`, `sinks-socket`): it delivers records and serves metrics as a user without
//! capabilities.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, DirBuilder},
    io,
    net::TcpListener,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, lchown},
    },
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{User, geteuid, getgrouplist, setgid, setgroups, setuid};
use rustix::process::DumpableBehavior;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{LAST_MESSAGES, sink_host, sink_reach, sinks};
use crate::{
    capabilities,
    enrich::{KnownCluster, KnownPeers, KnownPods},
    files,
    format::Stamp,
    kubernetes::{KubernetesArgs, watch_cluster},
    messages, metrics,
    pipeline::Signals,
    settings::{self, Settings, Sink},
    sinks::{
        Inherited, Queue, SinkSettings,
        process::{
            CheckedSink, ClusterNews, ClusterRequest, Event, Identity, PROCESS_NAME, PortProblem, Reach,
            Reporter, Request, SinkEnd, restrict_calls,
        },
    },
};

/// How long sinks may deliver after the tracer's process was killed: meanwhile the next one waits.
const GRACE: Duration = Duration::from_secs(1);
/// After that time: how long they may take to spool the rest.
const MARGIN: Duration = Duration::from_secs(2);
/// Configurations that are kept at most: a reload may begin while others wait for the system.
const MOST_PREPARED: usize = 8;

pub(super) fn main() -> ExitCode {
    let code = match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            message!(error: "the process of the sinks: {error:#}");
            ExitCode::FAILURE
        }
    };
    messages::flush(LAST_MESSAGES);
    code
}

fn run() -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("cannot give up new privileges")?;
    // The name of the program would be that of a link in /proc.
    let _ = rustix::thread::set_name(&CString::new(PROCESS_NAME)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Signals for the whole service are for the tracer, which ends this process.
    let _signals = runtime.block_on(async { Signals::new() }).context("cannot listen to signals")?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let (end, mut identity) = SinkEnd::begin(socket).context("only `sockstate run` starts this process")?;
    identity.reach.write.push(identity.runtime.clone());
    identity.reach.write.extend(sink_reach::of_service());
    let (listener, port_problem) = listen(&identity);
    let begun = confine(&identity);
    end.reporter().begun(begun.as_ref().map(|_| port_problem).map_err(|error| format!("{error:#}")));
    // The tracer reports why not.
    let Ok(has_landlock) = begun else { return Ok(()) };
    messages::start();
    if identity.user.is_none() {
        end_at_sigterm(end.reporter()).context("cannot listen to signals")?;
    }
    let reach = has_landlock.then(|| Arc::new(identity.reach));
    if !has_landlock {
        message!(
            "this kernel has no Landlock: the process of the sinks can read and write all files that its user can"
        );
    }
    let mut process = Process { end, prepared: Arc::default(), listener, reach };
    let result = process.serve();
    process.finish(&runtime);
    result
}

/// Listens for scrapers: the user may not have the right to use the port, and later no socket may listen.
fn listen(identity: &Identity) -> (Option<TcpListener>, Option<PortProblem>) {
    match identity.metrics.map(metrics::listen) {
        Some(Ok(listener)) => (Some(listener), None),
        Some(Err(error)) => {
            (None, Some(PortProblem { message: error.to_string(), is_in_use: error.is_in_use() }))
        }
        None => (None, None),
    }
}

/// The service manager ends this process: the tracer, too, ends then.
fn end_at_sigterm(reporter: Reporter) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = runtime.block_on(async { signal(SignalKind::terminate()) })?;
    let work = move || {
        runtime.block_on(terminate.recv());
        reporter.end();
    };
    thread::Builder::new().name("signals".into()).spawn(work).map(drop)
}

/// Becomes the user, gives up all capabilities, and restricts files and system calls. Returns whether files are restricted.
fn confine(identity: &Identity) -> Result<bool> {
    become_user(identity)?;
    files::use_runtime_directory(&identity.runtime);
    capabilities::give_up_all().context("cannot give up capabilities")?;
    // No other process of this user reads what this one has in memory, such as secrets.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let has_landlock = identity.reach.restrict().context("cannot restrict the files (Landlock)")?;
    restrict_calls()?;
    Ok(has_landlock)
}

fn become_user(Identity { user, runtime, .. }: &Identity) -> Result<()> {
    // The tracer refuses root.
    let Some(name) = user else { return Ok(()) };
    let found = User::from_name(name).with_context(|| format!("cannot look up the user '{name}'"))?;
    let Some(user) = found else { bail!("there is no user '{name}' on this host") };
    if user.uid.is_root() {
        bail!("'{name}' is root: the sinks need a user without rights");
    }
    if user.uid == geteuid() {
        return Ok(());
    }
    make_for(&user, runtime);
    let change = || {
        let groups = getgrouplist(&CString::new(name.as_str()).unwrap_or_default(), user.gid)?;
        setgroups(&groups)?;
        setgid(user.gid)?;
        setuid(user.uid)
    };
    change()
        .with_context(|| format!("cannot become the user '{name}', which needs CAP_SETUID and CAP_SETGID"))
}

/// Makes the runtime directory of `user`, as root. Without it, a file sink cannot tell after a kill whether an unfinished
/// last line is its own, and leaves it.
fn make_for(user: &User, directory: &Path) {
    if DirBuilder::new().mode(0o700).create(directory).is_err() {
        return;
    }
    if lchown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).is_err() {
        let _ = fs::remove_dir(directory);
    }
}

/// A configuration whose sinks can be started.
struct Prepared {
    settings: Settings,
    request: Request,
    sinks: BTreeMap<String, SinkSettings>,
}

struct Process {
    end: SinkEnd,
    prepared: Arc<Mutex<BTreeMap<u64, Arc<Prepared>>>>,
    /// The socket of the metrics.
    listener: Option<TcpListener>,
    /// The files to which this process is restricted.
    reach: Option<Arc<Reach>>,
}

impl Process {
    /// Works until the tracer's process has ended.
    fn serve(&mut self) -> Result<()> {
        while let Some(event) = self.end.next_event().context("the tracer's process was killed")? {
            match event {
                Event::Prepare(request) => {
                    let (prepared, reporter) = (Arc::clone(&self.prepared), self.end.reporter());
                    let reach = self.reach.clone();
                    // A disk may not answer.
                    let work = move || prepare(request, &prepared, &reporter, reach.as_deref());
                    thread::Builder::new().name("sink-prepare".into()).spawn(work)?;
                }
                Event::Metrics(questions) => {
                    let listener = self.listener.take().context("no socket listens for scrapers")?;
                    metrics::serve_apart(listener, questions).context("cannot serve metrics")?;
                }
                Event::Kubernetes(request) => self.ask_cluster(request)?,
                Event::Start { queue, prepared, sink, place, previous } => {
                    let inherited = self.end.inherited(queue, place, previous.as_ref())?;
                    let started = self.start(prepared, &sink, inherited);
                    if let (Err(error), Some(_)) = (&started, &previous) {
                        bail!("{error:#}");
                    }
                    self.end.started(queue, started.map_err(|error| format!("{error:#}")));
                }
            }
        }
        Ok(())
    }

    /// Asks the API server, and passes on what it says.
    fn ask_cluster(&self, request: ClusterRequest) -> Result<()> {
        let ClusterRequest { node, server, token_file, ca, labels, peers } = request;
        let settings = KubernetesArgs { labels, peers, node, server, token_file, ca }.settings()?;
        let [of_pods, of_peers, asked] = [self.end.reporter(), self.end.reporter(), self.end.reporter()];
        let pods = KnownPods::passing_on(move |uid, facts| {
            let uid = uid.to_owned();
            of_pods.cluster(match facts.cloned() {
                Some(facts) => ClusterNews::Pod { uid, facts },
                None => ClusterNews::PodGone { uid },
            });
        });
        let peers = KnownPeers::passing_on(move |address, uid, peer| {
            let uid = uid.to_owned();
            of_peers.cluster(match peer.cloned() {
                Some(peer) => ClusterNews::Peer { address, uid, peer },
                None => ClusterNews::PeerGone { address, uid },
            });
        });
        watch_cluster(settings, KnownCluster { pods, peers }, move || asked.cluster(ClusterNews::Asked))
            .context("cannot start the thread that asks the API server")
    }

    fn start(&self, prepared: u64, name: &str, inherited: Inherited) -> Result<Queue> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&prepared).cloned();
        let prepared = known.context("the configuration was not prepared")?;
        let Prepared { settings, request, sinks } = &*prepared;
        let sink = settings.sinks.iter().find(|sink| sink.section.name == name);
        let (sink, started) = sink.zip(sinks.get(name)).context("the sink was not prepared")?;
        Ok(sinks::open(&sink.section, started, &stamp(settings, request), inherited)?)
    }

    /// The tracer's process has ended. If it was killed, sinks deliver or spool what they have, while the next process waits
    /// for the ledger. Without a ledger it does not wait, and could use the same files.
    fn finish(&self, runtime: &Runtime) {
        if !self.end.has_ledger() {
            return;
        }
        let queues: Vec<&Queue> = self.end.queues().collect();
        queues.iter().filter(|queue| !queue.is_finished()).for_each(|queue| queue.close(GRACE));
        let finished = async {
            for queue in queues {
                queue.finished().await;
            }
        };
        // A sink that hangs is left behind.
        let _ = runtime.block_on(async { timeout(GRACE + MARGIN, finished).await });
    }
}

fn stamp<'a>(settings: &'a Settings, request: &'a Request) -> Stamp<'a> {
    Stamp { host: &request.host, instance: request.instance, labels: &settings.labels }
}

/// Reads a configuration, and checks its sinks.
fn prepare(
    request: Request,
    prepared: &Mutex<BTreeMap<u64, Arc<Prepared>>>,
    reporter: &Reporter,
    reach: Option<&Reach>,
) {
    // The tracer has read the same text, and reports what is wrong with it.
    let settings = settings::parse(&request.path, &request.text).settings;
    let Some(settings) = settings else { return reporter.prepared(request.number, Vec::new()) };
    for missing in reach.map(|reach| sink_reach::reach(&settings).beyond(reach)).unwrap_or_default() {
        message!(
            "{}: the process of the sinks cannot reach {} before sockstate is restarted",
            request.path,
            missing.display()
        );
    }
    let mut sinks = BTreeMap::new();
    let mut check = |sink: &Sink| {
        let mut problems = if request.is_checked { Vec::new() } else { sink_host::problems(sink) };
        if problems.is_empty() {
            match sink.section.settings(&stamp(&settings, &request)) {
                Ok(ready) => drop(sinks.insert(sink.section.name.clone(), ready)),
                Err(message) => problems.push((String::new(), message)),
            }
        }
        CheckedSink { name: sink.section.name.clone(), problems, files_sum: sink.section.files_sum() }
    };
    let checked = settings.sinks.iter().map(&mut check).collect();
    let number = request.number;
    let mut all = prepared.lock().unwrap_or_else(PoisonError::into_inner);
    while all.len() >= MOST_PREPARED {
        all.pop_first();
    }
    all.insert(number, Arc::new(Prepared { settings, request, sinks }));
    drop(all);
    reporter.prepared(number, checked);
}
