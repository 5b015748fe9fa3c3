//! The bounded queue between the thread that makes records and a sink's thread.
//!
//! Two counts say how far the sink has come. A record is *settled* when it is delivered, in the spool or in doubt, or
//! when a settled record reports its loss: the next process need not report it. The ledger has this count. A record has
//! *departed* when it is no longer in the memory of this sink, because it is delivered, in the spool, in doubt or lost:
//! [`Queue::abandon`] needs this count.
//!
//! If sinks have a process of their own ([`process`](crate::sinks::process)), a sink has two queues with the same
//! counts, which are in shared memory: the tracer pushes into one and the sink takes from the other. [`End`] says
//! which of them a queue is.

use std::{collections::VecDeque, sync::PoisonError, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Batch, SinkProgress,
    status::{MOST_COUNTED, Status},
    sync::{Arc, Mutex, MutexGuard, Ordering},
};

/// A pushed batch is split into pieces of at most this many bytes: otherwise each small delivery would copy the rest
/// of a large push.
const PIECE: usize = 1 << 20;
/// Bytes that are taken at once at most, from a queue of any size: they are copied, and a segment of a spool must
/// hold them.
const MOST_TAKEN: usize = 64 << 20;
/// How long a closed sink may still deliver if its spool keeps the rest.
const SPOOLED_GRACE: Duration = Duration::from_millis(500);

/// A sink that takes and delivers no record for this time is not waited for while others could continue.
const STANDS_STILL: Duration = Duration::from_secs(2);

/// Wakes the thread that reports losses, which otherwise waits for events. There is one such thread in a process.
static LOST: Notify = Notify::const_new();

/// Waits until a sink has lost something since this was last awaited.
pub async fn sink_lost() {
    LOST.notified().await;
}

/// The stream's end of a queue whose sink is in another process.
pub(crate) trait Forward: Send + Sync {
    /// Sends a batch to the sink's end. Does not wait.
    fn push(&self, batch: Batch);
    /// See [`Queue::close`].
    fn close(&self, grace: Duration);
    /// See [`Queue::reopen`].
    fn reopen(&self);
    /// Bytes of batches that are not sent yet.
    fn unsent(&self) -> usize;
    /// The number of the queue in both processes.
    fn number(&self) -> u32;
}

/// The sink's end of a queue whose stream is in another process.
pub(crate) trait Notice: Send + Sync {
    /// The sink has lost something, or has records in doubt.
    fn lost(&self);
    fn finished(&self);
    fn released(&self);
}

/// Which end of the way from a stream to its sink a queue is.
pub(crate) enum End {
    /// Both: the sink is in this process.
    Both,
    Stream(Box<dyn Forward>),
    Sink(Box<dyn Notice>),
}

/// The counts of a queue, in this process or in memory that both processes of a sink use.
pub(crate) type Counts = Box<dyn AsRef<Status> + Send + Sync>;

/// The process of the sinks says that one of them has lost something.
pub(crate) fn wake_reporter() {
    LOST.notify_one();
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// When the sink last took or delivered records, or when the first bytes came into the empty queue.
    moved: Option<Instant>,
    /// At the stream's end: all bytes that were pushed, and the sink's progress when it was last looked at.
    pushed_bytes: u64,
    seen: u64,
    /// When the queue is closed: records that are not delivered by this time are given up.
    deadline: Option<Instant>,
    /// Records that are given up are spooled, so the end need not wait for the collector.
    spools: bool,
    reopen: bool,
    finished: bool,
    /// The process of the sink has ended before the queue was finished.
    broken: bool,
    /// Threads that still open a file of the sink.
    holds: usize,
}

struct Shared {
    name: String,
    state: Mutex<State>,
    limit: usize,
    /// How far the sink has come, for the next process.
    progress: Option<SinkProgress>,
    status: Counts,
    end: End,
    /// Records were pushed, or the state changed.
    changed: Notify,
    finished: Notify,
}

/// The queue; its clones share it.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

impl Queue {
    /// A queue for the sink called `name`, with up to `limit` bytes.
    #[must_use]
    pub fn new(name: &str, limit: usize, progress: Option<SinkProgress>) -> Self {
        Self::at(name, limit, progress, Box::new(Status::default()), End::Both)
    }

