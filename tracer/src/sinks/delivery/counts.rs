//! How far one sink has come, as four numbers that outlive the process: whatever moment it is killed in, no number is given twice, and
//! everything that was numbered is settled, or is lost and counted by the next one.

use super::sync::{AtomicU64, Ordering};

/// The numbers.
pub(super) struct Counts<'a> {
    /// Whose numbers they are.
    pub(super) whose: &'a AtomicU64,
    /// The last one that was given.
    pub(super) numbered: &'a AtomicU64,
    /// How many are delivered, on disk, or reported as lost.
    pub(super) settled: &'a AtomicU64,
    /// How many have no number yet.
    pub(super) held: &'a AtomicU64,
    /// How many are in doubt and not reported.
    pub(super) doubtful: &'a AtomicU64,
}

/// Where a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The last number that was given.
    pub seq: u64,
    /// Records that were neither delivered nor kept nor said to be lost.
    pub unsettled: u64,
    /// Records that the collector may have, and that are not reported yet.
    pub in_doubt: u64,
}

impl Counts<'_> {
    /// Goes on behind the last number that `instance` has given, or begins with its first. Beside what has a number, `waiting`
    /// records are lost.
    pub(super) fn begin(&self, instance: u32, waiting: u64) -> Begun {
        let last = self.numbered.load(Ordering::Relaxed);
        let open = last.wrapping_sub(self.settled.load(Ordering::Relaxed)).cast_signed();
        let unsettled = open.max(0).cast_unsigned() + self.held.swap(0, Ordering::Relaxed) + waiting;
        let is_same = self.whose.swap(u64::from(instance), Ordering::Relaxed) == u64::from(instance);
        let seq = if is_same { last } else { 0 };
        self.numbered.store(seq, Ordering::Relaxed);
        // They stay so until that has been said.
        self.settled.store(seq.wrapping_sub(unsettled), Ordering::Relaxed);
        Begun { seq, unsettled, in_doubt: self.doubtful.load(Ordering::Relaxed) }
    }

    pub(super) fn number(&self, seq: u64) {
        self.numbered.store(seq, Ordering::Relaxed);
    }

    pub(super) fn settle(&self, records: i64) {
        self.settled.fetch_add(records.cast_unsigned(), Ordering::Relaxed);
    }

    pub(super) fn doubt(&self, records: i64) {
        self.doubtful.fetch_add(records.cast_unsigned(), Ordering::Relaxed);
    }

    pub(super) fn hold(&self, count: u64) {
        self.held.store(count, Ordering::Relaxed);
    }
}
