//! The loop: write what is ready, wait, drain the ring, and run the periodic tasks.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    BATCH, Destination, End, Pipeline, PipelineError, Signals, clock_offset_ns, monotonic_ns,
    nap::Nap,
    schedule::{Schedule, is_due},
};
use crate::{
    metrics::{Question, Server},
    restart::StateWriter,
    sinks::{OutputError, sink_lost},
};

/// The size of a long record in bytes.
const RECORD: usize = 1 << 10;
/// The interval of the checks of sinks that catch up.
const SINK_CHECK: Duration = Duration::from_millis(1);
/// The interval of [`Table::tick`](crate::track::Table::tick) while the table waits for evidence.
const TICK: Duration = Duration::from_millis(25);

impl Pipeline {
    /// Runs until a signal, a limit or the output ends the trace.
    pub(super) async fn flow(
        &mut self,
        destination: &mut Destination,
        signals: &mut Signals,
    ) -> Result<End, PipelineError> {
        let resync_every = self.resync.as_ref().map(|resync| resync.every);
        let mut schedule = Schedule::new(self.settings.limits.duration, resync_every, self.adopted);
        let mut nap = Nap::new(self.settings.nap);
        loop {
            self.report_alive();
            if let Some(end) = self.write(&mut schedule, destination, signals).await? {
                return Ok(end);
            }
            if schedule.is_catching_up() && !self.streams.has_room(BATCH * RECORD) {
                tokio::select! {
                    biased;
                    () = signals.end() => return Ok(End::Reason("signal")),
                    () = sleep(SINK_CHECK) => continue,
                }
            }
            nap.take();
            if let Some(end) = self.wait(&schedule, destination, signals).await? {
                return Ok(end);
            }
            self.table.set_offset(clock_offset_ns());
            let taken = self.drain(BATCH);
            schedule.drained(taken);
            nap.drained(taken);
            self.run_periodic_tasks(&mut schedule, taken)?;
        }
    }

    /// Sends the bytes that should be sent now.
    async fn write(
        &mut self,
        schedule: &mut Schedule,
        destination: &mut Destination,
        signals: &mut Signals,
    ) -> Result<Option<End>, PipelineError> {
        if let Some(lost) = self.streams.abandon_broken() {
            return Err(PipelineError::Sinks(lost));
        }
        let wanted = destination.wanted(&self.streams, schedule.is_flush_due());
        if wanted > 0 {
            if wanted == self.streams.buffered() {
                schedule.flushed();
            }
            self.store_last_id();
            tokio::select! {
                biased;
                () = signals.end() => return Ok(Some(End::Reason("signal"))),
                () = until(schedule.deadline) => return Ok(Some(End::Reason("duration"))),
                result = destination.send(&mut self.streams, wanted) => match result {
                    Ok(()) => {}
                    Err(OutputError::Closed(_)) => return Ok(Some(End::Closed)),
                    Err(error) => return Err(self.broken(error)),
                }
            }
        }
        Ok(self.streams.has_reached_limit().then_some(End::Reason("count")))
    }

    /// Waits for records or for whatever else is due. If the last drain returned records (not `quiet`), returns at once, after a check for
    /// signals, the end of tracing, and a new configuration.
    async fn wait(
        &mut self,
        schedule: &Schedule,
        destination: &mut Destination,
        signals: &mut Signals,
    ) -> Result<Option<End>, PipelineError> {
        let quiet = schedule.quiet;
        let after = |at_ns: u64| Instant::now() + Duration::from_nanos(at_ns.saturating_sub(monotonic_ns()));
        let watch_at = self.table.next_due_ns().filter(|_| quiet).map(after);
        let owners_at = self.table.next_search_ns().filter(|_| quiet).map(after);
        let report_at = self.streams.report_at();
        let state_at = self.state_writer.as_ref().and_then(StateWriter::due);
        let service_at = self.service.due(self.streams.summary.transitions).filter(|_| quiet);
        let interim_at = self.interims.next_ns().filter(|_| quiet && !self.interims.is_busy()).map(after);
        let window_at = self.streams.window_ends_ns().filter(|_| quiet).map(after);
        tokio::select! {
            biased;
            ends = signals.any() => {
                if ends || !self.hang_up(destination).await? {
                    return Ok(Some(End::Reason("signal")));
                }
            }
            () = until(schedule.deadline) => return Ok(Some(End::Reason("duration"))),
            is_read = destination.changed() => {
                if !is_read {
                    return Ok(Some(End::Closed));
                }
                destination.apply(&mut self.streams);
                self.follow_streams();
                if !destination.is_reloading() {
                    self.report_ready();
                }
            }
            result = self.source.readable(), if quiet => result?,
            () = until(schedule.losses_at()), if quiet => {}
            () = until(schedule.resync_at()), if quiet => {}
            () = sleep(TICK), if quiet && self.is_waiting() => {}
            () = until(watch_at), if quiet => {}
            () = until(owners_at), if quiet && !self.finder.is_busy() => {}
            () = until(window_at), if quiet => {}
            () = until(interim_at), if quiet => {}
            () = until(state_at), if quiet => {}
            () = until(report_at), if quiet => {}
            () = until(service_at), if quiet => {}
            () = self.nats.answered(), if quiet && self.nats.is_busy() => {}
            () = sink_lost(), if quiet => {}
            question = next_question(&mut self.settings.metrics), if quiet => self.answer(question),
            () = std::future::ready(()), if !quiet => {}
        }
        Ok(None)
    }

    /// Handles SIGHUP. Returns false if it ends the program.
    async fn hang_up(&mut self, destination: &mut Destination) -> Result<bool, PipelineError> {
        self.service.reloading();
        let goes_on = destination.hang_up(&mut self.streams).await.map_err(|error| self.broken(error))?;
        if goes_on && !destination.is_reloading() {
            self.report_ready();
        }
        Ok(goes_on)
    }

    /// Runs the periodic tasks that are due.
    fn run_periodic_tasks(&mut self, schedule: &mut Schedule, taken: usize) -> Result<(), PipelineError> {
        if is_due(schedule.losses_at()) {
            let any = self.report_losses(false)?;
            schedule.losses_read(any, self.streams.resets.may_be_counted(monotonic_ns()));
        }
        if is_due(schedule.resync_at()) {
            let done = self.resync();
            schedule.resynced(done);
        }
        self.find_owners();
        self.report_examined();
        self.report_interims();
        if let Some(question) = self.settings.metrics.as_mut().and_then(Server::try_next_question) {
            self.answer(question);
        }
        if is_due(self.streams.report_at()) {
            let numbers = self.numbers();
            self.streams.report(&numbers, false);
        }
        self.streams.close_windows(monotonic_ns());
        if let Some(writer) = &mut self.state_writer {
            writer.write_if_due(&self.table, taken > 0);
        }
        Ok(())
    }
}

async fn next_question(metrics: &mut Option<Server>) -> Question {
    match metrics {
        Some(server) => server.next_question().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
