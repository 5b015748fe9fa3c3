//! All streams: each record goes to every stream that takes it, and all are counted together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    metrics_stream::MetricsStream, now_ns, outgoing::Outgoing, record_stream::RecordStream, resets::Resets,
};
use crate::{
    metrics::{Counts, Numbers, SinkNumbers},
    model::{ConnId, Lost, LostPlace, Record, Tuple},
    route::Router,
    sinks::Queue,
};

/// Bytes in a stream's buffer from which a burst of records is handed over.
const BURST: usize = 1 << 20;
/// Bytes that a stream keeps for a full queue during a burst.
pub(super) const BURST_BUFFER: usize = 16 << 20;

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

impl Summary {
    /// Whether nothing was lost, and nothing is in doubt.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.in_doubt == 0 && self.lost.values().all(|count| *count == 0)
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} transitions; ", self.transitions)?;
        let lost: Vec<String> = LostPlace::ALL
            .iter()
            .filter_map(|place| Some((place, *self.lost.get(place)?)))
            .filter(|(_, count)| *count > 0)
            .map(|(place, count)| format!("{count} ({})", place.name()))
            .collect();
        match &lost[..] {
            [] => f.write_str("nothing lost")?,
            lost => write!(f, "lost {}", lost.join(", "))?,
        }
        match self.in_doubt {
            0 => Ok(()),
            count => write!(f, "; {count} in doubt (the collector may have them)"),
        }
    }
}

/// The stream of one output or one sink.
#[expect(clippy::large_enum_variant, reason = "there are as many streams as sinks")]
pub enum Stream {
    /// Records.
    Records(RecordStream),
    /// Metrics, which take no records.
    Metrics(MetricsStream),
}

impl Stream {
    /// Continues with the numbers of `before`, and with the losses that `before` has not reported; with its filter where that is the
    /// `same`, since transitions may wait in it.
    pub fn follow(&mut self, mut before: Self, same_filter: bool) {
        self.outgoing_mut().follow(std::mem::take(before.outgoing_mut()));
        if let (Self::Records(stream), Self::Records(before)) = (self, before)
            && same_filter
        {
            stream.take_router(before);
        }
    }

    /// The sink opens its file again.
    pub fn reopen(&self) {
        if let Some(queue) = self.queue() {
            queue.reopen();
        }
    }

    /// Nothing more comes; what the stream has goes out.
    pub fn end(&mut self, grace: Duration) {
        if let Self::Records(stream) = self {
            stream.close_windows(u64::MAX);
        }
        self.hand_over(now_ns());
        if let Some(queue) = self.queue() {
            queue.close(grace);
        }
    }

    /// Where the bytes go; `None` for the pipeline's own output.
    #[must_use]
    pub fn queue(&self) -> Option<&Queue> {
        self.outgoing().queue()
    }

    /// Writes a record, if the stream takes it.
    pub fn record(&mut self, record: &Record) {
        if let Self::Records(stream) = self {
            stream.record(record);
        }
    }

    pub(super) fn header(&mut self) {
        if let Self::Records(stream) = self {
            stream.header();
        }
    }

    /// Whether the queue takes what is ready, and `more` bytes.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.outgoing().has_room(more)
    }

    pub(super) fn buffer(&self) -> &[u8] {
        &self.outgoing().buffer
    }

    pub(super) fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing_mut().buffer
    }

    fn hand_over(&mut self, time_ns: i64) {
        match self {
            Self::Records(stream) => stream.hand_over(time_ns),
            Self::Metrics(stream) => stream.hand_over(),
        }
    }

    /// Whether it has records of connections that go on.
    #[must_use]
    pub fn has_interims(&self) -> bool {
        matches!(self, Self::Records(stream) if stream.interim().is_some())
    }

    /// Whether it has records of whole connections.
    #[must_use]
    pub fn has_connections(&self) -> bool {
        matches!(self, Self::Records(stream) if stream.has_connections())
    }

    fn outgoing(&self) -> &Outgoing {
        match self {
            Self::Records(stream) => &stream.outgoing,
            Self::Metrics(stream) => &stream.outgoing,
        }
    }

    fn outgoing_mut(&mut self) -> &mut Outgoing {
        match self {
            Self::Records(stream) => &mut stream.outgoing,
            Self::Metrics(stream) => &mut stream.outgoing,
        }
    }
}

