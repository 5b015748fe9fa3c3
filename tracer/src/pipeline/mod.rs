//! The pipeline: ring -> decode -> track (with enrich) -> route -> format -> output.
//!
//! One thread owns everything; nothing is shared. At the end it detaches the programs, drains the ring, reports the losses, and flushes.

mod aggregate;
mod attempts;
mod beginning;
mod clock;
mod destination;
mod drain;
mod ending;
mod flow;
mod interims;
mod metrics_stream;
mod missing;
mod names;
mod nap;
mod outgoing;
mod owners;
mod record_stream;
mod resets;
mod resync;
mod schedule;
mod service_reports;
mod signals;
mod streams;

use std::time::Duration;

use thiserror::Error;

pub use beginning::{Beginning, begin};
pub use clock::{clock_offset_ns, monotonic_ns, now_ns};
pub use destination::{Destination, Reload};
pub use ending::GRACE;
pub use interims::Interims;
pub use metrics_stream::{MetricsStream, WriteNumbers};
pub use nap::SHORT_NAP;
pub use record_stream::RecordStream;
pub use resync::Resyncer;
pub use service_reports::ServiceReports;
pub use signals::Signals;
pub use streams::{Stream, Streams, Summary};

use crate::{
    enrich::Enricher,
    examiner::Examiner,
    hunter::Hunter,
    metrics::{Counts, Numbers, Question, Server},
    model::{
        Diagnosis, Lifespan, LostPlace, MetricLabels, MissingStack, Reason, Record, Reset, Snapshot,
        SocketReport, Start, Stuck,
    },
    restart::StateWriter,
    route::Router,
    sinks::OutputError,
    source::{HolderFinder, KernelSource, Losses, NatFinder, SourceError},
    track::Table,
};

/// Records taken from the ring before they are written: enough to fill a large write, few enough for the cache.
const BATCH: usize = 256;
/// Why tracing ended early.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The ring cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The output cannot be written.
    #[error("{error}; {unwritten} bytes of records were not written")]
    Output { error: OutputError, unwritten: usize },
    /// The process of the sinks has ended, and no stream has a sink any more.
    #[error("the process of the sinks has ended, so this process ends, too: {0} records were not delivered")]
    Sinks(u64),
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// When the trace ends by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The time between the first record and the end.
    pub duration: Option<Duration>,
    /// The number of transitions until the end.
    pub count: Option<u64>,
}

/// The settings of the user, except the filter.
pub struct Settings {
    /// When the trace ends by itself.
    pub limits: Limits,
    /// The HTTP server for metrics.
    pub metrics: Option<Server>,
    /// The number of processes that the metrics name.
    pub leakers: usize,
    /// The labels by which metrics count sockets.
    pub labels: MetricLabels,
    /// The shortest pause after records were read. A longer pause costs less CPU, and delays records.
    pub nap: Duration,
}

/// The stages of the pipeline, and what they need.
pub struct Pipeline {
    /// The source of the records.
    pub source: KernelSource,
    /// The connections.
    pub table: Table,
    /// Finds the processes, cgroups and containers.
    pub enricher: Enricher,
    /// The filter.
    pub router: Router,
    /// The streams that are written.
    pub streams: Streams,
    /// Compares the table with the kernel's tables; `None` if the user has turned this off.
    pub resync: Option<Resyncer>,
    /// Finds out why connections are stuck.
    pub examiner: Examiner,
    /// Finds the holders of sockets whose owners have ended.
    pub finder: HolderFinder,
    /// Asks conntrack how it translates connections.
    pub nats: NatFinder<Box<Lifespan>>,
    /// Reports connections that go on.
    pub interims: Interims,
    /// `Some` in a hunt, which reports stuck connections with the call stack that opened them, and no transitions.
    pub hunter: Option<Hunter>,
    /// Writes the state for the next process, if the programs are pinned.
    pub state_writer: Option<StateWriter>,
    /// Whether the table comes from a previous process: it is compared with the kernel's tables at once.
    pub adopted: bool,
    /// What the service manager gets to know.
    pub service: ServiceReports,
    /// The settings of the user.
    pub settings: Settings,
}

/// Why the loop ended.
enum End {
    Reason(&'static str),
    Closed,
}

impl Pipeline {
    /// Writes the first record.
    pub fn start(&mut self, start: Start) {
        self.store_last_id();
        self.streams.record(&Record::Start(start));
    }

    /// Writes the wanted sockets that exist.
    pub fn snapshot(&mut self) {
        let Self { table, router, streams, .. } = self;
        for snapshot in table.snapshot() {
            router.route(&Record::Snapshot(snapshot), |record| streams.record(record));
            streams.relieve();
        }
    }

