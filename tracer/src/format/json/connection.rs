//! The line of a [`wire::Lifespan`](crate::wire::Lifespan), written by hand: with connections instead of transitions, nearly all
//! records are connections.

use super::{Json, append, error, text, text_or_null};
use crate::{
    format::line::{Line, hex},
    model::{Cause, ClosedFirst, Lifespan, PathStep, State, Traffic},
};

/// How many steps of a path a part of the line has room for.
const STEPS: usize = 4;

impl Json {
    pub(super) fn connection(&mut self, seq: u64, lifespan: &Lifespan, out: &mut Vec<u8>) {
        let conn = &lifespan.conn;
        append(out, |line| {
            line.text(br#"{"schema":"sockstate/1","kind":"connection","seq":"#);
            line.number(seq);
            line.text(br#","time":""#);
            self.times.nanoseconds(lifespan.time_ns, line);
            if lifespan.is_final {
                line.text(br#"Z","final":true,"conn":""#);
            } else {
                line.text(br#"Z","final":false,"conn":""#);
            }
            line.text(&hex(conn.id.0));
            line.text(b"\"");
            line.fragment(&self.roles[conn.role.map_or(0, |role| 1 + role as usize)]);
        });
        out.extend_from_slice(&self.stamp_text);
        self.last_middle(conn, out);
        append(out, |line| {
            line.text(br#","begin":""#);
            self.times.nanoseconds(lifespan.begin_ns, line);
            line.text(br#"Z","end":""#);
            self.times.nanoseconds(lifespan.time_ns, line);
            line.text(br#"Z","duration_ns":"#);
            line.number(lifespan.duration_ns);
            if lifespan.at_least {
                line.text(br#","at_least":true"#);
            }
            if let Some(ns) = lifespan.handshake_ns() {
                line.text(br#","handshake_ns":"#);
                line.number(ns);
            }
        });
        path(&lifespan.path, out);
        text_or_null("closed_first", lifespan.closed_first().map(ClosedFirst::name), out);
        text_or_null("cause", lifespan.cause.map(Cause::name), out);
        text("reset_why", lifespan.reset_why, out);
        if lifespan.errno != 0 {
            error(lifespan.errno, out);
        }
        out.extend_from_slice(if lifespan.exact { br#","exact":true"# } else { br#","exact":false"# });
        if lifespan.incomplete {
            out.extend_from_slice(br#","incomplete":true"#);
        }
        if let Some(counters) = &lifespan.traffic {
            traffic(counters, out);
        }
        out.extend_from_slice(b"}\n");
    }
}

fn path(steps: &[PathStep], out: &mut Vec<u8>) {
    out.extend_from_slice(br#","path":["#);
    for (nth, steps) in steps.chunks(STEPS).enumerate() {
        append(out, |line| {
            for (at, step) in steps.iter().enumerate() {
                if nth + at > 0 {
                    line.text(b",");
                }
                write_step(step, line);
            }
        });
    }
    out.push(b']');
}

fn write_step(step: &PathStep, line: &mut Line<'_>) {
    line.text(br#"{"state":""#);
    line.bytes(step.state.name().as_bytes());
    line.text(b"\"");
    if let State::Unknown(code) = step.state {
        line.text(br#","state_number":"#);
        line.number(code.into());
    }
    if let Some(ns) = step.ns {
        line.text(br#","ns":"#);
        line.number(ns);
    }
    line.text(b"}");
}

/// The keys of a [`wire::Traffic`](crate::wire::Traffic).
pub(super) fn traffic(traffic: &Traffic, out: &mut Vec<u8>) {
    append(out, |line| {
        line.text(br#","bytes":{"sent":"#);
        line.number(traffic.bytes_sent);
        line.text(br#","received":"#);
        line.number(traffic.bytes_received);
        line.text(br#"},"segments":{"sent":"#);
        line.number(traffic.segments_sent.into());
        line.text(br#","received":"#);
        line.number(traffic.segments_received.into());
        line.text(br#"},"retransmits":"#);
        line.number(traffic.retransmits.into());
        line.text(br#","rtt":{"smoothed_ns":"#);
        number_or_null(traffic.rtt_smoothed_ns, line);
        line.text(br#","min_ns":"#);
        number_or_null(traffic.rtt_min_ns, line);
        line.text(br#"},"unread_bytes":"#);
        line.number(traffic.unread_bytes);
    });
}

fn number_or_null(value: Option<u64>, line: &mut Line<'_>) {
    match value {
        Some(value) => line.number(value),
        None => line.text(b"null"),
    }
}
