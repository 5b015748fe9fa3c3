//! The stream that writes metrics at an interval, for a sink that takes no records.

use std::time::Duration;

use tokio::time::Instant;

use super::outgoing::Outgoing;
use crate::{metrics::Numbers, sinks::Queue};

/// Writes numbers, as of a time of the wall clock (ns since the epoch).
pub type WriteNumbers = Box<dyn FnMut(&Numbers, i64, &mut Vec<u8>)>;

/// Metrics for one sink.
pub struct MetricsStream {
    write: WriteNumbers,
    every: Duration,
    pub(super) next: Instant,
    pub(super) outgoing: Outgoing,
}

impl MetricsStream {
    /// A stream of metrics to `queue`. `write` writes the metrics, at the interval `every`.
    #[must_use]
    pub fn new(every: Duration, write: WriteNumbers, queue: Queue) -> Self {
        Self { write, every, next: Instant::now() + every, outgoing: Outgoing::to_queue(queue) }
    }

    /// Writes the metrics.
    pub(super) fn report(&mut self, numbers: &Numbers, time_ns: i64) {
        self.outgoing.next_seq();
        (self.write)(numbers, time_ns, &mut self.outgoing.buffer);
        self.outgoing.end_record(time_ns, None);
        self.next = Instant::now() + self.every;
    }

    /// Passes the complete metrics to the queue. Lost metrics are not reported: metrics are totals, so the next ones include
    /// them.
    pub(super) fn hand_over(&mut self) {
        self.outgoing.collect_missing();
        self.outgoing.forget_missing();
        self.outgoing.hand_over(|_, _| {});
    }
}
