//! The stream that writes records: filtered, numbered and formatted for one output.

use std::time::Duration;

use super::{
    aggregate::Windows, attempts::Attempts, missing::Missing, monotonic_ns, now_ns, outgoing::Outgoing,
};
use crate::{
    filter::Filter,
    format::Format,
    model::{ConnId, Lost, LostPlace, Record, RecordKind, RecordKinds, Tuple},
    restart::ResumePoint,
    route::Router,
    sinks::Queue,
};

/// Records for one output or one sink.
pub struct RecordStream {
    format: Box<dyn Format>,
    /// The filter of this stream, in addition to that of the tracer; `None` for all records.
    router: Option<Router>,
    pub(super) outgoing: Outgoing,
    /// The kinds of records that are written.
    kinds: RecordKinds,
    /// Counts instead of transitions, where that is wanted.
    windows: Option<Windows>,
    /// Counts the connections that were never established, if there are many.
    attempts: Attempts,
    /// How often connections that go on are reported.
    interim: Option<Duration>,
    /// Records that the previous process has neither delivered nor reported; reported after the `start`.
    left: Option<Lost>,
}

impl RecordStream {
    /// Everything, in `format`.
    #[must_use]
    pub fn new(format: Box<dyn Format>) -> Self {
        let mut stream = Self::with(format, None, Outgoing::default());
        stream.header();
        stream
    }

    /// A stream of the records that `router` selects, in `format`, to `queue`.
    #[must_use]
    pub fn to_sink(format: Box<dyn Format>, router: Option<Router>, queue: Queue) -> Self {
        Self::with(format, router, Outgoing::to_queue(queue))
    }

    fn with(format: Box<dyn Format>, router: Option<Router>, outgoing: Outgoing) -> Self {
        let (kinds, windows, interim, left) = (RecordKinds::DEFAULT, None, None, None);
        let attempts = Attempts::default();
        Self { format, router, outgoing, kinds, windows, attempts, interim, left }
    }

    /// Counts transitions in windows of `length` instead of reporting each. Up to `most` pairs of a service and a peer have rows
    /// of their own.
    #[must_use]
    pub fn aggregated(mut self, length: Duration, most: usize) -> Self {
        let length_ns = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
        self.windows = Some(Windows::new(length_ns, most));
        self
    }

    /// Writes records of these kinds only.
    #[must_use]
    pub fn only(self, kinds: RecordKinds) -> Self {
        Self { kinds, ..self }
    }

    pub(super) fn has_connections(&self) -> bool {
        self.kinds.contains(RecordKind::Connection)
    }

    /// Reports connections that go on at this interval, if the stream has records of connections.
    #[must_use]
    pub fn with_interims(self, every: Option<Duration>) -> Self {
        Self { interim: every, ..self }
    }

    pub(super) fn interim(&self) -> Option<Duration> {
        self.interim.filter(|_| self.has_connections())
    }

    /// Reports one of `sample` connections.
    #[must_use]
    pub fn sampled(mut self, sample: u64) -> Self {
        if sample > 1 {
            let router = self.router.take().unwrap_or_else(|| Router::new(Filter::default()));
            self.router = Some(router.sampled(sample));
        }
        self
    }

    /// Continues after the numbers of the previous process, which left some records at `place`.
    pub fn resume(&mut self, point: ResumePoint, place: LostPlace) {
        let ResumePoint { seq, unsettled: count, in_doubt } = point;
        self.outgoing.set_seq(seq);
        self.left =
            (count + in_doubt > 0).then_some(Lost { time_ns: 0, since_ns: None, count, in_doubt, place });
    }

    /// Takes the filter of `before`, in which transitions may wait.
    pub(super) fn take_router(&mut self, before: Self) {
        self.router = before.router;
    }

    pub(super) fn router(&self) -> Option<&Router> {
        self.router.as_ref()
    }

    pub(super) fn header(&mut self) {
        self.format.header(&mut self.outgoing.buffer);
    }