/// All streams.
pub struct Streams {
    /// All streams, at least one.
    pub list: Vec<Stream>,
    /// Queues of sinks that a changed configuration has ended, and that may still deliver.
    pub(super) retired: Vec<Queue>,
    /// The numbers of sinks that have ended, by name.
    ended: BTreeMap<String, SinkNumbers>,
    most: u64,
    pub(super) summary: Summary,
    /// When it was last known that nothing more was lost at a place.
    looked_ns: BTreeMap<LostPlace, i64>,
    /// When tracing began; `None` where the kernel programs are an earlier process's, which may have lost something before.
    begun_ns: Option<i64>,
    /// `None` where no metrics are asked for.
    pub(super) counts: Option<Counts>,
    /// Resets for which there is no socket.
    pub(super) resets: Resets,
}

impl Streams {
    /// At most `most` transitions.
    #[must_use]
    pub fn new(list: Vec<Stream>, most: Option<u64>) -> Self {
        let most = most.unwrap_or(u64::MAX);
        let (retired, summary, resets) = (Vec::new(), Summary::default(), Resets::default());
        let (ended, looked_ns, begun_ns, counts) = (BTreeMap::new(), BTreeMap::new(), None, None);
        Self { list, retired, ended, most, summary, looked_ns, begun_ns, counts, resets }
    }

    pub(super) fn record(&mut self, record: &Record) {
        match record {
            Record::Start(start) => {
                self.begun_ns = Some(start.time_ns).filter(|_| start.adopted.is_none());
            }
            Record::Transition(_) if self.has_reached_limit() => return,
            Record::Transition(transition) => {
                self.summary.transitions += 1;
                if let Some(counts) = &mut self.counts {
                    counts.transition(transition);
                }
            }
            Record::Connection(lifespan) => {
                if let Some(counts) = &mut self.counts {
                    counts.connection(lifespan);
                }
            }
            _ => {}
        }
        for stream in &mut self.list {
            stream.record(record);
        }
    }

    /// Writes the record of a connection that goes on, to the streams that want these records `every` so often.
    pub(super) fn interim(&mut self, record: &Record, every: Duration) {
        let streams = self.list.iter_mut().filter_map(records_mut);
        streams.filter(|stream| stream.interim() == Some(every)).for_each(|stream| stream.record(record));
    }

    /// How often streams want records of connections that go on.
    pub(super) fn intervals(&self) -> BTreeSet<Duration> {
        self.list.iter().filter_map(records).filter_map(RecordStream::interim).collect()
    }

    /// All records that are due have been written.
    pub(super) fn pause(&mut self) {
        self.list.iter_mut().filter_map(records_mut).for_each(RecordStream::pause);
    }

    /// Both ends of a connection are known now.
    pub(super) fn completed(&mut self, conn: ConnId, tuple: &Tuple) {
        for stream in self.list.iter_mut().filter_map(records_mut) {
            stream.completed(conn, tuple);
        }
    }

    /// The filters of single streams.
    pub fn routers(&self) -> impl Iterator<Item = &Router> {
        self.list.iter().filter_map(records).filter_map(RecordStream::router)
    }

    /// How many connections have transitions that wait in filters.
    pub(super) fn waiting(&self) -> usize {
        self.routers().map(Router::waiting).sum()
    }

    pub(super) fn has_reached_limit(&self) -> bool {
        self.summary.transitions >= self.most
    }

    /// Notes that `total` were lost at `place` since the start, by a look that began at `looked_ns`; writes what is new.
    pub(super) fn lost(&mut self, place: LostPlace, total: u64, looked_ns: i64, time_ns: i64) {
        let since_ns = self.looked_ns.insert(place, looked_ns).or(self.begun_ns);
        let known = self.summary.lost.entry(place).or_default();
        let before = *known;
        // A total may shrink: the losses by recursion are a difference of two counters that are not read at the same time.
        if total > before {
            *known = total;
            self.record(&Record::Lost(Lost { time_ns, since_ns, count: total - before, in_doubt: 0, place }));
        }
    }

    /// Whether a stream has records of whole connections.
    pub(super) fn have_connections(&self) -> bool {
        self.list.iter().filter_map(records).any(RecordStream::has_connections)
    }

    /// Reports that `count` connections have ended of which it is not known whether a killed process has reported them.
    pub(super) fn doubt_connections(&mut self, count: u64, time_ns: i64) {
        if count == 0 {
            return;
        }
        let place = LostPlace::Crash;
        let lost = Record::Lost(Lost { time_ns, since_ns: None, count: 0, in_doubt: count, place });
        let streams = self.list.iter_mut().filter_map(records_mut);
        streams.filter(|stream| stream.has_connections()).for_each(|stream| stream.record(&lost));
    }

