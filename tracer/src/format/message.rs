//! A message for people and a severity for each line, for collectors that have fields for both.

use std::fmt::{self, Display};

use super::fields::Fields;
use crate::wire::{Bytes, End, Kind, Line};

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
pub(super) fn message<'a>(line: &'a Line<'_>, fields: &'a Fields<'_>) -> impl Display + 'a {
    fmt::from_fn(move |f| {
        let (from, to) = (fields.from.unwrap_or_default(), fields.to.unwrap_or_default());
        let state = fields.state.unwrap_or_default();
        match &line.kind {
            Kind::Transition(_) => {
                connection(fields, f)?;
                write!(f, "{from} -> {to}")?;
                fields.in_state_ns.map_or(Ok(()), |ns| write!(f, " after {}", seconds(ns)))
            }
            Kind::Snapshot(_) => {
                connection(fields, f)?;
                f.write_str(state)
            }
            Kind::Resync(_) => {
                connection(fields, f)?;
                write!(f, "{state}, corrected")
            }
            Kind::Stuck(stuck) => {
                connection(fields, f)?;
                write!(f, "stuck in {state} for ")?;
                fields.age_ns.map_or(Ok(()), |ns| seconds(ns).fmt(f))?;
                stuck.explained.as_ref().map_or(Ok(()), |explained| write!(f, ": {}", explained.why))
            }
            Kind::Resolved(_) => {
                connection(fields, f)?;
                write!(f, "no longer stuck: {state} -> {to}")
            }
            Kind::Connection(lifespan) => {
                connection(fields, f)?;
                f.write_str(if lifespan.is_final { "closed" } else { "open" })?;
                let when = if lifespan.is_final { "after" } else { "for" };
                fields.duration_ns.map_or(Ok(()), |ns| write!(f, " {when} {}", seconds(ns)))?;
                fields.cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))?;
                lifespan.traffic.map_or(Ok(()), |traffic| {
                    let Bytes { sent, received } = traffic.bytes;
                    write!(f, ", {sent} bytes sent, {received} received")
                })
            }
            Kind::Aggregate(aggregate) if aggregate.of_connections => {
                write!(f, "{} connections were never established", aggregate.count)?;
                aggregate.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Kind::Aggregate(aggregate) => write!(f, "{} x {from} -> {to}", aggregate.count),
            Kind::Reset(reset) => match &reset.segment {
                Some(segment) => {
                    end(segment.ends.local.as_ref(), f)?;
                    f.write_str(" <- ")?;
                    end(segment.ends.remote.as_ref(), f)?;
                    segment.flags.iter().try_for_each(|flag| write!(f, " {flag}"))?;
                    f.write_str(": reset, there is no socket")
                }
                None => write!(f, "{} more resets, there are no sockets", reset.count),
            },
            Kind::Lost(lost) => {
                match lost.count {
                    Some(count) => count.fmt(f)?,
                    None => f.write_str("unknown")?,
                }
                write!(f, " records lost ({})", lost.place)?;
                if lost.in_doubt > 0 {
                    write!(f, ", {} in doubt", lost.in_doubt)?;
                }
                lost.since.map_or(Ok(()), |since| write!(f, " since {since}"))
            }
            Kind::Start(start) => write!(f, "sockstate {} traces", start.version),
            Kind::Stop(stop) => write!(f, "sockstate ends ({})", stop.reason),
            Kind::Other(other) => write!(f, "sockstate: {}", other.kind),
        }
    })
}

fn seconds(ns: u64) -> impl Display {
    fmt::from_fn(move |f| write!(f, "{:.3} s", ns as f64 / 1e9))
}

/// Writes the owner and both ends, and a space.
fn connection(fields: &Fields<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(owner) = fields.owner {
        write!(f, "{}[{}] ", owner.comm, owner.pid)?;
    }
    let ends = fields.ends;
    end(ends.and_then(|ends| ends.local.as_ref()), f)?;
    f.write_str(" -> ")?;
    end(ends.and_then(|ends| ends.remote.as_ref()), f)?;
    f.write_str(" ")
}

fn end(end: Option<&End>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match end.map(|end| end.address) {
        Some(address) if address.is_ipv6() => write!(f, "[{address}]:")?,
        Some(address) => write!(f, "{address}:")?,
        None => f.write_str(":")?,
    }
    match end.and_then(|end| end.port) {
        Some(port) => port.fmt(f),
        None => f.write_str("*"),
    }
}