    /// Writes a record if the stream's own filter lets it through.
    pub(super) fn record(&mut self, record: &Record) {
        match self.router.take() {
            None => self.write(record),
            Some(mut router) => {
                router.route(record, |record| self.write(record));
                self.router = Some(router);
            }
        }
        if let Record::Start(start) = record
            && let Some(lost) = self.left.take()
        {
            self.write(&Record::Lost(Lost { time_ns: start.time_ns, ..lost }));
            if let Some(progress) = self.outgoing.progress() {
                progress.report_doubt(lost.in_doubt);
            }
        }
    }

    /// All records that are due have been written.
    pub(super) fn pause(&mut self) {
        self.format.pause(&mut self.outgoing.buffer);
    }

    /// Both ends of a connection are known now.
    pub(super) fn completed(&mut self, conn: ConnId, tuple: &Tuple) {
        if let Some(mut router) = self.router.take() {
            router.completed(conn, tuple, |record| self.write(record));
            self.router = Some(router);
        }
    }

    fn write(&mut self, record: &Record) {
        if !self.kinds.contains(RecordKind::of(record)) {
            return;
        }
        if let Record::Transition(transition) = record
            && let Some(windows) = &mut self.windows
        {
            windows.add(transition, now_ns(), monotonic_ns());
            return self.hold();
        }
        if let Record::Connection(lifespan) = record
            && self.attempts.counts(lifespan, now_ns(), monotonic_ns())
        {
            return self.hold();
        }
        write(&mut *self.format, &mut self.outgoing, record);
    }

    /// When the first window that is open ends, `CLOCK_MONOTONIC` ns.
    pub(super) fn window_ends_ns(&self) -> Option<u64> {
        let of_transitions = self.windows.as_ref().and_then(Windows::end_ns);
        of_transitions.into_iter().chain(self.attempts.end_ns()).min()
    }

    /// Writes the counts of the windows that have ended by `now_ns`.
    pub(super) fn close_windows(&mut self, now_ns: u64) {
        let has_ended = |end_ns: Option<u64>| end_ns.is_some_and(|end_ns| end_ns <= now_ns);
        let mut rows = Vec::new();
        if let Some(windows) = self.windows.as_mut().filter(|windows| has_ended(windows.end_ns())) {
            rows = windows.close();
        }
        if has_ended(self.attempts.end_ns()) {
            rows.extend(self.attempts.close());
        }
        for row in rows {
            // Not by the kinds of the stream: counts of connections replace their records.
            write(&mut *self.format, &mut self.outgoing, &Record::Aggregate(Box::new(row)));
        }
        self.hold();
    }

    /// Stores in the ledger how many transitions and connections the windows have only counted, so that the next process can report
    /// them as lost.
    fn hold(&self) {
        if let Some(progress) = self.outgoing.progress() {
            progress.hold(self.windows.as_ref().map_or(0, Windows::count) + self.attempts.count());
        }
    }

    /// Hands over what is ready. What the queue has no room for is lost, and is reported as soon as the queue has room.
    pub(super) fn hand_over(&mut self, time_ns: i64) {
        let format = &mut *self.format;
        self.outgoing.collect_missing();
        self.outgoing.hand_over(|outgoing, missing| {
            let Missing { records: count, in_doubt, since_ns } = missing;
            let place = LostPlace::Sink;
            write(format, outgoing, &Record::Lost(Lost { time_ns, since_ns, count, in_doubt, place }));
        });
    }
}

fn write(format: &mut dyn Format, outgoing: &mut Outgoing, record: &Record) {
    let seq = outgoing.next_seq();
    format.record(seq, record, &mut outgoing.buffer);
    let lost = match record {
        Record::Lost(lost) if matches!(lost.place, LostPlace::Sink | LostPlace::Crash) => Some(lost),
        _ => None,
    };
    outgoing.end_record(record.time_ns(), lost);
}