    /// One end of such a queue.
    pub(crate) fn at(
        name: &str,
        limit: usize,
        progress: Option<SinkProgress>,
        status: Counts,
        end: End,
    ) -> Self {
        // The other process tells when the sink has released its files.
        let holds = usize::from(matches!(end, End::Stream(_)));
        Self(Arc::new(Shared {
            name: name.to_owned(),
            progress,
            state: Mutex::new(State { holds, ..State::default() }),
            limit,
            status,
            end,
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
        (*self.0.status).as_ref()
    }

    /// The number of the queue, if its sink is in another process.
    pub(crate) fn number(&self) -> Option<u32> {
        match &self.0.end {
            End::Stream(link) => Some(link.number()),
            _ => None,
        }
    }

    /// Bytes that were pushed, and that the sink has not taken.
    fn held(&self, state: &State) -> usize {
        match &self.0.end {
            // Never fewer than those in this process's memory, whatever the other process says.
            End::Stream(link) => {
                let taken = self.status().taken_bytes.load(Ordering::Relaxed);
                let held = state.pushed_bytes.saturating_sub(taken);
                usize::try_from(held).unwrap_or(usize::MAX).max(link.unsent())
            }
            _ => state.bytes,
        }
    }

    /// Whether the queue takes `bytes` now. Only the thread that pushes can make that untrue.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let held = self.held(&self.state());
        // One batch is taken however large it is.
        held == 0 || held + bytes <= self.0.limit
    }

    /// Whether the queue holds records, and its sink has taken and delivered none for some time: waiting may not help.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        let mut state = self.state();
        if let End::Stream(_) = &self.0.end {
            let status = self.status();
            let taken = status.taken_bytes.load(Ordering::Relaxed);
            let seen = taken.wrapping_add(status.departed.load(Ordering::Relaxed));
            if std::mem::replace(&mut state.seen, seen) != seen {
                state.moved = Some(Instant::now());
            }
        }
        self.held(&state) > 0 && state.moved.is_none_or(|moved| moved.elapsed() >= STANDS_STILL)
    }

    /// Adds a batch.
    pub fn push(&self, batch: Batch) {
        if !matches!(self.0.end, End::Sink(_)) {
            self.status().pushed.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        let mut state = self.state();
        if let End::Stream(link) = &self.0.end {
            if self.held(&state) == 0 {
                state.moved = Some(Instant::now());
            }
            state.pushed_bytes += batch.bytes.len() as u64;
            drop(state);
            return link.push(batch);
        }
        if state.bytes == 0 {
            state.moved = Some(Instant::now());
        }
        state.bytes += batch.bytes.len();
        self.status().queued_bytes.store(state.bytes as u64, Ordering::Relaxed);
        state.batches.extend(batch.split(PIECE));
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// How far the sink has come, for the next process.
    #[must_use]
    pub fn progress(&self) -> Option<&SinkProgress> {
        self.0.progress.as_ref()
    }

    /// `records` are settled, including the lost ones that they report; a negative number makes some unsettled again.
    pub fn settle(&self, records: i64) {
        if let Some(progress) = &self.0.progress {
            progress.settle(records);
        }
    }

    /// The full queue did not take `records`; the thread that pushes reports them.
    pub fn count_overflow(&self, records: u64) {
        self.status().lost.fetch_add(records, Ordering::Relaxed);
    }

    /// `records` are lost, none of them earlier than `since_ns`. They reported the loss of `reported` other records,
    /// which must be reported again. `was_kept`: all of these were settled, because they were on disk.
    pub(super) fn lose(&self, records: u64, reported: u64, since_ns: Option<i64>, was_kept: bool) {
        let status = self.status();
        status.lost.fetch_add(records, Ordering::Relaxed);
        if records + reported > 0 {
            self.note_since(since_ns);
        }
        status.unreported_lost.fetch_add(records + reported, Ordering::Release);
        if was_kept {
            self.settle(-(records + reported).cast_signed());
        }
        self.wake_stream();
    }

    /// The thread that reports losses has something to report.
    fn wake_stream(&self) {
        match &self.0.end {
            End::Sink(stream) => stream.lost(),
            _ => LOST.notify_one(),
        }
    }

    fn note_since(&self, since_ns: Option<i64>) {
        let new = since_ns.unwrap_or(i64::MIN);
        let earliest = |old: i64| Some(if old == 0 { new } else { old.min(new) });
        let _ = self.status().unreported_since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earliest);
    }

    /// All records of `batch` are lost, with the losses that they report.
    pub(super) fn lose_all(&self, batch: &Batch, was_kept: bool) {
        self.report_in_doubt(batch.reported_in_doubt(), None);
        self.lose(batch.len() as u64, batch.reported_lost(), batch.since_ns(), was_kept);
    }

    /// The collector may have `records`, none of them earlier than `since_ns`, and they are not sent again.
    pub(super) fn doubt(&self, records: u64, since_ns: Option<i64>) {
        self.status().in_doubt.fetch_add(records, Ordering::Relaxed);
        self.report_in_doubt(records, since_ns);
    }

    /// The collector may have these records, which counted as delivered, and they are not sent again.
    pub(super) fn doubt_delivered(&self, records: u64) {
        self.doubt(records, None);
        let status = self.status();
        status.delivered.fetch_sub(records.min(status.delivered()), Ordering::Relaxed);
    }

    /// `records` in doubt are to be reported in the stream, by the next process if not by this one.
    fn report_in_doubt(&self, records: u64, since_ns: Option<i64>) {
        if records == 0 {
            return;
        }
        self.note_since(since_ns);
        self.status().unreported_in_doubt.fetch_add(records, Ordering::Release);
        if let Some(progress) = &self.0.progress {
            progress.doubt(records.cast_signed());
        }
        self.wake_stream();
    }

    /// `records` are delivered, kept on disk, in doubt or lost.
    pub(super) fn depart(&self, records: u64) {
        self.status().departed.fetch_add(records, Ordering::Relaxed);
        if records > 0 {
            self.state().moved = Some(Instant::now());
        }
    }

    /// The sink hangs in a system call and is no longer waited for: the records that it has not delivered are lost.
    /// Returns their number.
    pub fn abandon(&self) -> u64 {
        let status = self.status();
        let departed = status.departed.load(Ordering::Relaxed);
        let held = status.pushed.load(Ordering::Relaxed).saturating_sub(departed).min(MOST_COUNTED);
        status.lost.fetch_add(held, Ordering::Relaxed);
        // A second call must count nothing twice.
        status.departed.fetch_add(held, Ordering::Relaxed);
        held
    }

    /// How many records the sink has lost since the last call.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.status().unreported_lost.swap(0, Ordering::Acquire).min(MOST_COUNTED)
    }

    /// How many records came into doubt since the last call.
    #[must_use]
    pub fn take_doubt(&self) -> u64 {
        let records = self.status().unreported_in_doubt.swap(0, Ordering::Acquire).min(MOST_COUNTED);
        if let Some(progress) = self.0.progress.as_ref().filter(|_| records > 0) {
            progress.doubt(-records.cast_signed());
        }
        records
    }

    /// The earliest time of the records that the last calls of [`Queue::take_lost`] and [`Queue::take_doubt`]
    /// returned; `None` if it is not known.
    #[must_use]
    pub fn take_lost_since(&self) -> Option<i64> {
        let since_ns = self.status().unreported_since.swap(0, Ordering::Relaxed);
        (![0, i64::MIN].contains(&since_ns)).then_some(since_ns)
    }

    /// What [`Queue::take_lost`] would return.
    pub(super) fn unreported(&self) -> u64 {
        self.status().unreported_lost.load(Ordering::Relaxed)
    }

    /// Whether [`Queue::take_lost`] or [`Queue::take_doubt`] would return records.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.unreported() > 0 || self.status().unreported_in_doubt.load(Ordering::Relaxed) > 0
    }

