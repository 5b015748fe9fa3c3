//! Our JSON lines in the words of others: done in a sink's own thread, so that none of it holds up the one that reads records.

mod ecs;
mod journal;
mod otlp;
mod syslog;

use serde_json::Value;

pub use ecs::{ecs, ecs_label};
pub use journal::journal;
pub use otlp::{otlp_json, otlp_json_envelope, otlp_protobuf, otlp_protobuf_envelope, otlp_resource};
pub use syslog::Syslog;

/// How much a record matters, by syslog's scale (RFC 5424, 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// A line as a value; `None` for what is no record of ours.
fn record(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn severity(record: &Value) -> Severity {
    match text(record, "kind") {
        "lost" => Severity::Error,
        "stuck" => Severity::Warning,
        _ if record["illegal"] == true => Severity::Warning,
        "start" if record["degraded"].as_array().is_some_and(|reasons| !reasons.is_empty()) => {
            Severity::Warning
        }
        // The stream was wrong before, or something is over that was reported.
        "resync" | "resolved" => Severity::Notice,
        _ => Severity::Info,
    }
}

/// The record in a line for people.
fn message(it: &Value) -> String {
    let owner = it["owner"].as_object().map(|owner| {
        let comm = owner.get("comm").and_then(Value::as_str).unwrap_or_default();
        format!("{comm}[{}] ", owner.get("pid").unwrap_or(&Value::Null))
    });
    let end = |key: &str| {
        let (address, port) = (text(&it[key], "address"), it[key]["port"].as_u64());
        let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    };
    let head = || format!("{}{} -> {}", owner.clone().unwrap_or_default(), end("local"), end("remote"));
    let seconds = |key: &str| it[key].as_u64().map(|ns| format!("{:.3} s", ns as f64 / 1e9));
    match text(it, "kind") {
        "transition" => {
            let after = seconds("in_state_ns").map(|time| format!(" after {time}")).unwrap_or_default();
            format!("{} {} -> {}{after}", head(), text(it, "from"), text(it, "to"))
        }
        "snapshot" => format!("{} {}", head(), text(it, "state")),
        "resync" => format!("{} {}, corrected", head(), text(it, "state")),
        "stuck" => {
            let reason = it["why"].as_str();
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!(
                "{} stuck in {} for {}{reason}",
                head(),
                text(it, "state"),
                seconds("age_ns").unwrap_or_default()
            )
        }
        "resolved" => format!("{} no longer stuck: {} -> {}", head(), text(it, "state"), text(it, "to")),
        "aggregate" => format!("{} x {} -> {}", it["count"], text(it, "from"), text(it, "to")),
        "lost" => {
            let since = it["since"].as_str().map(|since| format!(" since {since}")).unwrap_or_default();
            let doubt =
                it["in_doubt"].as_u64().map(|count| format!(", {count} in doubt")).unwrap_or_default();
            format!("{} records lost ({}){doubt}{since}", it["count"], text(it, "place"))
        }
        "start" => format!("sockstate {} traces", text(it, "version")),
        "stop" => format!("sockstate ends ({})", text(it, "reason")),
        kind => format!("sockstate: {kind}"),
    }
}
