//! The bounded queue between the thread that reads records and a sink's own.

use std::{collections::VecDeque, sync::PoisonError, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Batch, SinkProgress,
    sync::{Arc, AtomicBool, AtomicI64, AtomicU64, Mutex, MutexGuard, Ordering},
};

/// Bytes of a batch in the queue: a push may be much larger than a delivery, whose rest would be copied each time.
const PIECE: usize = 1 << 20;
/// What is taken at once at most, of a queue of any size: it is copied, and a spool's segment must hold it.
const MOST_TAKEN: usize = 64 << 20;
/// How long the end waits for a collector where a spool keeps what it has not.
const SPOOLED_GRACE: Duration = Duration::from_millis(500);

/// After this time without a movement a sink is not waited for, while others could go on.
const STANDS_STILL: Duration = Duration::from_secs(2);

/// Wakes the thread that reports losses, which otherwise waits for events. There is one such thread in a process.
static LOST: Notify = Notify::const_new();

/// Waits until a sink has lost something since this was last awaited.
pub async fn sink_lost() {
    LOST.notified().await;
}

/// What a sink has done, for metrics.
#[derive(Debug, Default)]
pub struct Status {
    delivered: AtomicU64,
    delivered_bytes: AtomicU64,
    lost: AtomicU64,
    /// Lost in the sink's own thread, and not yet told in its stream.
    untold: AtomicU64,
    /// In doubt, and not reported yet in its stream.
    untold_doubt: AtomicU64,
    /// The earliest time of one of these; 0 for none of these, the least for not known.
    untold_since: AtomicI64,
    queued_bytes: AtomicU64,
    spooled_bytes: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
    /// The collector may have them, and they are not sent again.
    in_doubt: AtomicU64,
    /// Pushed, and no longer in memory only.
    pushed: AtomicU64,
    left: AtomicU64,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> u64 { self.$name.load(Ordering::Relaxed) })*
    };
}

impl Status {
    counts! {
        /// Records that the collector has.
        delivered,
        /// Their bytes.
        delivered_bytes,
        /// Records that it will never get.
        lost,
        /// Bytes that wait in memory.
        queued_bytes,
        /// Bytes that wait on disk.
        spooled_bytes,
        /// Attempts that failed.
        failures,
        /// Records that the collector may have, and that are not sent again.
        in_doubt,
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn deliver(&self, records: usize, bytes: usize) {
        self.delivered.fetch_add(records as u64, Ordering::Relaxed);
        self.delivered_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failing.store(true, Ordering::Relaxed);
    }

    /// Returns whether it was failing.
    pub(super) fn succeed(&self) -> bool {
        self.failing.swap(false, Ordering::Relaxed)
    }

    pub(super) fn spooled(&self, bytes: u64) {
        self.spooled_bytes.store(bytes, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// When the sink last took or delivered something, or when the first bytes came into the empty queue.
    moved: Option<Instant>,
    /// Nothing more comes; what has not gone by then is given up.
    closed: Option<Instant>,
    /// What is given up is spooled: that need not be waited for.
    spools: bool,
    reopen: bool,
    finished: bool,
    /// Threads that still open a file of the sink.
    holds: usize,
}

struct Shared {
    name: String,
    state: Mutex<State>,
    limit: usize,
    /// Where it is noted how far the sink has come.
    progress: Option<SinkProgress>,
    status: Status,
    /// Something came, or it was closed.
    changed: Notify,
    finished: Notify,
}

/// Both ends of it.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

impl Queue {
    /// For the sink called `name`; takes up to `limit` bytes.
    #[must_use]
    pub fn new(name: &str, limit: usize, progress: Option<SinkProgress>) -> Self {
        let name = name.to_owned();
        let (state, status) = (Mutex::default(), Status::default());
        Self(Arc::new(Shared {
            name,
            progress,
            state,
            limit,
            status,
            changed: Notify::new(),
            finished: Notify::new(),
        }))
    }

    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the sink has done.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.0.status
    }

    /// Whether it takes `bytes` now. Only the thread that pushes can make that untrue.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let held = self.state().bytes;
        // One batch is taken however large it is.
        held == 0 || held + bytes <= self.0.limit
    }

    /// Whether it holds something, and its sink has taken and delivered nothing for some time: waiting for it may be in vain.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        let state = self.state();
        state.bytes > 0 && state.moved.is_none_or(|moved| moved.elapsed() >= STANDS_STILL)
    }

