//! The line of a [`wire::Lifespan`](crate::wire::Lifespan), written by hand: with connections instead of transitions, nearly all
//! records are connections.

use super::{Json, append, error, text, text_or_null};
use crate::{
    format::line::{Fragment, Line, append_up_to, hex},
    model::{Cause, ClosedFirst, Lifespan, PathStep, State, Traffic},
};

/// How many steps of a path a part of the line has room for: the longest path of the connection table.
const STEPS: usize = 9;

/// Bytes for the times and for [`STEPS`].
const TIMES_AND_STEPS: usize = 1024;

/// Bytes for the beginning of a step.
pub(super) const STEP: usize = 48;

/// The values from `closed_first` to `incomplete`, which many connections share.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct LifespanEnd {
    closed_first: Option<ClosedFirst>,
    cause: Option<Cause>,
    reset_why: Option<&'static str>,
    errno: u16,
    exact: bool,
    incomplete: bool,
}

impl LifespanEnd {
    fn of(lifespan: &Lifespan) -> Self {
        let Lifespan { cause, reset_why, errno, exact, incomplete, .. } = *lifespan;
        Self { closed_first: lifespan.closed_first(), cause, reset_why, errno, exact, incomplete }
    }

    /// The number of its slot: the frequent ones have different slots.
    fn number(self) -> u64 {
        let closed_first = self.closed_first.map_or(0, |side| 1 + side as u64);
        let cause = self.cause.map_or(0, |cause| 1 + cause as u64);
        cause << 2 ^ closed_first ^ u64::from(self.errno)
    }

    fn write(self, out: &mut Vec<u8>) {
        text_or_null("closed_first", self.closed_first.map(ClosedFirst::name), out);
        text_or_null("cause", self.cause.map(Cause::name), out);
        text("reset_why", self.reset_why, out);
        if self.errno != 0 {
            error(self.errno, out);
        }
        out.extend_from_slice(if self.exact { br#","exact":true"# } else { br#","exact":false"# });
        if self.incomplete {
            out.extend_from_slice(br#","incomplete":true"#);
        }
    }
}

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
        let (first_steps, steps) = lifespan.path.split_at(lifespan.path.len().min(STEPS));
        append_up_to::<TIMES_AND_STEPS>(out, |line| {
            line.text(br#","begin":""#);
            self.begin_times.nanoseconds(lifespan.begin_ns, line);
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
            line.text(br#","path":["#);
            for (at, step) in first_steps.iter().enumerate() {
                if at > 0 {
                    line.text(b",");
                }
                self.write_step(step, line);
            }
        });
        // Only a recording of something else has more.
        for steps in steps.chunks(STEPS) {
            append_up_to::<TIMES_AND_STEPS>(out, |line| {
                for step in steps {
                    line.text(b",");
                    self.write_step(step, line);
                }
            });
        }
        out.push(b']');
        let end = LifespanEnd::of(lifespan);
        out.extend_from_slice(self.lifespan_ends.get(end.number(), end, |end, out| end.write(out)));
        if let Some(counters) = &lifespan.traffic {
            traffic(counters, out);
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_step(&mut self, step: &PathStep, line: &mut Line<'_>) {
        match self.steps.get_mut(usize::from(step.state.number())) {
            Some(known) => line.fragment(known.get_or_insert_with(|| step_of(step.state))),
            None => line.fragment(&step_of(step.state)),
        }
        if let Some(ns) = step.ns {
            line.text(br#","ns":"#);
            line.number(ns);
        }
        line.text(b"}");
    }
}

/// The beginning of a step of a path.
fn step_of(state: State) -> Fragment<STEP> {
    let mut text = br#"{"state":""#.to_vec();
    super::state(state, "state", &mut text);
    Fragment::new(&text)
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
