//! Metric families: names, kinds and labels, independent of the format.

use super::{Numbers, SinkNumbers, counts::Retransmits};
use crate::model::{Dwell, LabelledCounts, LostPlace};

/// All series with one name.
pub(super) struct Family<'a> {
    /// Below `sockstate`, with dots between the parts.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) kind: Kind,
    pub(super) series: Vec<Series<'a>>,
}

/// The unit of values that are not plain counts.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Seconds,
    Bytes,
}

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value that only grows.
    Counter,
    Gauge,
    Histogram,
}

/// One value.
pub(super) struct Series<'a> {
    pub(super) labels: Vec<(&'static str, &'a str)>,
    pub(super) value: Value<'a>,
}

pub(super) enum Value<'a> {
    Integer(u64),
    Real(f64),
    Histogram(Histogram<'a>),
}

/// How often values lay in each bucket.
pub(super) struct Histogram<'a> {
    pub(super) sum: f64,
    /// Upper bounds of the buckets; the last one is infinite.
    pub(super) ends: &'static [f64],
    /// Not cumulative.
    pub(super) counts: &'a [u64],
}

impl<'a> Histogram<'a> {
    fn seconds(times: &'a Dwell) -> Self {
        Self { sum: times.sum_ns as f64 / 1e9, ends: &Dwell::ENDS_S, counts: &times.counts }
    }

    fn numbers(numbers: &'a Retransmits) -> Self {
        Self { sum: numbers.sum as f64, ends: &Retransmits::ENDS, counts: &numbers.counts }
    }
}

impl<'a> Family<'a> {
    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self { name, help, unit: None, kind, series: Vec::new() }
    }

    fn unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }

    fn all(mut self, series: impl IntoIterator<Item = Series<'a>>) -> Self {
        self.series.extend(series);
        self
    }

    fn one(self, value: u64) -> Self {
        self.all([Series { labels: Vec::new(), value: Value::Integer(value) }])
    }
}

fn series<'a>(key: &'static str, label: &'a str, value: Value<'a>) -> Series<'a> {
    Series { labels: vec![(key, label)], value }
}

/// Times by a label.
fn times<'a>(
    label: &'static str,
    times: impl IntoIterator<Item = (&'a &'static str, &'a Dwell)>,
) -> impl Iterator<Item = Series<'a>> {
    times
        .into_iter()
        .map(move |(name, times)| series(label, name, Value::Histogram(Histogram::seconds(times))))
}

/// The label of the series that has all combinations beyond the limit.
pub(super) const OTHER: &str = "other";

/// A label without a value is written, too. In Prometheus it is no label, and keeps a scrape with `honor_labels` from adding
/// the pod of sockstate itself as this label.
fn labelled(counts: &[LabelledCounts]) -> impl Iterator<Item = Series<'_>> {
    counts.iter().flat_map(|group| {
        group.counts.iter().map(move |(state, count)| {
            let mut labels = vec![("state", *state)];
            labels.extend(group.labels.iter().map(|(label, value)| (label.name(), value.as_str())));
            labels.extend(group.other.then_some((OTHER, "true")));
            Series { labels, value: gauge(*count) }
        })
    })
}

/// A gauge; no gauge here is negative.
fn gauge(value: i64) -> Value<'static> {
    Value::Integer(value.max(0).unsigned_abs())
}

