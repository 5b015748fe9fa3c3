//! Passes records from the ring through the table and the filters to the streams.

use super::{Pipeline, Streams, monotonic_ns, names::look_up_names, now_ns};
use crate::{
    decode::decode,
    examiner::Examiner,
    hunter::Hunter,
    model::{Event, EventKind, LostPlace, Record, State},
    route::Router,
    track::Update,
};

impl Pipeline {
    /// Passes up to `most` records from the ring to the buffers of the streams.
    pub(super) fn drain(&mut self, most: usize) -> usize {
        let Self { source, table, enricher, router, streams, examiner, hunter, state_writer, .. } = self;
        let mut broken = 0;
        // What is in memory may become a loss by a crash.
        if let (Some(most), writer) = (source.most_of_overlap(), &state_writer) {
            if let Some(writer) = writer {
                writer.note_waiting(table.waiting() + router.waiting() + streams.waiting() + most);
            }
            broken += source.read_overlap();
        }
        let in_memory = source.in_memory();
        // Records that the kernel wrote before this moment are in the ring, or counted as lost.
        let began_ns = monotonic_ns();
        let mut seen_ns = 0;
        let taken = source.drain(most, |bytes| match decode(bytes) {
            Ok(Event { sk, kind: EventKind::Opened(opening), .. }) => {
                if let (Some(hunter), Some(conn)) = (&mut *hunter, table.conn(sk)) {
                    hunter.opened(conn, opening);
                }
            }
            Ok(event) => {
                let mut is_hidden = false;
                for update in table.apply(&event, enricher) {
                    is_hidden |= begins_hidden(router, update);
                    report(router, streams, examiner, hunter, update);
                }
                if is_hidden {
                    table.dismiss(event.sk);
                }
                if let (Some(hunter), Some(conn)) = (&mut *hunter, table.conn(event.sk)) {
                    hunter.existed(conn, event.time_ns);
                }
                seen_ns = event.time_ns;
                // The numbers are stored before the ring drops the record.
                if let Some(writer) = state_writer {
                    writer.note_waiting(table.waiting() + router.waiting() + streams.waiting() + in_memory);
                }
            }
            Err(_) => broken += 1,
        });
        // While an upgrade reads the earlier ring, later records wait in the new one.
        if taken < most && !source.is_upgrading() {
            seen_ns = began_ns;
        }
        let mut out = |update: Update| report(router, streams, examiner, hunter, &update);
        table.tick(seen_ns, enricher, &mut out);
        if let Some(writer) = state_writer {
            // Before a queue gets the records of new connections.
            writer.note_last_id(table.last_id());
            let waiting = table.waiting() + router.waiting() + streams.waiting();
            writer.note_waiting(waiting + source.in_memory());
        }
        if broken > 0 {
            let total = streams.summary.lost.get(&LostPlace::Decode).unwrap_or(&0) + broken;
            // Each drain reports its own decode errors at once, so the interval of the loss is empty.
            streams.lost(LostPlace::Decode, total, now_ns(), now_ns());
        }
        if let Some(writer) = state_writer
            && !source.is_upgrading()
        {
            writer.finish_upgrade(table);
        }
        taken
    }
}

/// Whether this update completes the addresses and ports of a connection that the filter excludes. The kernel's filter let the
/// connection's first records pass because they were not known; it lets no more records pass.
fn begins_hidden(router: &Router, update: &Update) -> bool {
    match update {
        Update::Record(Record::Transition(transition)) => {
            transition.to != State::Close && router.hides(&transition.conn.tuple)
        }
        Update::Record(_) => false,
        Update::Completed(_, tuple) => router.hides(tuple),
    }
}

/// Reports an update of the table. A hunt reports only what is stuck.
pub(super) fn report(
    router: &mut Router,
    streams: &mut Streams,
    examiner: &mut Examiner,
    hunter: &mut Option<Hunter>,
    update: &Update,
) {
    let record = match update {
        Update::Record(record) => record,
        Update::Completed(conn, tuple) => {
            router.completed(*conn, tuple, |record| streams.record(record));
            return streams.completed(*conn, tuple);
        }
    };
    match record {
        Record::Transition(transition) => {
            // The first record of a connection may show a network namespace that was just created.
            if matches!(transition.from, State::Close | State::Listen) {
                look_up_names(router, streams);
            }
            if let Some(hunter) = hunter {
                if transition.to == State::Close {
                    hunter.closed(transition.conn.id);
                }
                return;
            }
        }
        Record::Resync(resync) => {
            if let Some(hunter) = hunter {
                if resync.state == State::Close {
                    hunter.closed(resync.conn.id);
                }
                return;
            }
        }
        Record::Stuck(stuck) => {
            if router.may_want_stuck(stuck) {
                examiner.enqueue(stuck.clone());
            }
            return;
        }
        Record::Resolved(resolved) => {
            // A connection that has moved on during the look gets no record.
            let is_unreported = examiner.cancel(resolved.conn.id);
            let counts = hunter.as_mut().is_none_or(|hunter| hunter.resolved(resolved.conn.id));
            if is_unreported || !counts {
                return;
            }
        }
        _ => {}
    }
    router.route(record, |record| streams.record(record));
}