    /// Adds a batch.
    pub fn push(&self, batch: Batch) {
        self.0.status.pushed.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let mut state = self.state();
        if state.bytes == 0 {
            state.moved = Some(Instant::now());
        }
        state.bytes += batch.bytes.len();
        self.0.status.queued_bytes.store(state.bytes as u64, Ordering::Relaxed);
        state.batches.extend(batch.split(PIECE));
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Where it is noted how far the sink has come.
    #[must_use]
    pub fn progress(&self) -> Option<&SinkProgress> {
        self.0.progress.as_ref()
    }

    /// `records` are no longer in memory only, with the lost ones that they report; a negative number puts some in doubt again.
    pub fn settle(&self, records: i64) {
        if let Some(progress) = &self.0.progress {
            progress.settle(records);
        }
    }

    /// `records` found no room; the thread that pushes reports them.
    pub fn refused(&self, records: u64) {
        self.0.status.lost.fetch_add(records, Ordering::Relaxed);
    }

    /// `records` are lost, none of them earlier than `since_ns`, and `told` of others that they told of; they had been on disk if that
    /// `was_kept`.
    pub(super) fn lose(&self, records: u64, told: u64, since_ns: Option<i64>, was_kept: bool) {
        let status = &self.0.status;
        status.lost.fetch_add(records, Ordering::Relaxed);
        if records + told > 0 {
            self.note_since(since_ns);
        }
        status.untold.fetch_add(records + told, Ordering::Release);
        if was_kept {
            self.settle(-(records + told).cast_signed());
        }
        LOST.notify_one();
    }

    fn note_since(&self, since_ns: Option<i64>) {
        let new = since_ns.unwrap_or(i64::MIN);
        let earliest = |old: i64| Some(if old == 0 { new } else { old.min(new) });
        let _ = self.0.status.untold_since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earliest);
    }

    /// The same for all records of `lot`, with what they tell of.
    pub(super) fn lose_all(&self, lot: &Batch, was_kept: bool) {
        self.tell_doubt(lot.doubts(), None);
        self.lose(lot.len() as u64, lot.tells(), lot.since_ns(), was_kept);
    }

    /// The collector may have `records`, none of them earlier than `since_ns`, and they are not sent again.
    pub(super) fn doubt(&self, records: u64, since_ns: Option<i64>) {
        self.0.status.in_doubt.fetch_add(records, Ordering::Relaxed);
        self.tell_doubt(records, since_ns);
    }

    /// The same for records that counted as delivered.
    pub(super) fn doubt_delivered(&self, records: u64) {
        self.doubt(records, None);
        let status = &self.0.status;
        status.delivered.fetch_sub(records.min(status.delivered()), Ordering::Relaxed);
    }

    /// `records` in doubt are to be reported in the stream, by the next process if not by this one.
    fn tell_doubt(&self, records: u64, since_ns: Option<i64>) {
        if records == 0 {
            return;
        }
        self.note_since(since_ns);
        self.0.status.untold_doubt.fetch_add(records, Ordering::Release);
        if let Some(progress) = &self.0.progress {
            progress.doubt(records.cast_signed());
        }
        LOST.notify_one();
    }

    /// `records` were delivered, kept on disk, or lost.
    pub(super) fn leave(&self, records: u64) {
        self.0.status.left.fetch_add(records, Ordering::Relaxed);
        if records > 0 {
            self.state().moved = Some(Instant::now());
        }
    }

    /// The sink hangs in a system call, and is not waited for: what it has not delivered is lost. Returns how many records.
    pub fn abandon(&self) -> u64 {
        let status = &self.0.status;
        let left = status.left.load(Ordering::Relaxed);
        let held = status.pushed.load(Ordering::Relaxed).saturating_sub(left);
        status.lost.fetch_add(held, Ordering::Relaxed);
        // Asked again, it counts nothing twice.
        status.left.fetch_add(held, Ordering::Relaxed);
        held
    }