impl Numbers {
    /// The families with at least one series.
    pub(super) fn families(&self) -> Vec<Family<'_>> {
        let mut all = self.transitions();
        all.extend(self.connections());
        all.extend(self.sockets());
        all.extend(self.ring());
        all.extend(self.programs());
        all.extend(self.sinks());
        all.retain(|family| !family.series.is_empty());
        all
    }

    fn transitions(&self) -> Vec<Family<'_>> {
        let transitions = self.counts.transitions.iter().map(|((from, to), count)| Series {
            labels: vec![("from", *from), ("to", *to)],
            value: Value::Integer(*count),
        });
        let durations = times("state", &self.counts.durations);
        let lost = LostPlace::ALL.into_iter().map(|place| {
            let count = self.lost.get(&place).copied().unwrap_or(0);
            series("place", place.name(), Value::Integer(count))
        });
        let duration = "Time in the state that was left, where it was seen from its beginning";
        let illegal = "Transitions that TCP, as this version knows it, does not make";
        let waiting = "Bytes of records that the output has not taken yet";
        vec![
            Family::new("transitions", "Transitions written", Kind::Counter).all(transitions),
            Family::new("state.duration", duration, Kind::Histogram).unit(Unit::Seconds).all(durations),
            Family::new("lost", "Records lost, by place", Kind::Counter).all(lost),
            Family::new("illegal_transitions", illegal, Kind::Counter).one(self.illegal),
            Family::new("output.waiting", waiting, Kind::Gauge)
                .unit(Unit::Bytes)
                .one(self.waiting_bytes as u64),
        ]
    }

    fn connections(&self) -> [Family<'_>; 5] {
        let counts = &self.counts;
        let opened = counts.opened.iter().map(|(role, count)| series("role", role, Value::Integer(*count)));
        let closed = counts.closed.iter().map(|((role, cause), count)| Series {
            labels: vec![("role", *role), ("cause", *cause)],
            value: Value::Integer(*count),
        });
        let retransmits = counts
            .retransmits
            .iter()
            .map(|(role, numbers)| series("role", role, Value::Histogram(Histogram::numbers(numbers))));
        let seconds = |name, help| Family::new(name, help, Kind::Histogram).unit(Unit::Seconds);
        [
            Family::new("connections_opened", "Connections that became ESTABLISHED", Kind::Counter)
                .all(opened),
            Family::new(
                "connections_closed",
                "Connections that ended, and connects that failed",
                Kind::Counter,
            )
            .all(closed),
            seconds("handshake", "Time in the state before ESTABLISHED")
                .all(times("role", &counts.handshakes)),
            seconds("connection.duration", "Time from the first SYN to the end of a connection")
                .all(times("role", &counts.lives)),
            Family::new(
                "connection.retransmits",
                "Segments that a connection which has ended had sent again",
                Kind::Histogram,
            )
            .all(retransmits),
        ]
    }

    fn sockets(&self) -> [Family<'_>; 6] {
        let totals = &self.totals;
        let [sockets, stuck] = [&totals.tally.sockets, &totals.tally.stuck]
            .map(|counts| counts.iter().map(|(state, count)| series("state", state, gauge(*count))));
        let leakers = totals.leakers.iter().map(|(comm, count)| series("comm", comm, gauge(*count)));
        let gauges = |name, help| Family::new(name, help, Kind::Gauge);
        [
            gauges("sockets", "Sockets in this state, mini-sockets included").all(sockets),
            gauges("stuck_sockets", "Those in it for longer than its threshold").all(stuck),
            gauges("stuck_sockets_top", "Stuck sockets of the processes that have the most of them, by their names")
                .all(leakers),
            gauges("sockets_by", "Sockets by the labels of --metrics-by, in the states that they are in")
                .all(labelled(&totals.sockets_by)),
            gauges("stuck_sockets_by", "Stuck sockets by the labels of --metrics-by, in the states that they are in")
                .all(labelled(&totals.stuck_by)),
            gauges(
                "local_ports_used",
                "Local ports that connections from one address to one address and port use, where these are the most",
            )
            .all([Series { labels: Vec::new(), value: gauge(totals.ports_used) }]),
        ]
    }

    fn ring(&self) -> Vec<Family<'_>> {
        let Some((used, size)) = self.ring else { return Vec::new() };
        let bytes = |name, help, value| Family::new(name, help, Kind::Gauge).unit(Unit::Bytes).one(value);
        vec![
            bytes("ring.used", "Bytes in the ring that wait to be read", used),
            bytes("ring.size", "Bytes that the ring holds", size),
        ]
    }

    fn programs(&self) -> [Family<'_>; 2] {
        let of = |value: fn(u64, u64) -> Value<'static>| {
            let all = self.programs.iter();
            all.map(move |(name, ns, count)| series("program", name, value(*ns, *count)))
        };
        let help = "Time that the kernel programs have run for, on all CPUs";
        [
            Family::new("program", help, Kind::Counter)
                .unit(Unit::Seconds)
                .all(of(|ns, _| Value::Real(ns as f64 / 1e9))),
            Family::new("program_runs", "How often they were run", Kind::Counter)
                .all(of(|_, count| Value::Integer(count))),
        ]
    }

    fn sinks(&self) -> impl Iterator<Item = Family<'_>> {
        type Column = (&'static str, &'static str, Kind, fn(&SinkNumbers) -> u64);
        const COLUMNS: [Column; 8] = [
            ("sink.delivered", "Records that a sink's collector has", Kind::Counter, |sink| sink.delivered),
            ("sink.delivered_bytes", "Their bytes", Kind::Counter, |sink| sink.delivered_bytes),
            ("sink.lost", "Records that a sink's collector will never get", Kind::Counter, |sink| sink.lost),
            (
                "sink.in_doubt",
                "Records that it may have, and that are not sent again",
                Kind::Counter,
                |sink| sink.in_doubt,
            ),
            ("sink.failures", "Attempts to deliver that failed", Kind::Counter, |sink| sink.failures),
            ("sink.failing", "Whether the last attempt failed", Kind::Gauge, |sink| u64::from(sink.failing)),
            ("sink.queued_bytes", "Bytes of records that wait in memory", Kind::Gauge, |sink| {
                sink.queued_bytes
            }),
            ("sink.spooled_bytes", "Bytes of records that wait on disk", Kind::Gauge, |sink| {
                sink.spooled_bytes
            }),
        ];
        COLUMNS.into_iter().map(|(name, help, kind, value)| {
            let sinks = self.sinks.iter().filter(move |sink| sink.runs || kind == Kind::Counter);
            let sinks = sinks.map(|sink| series("sink", &sink.name, Value::Integer(value(sink))));
            Family::new(name, help, kind).all(sinks)
        })
    }
}
