//! The bytes of one stream on their way to its output or queue, the numbers of its records, and the losses to report.

use super::missing::Missing;
use crate::{
    model::Lost,
    restart::SinkProgress,
    sinks::{Batch, Frame, Queue, since_ns},
};

/// Room for the record that reports the losses of a full queue.
const LOST_RECORD: usize = 1024;

/// Bytes that a stream has written and not handed over to a queue yet, and losses that it has not reported yet.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The bytes.
    pub(super) buffer: Vec<u8>,
    /// The ends of the records, for sinks.
    frames: Vec<Frame>,
    seq: u64,
    /// The queue of the sink; `None` for the pipeline's own output.
    queue: Option<Queue>,
    /// Records that the queue did not take, or the spool lost, and that are not reported yet.
    missing: Missing,
    /// Queues of previous sinks of this name that are ending. This stream reports their losses.
    previous: Vec<Queue>,
}

impl Outgoing {
    pub(super) fn to_queue(queue: Queue) -> Self {
        Self { queue: Some(queue), ..Self::default() }
    }

    /// Continues with the numbers of `before`, and with the losses that `before` has not reported.
    pub(super) fn follow(&mut self, before: Self) {
        self.seq = before.seq;
        self.missing = before.missing;
        self.previous = before.previous.into_iter().chain(before.queue).collect();
    }

    /// Continues after this number.
    pub(super) fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }

    pub(super) fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    pub(super) fn progress(&self) -> Option<&SinkProgress> {
        self.queue.as_ref().and_then(Queue::progress)
    }

    /// The number of the next record.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Notes the end of the record with the current number. The format may have left it out. If it is a `lost` record, it
    /// has reported `lost`.
    pub(super) fn end_record(&mut self, time_ns: i64, lost: Option<&Lost>) {
        let Some(queue) = &self.queue else { return };
        if let Some(progress) = queue.progress() {
            progress.number(self.seq);
        }
        let (reported_lost, reported_in_doubt) = lost.map_or((0, 0), |lost| (lost.count, lost.in_doubt));
        let before = self.frames.last().map_or(0, |frame| frame.end);
        if self.buffer.len() > before {
            let (end, seq) = (self.buffer.len(), self.seq);
            self.frames.push(Frame { end, seq, time_ns, reported_lost, reported_in_doubt });
        } else {
            queue.settle(1 + reported_lost.cast_signed());
        }
    }

    /// Whether the queue has room for the buffered bytes and `more` bytes.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.has_room(self.buffer.len() + LOST_RECORD + more))
    }

    /// Whether a sink has losses that were not reported.
    pub(super) fn has_missing(&self) -> bool {
        !self.missing.is_empty() || self.previous.iter().chain(&self.queue).any(Queue::has_lost)
    }

    /// Adds the losses that the queues have counted.
    pub(super) fn collect_missing(&mut self) {
        if self.queue.is_none() {
            return;
        }
        for queue in self.previous.iter().chain(&self.queue) {
            let mut missing =
                Missing { records: queue.take_lost(), in_doubt: queue.take_doubt(), since_ns: None };
            if !missing.is_empty() {
                missing.since_ns = queue.take_lost_since();
                self.missing.add(missing);
            }
        }
        self.previous.retain(|queue| !queue.is_finished() || queue.has_lost());
    }

    /// Losses of this stream need not be reported.
    pub(super) fn forget_missing(&mut self) {
        self.missing = Missing::default();
    }

    /// Passes the buffered records to the queue. Records for which the queue has no room are counted as missing. `report`
    /// writes the record that reports missing records.
    pub(super) fn hand_over(&mut self, report: impl FnOnce(&mut Self, Missing)) {
        let Some(queue) = self.queue.clone() else { return };
        if self.buffer.is_empty() && self.missing.is_empty() {
            return;
        }
        if !self.has_room(0) {
            let count = self.frames.len() as u64;
            queue.count_overflow(count);
            let reported: u64 = self.frames.iter().map(|frame| frame.reported_lost).sum();
            let in_doubt = self.frames.iter().map(|frame| frame.reported_in_doubt).sum();
            let since_ns = since_ns(&self.frames);
            self.missing.add(Missing { records: count + reported, in_doubt, since_ns });
            self.buffer.clear();
            self.frames.clear();
            return;
        }
        let missing = std::mem::take(&mut self.missing);
        if !missing.is_empty() {
            report(self, missing);
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.buffer.reserve(bytes.len());
        queue.push(Batch { bytes, frames: std::mem::take(&mut self.frames) });
    }
}
