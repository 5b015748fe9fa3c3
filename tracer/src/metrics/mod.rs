//! What is counted while records flow, for Prometheus (docs/metrics.md): names by its conventions, states and places as the
//! only labels, so that there are as many series on a busy host as on a quiet one.

mod server;

use std::collections::BTreeMap;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet,
        text::encode,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

pub use server::{MetricsError, Question, Server};

use crate::model::{Dwell, LostPlace, Tally, Transition};

/// What has been written so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By the states' names, of which some states share one.
    transitions: BTreeMap<(&'static str, &'static str), u64>,
    durations: BTreeMap<&'static str, Dwell>,
}

impl Counts {
    /// One more.
    pub fn transition(&mut self, it: &Transition) {
        let (from, to) = (it.from.name(), it.to.name());
        *self.transitions.entry((from, to)).or_default() += 1;
        // A lower bound makes no series either.
        if let Some(in_state) = it.in_state.filter(|in_state| !in_state.at_least) {
            self.durations.entry(from).or_default().add(in_state);
        }
    }
}

/// All that a scrape shows.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Transitions and times.
    pub counts: Counts,
    /// The connections now.
    pub tally: Tally,
    /// Losses by place, since the start.
    pub lost: BTreeMap<LostPlace, u64>,
    /// Transitions that TCP does not make.
    pub illegal: u64,
    /// Bytes that wait for the output.
    pub waiting_bytes: usize,
    /// Bytes in the ring, and how many it holds.
    pub ring: Option<(u64, u64)>,
    /// The kernel programs, while the kernel counts what they do: name, nanoseconds, runs.
    pub programs: Vec<(String, u64, u64)>,
    /// The sinks.
    pub sinks: Vec<SinkNumbers>,
    /// Processes with the most stuck sockets, where that is wanted.
    pub leakers: Vec<(String, i64)>,
    /// Which hook sees the transitions.
    pub hook: &'static str,
    /// Which hooks see the mini-sockets.
    pub tier: &'static str,
}

/// One sink.
#[derive(Clone, Debug, Default)]
pub struct SinkNumbers {
    /// Its name.
    pub name: String,
    /// Records that its collector has.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Records that it will never get.
    pub lost: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Whether the last one did.
    pub failing: bool,
    /// Bytes that wait in memory.
    pub queued_bytes: u64,
    /// Bytes that wait on disk.
    pub spooled_bytes: u64,
}

impl Numbers {
    /// In the OpenMetrics text format, version 1.0.0.
    #[must_use]
    pub fn into_text(self) -> String {
        let mut registry = Registry::with_prefix("sockstate");
        let about = vec![("version", env!("CARGO_PKG_VERSION")), ("hook", self.hook), ("tier", self.tier)];
        registry.register(
            "build",
            "What runs here, and what it sees transitions and mini-sockets by",
            Info::new(about),
        );
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// A state or two, or a place.
type Labels<'a> = &'a [(&'static str, &'a str)];

#[derive(Debug)]
struct LabelSet<'a>(Labels<'a>);

impl EncodeLabelSet for LabelSet<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

fn one(
    family: &mut MetricEncoder<'_>,
    labels: Labels<'_>,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(family.encode_family(&LabelSet(labels))?)
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family =
            encoder.encode_descriptor("transitions", "Transitions written", None, MetricType::Counter)?;
        for ((from, to), count) in &self.counts.transitions {
            one(&mut family, &[("from", *from), ("to", *to)], &ConstCounter::new(*count))?;
        }
        let mut family = encoder.encode_descriptor(
            "state_duration",
            "Time in the state that was left, where it was seen from its beginning",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (state, durations) in &self.counts.durations {
            let labels = [("state", *state)];
            let buckets: Vec<(f64, u64)> = Dwell::ENDS_S.into_iter().zip(durations.counts).collect();
            let count = durations.counts.iter().sum();
            family.encode_family(&LabelSet(&labels))?.encode_histogram::<NoLabelSet>(
                durations.sum_ns as f64 / 1e9,
                count,
                &buckets,
                None,
            )?;
        }
        let gauges = [
            ("sockets", "Sockets in this state, mini-sockets included", &self.tally.sockets),
            ("stuck_sockets", "Those in it for longer than its threshold", &self.tally.stuck),
        ];
        for (name, help, by_state) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (state, count) in by_state {
                one(&mut family, &[("state", *state)], &ConstGauge::new(*count))?;
            }
        }
        let mut family =
            encoder.encode_descriptor("lost", "Records lost, by place", None, MetricType::Counter)?;
        for place in LostPlace::ALL {
            let count = self.lost.get(&place).copied().unwrap_or(0);
            one(&mut family, &[("place", place.name())], &ConstCounter::new(count))?;
        }
        let illegal = encoder.encode_descriptor(
            "illegal_transitions",
            "Transitions that TCP, as this version knows it, does not make",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.illegal).encode(illegal)?;
        let waiting = encoder.encode_descriptor(
            "output_waiting",
            "Bytes of records that the output has not taken yet",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?;
        gauge(self.waiting_bytes as u64).encode(waiting)?;
        self.ring(&mut encoder)?;
        self.programs(&mut encoder)?;
        self.sinks(&mut encoder)?;
        self.leakers(&mut encoder)
    }
}

impl Numbers {
    fn ring(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some((used, size)) = self.ring else { return Ok(()) };
        for (name, help, value) in [
            ("ring_used", "Bytes in the ring that wait to be read", used),
            ("ring_size", "Bytes that the ring holds", size),
        ] {
            let bytes = Some(&Unit::Bytes);
            let family = encoder.encode_descriptor(name, help, bytes, MetricType::Gauge)?;
            gauge(value).encode(family)?;
        }
        Ok(())
    }

