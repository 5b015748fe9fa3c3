//! What is counted while records flow (docs/metrics.md): states, places and names of ours as the only labels, so that there are as
//! many series on a busy host as on a quiet one. [`families`] says what there is; Prometheus and OTLP say it in their ways.

mod families;
mod open_metrics;
mod otlp;
mod server;

use std::collections::BTreeMap;

pub use opentelemetry_proto::tonic::resource::v1::Resource;
pub use server::{MetricsError, Question, Server};

use crate::model::{Dwell, LostPlace, SocketCounts, Transition};

/// What has been written so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Since then, by the wall clock, ns since the epoch.
    since_ns: i64,
    /// By the states' names, of which some states share one.
    transitions: BTreeMap<(&'static str, &'static str), u64>,
    durations: BTreeMap<&'static str, Dwell>,
}

impl Counts {
    /// Nothing yet.
    #[must_use]
    pub fn since(since_ns: i64) -> Self {
        Self { since_ns, ..Self::default() }
    }

    /// One more.
    pub fn transition(&mut self, transition: &Transition) {
        let (from, to) = (transition.from.name(), transition.to.name());
        *self.transitions.entry((from, to)).or_default() += 1;
        // A lower bound makes no series either.
        if let Some(in_state) = transition.in_state.filter(|in_state| !in_state.at_least) {
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
    pub tally: SocketCounts,
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
    /// Records that it may have, and that are not sent again.
    pub in_doubt: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Whether the last one did.
    pub failing: bool,
    /// Bytes that wait in memory.
    pub queued_bytes: u64,
    /// Bytes that wait on disk.
    pub spooled_bytes: u64,
    /// Whether it has not ended: otherwise it has only counts.
    pub runs: bool,
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::model::{InState, State};

    fn transition(from: State, to: State, ns: u64) -> Transition {
        Transition { in_state: Some(InState { ns, at_least: false }), ..Transition::example(from, to) }
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
            assert_eq!(text.lines().filter(|other| *other == line).count(), 1, "{line} in {text}");
        }
    }
}
