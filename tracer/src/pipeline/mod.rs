//! One way through the house, wired together: ring -> decode -> track (with enrich) -> route -> format -> output.
//!
//! One thread owns everything; nothing is shared. The order of the end: detach, drain the ring, say what was lost,
//! flush.

mod aggregate;
mod beginning;
mod clock;
mod drain;
mod ending;
mod keeper;
mod missing;
mod names;
mod outlet;
mod owners;
mod resync;
mod signals;
mod streams;

use std::{num::NonZeroU64, thread, time::Duration};

use rustix::thread::set_current_timer_slack;
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until};

pub use beginning::{Beginning, begin};
pub use clock::{clock_offset_ns, monotonic_ns, now_ns};
pub use ending::GRACE;
pub use keeper::{Estate, Keeper, estate, forget, forget_estate, ledger};
pub use outlet::{Outlet, Reload};
pub use resync::Resyncer;
pub use signals::Signals;
pub use streams::{Stream, Streams, Summary, Tell};

use crate::{
    enrich::Enricher,
    examiner::Examiner,
    hunter::Hunter,
    metrics::{Counts, Numbers, Question, Server},
    model::{Diagnosis, Examined, LostPlace, Notice, Reason, Snapshot, Start, Stuck, Unseen},
    route::Router,
    sinks::{OutputError, sink_lost},
    source::{Finder, KernelSource, SourceError},
    track::Table,
};

/// Records taken from the ring before they are written: enough to fill a large write, few enough for the cache.
const BATCH: usize = 256;
/// After a drain the reader sleeps before it looks again, so that the kernel need not wake it for each record. Slept
/// outside of epoll: there the ring itself would end it. The first nap after a pause is this short, for whoever watches.
pub const SHORT_NAP: Duration = Duration::from_micros(50);
/// Naps double up to this as long as something comes.
const NAP: Duration = Duration::from_millis(1);
/// While much comes in a nap, they grow up to this: few long runs with warm caches cost half of many short ones. The
/// default ring holds a hundred times what comes in that time.
const LONG_NAP: Duration = Duration::from_millis(8);
/// This is much.
const RUN: usize = BATCH / 4;
/// How long a part of a block may wait for the rest.
const MAX_DELAY: Duration = Duration::from_millis(20);
/// Bytes of a record, if it is a long one.
const RECORD: usize = 1 << 10;
/// How long sinks are waited for at first, while there is much to deliver at once.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How often the counters of losses are read while records flow.
const LOSS_CHECK: Duration = Duration::from_millis(100);
/// How often the table is told how far time has come while something in it waits for evidence.
const PATIENCE: Duration = Duration::from_millis(25);
/// How long after a loss the table is compared with the kernel's, so that many losses cost one look.
const LOSS_RESYNC: Duration = Duration::from_secs(1);

/// Why tracing ended early.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The ring.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The output.
    #[error("{error}; {unwritten} bytes of records were not written")]
    Output {
        /// What happened.
        error: OutputError,
        /// How much it cost.
        unwritten: usize,
    },
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// When to end by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// This time after the first record was written.
    pub duration: Option<Duration>,
    /// After this many transitions.
    pub count: Option<u64>,
}

/// The rooms behind the ring.
pub struct Pipeline {
    /// Where records come from.
    pub source: KernelSource,
    /// The connections.
    pub table: Table,
    /// The names.
    pub enricher: Enricher,
    /// The filter.
    pub router: Router,
    /// What is written.
    pub streams: Streams,
    /// The end.
    pub limits: Limits,
    /// Looks at the kernel's tables again; none where that is not wanted.
    pub resync: Option<Resyncer>,
    /// Finds out why something is stuck.
    pub examiner: Examiner,
    /// Finds out who holds the listeners of processes that have ended.
    pub finder: Finder,
    /// Where connections are opened is wanted, in place of transitions.
    pub hunter: Option<Hunter>,
    /// Asks for numbers.
    pub metrics: Option<Server>,
    /// How many processes the numbers name.
    pub leakers: usize,
    /// The programs go on after the end, and somebody else with them.
    pub keeper: Option<Keeper>,
    /// How long it pauses at least when it has read something: what comes meanwhile is read at once.
    pub nap: Duration,
    /// The table is another's: it is compared with the kernel's at once.
    pub adopted: bool,
}

/// Why the loop ended.
enum End {
    Reason(&'static str),
    Closed,
}

impl Pipeline {
    /// Writes the first record.
    pub fn start(&mut self, start: Start) {
        self.streams.notice(&Notice::Start(start));
    }