    /// Closes the queue. Records that are not delivered within `grace` are spooled, or lost.
    pub fn close(&self, grace: Duration) {
        let mut state = self.state();
        let grace = if state.spools { grace.min(SPOOLED_GRACE) } else { grace };
        state.deadline = Some(Instant::now() + grace);
        drop(state);
        if let End::Stream(link) = &self.0.end {
            link.close(grace);
        }
        self.0.changed.notify_waiters();
    }

    /// Makes the sink open its file again.
    pub fn reopen(&self) {
        if let End::Stream(link) = &self.0.end {
            return link.reopen();
        }
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

    /// Whether another sink may use the files of this one.
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

    pub(crate) fn finish(&self) {
        self.state().finished = true;
        self.0.finished.notify_waiters();
        if let End::Sink(stream) = &self.0.end {
            stream.finished();
        }
        self.tell_release();
    }

    /// The other process says that the sink has released its files.
    pub(crate) fn release(&self) {
        self.state().holds = 0;
        self.0.finished.notify_waiters();
    }

    /// The process of the sink has ended: what the sink had not delivered is lost.
    pub(crate) fn break_off(&self) {
        {
            let mut state = self.state();
            state.broken |= !state.finished;
            state.finished = true;
            state.holds = 0;
        }
        self.0.finished.notify_waiters();
        LOST.notify_one();
    }

    /// Whether the process of the sink has ended before the queue was finished.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    fn tell_release(&self) {
        if let End::Sink(stream) = &self.0.end
            && self.is_released()
        {
            stream.released();
        }
    }