    /// Runs until a signal, a limit, or the output ends it.
    ///
    /// # Errors
    /// The output or the ring fails.
    pub async fn run(
        mut self,
        mut destination: Destination,
        mut signals: Signals,
    ) -> Result<Summary, PipelineError> {
        self.follow_streams();
        self.watch_owners();
        self.report_ready();
        match self.flow(&mut destination, &mut signals).await? {
            End::Closed => self.streams.summary.closed = true,
            End::Reason(reason) => self.end(reason, destination, &mut signals).await?,
        }
        Ok(self.streams.summary)
    }

    /// Collects from now on what the streams need: counts for metrics, if there is a server or a sink for them, and paths.
    fn follow_streams(&mut self) {
        self.table.report_connections(self.streams.have_connections());
        self.interims.follow(&self.streams.intervals(), &self.table);
        if self.streams.counts.is_none() && (self.settings.metrics.is_some() || self.streams.reports()) {
            self.streams.counts = Some(Counts::since(now_ns()));
        }
    }

    /// Stores the last connection id for the next process, before a record with that id can be read.
    fn store_last_id(&self) {
        if let Some(writer) = &self.state_writer {
            writer.note_last_id(self.table.last_id());
        }
    }

    /// Whether something is pending that no event announces.
    fn is_waiting(&self) -> bool {
        self.table.is_waiting()
            || self.table.is_beginning()
            || self.source.is_upgrading()
            || self.finder.is_busy()
            || self.examiner.is_busy()
            || self.interims.is_busy()
            || self.streams.has_unreported()
    }

    fn broken(&self, error: OutputError) -> PipelineError {
        PipelineError::Output { error, unwritten: self.streams.buffered() }
    }

    /// Writes a `stuck` record; in a hunt, with the call stack that opened the socket.
    fn write_stuck(&mut self, stuck: Stuck) {
        let mut record = Record::Stuck(stuck);
        if !self.router.wants(&record) {
            return;
        }
        if let (Some(hunter), Record::Stuck(stuck)) = (&mut self.hunter, &mut record) {
            if !hunter.stuck(stuck.conn.id) {
                return;
            }
            let never_accepted = |found: &(SocketReport, Diagnosis)| found.1.reason == Reason::NeverAccepted;
            stuck.opened = Some(match hunter.stack(stuck.conn.id) {
                Err(_) if stuck.found.as_deref().is_some_and(never_accepted) => {
                    Err(MissingStack::NotAccepted)
                }
                opened => opened,
            });
        }
        self.streams.record(&record);
    }

    /// Answers a request for metrics.
    fn answer(&self, question: Question) {
        // The client may have gone.
        match question {
            Question::Numbers(sender) => drop(sender.send(self.numbers().into_text())),
            Question::Health(sender) => drop(sender.send(())),
        }
    }

    fn numbers(&self) -> Numbers {
        let wanted = |snapshot: &Snapshot| self.router.wants_snapshot(snapshot);
        let runs = self.source.runs().into_iter();
        Numbers {
            ring: self.source.ring_fill(),
            programs: runs.map(|program| (program.name, program.ns, program.count)).collect(),
            sinks: self.streams.numbers(),
            totals: self.table.totals(&self.settings.labels, self.settings.leakers, wanted),
            counts: self.streams.counts.clone().unwrap_or_default(),
            lost: self.streams.summary.lost.clone(),
            illegal: self.table.illegal(),
            waiting_bytes: self.streams.buffered(),
            hook: self.source.hook(),
            tier: self.source.tier(),
        }
    }

    /// Reads the counters of losses, stores them for the next process, and reports the new losses. Returns whether the table may be wrong
    /// now: lost call stacks do not matter to it.
    fn report_losses(&mut self, is_end: bool) -> Result<bool, PipelineError> {
        let before: u64 = self.streams.summary.lost.values().sum();
        let looked_ns = now_ns();
        let all = self.source.losses()?;
        let losses = self.source.unreported(all);
        let resets = self.streams.resets.report(losses.resets, monotonic_ns(), is_end);
        if let Some(writer) = &self.state_writer {
            let unreported = losses.resets - self.streams.resets.reported().min(losses.resets);
            writer.note_losses(Losses { resets: all.resets - unreported, ..all });
        }
        if let Some(count) = resets {
            let reset = Record::Reset(Reset { time_ns: now_ns(), answered: None, count });
            self.router.route(&reset, |record| self.streams.record(record));
        }
        self.streams.lost(LostPlace::Ring, losses.ring, looked_ns, now_ns());
        self.streams.lost(LostPlace::Evidence, losses.evidence, looked_ns, now_ns());
        self.streams.lost(LostPlace::Recursion, losses.recursion, looked_ns, now_ns());
        let lost = self.streams.summary.lost.values().sum::<u64>() > before;
        let not_unwound = self.hunter.as_ref().map_or(0, Hunter::lost);
        self.streams.lost(LostPlace::Stack, losses.stacks + not_unwound, looked_ns, now_ns());
        Ok(lost)
    }
}
