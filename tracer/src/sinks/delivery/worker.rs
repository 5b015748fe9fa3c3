//! A sink's thread: takes records from its queue, delivers them in order, and spools what it cannot deliver.

use std::{
    collections::HashSet,
    io, thread,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Batch, DeliveryError, Frame, Queue, Sink, Spool, attempt_size::AttemptSize, disk::Disk};
use crate::capabilities;

/// The first pause after a failure.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Converts a record, the first argument, to the collector's format, and appends it to the second argument.
pub type Convert = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

/// The size of a delivery, and the pauses between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// About how many bytes of records one delivery has.
    pub batch_bytes: usize,
    /// How long the first record of a delivery waits for others.
    pub batch_time: Duration,
    /// The longest pause between attempts.
    pub retry_max: Duration,
}

/// The thread of a sink, with its queue, its spool and its connection.
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) sink: Box<dyn Sink>,
    pub(super) convert: Option<Convert>,
    pub(super) queue: Queue,
    pub(super) disk: Disk,
    pub(super) batching: BatchSettings,
    pub(super) attempt_size: AttemptSize,
}

/// The result of an attempt.
enum Outcome {
    Done(Result<(), DeliveryError>),
    /// The queue is closed, and its deadline has passed.
    Overdue,
}

/// How many records an attempt had, and how many of them it has not delivered.
struct Attempt {
    records: usize,
    left: usize,
}

/// What the worker does after an attempt.
enum Next {
    /// Sends the records that are left, at once.
    Continue,
    /// Sends them again, after the usual pause or the one that the collector asks for.
    Retry(String, Option<Duration>),
    /// Ends: the time is over.
    End,
}

impl Worker {
    /// Starts the thread; it ends when the queue is closed and empty, or its deadline has passed.
    pub(super) fn start(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("sink-{}", self.name);
        let work = move || {
            // This thread parses answers from the network: an attack through them must gain no capability.
            let _ = capabilities::give_up_all();
            let queue = self.queue.clone();
            runtime.block_on(self.work());
            queue.finish();
        };
        // The kernel shows 15 bytes of it.
        thread::Builder::new().name(name.chars().take(15).collect()).spawn(work)?;
        Ok(())
    }

    async fn work(mut self) {
        self.disk.begin(&self.queue).await;
        while !self.queue.is_overdue()
            && let Some(batch) = self.next().await
        {
            if batch.is_empty() && !self.sink.must_deliver() {
                continue;
            }
            if !self.deliver(batch).await {
                break;
            }
        }
        self.give_up().await;
        // This also notices a reset of the connection since the last delivery.
        self.sink.close().await;
        let doubtful = self.sink.doubtful();
        self.queue.doubt_delivered(doubtful);
        if doubtful > 0 {
            message!(
                "sink {}: {doubtful} records are in doubt: the connection was reset after TCP had acknowledged them, and the collector may not have read them",
                self.name
            );
        }
        let waiting = self.disk.bytes();
        if waiting > 0 {
            message!(info: "sink {}: {waiting} bytes wait in its spool for the next sink of this name", self.name);
        }
        let lost = self.queue.unreported();
        if lost > 0 {
            message!(error: "sink {}: {lost} records were not delivered when it ended", self.name);
        }
    }

    /// The next records to deliver, those of the spool first; `None` if no more come.
    async fn next(&mut self) -> Option<Batch> {
        self.disk.spill(&self.queue);
        if self.disk.has_records() && self.queue.take_reopen() {
            self.sink.reopen();
        }
        if let Some(read) = self.disk.read(self.batching.batch_bytes, &self.queue) {
            return Some(match read {
                Ok(read) => {
                    if read.missing > 0 {
                        message!(
                            error: "sink {}: the spool was damaged: {} records are lost",
                            self.name,
                            read.missing
                        );
                        self.queue.lose(read.missing, 0, None, true);
                    }
                    read.batch
                }
                Err(error) => self.unreadable(&error).await,
            });
        }
        tokio::select! {
            () = self.queue.holds_more_than(0) => {}
            () = self.sink.idle() => {}
            () = self.disk.due(&self.queue) => {}
        }
        if self.queue.take_reopen() {
            self.sink.reopen();
        }
        if self.queue.bytes() > 0 && !self.batching.batch_time.is_zero() {
            tokio::select! {
                () = self.queue.holds_more_than(self.batching.batch_bytes) => {}
                () = sleep(self.batching.batch_time) => {}
            }
        }
        let batch = self.queue.take(self.batching.batch_bytes);
        (!batch.is_empty() || !self.queue.is_closed()).then_some(batch)
    }

