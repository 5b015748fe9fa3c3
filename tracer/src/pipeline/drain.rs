//! From the ring to the streams.

use super::{Pipeline, Streams, monotonic_ns, names::look_up_names, now_ns};
use crate::{
    decode::decode,
    examiner::Examiner,
    hunter::Hunter,
    model::{Event, EventKind, LostPlace, Notice, State},
    route::Router,
    track::Applied,
};

impl Pipeline {
    /// Takes up to `most` records from the ring through to the buffer.
    pub(super) fn drain(&mut self, most: usize) -> usize {
        let Self { source, table, enricher, router, streams, examiner, hunter, keeper, .. } = self;
        let mut broken = 0;
        // What the kernel wrote before this moment is in the ring by now, or counted as lost.
        let began_ns = monotonic_ns();
        let mut seen_ns = began_ns;
        let taken = source.drain(most, |bytes| match decode(bytes) {
            Ok(Event { sk, kind: EventKind::Opened(opening), .. }) => {
                if let (Some(hunter), Some(conn)) = (&mut *hunter, table.conn(sk)) {
                    hunter.opened(conn, opening);
                }
            }
            Ok(event) => {
                let mut is_hidden = false;
                let mut out = |applied: Applied| {
                    is_hidden |= begins_hidden(router, &applied);
                    route(router, streams, examiner, hunter, applied);
                };
                table.apply(&event, enricher, &mut out);
                if is_hidden {
                    table.dismiss(event.sk);
                }
                if let (Some(hunter), Some(conn)) = (&mut *hunter, table.conn(event.sk)) {
                    hunter.existed(conn, event.time_ns);
                }
                seen_ns = event.time_ns;
                // Before the ring forgets it.
                if let Some(keeper) = keeper {
                    keeper.set_waiting(table.waiting() + router.waiting() + streams.waiting());
                }
            }
            Err(_) => broken += 1,
        });
        if taken < most {
            seen_ns = began_ns;
        }
        let mut out = |applied: Applied| route(router, streams, examiner, hunter, applied);
        table.tick(seen_ns, enricher, &mut out);
        if let Some(keeper) = keeper {
            keeper.set_waiting(table.waiting() + router.waiting() + streams.waiting());
        }
        if broken > 0 {
            let total = streams.summary.lost.get(&LostPlace::Decode).unwrap_or(&0) + broken;
            // No look in between has found any.
            streams.lost(LostPlace::Decode, total, now_ns(), now_ns());
        }
        taken
    }
}

/// Whether this tells the ends of a connection that the filter excludes: its first records came because they were not known, and
/// nothing more will.
fn begins_hidden(router: &Router, applied: &Applied) -> bool {
    match applied {
        Applied::Transition(it) => it.to != State::Close && router.hides(&it.tuple),
        Applied::Completed(_, tuple) => router.hides(tuple),
        _ => false,
    }
}

/// Hands on what the table says. Whoever hunts only wants what is stuck.
pub(super) fn route(
    router: &mut Router,
    streams: &mut Streams,
    examiner: &mut Examiner,
    hunter: &mut Option<Hunter>,
    applied: Applied,
) {
    match applied {
        Applied::Transition(transition) => {
            // The first one of a connection: it may be in a namespace that has just been made.
            if matches!(transition.from, State::Close | State::Listen) {
                look_up_names(router, streams);
            }
            match hunter {
                Some(hunter) if transition.to == State::Close => hunter.closed(transition.conn),
                Some(_) => {}
                None => router.route(&transition, |transition| streams.transition(transition)),
            }
        }
        Applied::Completed(conn, tuple) => {
            router.completed(conn, &tuple, |transition| streams.transition(transition));
            streams.completed(conn, &tuple);
        }
        Applied::Resync(resync) => match hunter {
            Some(hunter) if resync.state == State::Close => hunter.closed(resync.conn),
            Some(_) => {}
            None if router.wants_resync(&resync) => streams.notice(&Notice::Resync(resync)),
            None => {}
        },
        Applied::Stuck(stuck) => {
            if router.may_want_stuck(&stuck) {
                examiner.suspect(stuck);
            }
        }
        Applied::Resolved(resolved) => {
            // Nothing is said of what moved on while it was being looked at.
            let unsaid = examiner.acquit(resolved.conn);
            let counts = hunter.as_mut().is_none_or(|hunter| hunter.resolved(resolved.conn));
            if router.wants_resolved(&resolved) && !unsaid && counts {
                streams.notice(&Notice::Resolved(resolved));
            }
        }
    }
}
