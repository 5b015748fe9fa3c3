//! How far one sink has come, as numbers that outlive the process. Whenever the process is killed, no number is given
//! twice, and everything that was numbered is settled, or is lost and counted by the next process.

use super::sync::{AtomicU64, Ordering};

/// The numbers of one sink.
pub(crate) struct Counts<'a> {
    /// The instance that gave the numbers.
    pub(crate) instance: &'a AtomicU64,
    /// The last number that was given.
    pub(crate) numbered: &'a AtomicU64,
    /// How many records are delivered, on disk, or reported as lost.
    pub(crate) settled: &'a AtomicU64,
    /// How many transitions have no number yet.
    pub(crate) held: &'a AtomicU64,
    /// How many records are in doubt and not reported.
    pub(crate) in_doubt: &'a AtomicU64,
}

/// What the process of the sinks has counted, beside these numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Apart {
    pub(crate) settled: i64,
    pub(crate) in_doubt: i64,
}

/// Where a stream continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The last number that was given.
    pub seq: u64,
    /// Records that were neither delivered nor kept nor reported as lost.
    pub unsettled: u64,
    /// Records that the collector may have, and that are not reported yet.
    pub in_doubt: u64,
}

impl Counts<'_> {
    /// Continues after the last number that `instance` has given; another instance begins with 1. `waiting` records are lost
    /// beside those that have a number.
    pub(crate) fn resume(&self, instance: u32, waiting: u64, apart: Apart) -> ResumePoint {
        let last = self.numbered.load(Ordering::Relaxed);
        let settled = self.settled.load(Ordering::Relaxed).wrapping_add_signed(apart.settled);
        let open = last.wrapping_sub(settled).cast_signed();
        let unsettled = open.max(0).cast_unsigned() + self.held.swap(0, Ordering::Relaxed) + waiting;
        let is_same = self.instance.swap(u64::from(instance), Ordering::Relaxed) == u64::from(instance);
        let seq = if is_same { last } else { 0 };
        self.numbered.store(seq, Ordering::Relaxed);
        // These stay unsettled until they are reported. What is counted apart stays there, so that one store suffices.
        let settled = seq.wrapping_sub(unsettled).wrapping_sub(apart.settled.cast_unsigned());
        self.settled.store(settled, Ordering::Relaxed);
        let in_doubt = self.in_doubt.load(Ordering::Relaxed).wrapping_add_signed(apart.in_doubt);
        ResumePoint { seq, unsettled, in_doubt: in_doubt.cast_signed().max(0).cast_unsigned() }
    }

    pub(crate) fn number(&self, seq: u64) {
        self.numbered.store(seq, Ordering::Relaxed);
    }

    pub(crate) fn settle(&self, records: i64) {
        self.settled.fetch_add(records.cast_unsigned(), Ordering::Relaxed);
    }

    pub(crate) fn doubt(&self, records: i64) {
        self.in_doubt.fetch_add(records.cast_unsigned(), Ordering::Relaxed);
    }

    pub(crate) fn hold(&self, count: u64) {
        self.held.store(count, Ordering::Relaxed);
    }
}
