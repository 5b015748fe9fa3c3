//! A message for people and a severity for each line, for collectors that have fields for both.

use super::fields::Fields;
use crate::wire::{End, Kind, Line};

/// The severity of a record, as in syslog (RFC 5424, 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

pub(super) fn severity(line: &Line<'_>) -> Severity {
    match &line.kind {
        Kind::Lost(_) => Severity::Error,
        Kind::Stuck(_) => Severity::Warning,
        Kind::Transition(transition) if transition.illegal => Severity::Warning,
        Kind::Start(start) if !start.degraded.is_empty() => Severity::Warning,
        // The stream was wrong before, or something is over that was reported.
        Kind::Resync(_) | Kind::Resolved(_) => Severity::Notice,
        _ => Severity::Info,
    }
}

/// The line as a sentence. `fields` are those of the line.
pub(super) fn message(line: &Line<'_>, fields: &Fields<'_>) -> String {
    let (from, to) = (fields.from.unwrap_or_default(), fields.to.unwrap_or_default());
    let state = fields.state.unwrap_or_default();
    match &line.kind {
        Kind::Transition(_) => {
            let after = fields.in_state_ns.map(|ns| format!(" after {}", seconds(ns))).unwrap_or_default();
            format!("{} {from} -> {to}{after}", connection(fields))
        }
        Kind::Snapshot(_) => format!("{} {state}", connection(fields)),
        Kind::Resync(_) => format!("{} {state}, corrected", connection(fields)),
        Kind::Stuck(stuck) => {
            let why = stuck.explained.as_ref().map(|explained| format!(": {}", explained.why));
            let age = fields.age_ns.map(seconds).unwrap_or_default();
            format!("{} stuck in {state} for {age}{}", connection(fields), why.unwrap_or_default())
        }
        Kind::Resolved(_) => format!("{} no longer stuck: {state} -> {to}", connection(fields)),
        Kind::Aggregate(aggregate) => format!("{} x {from} -> {to}", aggregate.count),
        Kind::Lost(lost) => {
            let since = lost.since.map(|since| format!(" since {since}")).unwrap_or_default();
            let doubt = (lost.in_doubt > 0).then(|| format!(", {} in doubt", lost.in_doubt));
            let count = lost.count.map_or_else(|| "unknown".into(), |count| count.to_string());
            format!("{count} records lost ({}){}{since}", lost.place, doubt.unwrap_or_default())
        }
        Kind::Start(start) => format!("sockstate {} traces", start.version),
        Kind::Stop(stop) => format!("sockstate ends ({})", stop.reason),
        Kind::Other(other) => format!("sockstate: {}", other.kind),
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / 1e9)
}

/// The owner and both ends.
fn connection(fields: &Fields<'_>) -> String {
    let owner = fields.owner.map(|owner| format!("{}[{}] ", owner.comm, owner.pid)).unwrap_or_default();
    let end = |end: Option<&End>| {
        let port = end.and_then(|end| end.port).map_or_else(|| "*".to_owned(), |port| port.to_string());
        match end.map(|end| end.address) {
            Some(address) if address.is_ipv6() => format!("[{address}]:{port}"),
            Some(address) => format!("{address}:{port}"),
            None => format!(":{port}"),
        }
    };
    let ends = fields.ends;
    let local = end(ends.and_then(|ends| ends.local.as_ref()));
    format!("{owner}{local} -> {}", end(ends.and_then(|ends| ends.remote.as_ref())))
}
