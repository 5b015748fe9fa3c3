//! What the ring has of a connection, again and again: decoded, and followed by the table.

use std::fs;

use anyhow::{Context, Result};
use sockstate::{
    decode::decode,
    enrich::Enricher,
    model::Thresholds,
    track::{Table, Visibility},
};

use crate::root;

/// The history of a client, from connect() to the end of TIME_WAIT. Each record has its length, one byte, in front.
const HISTORY: &str = "tests/fuzz/corpus/table/client";

/// Longer than the table waits for evidence.
const SECOND_NS: u64 = 1_000_000_000;

/// More than the history takes.
const PERIOD_NS: u64 = 120_000_000_000;

/// The bit in the flags of a record that ends with another socket.
const LISTENER: u8 = 4;

/// From the kernel's sockets of a connection to those of the next one.
const STRIDE: u64 = 4096;

/// The records of the ring, as the kernel programs write them.
pub(super) struct Ring(Vec<Vec<u8>>);

impl Ring {
    pub(super) fn read() -> Result<Self> {
        let bytes = fs::read(root().join(HISTORY)).with_context(|| format!("cannot read {HISTORY}"))?;
        let (mut records, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((len, behind)) = rest.split_first() {
            let (record, behind) = behind.split_at_checked(usize::from(*len)).context("a cut record")?;
            records.push(record.to_vec());
            rest = behind;
        }
        Ok(Self(records))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Makes the records those of the next connection, with other sockets.
    fn advance(&mut self) {
        let add = |number: Option<&mut [u8; 8]>, more: u64| {
            if let Some(number) = number {
                *number = (u64::from_ne_bytes(*number) + more).to_ne_bytes();
            }
        };
        for record in &mut self.0 {
            add(record.first_chunk_mut(), PERIOD_NS);
            add(record.get_mut(8..).and_then(<[u8]>::first_chunk_mut), STRIDE);
            // The record of a mini-socket ends with the full socket that it replaces.
            if record.get(33).is_some_and(|flags| flags & LISTENER != 0) {
                add(record.last_chunk_mut(), STRIDE);
            }
        }
    }

    pub(super) fn decode(&mut self, rounds: u64) -> Result<()> {
        for _ in 0..rounds {
            for record in &self.0 {
                std::hint::black_box(decode(record)?);
            }
            self.advance();
        }
        Ok(())
    }

    /// Returns the number of records that the table made of them. `connections` are records of whole connections besides.
    pub(super) fn follow(&mut self, rounds: u64, connections: bool) -> Result<usize> {
        let visibility = Visibility { minis: true, resets: true, ..Visibility::default() };
        let mut table = Table::new(1, 0, visibility);
        table.set_thresholds(Thresholds::default());
        table.report_connections(connections);
        // Nobody runs below this root, so nothing of this machine changes the numbers.
        let mut enricher = Enricher::new("/nonexistent".into(), false);
        let mut made = 0;
        for _ in 0..rounds {
            let mut last_ns = 0;
            for record in &self.0 {
                let event = decode(record)?;
                last_ns = event.time_ns;
                made += table.apply(&event, &mut enricher).len();
            }
            // As the main loop does when it has emptied the ring: what waits for evidence is decided.
            table.tick(last_ns + SECOND_NS, &mut enricher, &mut |_| made += 1);
            self.advance();
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn each_round_is_a_connection_of_its_own() {
        let made = |rounds, connections| {
            Ring::read().expect("records").follow(rounds, connections).expect("decoded")
        };
        let one = made(1, false);
        assert!(one >= 6, "SYN_SENT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, TIME_WAIT and CLOSE: {one}");
        assert_eq!(made(100, false), 100 * one);
        assert_eq!(made(100, true), 100 * (one + 1), "and a record of the connection");
    }
}
