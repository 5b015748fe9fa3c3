//! Records -> streams of bytes: each filtered, numbered and formatted for itself, all counted together; and numbers, now and then.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{aggregate::Windows, missing::Missing, monotonic_ns, now_ns};
use crate::{
    format::Format,
    metrics::{Counts, Numbers, SinkNumbers},
    model::{ConnId, Lost, LostPlace, Record, Tuple},
    restart::ResumePoint,
    route::Router,
    sinks::{Batch, Frame, Queue, since_ns},
};

/// Room for the record that says what a full queue did not take.
const LOST_RECORD: usize = 1024;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transitions that were wanted.
    pub transitions: u64,
    /// Losses by place.
    pub lost: BTreeMap<LostPlace, u64>,
    /// Records that sinks' collectors may have, and that were not sent again.
    pub in_doubt: u64,
    /// The reader of the output went away.
    pub closed: bool,
}

/// Writes numbers, as of a time of the wall clock (ns since the epoch).
pub type Tell = Box<dyn FnMut(&Numbers, i64, &mut Vec<u8>)>;

/// Numbers instead of records.
struct Report {
    every: Duration,
    next: Instant,
    tell: Tell,
}

/// One stream: what goes to one output or one sink.
pub struct Stream {
    format: Box<dyn Format>,
    /// Of what the tracer's own filter lets through; none for all.
    router: Option<Router>,
    pub(super) buffer: Vec<u8>,
    /// Where records end, for sinks.
    frames: Vec<Frame>,
    seq: u64,
    /// Where it goes; none for the pipeline's own output.
    queue: Option<Queue>,
    /// Counts instead of transitions, where that is wanted.
    windows: Option<Windows>,
    /// Numbers instead of all records, where that is wanted.
    report: Option<Report>,
    /// One of `sample` connections is reported.
    sample: u64,
    /// Records that the previous process has neither delivered nor reported; reported after the `start`.
    left: Option<Lost>,
    /// Records that its queue did not take, or its spool lost, and that are not reported yet.
    unsaid: Missing,
    /// Queues of the sinks that it follows: what those lose while they end is reported here.
    previous: Vec<Queue>,
}

impl Stream {
    /// Everything, in `format`.
    #[must_use]
    pub fn new(mut format: Box<dyn Format>) -> Self {
        let mut buffer = Vec::new();
        format.header(&mut buffer);
        Self {
            format,
            router: None,
            buffer,
            frames: Vec::new(),
            seq: 0,
            queue: None,
            windows: None,
            report: None,
            sample: 1,
            left: None,
            unsaid: Missing::default(),
            previous: Vec::new(),
        }
    }

    /// What `router` lets through, in `format`, to `queue`.
    #[must_use]
    pub fn to_sink(format: Box<dyn Format>, router: Option<Router>, queue: Queue) -> Self {
        Self { router, queue: Some(queue), buffer: Vec::new(), ..Self::new(format) }
    }

    /// Counts transitions in windows of `length` instead of reporting each, with up to `most` services and peers told apart.
    #[must_use]
    pub fn aggregated(mut self, length: Duration, most: usize) -> Self {
        let length_ns = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
        self.windows = Some(Windows::new(length_ns, most));
        self
    }

    /// Writes metrics every `every`, by `tell`; this stream carries no records.
    #[must_use]
    pub fn reporting(mut self, every: Duration, tell: Tell) -> Self {
        self.report = Some(Report { every, next: Instant::now() + every, tell });
        self
    }

    /// Reports one of `sample` connections, with all of its records.
    #[must_use]
    pub fn sampled(self, sample: u64) -> Self {
        Self { sample: sample.max(1), ..self }
    }

    /// Goes on with the numbers of `before`, and with the losses that `before` has not reported; with its filter where that is the `same`,
    /// since transitions may wait in it.
    pub fn follow(&mut self, before: Self, same_filter: bool) {
        self.seq = before.seq;
        self.unsaid = before.unsaid;
        self.previous = before.previous.into_iter().chain(before.queue).collect();
        if same_filter {
            self.router = before.router;
        }
    }