    fn programs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if self.programs.is_empty() {
            return Ok(());
        }
        let help = "Time that the kernel programs have run for, on all CPUs";
        let mut family =
            encoder.encode_descriptor("program", help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (name, ns, _) in &self.programs {
            one(&mut family, &[("program", name)], &ConstCounter::new(*ns as f64 / 1e9))?;
        }
        let help = "How often they were run";
        let mut family = encoder.encode_descriptor("program_runs", help, None, MetricType::Counter)?;
        for (name, _, count) in &self.programs {
            one(&mut family, &[("program", name)], &ConstCounter::new(*count))?;
        }
        Ok(())
    }

    fn sinks(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Column = (&'static str, &'static str, fn(&SinkNumbers) -> u64);
        const COUNTERS: [Column; 4] = [
            ("sink_delivered", "Records that a sink's collector has", |it| it.delivered),
            ("sink_delivered_bytes", "Their bytes", |it| it.delivered_bytes),
            ("sink_lost", "Records that a sink's collector will never get", |it| it.lost),
            ("sink_failures", "Attempts to deliver that failed", |it| it.failures),
        ];
        const GAUGES: [Column; 3] = [
            ("sink_failing", "Whether the last attempt failed", |it| u64::from(it.failing)),
            ("sink_queued_bytes", "Bytes of records that wait in memory", |it| it.queued_bytes),
            ("sink_spooled_bytes", "Bytes of records that wait on disk", |it| it.spooled_bytes),
        ];
        if self.sinks.is_empty() {
            return Ok(());
        }
        for (name, help, value) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for sink in &self.sinks {
                one(&mut family, &[("sink", &sink.name)], &ConstCounter::new(value(sink)))?;
            }
        }
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for sink in &self.sinks {
                one(&mut family, &[("sink", &sink.name)], &gauge(value(sink)))?;
            }
        }
        Ok(())
    }

    fn leakers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if self.leakers.is_empty() {
            return Ok(());
        }
        let help = "Stuck sockets of the processes that have the most of them, by the processes' names";
        let mut family = encoder.encode_descriptor("stuck_sockets_top", help, None, MetricType::Gauge)?;
        for (comm, count) in &self.leakers {
            one(&mut family, &[("comm", comm)], &ConstGauge::new(*count))?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::{Address, ConnId, InState, State, Subject, Tuple};

    fn transition(from: State, to: State, ns: u64) -> Transition {
        let address = Address::from_v4([127, 0, 0, 1]);
        let (container, pod_uid, unit) = (None, None, None);
        let subject = Subject { id: 1, owner: None, netns: None, cgroup: None, container, pod_uid, unit };
        Transition {
            time_ns: 0,
            conn: ConnId(1),
            from,
            to,
            in_state: Some(InState { ns, at_least: false }),
            role: None,
            tuple: Tuple { local: address, remote: address, local_port: 1, remote_port: 2, v6_socket: false },
            subject: Rc::new(subject),
            exact: true,
            mini: false,
            illegal: false,
            cause: None,
            reset_why: None,
            errno: 0,
        }
    }

    #[test]
    fn a_series_for_each_name_and_buckets_that_add_up() {
        let mut counts = Counts::default();
        for from in [State::SynRecv, State::NewSynRecv] {
            counts.transition(&transition(from, State::Established, 1_000_000));
        }
        counts.transition(&transition(State::Unknown(20), State::Unknown(21), 0));
        counts.transition(&transition(State::Unknown(22), State::Unknown(23), u64::MAX));
        let text = Numbers { counts, ..Numbers::default() }.into_text();
        for line in [
            r#"sockstate_transitions_total{from="SYN_RECV",to="ESTABLISHED"} 2"#,
            r#"sockstate_transitions_total{from="UNKNOWN",to="UNKNOWN"} 2"#,
            r#"sockstate_state_duration_seconds_bucket{le="0.001",state="SYN_RECV"} 2"#,
            r#"sockstate_state_duration_seconds_bucket{le="3600.0",state="UNKNOWN"} 1"#,
            r#"sockstate_state_duration_seconds_bucket{le="+Inf",state="UNKNOWN"} 2"#,
            r#"sockstate_lost_total{place="ring"} 0"#,
        ] {
            assert_eq!(text.lines().filter(|it| *it == line).count(), 1, "{line} in {text}");
        }
    }
}