    /// Whether a sink takes metrics.
    pub(super) fn reports(&self) -> bool {
        self.list.iter().any(|stream| matches!(stream, Stream::Metrics(_)))
    }

    /// When the next metrics are due.
    pub(super) fn report_at(&self) -> Option<Instant> {
        let metrics = self.list.iter().filter_map(|stream| match stream {
            Stream::Metrics(stream) => Some(stream.next),
            Stream::Records(_) => None,
        });
        metrics.min()
    }

    /// Writes metrics to the streams for which they are due, or to all.
    pub(super) fn report(&mut self, numbers: &Numbers, to_all: bool) {
        let now = Instant::now();
        for stream in &mut self.list {
            if let Stream::Metrics(stream) = stream
                && (to_all || stream.next <= now)
            {
                stream.report(numbers, now_ns());
            }
        }
    }

    /// The numbers of each sink, including earlier sinks of the same name, and of sinks that are no longer wanted.
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

    /// The queues of all sinks that may still deliver.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.list.iter().filter_map(Stream::queue).chain(&self.retired)
    }

    /// How many records are lost because the process of their sinks has ended; `None` if it has not.
    pub(super) fn abandon_broken(&self) -> Option<u64> {
        let is_broken = self.queues().any(Queue::is_broken);
        is_broken.then(|| self.queues().map(Queue::abandon).sum())
    }

    /// The summary with what the sinks have lost so far; the records that a hanging sink holds count as lost.
    pub(super) fn summary_now(&self) -> Summary {
        let (all, mut summary) = (self.numbers(), self.summary.clone());
        summary.lost.insert(LostPlace::Sink, all.iter().map(|sink| sink.lost).sum());
        summary.in_doubt = all.iter().map(|sink| sink.in_doubt).sum();
        summary
    }

    /// The most bytes that a stream has ready.
    pub(super) fn buffered(&self) -> usize {
        self.list.iter().map(|stream| stream.buffer().len()).max().unwrap_or(0)
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
        self.hand_over_where(time_ns, |stream| is_ready(stream, most));
    }

    /// Hands over large pieces while many records are written at once, so that memory is bounded whatever their number.
    pub(super) fn relieve(&mut self) {
        let is_large = |stream: &Stream| stream.buffer().len() > BURST;
        if self.list.iter().any(is_large) {
            // A full queue must not cut the records of other streams into small pieces.
            self.hand_over_where(now_ns(), |stream| is_large(stream) && is_ready(stream, BURST_BUFFER));
        }
    }

    /// Closes the queues of streams that have handed over everything; each sink has `grace` to deliver what it has.
    pub(super) fn close_empty(&self, grace: Duration) {
        let empty = self.list.iter().filter(|stream| stream.buffer().is_empty());
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
        self.list.iter().any(|stream| !stream.buffer().is_empty())
    }

    /// Whether a sink has lost something that its stream has not reported.
    pub(super) fn has_unreported(&self) -> bool {
        self.list.iter().any(|stream| stream.outgoing().has_missing())
    }

    /// When the next window ends, `CLOCK_MONOTONIC` ns.
    pub(super) fn window_ends_ns(&self) -> Option<u64> {
        self.list.iter().filter_map(records).filter_map(RecordStream::window_ends_ns).min()
    }

    /// Writes the counts of the windows that have ended by `now_ns`.
    pub(super) fn close_windows(&mut self, now_ns: u64) {
        for stream in self.list.iter_mut().filter_map(records_mut) {
            if stream.window_ends_ns().is_some_and(|end_ns| end_ns <= now_ns) {
                stream.close_windows(now_ns);
            }
        }
    }

    /// Whether every queue whose sink gets on takes what is ready for it, and `more` bytes.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let stands_still = |stream: &Stream| stream.queue().is_some_and(Queue::stands_still);
        self.list.iter().all(|stream| stream.has_room(more) || stands_still(stream))
    }
}

/// Whether a stream hands over now: its queue has room, or the stream keeps more than `most` bytes for it.
fn is_ready(stream: &Stream, most: usize) -> bool {
    stream.has_room(0) || stream.buffer().len() > most
}

fn records(stream: &Stream) -> Option<&RecordStream> {
    match stream {
        Stream::Records(stream) => Some(stream),
        Stream::Metrics(_) => None,
    }
}

fn records_mut(stream: &mut Stream) -> Option<&mut RecordStream> {
    match stream {
        Stream::Records(stream) => Some(stream),
        Stream::Metrics(_) => None,
    }
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
