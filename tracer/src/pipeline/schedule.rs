//! The periodic tasks of the loop, and when they are due.

use std::time::Duration;

use tokio::time::Instant;

/// How long a part of a block may wait for the rest.
const MAX_DELAY: Duration = Duration::from_millis(20);
/// How long the pipeline waits for sinks at first, while there is much to deliver at once.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How often the counters of losses are read while records flow.
const LOSS_CHECK: Duration = Duration::from_millis(100);
/// How long after a loss the table is compared with the kernel's, so that many losses cost one look.
const LOSS_RESYNC: Duration = Duration::from_secs(1);

/// The times of what is due.
pub(super) struct Schedule {
    /// The last drain has found nothing.
    pub(super) quiet: bool,
    /// When tracing ends by itself.
    pub(super) deadline: Option<Instant>,
    /// When everything that was ready has gone out.
    flushed_at: Instant,
    losses_at: Instant,
    /// Records came since the counters of losses were read, here or while the table was filled or compared.
    unchecked: bool,
    /// How often the table is compared with the kernel's; `None` where that is not wanted.
    resync_every: Option<Duration>,
    resync_at: Option<Instant>,
    /// Until then the pipeline waits for sinks. The ring of an earlier process may be full, and is read faster than sinks deliver.
    catching_up: Option<Instant>,
}

impl Schedule {
    /// From now on. A table that was `adopted` from another process is compared with the kernel's at once.
    pub(super) fn new(duration: Option<Duration>, resync_every: Option<Duration>, adopted: bool) -> Self {
        let now = Instant::now();
        Self {
            quiet: false,
            deadline: duration.map(|duration| now + duration),
            flushed_at: now,
            losses_at: now,
            unchecked: true,
            resync_every,
            resync_at: resync_every.map(|every| if adopted { now } else { now + every }),
            catching_up: adopted.then(|| now + CATCH_UP),
        }
    }

    /// Whether what is ready goes out now, however little it is.
    pub(super) fn is_flush_due(&self) -> bool {
        self.quiet || self.flushed_at.elapsed() >= MAX_DELAY
    }

    /// Everything that was ready goes out.
    pub(super) fn flushed(&mut self) {
        self.flushed_at = Instant::now();
    }

    /// Whether sinks are waited for.
    pub(super) fn is_catching_up(&mut self) -> bool {
        self.catching_up = self.catching_up.filter(|until| !self.quiet && Instant::now() < *until);
        self.catching_up.is_some()
    }

    /// A drain has taken `taken` records.
    pub(super) fn drained(&mut self, taken: usize) {
        self.quiet = taken == 0;
        self.unchecked |= taken > 0;
    }

    /// When the counters of losses are to be read; `None` where nothing came since.
    pub(super) fn losses_at(&self) -> Option<Instant> {
        self.unchecked.then(|| self.losses_at + LOSS_CHECK)
    }

    /// The counters of losses were read, and are read `again` although no records come; after a loss the table is compared soon.
    pub(super) fn losses_read(&mut self, any: bool, again: bool) {
        self.losses_at = Instant::now();
        self.unchecked = again || !self.quiet;
        if any {
            let soon = self.losses_at + LOSS_RESYNC;
            self.resync_at = self.resync_at.map(|at| at.min(soon));
        }
    }

    /// When the table is to be compared with the kernel's.
    pub(super) fn resync_at(&self) -> Option<Instant> {
        self.resync_at.filter(|_| self.catching_up.is_none())
    }

    /// The table was compared, or that failed.
    pub(super) fn resynced(&mut self, done: bool) {
        self.unchecked = true;
        let next = |every: Duration| if done { every } else { every.min(LOSS_RESYNC) };
        self.resync_at = self.resync_every.map(|every| Instant::now() + next(every));
    }
}

/// Whether this moment has come.
pub(super) fn is_due(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at <= Instant::now())
}
