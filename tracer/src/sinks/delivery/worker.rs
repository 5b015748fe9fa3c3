//! A sink's thread: takes records from its queue, delivers them in order, and spools what does not go.

use std::{
    collections::HashSet,
    io, thread,
    time::{Duration, Instant},
};

use caps::CapSet;
use tokio::time::sleep;

use super::{Batch, Frame, Queue, Sink, Spool, Trouble, disk::Disk, portion::Portion};

/// The first pause after a failure.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Turns one record of the stream into one of the collector's, appended to the second.
pub type Convert = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

/// How much a delivery holds, and how long is waited for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of records in one delivery, about.
    pub batch_bytes: usize,
    /// How long the first record of a delivery may wait for others.
    pub batch_time: Duration,
    /// The longest pause between attempts.
    pub retry_max: Duration,
}

/// A sink's rooms.
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) sink: Box<dyn Sink>,
    pub(super) convert: Option<Convert>,
    pub(super) queue: Queue,
    pub(super) disk: Disk,
    pub(super) pace: Pace,
    pub(super) portion: Portion,
}

/// What came of an attempt.
enum Outcome {
    Done(Result<(), Trouble>),
    /// It was closed, and its time is over.
    Overdue,
}

/// How many records an attempt had, and how many of them it has not delivered.
struct Attempt {
    records: usize,
    left: usize,
}

/// What comes after an attempt.
enum Next {
    /// What is left, at once.
    Go,
    /// The same once more, when the collector or the usual pause says so.
    Wait(String, Option<Duration>),
    /// Nothing: the time is over.
    End,
}

impl Worker {
    /// Starts the thread; it ends when the queue is closed and empty, or its time is over.
    pub(super) fn start(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("sink-{}", self.name);
        let work = move || {
            // Whatever a collector makes of it, it gets no capability.
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                // Without any there is nothing to clear.
                let _ = caps::clear(None, set);
            }
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
            && let Some(lot) = self.next().await
        {
            if lot.is_empty() && !self.sink.must_deliver() {
                continue;
            }
            if !self.deliver(lot).await {
                break;
            }
        }
        self.give_up().await;
        // It notices a reset that has come meanwhile.
        self.sink.close().await;
        let doubtful = self.sink.doubtful();
        self.queue.doubt_delivered(doubtful);
        if doubtful > 0 {
            message!(
                "sink {}: {doubtful} records are in doubt: the collector reset the connection after it had acknowledged them",
                self.name
            );
        }
        let waiting = self.disk.bytes();
        if waiting > 0 {
            message!("sink {}: {waiting} bytes wait in its spool for the next sink of this name", self.name);
        }
        let lost = self.queue.unreported();
        if lost > 0 {
            message!("sink {}: {lost} records were not delivered when it ended", self.name);
        }
    }