    /// Its file is to be opened again.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.reopen();
        }
    }

    /// Nothing more comes; what it has goes out.
    pub fn end(&mut self, grace: Duration) {
        self.close_window();
        self.hand_over(now_ns());
        if let Some(queue) = &self.queue {
            queue.close(grace);
        }
    }

    fn close_window(&mut self) {
        for aggregate in self.windows.as_mut().map(Windows::close).unwrap_or_default() {
            self.write(&Record::Aggregate(aggregate));
        }
        self.hold();
    }

    /// What is only counted yet would die with this process.
    fn hold(&self) {
        let progress = self.queue.as_ref().and_then(Queue::progress);
        if let Some((windows, progress)) = self.windows.as_ref().zip(progress) {
            progress.hold(windows.count());
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    pub(super) fn header(&mut self) {
        self.format.header(&mut self.buffer);
    }

    /// Writes the numbers, which are what it is for.
    fn report(&mut self, numbers: &Numbers, time_ns: i64) {
        let Some(mut report) = self.report.take() else { return };
        self.seq += 1;
        (report.tell)(numbers, time_ns, &mut self.buffer);
        self.frame(time_ns, 0, 0);
        report.next = Instant::now() + report.every;
        self.report = Some(report);
    }

    /// Writes a record if its own filter lets it through.
    pub fn record(&mut self, record: &Record) {
        if self.report.is_some() {
            return;
        }
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
            if let Some(progress) = self.queue.as_ref().and_then(Queue::progress) {
                progress.report_doubt(lost.in_doubt);
            }
        }
    }

    fn write(&mut self, record: &Record) {
        if let Record::Transition(transition) = record {
            if !is_sampled(transition.conn.id, self.sample) {
                return;
            }
            if let Some(windows) = &mut self.windows {
                windows.add(transition, now_ns(), monotonic_ns());
                return self.hold();
            }
        }
        self.seq += 1;
        self.format.record(self.seq, record, &mut self.buffer);
        let (reported_lost, reported_in_doubt) = match record {
            Record::Lost(Lost { place: LostPlace::Sink | LostPlace::Crash, count, in_doubt, .. }) => {
                (*count, *in_doubt)
            }
            _ => (0, 0),
        };
        self.frame(record.time_ns(), reported_lost, reported_in_doubt);
    }

    fn completed(&mut self, conn: ConnId, tuple: &Tuple) {
        if let Some(mut router) = self.router.take() {
            router.completed(conn, tuple, |record| self.write(record));
            self.router = Some(router);
        }
    }

    /// Continues after the numbers of the previous process, which left some records at `place`.
    pub fn resume(&mut self, point: ResumePoint, place: LostPlace) {
        let ResumePoint { seq, unsettled: count, in_doubt } = point;
        self.seq = seq;
        self.left =
            (count + in_doubt > 0).then_some(Lost { time_ns: 0, since_ns: None, count, in_doubt, place });
    }

    /// Notes where the record ends; some formats leave some out.
    fn frame(&mut self, time_ns: i64, reported_lost: u64, reported_in_doubt: u64) {
        let Some(queue) = &self.queue else { return };
        if let Some(progress) = queue.progress() {
            progress.number(self.seq);
        }
        let before = self.frames.last().map_or(0, |frame| frame.end);
        if self.buffer.len() > before {
            self.frames.push(Frame {
                end: self.buffer.len(),
                seq: self.seq,
                time_ns,
                reported_lost,
                reported_in_doubt,
            });
        } else {
            queue.settle(1 + reported_lost.cast_signed());
        }
    }

    /// Whether its queue takes what it has, and `more` bytes.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.has_room(self.buffer.len() + LOST_RECORD + more))
    }

    /// Hands over what there is; what the queue has no room for is lost, and said as soon as it has.
    fn hand_over(&mut self, time_ns: i64) {
        let Some(queue) = self.queue.take() else { return };
        for queue in self.previous.iter().chain([&queue]) {
            let mut missing =
                Missing { records: queue.take_lost(), in_doubt: queue.take_doubt(), since_ns: None };
            if !missing.is_empty() {
                missing.since_ns = queue.take_lost_since();
                self.unsaid.add(missing);
            }
        }
        self.previous.retain(|queue| !queue.is_finished() || queue.has_lost());
        if self.report.is_some() {
            // The next numbers have all that is in those that are lost.
            self.unsaid = Missing::default();
        }
        if !(self.buffer.is_empty() && self.unsaid.is_empty()) {
            if queue.has_room(self.buffer.len() + LOST_RECORD) {
                self.queue = Some(queue.clone());
                if !self.unsaid.is_empty() {
                    let Missing { records: count, in_doubt, since_ns } = std::mem::take(&mut self.unsaid);
                    let place = LostPlace::Sink;
                    self.write(&Record::Lost(Lost { time_ns, since_ns, count, in_doubt, place }));
                }
                let bytes = std::mem::take(&mut self.buffer);
                self.buffer.reserve(bytes.len());
                queue.push(Batch { bytes, frames: std::mem::take(&mut self.frames) });
            } else {
                let count = self.frames.len() as u64;
                queue.refused(count);
                let reported: u64 = self.frames.iter().map(|frame| frame.reported_lost).sum();
                let in_doubt = self.frames.iter().map(|frame| frame.reported_in_doubt).sum();
                let since_ns = since_ns(&self.frames);
                self.unsaid.add(Missing { records: count + reported, in_doubt, since_ns });
                self.buffer.clear();
                self.frames.clear();
            }
        }
        self.queue = Some(queue);
    }
}

