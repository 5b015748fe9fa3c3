//! Metrics (docs/metrics.md). Labels are states, roles, causes, places and configured names, so the number of series does not depend
//! on the load.
//! The exceptions: `--metrics-top N` adds up to N series of processes, and `--metrics-by` up to a limit of combinations of labels.
//! [`families`] defines the metrics; `open_metrics` and `otlp` write them.

mod counts;
mod families;
mod open_metrics;
mod otlp;
mod relay;
mod server;

use std::collections::BTreeMap;

pub use counts::Counts;
pub use opentelemetry_proto::tonic::resource::v1::Resource;
pub use relay::{ask_apart, serve_apart};
pub use server::{MetricsError, Question, Server, listen};

use crate::model::{LostPlace, SocketTotals};

/// All numbers of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Transitions, connections and times.
    pub counts: Counts,
    /// The sockets that exist.
    pub totals: SocketTotals,
    /// Losses by place, since the start.
    pub lost: BTreeMap<LostPlace, u64>,
    /// Transitions that TCP does not make.
    pub illegal: u64,
    /// Bytes that wait for the output.
    pub waiting_bytes: usize,
    /// Unread bytes in the ring, and its size.
    pub ring: Option<(u64, u64)>,
    /// Run statistics of the kernel programs, if the kernel counts them: name, nanoseconds, runs.
    pub programs: Vec<(String, u64, u64)>,
    /// The sinks.
    pub sinks: Vec<SinkNumbers>,
    /// The hook for transitions.
    pub hook: &'static str,
    /// The tier for mini-sockets.
    pub tier: &'static str,
}

/// One sink.
#[derive(Clone, Debug, Default)]
pub struct SinkNumbers {
    pub name: String,
    /// Delivered records.
    pub delivered: u64,
    /// Bytes of delivered records.
    pub delivered_bytes: u64,
    /// Lost records.
    pub lost: u64,
    /// Records in doubt: the collector may have them, and they are not sent again.
    pub in_doubt: u64,
    /// Failed attempts to deliver.
    pub failures: u64,
    /// Whether the last attempt failed.
    pub failing: bool,
    /// Bytes of records in memory.
    pub queued_bytes: u64,
    /// Bytes of records on disk.
    pub spooled_bytes: u64,
    /// Whether the sink still runs; an ended sink has only counts.
    pub runs: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use std::rc::Rc;

    use super::*;
    use crate::model::{
        Cause, Connection, InState, LabelledCounts, Lifespan, MetricLabel, Role, State, Traffic, Transition,
    };

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

    #[test]
    fn connections_by_side_and_cause() {
        let mut counts = Counts::default();
        let mut count = |from, to, role, cause, retransmits: Option<u32>| {
            let mut transition = transition(from, to, 5_000_000);
            transition.conn.role = role;
            transition.cause = cause;
            transition.traffic =
                retransmits.map(|retransmits| Rc::new(Traffic { retransmits, ..Traffic::default() }));
            counts.transition(&transition);
        };
        let (client, server) = (Some(Role::Client), Some(Role::Server));
        count(State::SynSent, State::Established, client, None, None);
        count(State::SynRecv, State::Established, server, None, None);
        count(State::SynSent, State::Close, client, Some(Cause::Refused), Some(1));
        count(State::FinWait2, State::TimeWait, client, Some(Cause::Fin), Some(0));
        // The connection had ended before.
        count(State::TimeWait, State::Close, client, Some(Cause::Expired), None);
        count(State::LastAck, State::Close, server, None, Some(7));
        count(State::Listen, State::Close, Some(Role::Listener), None, None);
        count(State::Established, State::CloseWait, server, None, None);
        let text = Numbers { counts, ..Numbers::default() }.into_text();
        for line in [
            r#"sockstate_connections_opened_total{role="client"} 1"#,
            r#"sockstate_connections_opened_total{role="server"} 1"#,
            r#"sockstate_connections_closed_total{role="client",cause="refused"} 1"#,
            r#"sockstate_connections_closed_total{role="client",cause="fin"} 1"#,
            r#"sockstate_connections_closed_total{role="server",cause="unknown"} 1"#,
            r#"sockstate_handshake_seconds_sum{role="client"} 0.005"#,
            r#"sockstate_handshake_seconds_bucket{le="0.01",role="server"} 1"#,
            r#"sockstate_connection_retransmits_sum{role="server"} 7.0"#,
            r#"sockstate_connection_retransmits_bucket{le="0.0",role="client"} 1"#,
            r#"sockstate_connection_retransmits_bucket{le="1.0",role="client"} 2"#,
            r#"sockstate_connection_retransmits_bucket{le="5.0",role="server"} 0"#,
            r#"sockstate_connection_retransmits_bucket{le="10.0",role="server"} 1"#,
        ] {
            assert_eq!(text.lines().filter(|other| *other == line).count(), 1, "{line} in {text}");
        }
        assert_eq!(text.matches("sockstate_connections_closed_total{").count(), 3, "{text}");
        // No stream has records of whole connections.
        assert!(!text.contains("sockstate_connection_duration"), "{text}");
    }

    #[test]
    fn lower_bounds_are_no_durations_of_connections() {
        let mut counts = Counts::default();
        for at_least in [false, true] {
            counts.connection(&Lifespan {
                is_final: true,
                time_ns: 0,
                conn: Connection { role: Some(Role::Client), ..Connection::example() },
                begin_ns: 0,
                at_least,
                duration_ns: 2_000_000_000,
                path: Vec::new(),
                cause: None,
                reset_why: None,
                errno: 0,
                exact: true,
                incomplete: false,
                traffic: None,
            });
        }
        let text = Numbers { counts, ..Numbers::default() }.into_text();
        let line = r#"sockstate_connection_duration_seconds_sum{role="client"} 2.0"#;
        assert!(text.lines().any(|other| other == line), "{text}");
    }

    #[test]
    fn labels_of_workloads_have_the_names_of_each_format() {
        let group = |namespace: &str, pod: &str, other| LabelledCounts {
            labels: vec![
                (MetricLabel::Namespace, namespace.to_owned()),
                (MetricLabel::Pod, pod.to_owned()),
                (MetricLabel::Container, String::new()),
            ],
            other,
            counts: BTreeMap::from([("CLOSE_WAIT", 3)]),
        };
        let stuck_by = vec![group("shop", "a\"b\\\n", false), group("", "", true)];
        let totals = SocketTotals { stuck_by, ..SocketTotals::default() };
        let numbers = Numbers { totals, ..Numbers::default() };
        let mut json = Vec::new();
        numbers.otlp_json(&Resource::default(), 1, &mut json);
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        let metrics = json["scopeMetrics"][0]["metrics"].as_array().expect("metrics");
        let metric = metrics.iter().find(|metric| metric["name"] == "sockstate.stuck_sockets_by");
        let points = &metric.expect("the metric")["gauge"]["dataPoints"];
        let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let state = text("state", "CLOSE_WAIT");
        let (namespace, pod) = (text("k8s.namespace.name", "shop"), text("k8s.pod.name", "a\"b\\\n"));
        assert_eq!(points[0]["attributes"], json!([state, namespace, pod]));
        let other = json!({"key": "otel.metric.overflow", "value": {"boolValue": true}});
        assert_eq!(points[1]["attributes"], json!([state, other]));
        let text = numbers.into_text();
        for labels in [
            r#"namespace="shop",pod="a\"b\\\n",container="""#,
            r#"namespace="",pod="",container="",other="true""#,
        ] {
            let line = format!("sockstate_stuck_sockets_by{{state=\"CLOSE_WAIT\",{labels}}} 3");
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }
}
