//! Passes records from the ring through the table and the filters to the streams.

use std::rc::Rc;

use super::{Pipeline, Streams, monotonic_ns, names::look_up_names, now_ns};
use crate::{
    decode::decode,
    examiner::Examiner,
    hunter::Hunter,
    model::{Connection, Event, EventKind, Lifespan, LostPlace, Record, State},
    route::Router,
    source::{FoundNat, NatFinder},
    track::Update,
};

impl Pipeline {
    /// Passes up to `most` records from the ring to the buffers of the streams.
    pub(super) fn drain(&mut self, most: usize) -> usize {
        self.exchange_nats();
        let Self { source, table, enricher, router, streams, examiner, nats, hunter, state_writer, .. } =
            self;
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
            Ok(Event { time_ns, netns, tuple, kind: EventKind::Reset { flags }, .. }) => {
                if let Some(reset) = streams.resets.record(time_ns, netns, &tuple, flags) {
                    router.route(&Record::Reset(reset), |record| streams.record(record));
                }
            }
            Ok(event) => {
                let mut is_hidden = false;
                for update in table.apply(&event, enricher) {
                    is_hidden |= begins_hidden(router, update);
                    if let Some(conn) = to_translate(update) {
                        nats.ask(event.sk, conn, began_ns);
                    }
                    if !awaits_nat(nats, update, began_ns) {
                        report(router, streams, examiner, hunter, update);
                    }
                }
                if is_hidden {
                    table.dismiss(event.sk);
                }
                if let Some(hunter) = &mut *hunter
                    && let Some(conn) = table.conn(event.sk)
                {
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
        let mut out = |update: Update| {
            if !awaits_nat(nats, &update, began_ns) {
                report(router, streams, examiner, hunter, &update);
            }
        };
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
        self.exchange_nats();
        taken
    }

    /// Asks for the translations of new connections, and adds those that were found to the table.
    fn exchange_nats(&mut self) {
        let now_ns = monotonic_ns();
        let found = self.nats.exchange(now_ns);
        self.apply_nats(&found, now_ns);
    }

    /// Adds translations to the table, and reports the ends of connections that have waited for them.
    pub(super) fn apply_nats(&mut self, found: &[FoundNat], now_ns: u64) {
        for FoundNat { conn, sk, nat } in found {
            self.table.set_nat(*sk, *conn, *nat);
        }
        let Self { nats, router, streams, .. } = self;
        for (mut lifespan, nat) in nats.ended(found, now_ns) {
            lifespan.conn.nat = nat.map(Rc::new);
            router.route(&Record::Connection(lifespan), |record| streams.record(record));
        }
    }
}

/// The connection of an update that shows it for the first time with its packets on the way: conntrack has its entry then.
fn to_translate(update: &Update) -> Option<&Connection> {
    let Update::Record(Record::Transition(transition)) = update else { return None };
    let begins = transition.to == State::Established;
    let is_older = transition.in_state.is_some_and(|time| time.at_least) && transition.to != State::Close;
    (begins || is_older).then_some(&transition.conn)
}

/// Whether this update is the end of a connection that waits for its translation.
fn awaits_nat(nats: &mut NatFinder<Box<Lifespan>>, update: &Update, now_ns: u64) -> bool {
    let Update::Record(Record::Connection(lifespan)) = update else { return false };
    nats.delays(lifespan.conn.id, || lifespan.clone(), now_ns)
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
