//! The time between the attachment of the programs and the beginning of the stream. Transitions in this time are not in the
//! stream: the states of the connections at the beginning of the stream include them.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{SHORT_NAP, monotonic_ns, now_ns};
use crate::{
    decode::decode,
    enrich::Enricher,
    source::{KernelSource, WalkItem, WalkResult},
    track::{PATIENCE_NS, Table, Update},
};

/// The beginning of the stream.
pub struct Beginning {
    /// The time by the wall clock. Every later record of the ring is in the stream.
    pub time_ns: i64,
    /// The result of the walk.
    pub found: WalkResult,
}

/// Fills `table` with the existing sockets, in their states at the beginning of the stream. The walk may show an older or
/// newer state of a socket than the records in the ring. Only the order of the records in the ring is certain.
pub fn begin(
    source: &mut KernelSource,
    table: &mut Table,
    enricher: &mut Enricher,
    only: Option<u32>,
) -> Beginning {
    table.begin_walk();
    let found = source.walk(only, |walked| match walked {
        WalkItem::Existing(event) => {
            table.apply(&event, enricher);
        }
        WalkItem::Record(bytes) => apply(table, enricher, bytes),
    });
    let (began_ns, written, time_ns) = (monotonic_ns(), source.written(), now_ns());
    let deadline = Instant::now() + Duration::from_nanos(PATIENCE_NS);
    // If a record stays unfinished for too long, it becomes a part of the stream.
    while !source.has_read(written) && Instant::now() < deadline {
        if source.drain(1, |bytes| apply(table, enricher, bytes)) == 0 {
            thread::sleep(SHORT_NAP);
        }
    }
    table.tick(began_ns, enricher, &mut |_: Update| {});
    table.end_walk();
    Beginning { time_ns, found }
}

/// Counts records that cannot be decoded, from the beginning of the stream on.
fn apply(table: &mut Table, enricher: &mut Enricher, bytes: &[u8]) {
    if let Ok(event) = decode(bytes) {
        table.apply(&event, enricher);
    }
}