    /// Takes up to about `most` bytes, and no more than [`MOST_TAKEN`].
    pub(super) fn take(&self, most: usize) -> Batch {
        let most = most.min(MOST_TAKEN);
        let mut state = self.state();
        state.moved = Some(Instant::now());
        let before = state.bytes;
        let mut taken = Batch::default();
        while let Some(batch) = state.batches.pop_front() {
            state.bytes -= batch.bytes.len();
            taken.append(batch);
            let next = state.batches.front().map_or(0, |next| next.bytes.len());
            if taken.bytes.len() + next > most {
                break;
            }
        }
        let status = self.status();
        status.queued_bytes.store(state.bytes as u64, Ordering::Relaxed);
        if let End::Sink(_) = &self.0.end {
            status.taken_bytes.fetch_add((before - state.bytes) as u64, Ordering::Relaxed);
        }
        taken
    }

    /// Puts records that were taken and not delivered to the front again.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut state = self.state();
        state.bytes += batch.bytes.len();
        let status = self.status();
        status.queued_bytes.store(state.bytes as u64, Ordering::Relaxed);
        if let End::Sink(_) = &self.0.end {
            status.taken_bytes.fetch_sub(batch.bytes.len() as u64, Ordering::Relaxed);
        }
        state.batches.push_front(batch);
    }

    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Whether more than half of the queue is used.
    pub(super) fn is_filling(&self) -> bool {
        self.bytes() > self.0.limit / 2
    }

    pub(super) fn take_reopen(&self) -> bool {
        std::mem::take(&mut self.state().reopen)
    }

    /// Whether the queue is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().deadline.is_some()
    }

    /// Whether the queue is closed, and its time is over.
    pub(super) fn is_overdue(&self) -> bool {
        self.state().deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits until the queue holds more than `more` bytes, or is closed, or the sink must open its file again.
    pub(super) async fn holds_more_than(&self, more: usize) {
        let ready = |state: &State| state.bytes > more || state.deadline.is_some() || state.reopen;
        self.until(|state| ready(state)).await;
    }

    /// Waits until more than half of the queue is used.
    pub(super) async fn filling(&self) {
        self.until(|state| state.bytes > self.0.limit / 2).await;
    }

    /// Waits until the queue is closed and its time is over; another call of [`Queue::close`] may shorten that time.
    pub(super) async fn overdue(&self) {
        while !self.is_overdue() {
            let deadline = self.state().deadline;
            tokio::select! {
                () = self.until(|state| state.deadline != deadline) => {}
                () = until(deadline) => {}
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
        // No code panics while it holds the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Queue::hold`].
pub(super) struct Hold(Queue);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.state().holds -= 1;
        self.0.0.finished.notify_waiters();
        self.0.tell_release();
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
