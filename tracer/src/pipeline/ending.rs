//! The end of a trace: all records in the ring are still delivered, and losses are reported.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    BATCH, Destination, Pipeline, PipelineError, drain::report, monotonic_ns, now_ns, signals::Signals,
};
use crate::{
    model::{Record, Stop},
    sinks::OutputError,
    track::PATIENCE_NS,
};

/// The time that an output at the end, or a sink that was removed, has for its remaining records.
pub const GRACE: Duration = Duration::from_secs(5);
/// After that time: how long a sink may take to spool its remaining records.
const MARGIN: Duration = Duration::from_secs(10);
/// The same after a second signal.
const SHORT_MARGIN: Duration = Duration::from_secs(2);
/// How long the tracer still reads at the end while the programs continue to write.
const LAST_LOOK: Duration = Duration::from_millis(200);

impl Pipeline {
    /// Delivers all records in the ring. A slow reader has some seconds, and a second signal ends the wait. Records that are
    /// not delivered then are spooled, or counted as lost.
    pub(super) async fn end(
        &mut self,
        reason: &'static str,
        mut destination: Destination,
        signals: &mut Signals,
    ) -> Result<(), PipelineError> {
        self.service.stopping();
        if self.state_writer.is_none() {
            self.source.detach();
        }
        // If records keep coming, the next process reads the rest.
        let enough = Instant::now() + LAST_LOOK;
        let mut patient = true;
        loop {
            let taken = self.drain(BATCH);
            // Records in memory would be lost.
            let is_enough = Instant::now() >= enough && self.source.in_memory() == 0;
            let is_last = taken == 0 || (self.state_writer.is_some() && is_enough);
            if is_last {
                self.settle();
                self.report_losses(true)?;
                self.stop(reason);
            }
            self.store_last_id();
            if patient {
                tokio::select! {
                    biased;
                    result = timeout(GRACE, destination.flush(&mut self.streams)) => match result {
                        Ok(Ok(())) => {}
                        Ok(Err(OutputError::Closed(_))) => {
                            self.streams.summary.closed = true;
                            return Ok(());
                        }
                        Ok(Err(error)) => return Err(self.broken(error)),
                        Err(_) => patient = false,
                    },
                    () = signals.end() => patient = false,
                }
            }
            if is_last {
                break;
            }
        }
        if let Some(writer) = &self.state_writer {
            writer.write(&self.table, true);
        }
        let grace = if patient { GRACE } else { Duration::ZERO };
        let is_cut = tokio::select! {
            () = destination.finish(&mut self.streams, grace, MARGIN) => false,
            () = signals.end() => true,
        };
        if is_cut {
            destination.finish(&mut self.streams, Duration::ZERO, SHORT_MARGIN).await;
        }
        self.streams.summary = self.streams.summary_now();
        Ok(())
    }

    fn stop(&mut self, reason: &'static str) {
        self.streams.close_windows(u64::MAX);
        if self.streams.reports() {
            let numbers = self.numbers();
            self.streams.report(&numbers, true);
        }
        let lost = self.streams.summary.lost.iter().filter(|(_, count)| **count > 0);
        let stop = Stop {
            time_ns: now_ns(),
            reason,
            transitions: self.streams.summary.transitions,
            lost: lost.map(|(place, count)| (*place, *count)).collect(),
            illegal: self.table.illegal(),
        };
        self.streams.record(&Record::Stop(stop));
    }

    /// Decides without evidence about everything that waits for evidence, because no more events come.
    fn settle(&mut self) {
        if let Some(hunter) = &mut self.hunter {
            hunter.finish(GRACE);
        }
        for stuck in self.examiner.give_up() {
            self.write_stuck(stuck);
        }
        self.streams.pause();
        let Self { table, enricher, router, streams, examiner, hunter, .. } = self;
        let later_ns = monotonic_ns() + PATIENCE_NS;
        table.tick(later_ns, enricher, &mut |update| report(router, streams, examiner, hunter, &update));
        let found = self.nats.finish(LAST_LOOK, later_ns);
        self.apply_nats(&found, later_ns);
    }
}