    /// Writes the wanted sockets that exist.
    pub fn snapshot(&mut self) {
        let Self { table, router, streams, .. } = self;
        for snapshot in table.snapshot() {
            let notice = Notice::Snapshot(snapshot);
            if router.wants(&notice) {
                streams.notice(&notice);
            }
        }
    }

    /// Runs until a signal, a limit, or the output ends it.
    ///
    /// # Errors
    /// The output or the ring fails.
    pub async fn run(mut self, mut outlet: Outlet, mut signals: Signals) -> Result<Summary, PipelineError> {
        self.count();
        self.watch_owners();
        // The kernel rounds a sleep up by 50 us else: as long as a short nap. Where it refuses, naps are longer.
        let _ = set_current_timer_slack(NonZeroU64::new(1000));
        match self.flow(&mut outlet, &mut signals).await? {
            End::Closed => self.streams.summary.closed = true,
            End::Reason(reason) => self.end(reason, outlet, &mut signals).await?,
        }
        Ok(self.streams.summary)
    }

    /// From now on, if somebody wants to know.
    fn count(&mut self) {
        if self.streams.counts.is_none() && (self.metrics.is_some() || self.streams.reports()) {
            self.streams.counts = Some(Counts::since(now_ns()));
        }
    }

    async fn flow(&mut self, outlet: &mut Outlet, signals: &mut Signals) -> Result<End, PipelineError> {
        let deadline = self.limits.duration.map(|duration| Instant::now() + duration);
        let mut losses_at = Instant::now();
        let mut flushed_at = Instant::now();
        let mut quiet = false;
        // Records came since the counters of losses were read, here or while the table was filled or compared.
        let mut unchecked = true;
        let mut nap = self.nap;
        let mut since_nap = 0;
        let mut napping = false;
        let first = |resync: &Resyncer| if self.adopted { Duration::ZERO } else { resync.every };
        let mut resync_at = self.resync.as_ref().map(|resync| Instant::now() + first(resync));
        // A ring may be full of what came before: quicker to read than to deliver.
        let mut catching_up = self.adopted.then(|| Instant::now() + CATCH_UP);
        loop {
            let now = Instant::now();
            let at_once = quiet || now - flushed_at >= MAX_DELAY;
            let wanted = outlet.wanted(&self.streams, at_once);
            if wanted > 0 {
                if wanted == self.streams.buffered() {
                    flushed_at = now;
                }
                self.note();
                tokio::select! {
                    biased;
                    () = signals.end() => return Ok(End::Reason("signal")),
                    () = until(deadline) => return Ok(End::Reason("duration")),
                    result = outlet.send(&mut self.streams, wanted) => match result {
                        Ok(()) => {}
                        Err(OutputError::Closed(_)) => return Ok(End::Closed),
                        Err(error) => return Err(self.broken(error)),
                    }
                }
            }
            if self.streams.is_full() {
                return Ok(End::Reason("count"));
            }
            catching_up = catching_up.filter(|until| !quiet && now < *until);
            if catching_up.is_some() && !self.streams.has_room(BATCH * RECORD) {
                tokio::select! {
                    biased;
                    () = signals.end() => return Ok(End::Reason("signal")),
                    () = sleep(NAP) => continue,
                }
            }
            if napping {
                thread::sleep(nap);
                nap = (nap * 2).min(if since_nap > RUN { LONG_NAP } else { NAP }).max(self.nap);
                since_nap = 0;
            }
            let after =
                |at_ns: u64| Instant::now() + Duration::from_nanos(at_ns.saturating_sub(monotonic_ns()));
            let watch_at = self.table.next_bark_ns().filter(|_| quiet).map(after);
            let owners_at = self.table.next_look_ns().filter(|_| quiet).map(after);
            let report_at = self.streams.report_at();
            let keep_at = self.keeper.as_ref().and_then(Keeper::due);
            let window_at = self.streams.window_ends_ns().filter(|_| quiet).map(after);
            tokio::select! {
                biased;
                ends = signals.any() => {
                    if ends || !outlet.hang_up(&mut self.streams).await.map_err(|error| self.broken(error))? {
                        return Ok(End::Reason("signal"));
                    }
                }
                () = until(deadline) => return Ok(End::Reason("duration")),
                is_read = outlet.changed() => {
                    if !is_read {
                        return Ok(End::Closed);
                    }
                    outlet.apply(&mut self.streams);
                    self.count();
                }
                result = self.source.readable(), if quiet => result?,
                () = sleep_until(losses_at + LOSS_CHECK), if quiet && unchecked => {}
                () = until(resync_at), if quiet => {}
                () = sleep(PATIENCE), if quiet && self.is_waiting() => {}
                () = until(watch_at), if quiet => {}
                () = until(owners_at), if quiet && !self.finder.is_busy() => {}
                () = until(window_at), if quiet => {}
                () = until(keep_at), if quiet => {}
                () = until(report_at), if quiet => {}
                () = sink_lost(), if quiet => {}
                question = asked(&mut self.metrics), if quiet => self.answer(question),
                () = std::future::ready(()), if !quiet => {}
            }
            self.table.set_offset(clock_offset_ns());
            let taken = self.drain(BATCH);
            quiet = taken == 0;
            unchecked |= taken > 0;
            if unchecked && losses_at.elapsed() >= LOSS_CHECK {
                if self.losses()? && self.resync.is_some() {
                    let soon = Instant::now() + LOSS_RESYNC;
                    resync_at = resync_at.map(|at| at.min(soon));
                }
                losses_at = Instant::now();
                unchecked = !quiet;
            }
            if resync_at.is_some_and(|at| Instant::now() >= at) && catching_up.is_none() {
                let done = self.resync();
                unchecked = true;
                let next = |every: Duration| if done { every } else { every.min(LOSS_RESYNC) };
                resync_at = self.resync.as_ref().map(|resync| Instant::now() + next(resync.every));
            }
            self.find_owners();
            self.say_examined();
            if let Some(question) = self.metrics.as_mut().and_then(Server::asked_now) {
                self.answer(question);
            }
            if self.streams.report_at().is_some_and(|at| at <= Instant::now()) {
                let numbers = self.numbers();
                self.streams.report(&numbers, false);
            }
            self.streams.close_windows(monotonic_ns());
            if let Some(keeper) = &mut self.keeper {
                keeper.keep(&self.table, taken > 0);
            }
            since_nap += taken;
            napping = taken > 0 && taken < BATCH;
            if quiet {
                nap = self.nap;
            }
        }
    }

