//! The counts of a sink.

use super::sync::{AtomicI64, AtomicU64, Ordering};

/// Larger than each count of a sink. The process of the sinks may write any number, and sums must not overflow.
pub(super) const MOST_COUNTED: u64 = 1 << 48;

/// What a sink has done, for metrics. All bytes zero is the beginning, as shared memory is.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Status {
    pub(super) delivered: AtomicU64,
    pub(super) delivered_bytes: AtomicU64,
    pub(super) lost: AtomicU64,
    /// Records that the sink's own thread has lost, and that its stream has not reported yet.
    pub(super) unreported_lost: AtomicU64,
    /// Records in doubt that its stream has not reported yet.
    pub(super) unreported_in_doubt: AtomicU64,
    /// The earliest time of the unreported records; 0 if there are none, `i64::MIN` if the time is not known.
    pub(super) unreported_since: AtomicI64,
    pub(super) queued_bytes: AtomicU64,
    pub(super) spooled_bytes: AtomicU64,
    pub(super) failures: AtomicU64,
    /// 1 if the last attempt failed. Not a bool: another process may write any number.
    pub(super) failing: AtomicU64,
    /// Records that the collector may have, and that are not sent again.
    pub(super) in_doubt: AtomicU64,
    /// Records that were pushed.
    pub(super) pushed: AtomicU64,
    /// Pushed records that are delivered, kept on disk, in doubt or lost.
    pub(super) departed: AtomicU64,
    /// Bytes that the sink has taken and not put back.
    pub(super) taken_bytes: AtomicU64,
}

impl AsRef<Self> for Status {
    fn as_ref(&self) -> &Self {
        self
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> u64 {
            self.$name.load(Ordering::Relaxed).min(MOST_COUNTED)
        })*
    };
}

impl Status {
    counts! {
        /// Records that the collector has.
        delivered,
        /// Their bytes.
        delivered_bytes,
        /// Records that it will never get.
        lost,
        /// Bytes that wait in memory.
        queued_bytes,
        /// Bytes that wait on disk.
        spooled_bytes,
        /// Attempts that failed.
        failures,
        /// Records that the collector may have, and that are not sent again.
        in_doubt,
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) != 0
    }

    pub(super) fn deliver(&self, records: usize, bytes: usize) {
        self.delivered.fetch_add(records as u64, Ordering::Relaxed);
        self.delivered_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failing.store(1, Ordering::Relaxed);
    }

    /// The last attempt succeeded. Returns whether the one before had failed.
    pub(super) fn succeed(&self) -> bool {
        self.failing.swap(0, Ordering::Relaxed) != 0
    }

    pub(super) fn spooled(&self, bytes: u64) {
        self.spooled_bytes.store(bytes, Ordering::Relaxed);
    }
}