    /// The next to deliver: what was spooled first. None when nothing more comes.
    async fn next(&mut self) -> Option<Batch> {
        self.disk.spill(&self.queue);
        if self.disk.has_records() && self.queue.take_reopen() {
            self.sink.reopen();
        }
        if let Some(read) = self.disk.read(self.pace.batch_bytes, &self.queue) {
            return Some(match read {
                Ok(read) => {
                    if read.missing > 0 {
                        message!(
                            "sink {}: the spool was damaged: {} records are lost",
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
        if self.queue.bytes() > 0 && !self.pace.batch_time.is_zero() {
            tokio::select! {
                () = self.queue.holds_more_than(self.pace.batch_bytes) => {}
                () = sleep(self.pace.batch_time) => {}
            }
        }
        let lot = self.queue.take(self.pace.batch_bytes);
        (!lot.is_empty() || !self.queue.is_closed()).then_some(lot)
    }

    /// A segment that cannot be read for lack of descriptors, memory or rights is tried again; one that the disk does not give back
    /// is given up.
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
                () = sleep(self.pace.retry_max) => {}
                () = self.queue.overdue() => {}
            }
        } else if let Some(missing) = self.disk.give_up() {
            self.queue.lose(missing, 0, None, true);
        }
        Batch::default()
    }

    /// The records as the collector wants them; none where it wants them as they are.
    fn converted(&mut self, lot: &Batch) -> Option<Batch> {
        let convert = self.convert.as_mut()?;
        let mut converted = Batch::default();
        for (bytes, frame) in lot.records() {
            convert(bytes, &mut converted.bytes);
            converted.frames.push(Frame { end: converted.bytes.len(), ..*frame });
        }
        Some(converted)
    }

    /// Tries until it succeeds, or is refused; false when the time is over.
    async fn deliver(&mut self, lot: Batch) -> bool {
        let (mut lot, original) = match self.converted(&lot) {
            Some(converted) => (converted, Some(lot)),
            None => (lot, None),
        };
        let from_spool = self.disk.has_records();
        let mut pause = RETRY_MIN;
        let mut failed_at = None;
        loop {
            if self.queue.take_reopen() {
                self.sink.reopen();
            }
            let (before, weight, bytes) = (lot.len(), lot.weight(), lot.bytes.len());
            // One push may be much larger than a delivery.
            let fitting = lot.frames.partition_point(|frame| frame.end <= self.pace.batch_bytes).max(1);
            let mut part = lot.take_first(self.portion.records().min(fitting));
            let records = part.len();
            let outcome = self.attempt(&mut part).await;
            let attempt = Attempt { records, left: part.len() };
            part.append(std::mem::take(&mut lot));
            lot = part;
            // What a broken connection leaves in doubt comes back.
            let (records, bytes) = (before.saturating_sub(lot.len()), bytes.saturating_sub(lot.bytes.len()));
            self.queue.status().deliver(records, bytes);
            if !from_spool {
                self.queue.settle(weight - lot.weight());
                self.queue.leave(records as u64);
            }
            let (message, after) = match self.judge(outcome, &attempt, &mut lot, from_spool) {
                Next::Go if lot.is_empty() => break,
                Next::Go => continue,
                Next::Wait(message, after) => (message, after),
                Next::End => {
                    self.doubt_unanswered(&mut lot);
                    self.put_back(original, lot, from_spool);
                    return false;
                }
            };
            self.queue.status().fail();
            if failed_at.is_none() {
                message!("sink {}: {message}; trying again", self.name);
                failed_at = Some(Instant::now());
            }
            // A collector that asks for no pause at all gets one.
            let wait =
                after.map_or(pause, |after| after.max(pause)).min(self.pace.retry_max).mul_f64(jitter());
            pause = (pause * 2).min(self.pace.retry_max);
            if self.wait(wait).await.is_none() {
                self.doubt_unanswered(&mut lot);
                self.put_back(original, lot, from_spool);
                return false;
            }
        }
        self.queue.status().succeed();
        if let Some(failed_at) = failed_at {
            message!("sink {}: delivers again after {:.1?}", self.name, failed_at.elapsed());
        }
        if from_spool {
            self.disk.delivered(&self.queue);
        }
        true
    }

    /// What an attempt with the first records of `lot` means for what is left. Takes away what is refused or in doubt.
    fn judge(&mut self, outcome: Outcome, attempt: &Attempt, lot: &mut Batch, from_spool: bool) -> Next {
        let trouble = match outcome {
            Outcome::Done(Ok(())) => {
                self.portion.taken();
                return Next::Go;
            }
            Outcome::Done(Err(trouble)) => trouble,
            Outcome::Overdue => return Next::End,
        };
        match trouble {
            Trouble::Unwanted { .. } if attempt.records > 1 => self.portion.halve(attempt.records),
            Trouble::Unwanted { message } => {
                let refused = lot.take_first(self.portion.refuse());
                self.refuse(&refused, &message, from_spool);
            }
            Trouble::Oversized { message } => self.refuse(&lot.take_first(1), &message, from_spool),
            // What was not sent yet is another request, with another answer.
            Trouble::Refused { message } => {
                self.refuse(&lot.take_first(attempt.left), &message, from_spool);
            }
            Trouble::Doubtful { message } => {
                self.doubt(&lot.take_first(attempt.left), &message, from_spool);
            }
            Trouble::Retry { message, after } => return Next::Wait(message, after),
        }
        Next::Go
    }

    /// The collector does not want `lot`.
    fn refuse(&self, lot: &Batch, message: &str, from_spool: bool) {
        message!("sink {}: {message}: {} records are lost", self.name, lot.len());
        self.queue.lose_all(lot, from_spool);
        if !from_spool {
            self.queue.leave(lot.len() as u64);
        }
    }

    /// The collector may have `lot`, which is not sent again.
    fn doubt(&self, lot: &Batch, message: &str, from_spool: bool) {
        message!("sink {}: {message}: {} records are in doubt", self.name, lot.len());
        self.queue.doubt(lot.len() as u64, lot.since_ns());
        if !from_spool {
            self.queue.settle(lot.weight());
            self.queue.leave(lot.len() as u64);
        }
    }

    /// The time is over: the collector may have what was sent and not answered. With a spool it is sent again.
    fn doubt_unanswered(&self, lot: &mut Batch) {
        if self.disk.is_spooled() {
            return;
        }
        let doubtful = lot.take_first(self.sink.unanswered().min(lot.len()));
        if !doubtful.is_empty() {
            self.doubt(&doubtful, "no answer came before the end", false);
        }
    }

    /// Meanwhile the queue goes on to the spool.
    async fn attempt(&mut self, lot: &mut Batch) -> Outcome {
        let Self { sink, queue, disk, .. } = self;
        let mut delivery = sink.deliver(lot);
        loop {
            tokio::select! {
                biased;
                result = &mut delivery => return Outcome::Done(result.map_err(Trouble::quoted)),
                () = queue.overdue() => return Outcome::Overdue,
                () = disk.due(queue) => disk.spill(queue),
            }
        }
    }

    /// None when the time is over.
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

    /// The time is over: what did not go waits on disk for the next run, or is lost.
    async fn give_up(&mut self) {
        self.disk.wait_at_end(&self.queue).await;
        while self.queue.bytes() > 0 {
            let lot = self.queue.take(usize::MAX);
            self.disk.keep(&lot, &self.queue, Spool::append);
        }
    }

    /// The same for what was on its way; what came from the spool is still there. Spooled is what was not converted.
    fn put_back(&mut self, original: Option<Batch>, left: Batch, from_spool: bool) {
        if from_spool {
            return;
        }
        let lot = match original {
            None => left,
            Some(mut original) => {
                let open: HashSet<u64> = left.frames.iter().map(|frame| frame.seq).collect();
                let is_open: Vec<bool> =
                    original.frames.iter().map(|frame| open.contains(&frame.seq)).collect();
                original.retain(|at| is_open.get(at) == Some(&true));
                // What was in doubt is not here any more.
                let gone = (left.len() - original.len()) as u64;
                self.queue.lose(gone, 0, None, false);
                self.queue.leave(gone);
                original
            }
        };
        self.disk.keep(&lot, &self.queue, Spool::push_front);
    }
}

/// Between a half and one and a half, so that many hosts do not come back at once.
fn jitter() -> f64 {
    let mut random = [0; 4];
    match rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => 0.5 + f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}
