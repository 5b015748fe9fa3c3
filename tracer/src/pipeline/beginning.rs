//! From the moment when the programs are attached to the moment when the stream begins. What happens between the two is no
//! part of the stream: it is in the states of the connections that the stream begins with.

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

/// Where the stream begins.
pub struct Beginning {
    /// The wall clock: every later record of the ring is in the stream.
    pub time_ns: i64,
    /// What became of the walk.
    pub found: WalkResult,
}

/// Fills `table` with the sockets that exist, in the states that they are in when the stream begins. What the walk shows of a
/// socket may be older or newer than what the ring has of it; only the order of the ring is certain.
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
    // A record that is being written for too long is left to the stream.
    while !source.has_read(written) && Instant::now() < deadline {
        if source.drain(1, |bytes| apply(table, enricher, bytes)) == 0 {
            thread::sleep(SHORT_NAP);
        }
    }
    table.tick(began_ns, enricher, &mut |_: Update| {});
    table.end_walk();
    Beginning { time_ns, found }
}

/// What cannot be decoded is counted from the beginning of the stream on.
fn apply(table: &mut Table, enricher: &mut Enricher, bytes: &[u8]) {
    if let Ok(event) = decode(bytes) {
        table.apply(&event, enricher);
    }
}