    /// What the sink has lost since this was last asked.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.0.status.untold.swap(0, Ordering::Acquire)
    }

    /// What is in doubt since this was last asked.
    #[must_use]
    pub fn take_doubt(&self) -> u64 {
        let records = self.0.status.untold_doubt.swap(0, Ordering::Acquire);
        if let Some(progress) = self.0.progress.as_ref().filter(|_| records > 0) {
            progress.doubt(-records.cast_signed());
        }
        records
    }

    /// From when the records are that [`Queue::take_lost`] and [`Queue::take_doubt`] have returned last; `None` where that is not known.
    #[must_use]
    pub fn take_lost_since(&self) -> Option<i64> {
        let since_ns = self.0.status.untold_since.swap(0, Ordering::Relaxed);
        (![0, i64::MIN].contains(&since_ns)).then_some(since_ns)
    }

    /// What [`Queue::take_lost`] would return.
    pub(super) fn unreported(&self) -> u64 {
        self.0.status.untold.load(Ordering::Relaxed)
    }

    /// Whether [`Queue::take_lost`] or [`Queue::take_doubt`] would say something.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.unreported() > 0 || self.0.status.untold_doubt.load(Ordering::Relaxed) > 0
    }

    /// Nothing more comes; what cannot be delivered within `grace` is spooled, or lost.
    pub fn close(&self, grace: Duration) {
        let mut state = self.state();
        let grace = if state.spools { grace.min(SPOOLED_GRACE) } else { grace };
        state.closed = Some(Instant::now() + grace);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Files are to be opened again.
    pub fn reopen(&self) {
        self.state().reopen = true;
        self.0.changed.notify_waiters();
    }

    /// Waits until the sink has ended.
    pub async fn finished(&self) {
        loop {
            let finished = self.0.finished.notified();
            tokio::pin!(finished);
            finished.as_mut().enable();
            if self.state().finished {
                return;
            }
            finished.await;
        }
    }

    /// Waits until the sink has ended, and no thread of it opens a file any more.
    pub(super) async fn released(&self) {
        loop {
            let finished = self.0.finished.notified();
            tokio::pin!(finished);
            finished.as_mut().enable();
            if self.is_released() {
                return;
            }
            finished.await;
        }
    }

    /// Whether another sink may have its files.
    #[must_use]
    pub fn is_released(&self) -> bool {
        let state = self.state();
        state.finished && state.holds == 0
    }

    /// A thread opens a file of the sink for as long as the result lives.
    pub(super) fn hold(&self) -> Hold {
        self.state().holds += 1;
        Hold(self.clone())
    }

    /// Whether the sink has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state().finished
    }

    pub(super) fn set_spools(&self) {
        self.state().spools = true;
    }

    pub(super) fn finish(&self) {
        self.state().finished = true;
        self.0.finished.notify_waiters();
    }

    /// Takes up to about `most` bytes, and no more than [`MOST_TAKEN`].
    pub(super) fn take(&self, most: usize) -> Batch {
        let most = most.min(MOST_TAKEN);
        let mut state = self.state();
        state.moved = Some(Instant::now());
        let mut taken = Batch::default();
        while let Some(batch) = state.batches.pop_front() {
            state.bytes -= batch.bytes.len();
            taken.append(batch);
            let next = state.batches.front().map_or(0, |next| next.bytes.len());
            if taken.bytes.len() + next > most {
                break;
            }
        }
        self.0.status.queued_bytes.store(state.bytes as u64, Ordering::Relaxed);
        taken
    }

    /// What was taken and did not go comes first again.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut state = self.state();
        state.bytes += batch.bytes.len();
        self.0.status.queued_bytes.store(state.bytes as u64, Ordering::Relaxed);
        state.batches.push_front(batch);
    }

    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// More than half of it is used.
    pub(super) fn is_filling(&self) -> bool {
        self.bytes() > self.0.limit / 2
    }

    pub(super) fn take_reopen(&self) -> bool {
        std::mem::take(&mut self.state().reopen)
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed.is_some()
    }

    /// It was closed, and its time is over.
    pub(super) fn is_overdue(&self) -> bool {
        self.state().closed.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits until it holds more than `more`, or is closed, or files are to be opened again.
    pub(super) async fn holds_more_than(&self, more: usize) {
        let ready = |state: &State| state.bytes > more || state.closed.is_some() || state.reopen;
        self.until(|state| ready(state)).await;
    }

    /// Waits until more than half of it is used.
    pub(super) async fn filling(&self) {
        self.until(|state| state.bytes > self.0.limit / 2).await;
    }

    /// Waits until it was closed and its time, which may be made shorter meanwhile, is over.
    pub(super) async fn overdue(&self) {
        while !self.is_overdue() {
            let closed = self.state().closed;
            tokio::select! {
                () = self.until(|state| state.closed != closed) => {}
                () = until(closed) => {}
            }
        }
    }

    async fn until(&self, ready: impl Fn(&State) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if ready(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics holds it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Queue::hold`].
pub(super) struct Hold(Queue);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.state().holds -= 1;
        self.0.0.finished.notify_waiters();
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