/// Chosen by what the connection's number comes to, so that all of its transitions are, or none.
fn is_sampled(conn: ConnId, sample: u64) -> bool {
    // Fibonacci hashing: neighbours fall far apart.
    sample == 1 || (conn.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(sample)
}

/// Adds what the sink of `queue` has done to what others of its name have.
fn add_numbers(all: &mut BTreeMap<String, SinkNumbers>, queue: &Queue, runs: bool) {
    let status = queue.status();
    let known = all.entry(queue.name().to_owned()).or_default();
    queue.name().clone_into(&mut known.name);
    known.delivered += status.delivered();
    known.delivered_bytes += status.delivered_bytes();
    known.lost += status.lost();
    known.in_doubt += status.in_doubt();
    known.failures += status.failures();
    known.runs |= runs;
    if runs {
        known.failing = status.is_failing();
        known.queued_bytes += status.queued_bytes();
        // A predecessor that ends has the same spool.
        known.spooled_bytes = known.spooled_bytes.max(status.spooled_bytes());
    }
}

/// All of them.
pub struct Streams {
    /// At least one.
    pub list: Vec<Stream>,
    /// Queues of sinks that a changed configuration has ended, and that may still deliver.
    pub(super) retired: Vec<Queue>,
    /// What sinks had done that have ended, by name.
    ended: BTreeMap<String, SinkNumbers>,
    most: u64,
    pub(super) summary: Summary,
    /// When it was last known that nothing more was lost at a place.
    looked_ns: BTreeMap<LostPlace, i64>,
    /// When it began to see; `None` where the kernel programs are an earlier process's, which may have lost something before.
    begun_ns: Option<i64>,
    /// `None` where no metrics are asked for.
    pub(super) counts: Option<Counts>,
}

impl Streams {
    /// At most `most` transitions.
    #[must_use]
    pub fn new(list: Vec<Stream>, most: Option<u64>) -> Self {
        let most = most.unwrap_or(u64::MAX);
        let (retired, summary) = (Vec::new(), Summary::default());
        let looked_ns = BTreeMap::new();
        Self { list, retired, ended: BTreeMap::new(), most, summary, looked_ns, begun_ns: None, counts: None }
    }

    pub(super) fn record(&mut self, record: &Record) {
        match record {
            Record::Start(start) => {
                self.begun_ns = Some(start.time_ns).filter(|_| start.adopted.is_none());
            }
            Record::Transition(_) if self.is_full() => return,
            Record::Transition(transition) => {
                self.summary.transitions += 1;
                if let Some(counts) = &mut self.counts {
                    counts.transition(transition);
                }
            }
            _ => {}
        }
        for stream in &mut self.list {
            stream.record(record);
        }
    }

    /// The ends of a connection are known.
    pub(super) fn completed(&mut self, conn: ConnId, tuple: &Tuple) {
        for stream in &mut self.list {
            stream.completed(conn, tuple);
        }
    }

    /// The filters of single streams.
    pub fn routers(&self) -> impl Iterator<Item = &Router> {
        self.list.iter().filter_map(|it| it.router.as_ref())
    }

    /// How many connections have transitions that wait in filters.
    pub(super) fn waiting(&self) -> usize {
        self.routers().map(Router::waiting).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.summary.transitions >= self.most
    }

    /// Notes that `total` were lost at `place` since the start, by a look that began at `looked_ns`; writes what is new.
    pub(super) fn lost(&mut self, place: LostPlace, total: u64, looked_ns: i64, time_ns: i64) {
        let since_ns = self.looked_ns.insert(place, looked_ns).or(self.begun_ns);
        let known = self.summary.lost.entry(place).or_default();
        let before = *known;
        // Two counters that are read one after another may differ by less the next time.
        if total > before {
            *known = total;
            self.record(&Record::Lost(Lost { time_ns, since_ns, count: total - before, in_doubt: 0, place }));
        }
    }

    /// Whether somebody is told numbers.
    pub(super) fn reports(&self) -> bool {
        self.list.iter().any(|stream| stream.report.is_some())
    }

    /// When the next ones are due.
    pub(super) fn report_at(&self) -> Option<Instant> {
        self.list.iter().filter_map(|stream| Some(stream.report.as_ref()?.next)).min()
    }

    /// Tells them to whom they are due, or to all.
    pub(super) fn report(&mut self, numbers: &Numbers, to_all: bool) {
        let now = Instant::now();
        for stream in &mut self.list {
            if stream.report.as_ref().is_some_and(|report| to_all || report.next <= now) {
                stream.report(numbers, now_ns());
            }
        }
    }

    /// What the sinks have done, with those before of their names, and those that are no longer wanted.
    pub(super) fn numbers(&self) -> Vec<SinkNumbers> {
        let mut all = self.ended.clone();
        for queue in &self.retired {
            add_numbers(&mut all, queue, !queue.is_finished());
        }
        for queue in self.list.iter().filter_map(Stream::queue) {
            add_numbers(&mut all, queue, true);
        }
        all.into_values().collect()
    }

    /// Of all sinks that may still deliver.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.list.iter().filter_map(Stream::queue).chain(&self.retired)
    }

    /// Notes what its sinks have lost altogether; a sink that hangs has what it holds.
    pub(super) fn count_lost(&mut self) {
        let all = self.numbers();
        self.summary.lost.insert(LostPlace::Sink, all.iter().map(|sink| sink.lost).sum());
        self.summary.in_doubt = all.iter().map(|sink| sink.in_doubt).sum();
    }

    /// The most bytes that a stream has ready.
    pub(super) fn buffered(&self) -> usize {
        self.list.iter().map(|stream| stream.buffer.len()).max().unwrap_or(0)
    }

    /// Hands over what is ready. Waits for nobody.
    pub(super) fn hand_over(&mut self, time_ns: i64) {
        self.hand_over_where(time_ns, |_| true);
    }

    /// The same, of the streams that `ready` chooses.
    pub(super) fn hand_over_where(&mut self, time_ns: i64, ready: impl Fn(&Stream) -> bool) {
        self.list.iter_mut().filter(|stream| ready(stream)).for_each(|stream| stream.hand_over(time_ns));
    }

    /// Hands over what queues have room for; of the others, what is more than `most` bytes, so that it is counted as lost.
    pub(super) fn hand_over_ready(&mut self, time_ns: i64, most: usize) {
        self.hand_over_where(time_ns, |stream| stream.has_room(0) || stream.buffer.len() > most);
    }

    /// Closes the queues of streams that have handed over everything; each sink has `grace` to deliver what it has.
    pub(super) fn close_empty(&self, grace: Duration) {
        let empty = self.list.iter().filter(|stream| stream.buffer.is_empty());
        empty
            .filter_map(Stream::queue)
            .filter(|queue| !queue.is_closed())
            .for_each(|queue| queue.close(grace));
    }

    /// Nothing more comes for the sink of `queue`. What it loses counts to the end.
    pub fn retire(&mut self, queue: Queue) {
        let (ended, running): (Vec<Queue>, _) = self.retired.drain(..).partition(Queue::is_finished);
        for queue in ended {
            add_numbers(&mut self.ended, &queue, false);
        }
        self.retired = running;
        self.retired.push(queue);
    }

    /// Whether a stream has something that its queue has not.
    pub(super) fn has_buffered(&self) -> bool {
        self.list.iter().any(|stream| !stream.buffer.is_empty())
    }

    /// Whether a sink has lost something that its stream has not reported.
    pub(super) fn has_unsaid(&self) -> bool {
        let has_unsaid = |stream: &Stream| {
            !stream.unsaid.is_empty() || stream.previous.iter().chain(&stream.queue).any(Queue::has_lost)
        };
        self.list.iter().any(has_unsaid)
    }

    /// When the next window ends, `CLOCK_MONOTONIC` ns.
    pub(super) fn window_ends_ns(&self) -> Option<u64> {
        self.list.iter().filter_map(|it| it.windows.as_ref()?.end_ns()).min()
    }

    /// Writes the counts of the windows that have ended by `now_ns`.
    pub(super) fn close_windows(&mut self, now_ns: u64) {
        for stream in &mut self.list {
            let end_ns = stream.windows.as_ref().and_then(Windows::end_ns);
            if end_ns.is_some_and(|end_ns| end_ns <= now_ns) {
                stream.close_window();
            }
        }
    }

    /// Whether every queue whose sink gets on takes what is ready for it, and `more` bytes.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let stands_still = |stream: &Stream| stream.queue().is_some_and(Queue::stands_still);
        self.list.iter().all(|stream| stream.has_room(more) || stands_still(stream))
    }
}
