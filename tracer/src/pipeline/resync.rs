//! Compares the table of connections with the kernel's tables, and corrects the stream.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    BATCH, Pipeline, SHORT_NAP, drain::report, monotonic_ns, names::look_up_names, now_ns,
    streams::BURST_BUFFER,
};
use crate::{
    source::{NetnsThread, TableScan},
    track::{KernelTables, PATIENCE_NS, Update},
};

/// When and how the table is corrected.
pub struct Resyncer {
    /// The thread that enters namespaces.
    pub walker: NetnsThread,
    /// How often, without a loss.
    pub every: Duration,
    /// The only namespace that is traced.
    pub only: Option<u32>,
}

impl Pipeline {
    /// Compares the table with the kernel's, twice where they differ. False where it could not be done.
    pub(super) fn resync(&mut self) -> bool {
        let Some(resync) = self.resync.take() else { return false };
        let done = self.compare(&resync).is_some();
        self.resync = Some(resync);
        done
    }

    fn compare(&mut self, resync: &Resyncer) -> Option<()> {
        self.watch_owners();
        look_up_names(&self.router, &self.streams);
        let first = self.look(resync)?;
        let differences = self.table.differences(&shown(&first));
        self.table.forget_unknown(&shown(&first));
        if !differences.is_empty() {
            let second = self.look(resync)?;
            let Self { table, enricher, router, streams, examiner, hunter, state_writer, .. } = self;
            if let Some(writer) = state_writer {
                // Sinks may get records of new connections, at most one for each difference, before the last id is known.
                writer.note_last_id(table.last_id() + differences.len() as u64);
            }
            let mut out = |update: Update| {
                report(router, streams, examiner, hunter, &update);
                streams.relieve();
            };
            table.correct_confirmed(&differences, &shown(&second), enricher, &mut out);
            streams.doubt_connections(table.take_doubted(), now_ns());
        }
        Some(())
    }

    /// Reads the kernel's tables, and then all records of what had happened until the reading.
    fn look(&mut self, resync: &Resyncer) -> Option<TableScan> {
        let mut look = self.source.scan_tables(&resync.walker, resync.only, monotonic_ns());
        look.sockets.retain(|event| !self.router.hides(&event.tuple));
        self.catch_up().then_some(look)
    }

    /// Reads all records that the kernel has written so far; false if a record stays unfinished for too long.
    fn catch_up(&mut self) -> bool {
        let written = self.source.written();
        let deadline = Instant::now() + Duration::from_nanos(PATIENCE_NS);
        while !self.source.has_read(written) {
            let taken = self.drain(BATCH);
            self.streams.hand_over_ready(now_ns(), BURST_BUFFER);
            if taken == 0 {
                if Instant::now() >= deadline {
                    return false;
                }
                thread::sleep(SHORT_NAP);
            }
        }
        true
    }
}

fn shown(scan: &TableScan) -> KernelTables<'_> {
    let TableScan { began_ns, namespaces, sockets, endpoints, held } = scan;
    KernelTables { began_ns: *began_ns, namespaces, sockets, endpoints, held: held.as_ref() }
}