    /// For the next one, before anybody reads of a connection.
    fn note(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.set_last_id(self.table.last_id());
        }
    }

    /// Something is due that no event announces.
    fn is_waiting(&self) -> bool {
        self.table.is_waiting()
            || self.finder.is_busy()
            || self.examiner.is_busy()
            || self.streams.has_unsaid()
    }

    fn broken(&self, error: OutputError) -> PipelineError {
        PipelineError::Output { error, unwritten: self.streams.buffered() }
    }

    /// Says it, with where it was opened where that is wanted.
    fn stuck(&mut self, mut stuck: Stuck) {
        if !self.router.wants_stuck(&stuck) {
            return;
        }
        if let Some(hunter) = &mut self.hunter {
            if !hunter.stuck(stuck.conn) {
                return;
            }
            let never_accepted = |found: &(Examined, Diagnosis)| found.1.reason == Reason::NeverAccepted;
            stuck.opened = Some(match hunter.stack(stuck.conn) {
                Err(_) if stuck.found.as_deref().is_some_and(never_accepted) => Err(Unseen::NotAccepted),
                opened => opened,
            });
        }
        self.streams.notice(&Notice::Stuck(stuck));
    }

    /// Tells whoever asks for numbers.
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
            programs: runs.map(|it| (it.name, it.ns, it.count)).collect(),
            sinks: self.streams.numbers(),
            leakers: self.table.leakers(self.leakers, wanted),
            counts: self.streams.counts.clone().unwrap_or_default(),
            tally: self.table.tally(wanted),
            lost: self.streams.summary.lost.clone(),
            illegal: self.table.illegal(),
            waiting_bytes: self.streams.buffered(),
            hook: self.source.hook(),
            tier: self.source.tier(),
        }
    }

    /// Whether the table may have missed something.
    fn losses(&mut self) -> Result<bool, PipelineError> {
        let before: u64 = self.streams.summary.lost.values().sum();
        let looked_ns = now_ns();
        let all = self.source.losses()?;
        if let Some(keeper) = &self.keeper {
            keeper.tell(all);
        }
        let losses = self.source.untold(all);
        self.streams.lost(LostPlace::Ring, losses.ring, looked_ns, now_ns());
        self.streams.lost(LostPlace::Evidence, losses.evidence, looked_ns, now_ns());
        self.streams.lost(LostPlace::Recursion, losses.recursion, looked_ns, now_ns());
        let lost = self.streams.summary.lost.values().sum::<u64>() > before;
        let not_unwound = self.hunter.as_ref().map_or(0, Hunter::lost);
        self.streams.lost(LostPlace::Stack, losses.stacks + not_unwound, looked_ns, now_ns());
        Ok(lost)
    }
}

async fn asked(metrics: &mut Option<Server>) -> Question {
    match metrics {
        Some(server) => server.asked().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