    /// A segment of the spool cannot be read. Without descriptors, memory or permission it is tried again later;
    /// after any other error it is given up.
    async fn unreadable(&mut self, error: &io::Error) -> Batch {
        let is_passing = matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EACCES | libc::EPERM | libc::EINTR)
        );
        let what = if is_passing { "trying again" } else { "giving it up" };
        message!("sink {}: cannot read a segment of the spool: {error}; {what}", self.name);
        self.queue.status().fail();
        if is_passing {
            tokio::select! {
                () = sleep(self.batching.retry_max) => {}
                () = self.queue.overdue() => {}
            }
        } else if let Some(missing) = self.disk.give_up() {
            self.queue.lose(missing, 0, None, true);
        }
        Batch::default()
    }

    /// The records in the collector's format; `None` if the sink needs no conversion.
    fn converted(&mut self, batch: &Batch) -> Option<Batch> {
        let convert = self.convert.as_mut()?;
        let mut converted = Batch::default();
        for (bytes, frame) in batch.records() {
            convert(bytes, &mut converted.bytes);
            converted.frames.push(Frame { end: converted.bytes.len(), ..*frame });
        }
        Some(converted)
    }

    /// Tries until the records are delivered, refused or in doubt; false if the deadline has passed.
    async fn deliver(&mut self, batch: Batch) -> bool {
        let (mut batch, original) = match self.converted(&batch) {
            Some(converted) => (converted, Some(batch)),
            None => (batch, None),
        };
        let from_spool = self.disk.has_records();
        let mut pause = RETRY_MIN;
        let mut failed_at = None;
        loop {
            if self.queue.take_reopen() {
                self.sink.reopen();
            }
            let (before, weight, bytes) = (batch.len(), batch.weight(), batch.bytes.len());
            // A batch may be larger than a delivery.
            let fitting = batch.frames.partition_point(|frame| frame.end <= self.batching.batch_bytes).max(1);
            let mut part = batch.take_first(self.attempt_size.records().min(fitting));
            let records = part.len();
            let outcome = self.attempt(&mut part).await;
            let attempt = Attempt { records, left: part.len() };
            part.append(std::mem::take(&mut batch));
            batch = part;
            let (records, bytes) =
                (before.saturating_sub(batch.len()), bytes.saturating_sub(batch.bytes.len()));
            self.queue.status().deliver(records, bytes);
            if !from_spool {
                self.queue.settle(weight - batch.weight());
                self.queue.depart(records as u64);
            }
            let (message, after) = match self.judge(outcome, &attempt, &mut batch, from_spool) {
                Next::Continue if batch.is_empty() => break,
                Next::Continue => continue,
                Next::Retry(message, after) => (message, after),
                Next::End => {
                    self.doubt_unanswered(&mut batch);
                    self.put_back(original, batch, from_spool);
                    return false;
                }
            };
            self.queue.status().fail();
            if failed_at.is_none() {
                message!("sink {}: {message}; trying again", self.name);
                failed_at = Some(Instant::now());
            }
            // A collector that asks for no pause gets one.
            let wait =
                after.map_or(pause, |after| after.max(pause)).min(self.batching.retry_max).mul_f64(jitter());
            pause = (pause * 2).min(self.batching.retry_max);
            if self.wait(wait).await.is_none() {
                self.doubt_unanswered(&mut batch);
                self.put_back(original, batch, from_spool);
                return false;
            }
        }
        self.queue.status().succeed();
        if let Some(failed_at) = failed_at {
            message!(info: "sink {}: delivers again after {:.1?}", self.name, failed_at.elapsed());
        }
        if from_spool {
            self.disk.delivered(&self.queue);
        }
        true
    }

    /// Decides what to do after an attempt with the first records of `batch`. The batch now has the records that are left.
    /// Removes those that are refused or in doubt.
    fn judge(&mut self, outcome: Outcome, attempt: &Attempt, batch: &mut Batch, from_spool: bool) -> Next {
        let error = match outcome {
            Outcome::Done(Ok(())) => {
                self.attempt_size.accepted();
                return Next::Continue;
            }
            Outcome::Done(Err(error)) => error,
            Outcome::Overdue => return Next::End,
        };
        match error {
            DeliveryError::OneRefused { .. } if attempt.records > 1 => {
                self.attempt_size.halve(attempt.records)
            }
            DeliveryError::OneRefused { message } => {
                let refused = batch.take_first(self.attempt_size.refused_alone());
                self.refuse(&refused, &message, from_spool);
            }
            DeliveryError::TooLarge { message } => self.refuse(&batch.take_first(1), &message, from_spool),
            // Only the records of this attempt: the others are not sent yet, and may get another answer.
            DeliveryError::Refused { message } => {
                self.refuse(&batch.take_first(attempt.left), &message, from_spool);
            }
            DeliveryError::InDoubt { message } => {
                self.doubt(&batch.take_first(attempt.left), &message, from_spool);
            }
            DeliveryError::Retry { message, after } => return Next::Retry(message, after),
        }
        Next::Continue
    }

    /// The collector has refused `batch`.
    fn refuse(&self, batch: &Batch, message: &str, from_spool: bool) {
        message!(error: "sink {}: {message}: {} records are lost", self.name, batch.len());
        self.queue.lose_all(batch, from_spool);
        if !from_spool {
            self.queue.depart(batch.len() as u64);
        }
    }

    /// The collector may have `batch`, which is not sent again.
    fn doubt(&self, batch: &Batch, message: &str, from_spool: bool) {
        message!("sink {}: {message}: {} records are in doubt", self.name, batch.len());
        self.queue.doubt(batch.len() as u64, batch.since_ns());
        if !from_spool {
            self.queue.settle(batch.weight());
            self.queue.depart(batch.len() as u64);
        }
    }

    /// The deadline has passed: the collector may have the records that it has not answered. A spool keeps them, and
    /// they are sent again.
    fn doubt_unanswered(&self, batch: &mut Batch) {
        if self.disk.is_spooled() {
            return;
        }
        let doubtful = batch.take_first(self.sink.unanswered().min(batch.len()));
        if !doubtful.is_empty() {
            self.doubt(&doubtful, "no answer came before the end", false);
        }
    }

    /// Sends `batch`. Meanwhile, it moves records from a full queue to the spool.
    async fn attempt(&mut self, batch: &mut Batch) -> Outcome {
        let Self { sink, queue, disk, .. } = self;
        let mut delivery = sink.deliver(batch);
        loop {
            tokio::select! {
                biased;
                result = &mut delivery => return Outcome::Done(result.map_err(DeliveryError::quoted)),
                () = queue.overdue() => return Outcome::Overdue,
                () = disk.due(queue) => disk.spill(queue),
            }
        }
    }

    /// Waits for `time`; `None` if the deadline passes before.
    async fn wait(&mut self, time: Duration) -> Option<()> {
        let Self { queue, disk, .. } = self;
        let end = sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                () = queue.overdue() => return None,
                () = &mut end => return Some(()),
                () = disk.due(queue) => disk.spill(queue),
            }
        }
    }

    /// The sink ends: the rest of the queue waits on disk for the next run, or is lost.
    async fn give_up(&mut self) {
        self.disk.wait_at_end(&self.queue).await;
        while self.queue.bytes() > 0 {
            let batch = self.queue.take(usize::MAX);
            self.disk.keep(&batch, &self.queue, Spool::append);
        }
    }

    /// Keeps the records that an interrupted delivery has left, or counts them as lost. Those of the spool are still
    /// in it. The spool gets the original records, not the converted ones.
    fn put_back(&mut self, original: Option<Batch>, left: Batch, from_spool: bool) {
        if from_spool {
            return;
        }
        let batch = match original {
            None => left,
            Some(mut original) => {
                let open: HashSet<u64> = left.frames.iter().map(|frame| frame.seq).collect();
                let is_open: Vec<bool> =
                    original.frames.iter().map(|frame| open.contains(&frame.seq)).collect();
                original.retain(|at| is_open.get(at) == Some(&true));
                original
            }
        };
        self.disk.keep(&batch, &self.queue, Spool::push_front);
    }
}

/// Between 0.5 and 1.5, so that many hosts do not reconnect at once.
fn jitter() -> f64 {
    let mut random = [0; 4];
    match rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => 0.5 + f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}
