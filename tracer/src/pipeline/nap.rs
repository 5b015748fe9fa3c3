//! Pauses between two drains of the ring, so that the kernel need not wake the reader for each record. They are slept outside of
//! epoll: there the ring itself would end them.

use std::{num::NonZeroU64, thread, time::Duration};

use rustix::thread::set_current_timer_slack;

use super::BATCH;

/// The first pause after the ring was empty: short, for those who watch.
pub const SHORT_NAP: Duration = Duration::from_micros(50);
/// Pauses double up to this as long as records come.
const NAP: Duration = Duration::from_millis(1);
/// While many records come in a pause, pauses grow up to this: few long runs with warm caches cost half of many short ones. The
/// default ring holds a hundred times what comes in that time.
const LONG_NAP: Duration = Duration::from_millis(8);
/// Records in a pause that are many.
const MANY: usize = BATCH / 4;

/// The next pause.
pub(super) struct Nap {
    least: Duration,
    next: Duration,
    /// Records since the last pause.
    taken: usize,
    is_due: bool,
}

impl Nap {
    /// Pauses are never shorter than `least`.
    pub(super) fn new(least: Duration) -> Self {
        // Otherwise the kernel rounds a sleep up by 50 us, as much as a short pause. Where it refuses, pauses are longer.
        let _ = set_current_timer_slack(NonZeroU64::new(1000));
        Self { least, next: least, taken: 0, is_due: false }
    }

    /// Sleeps, if the last drain has found something and left nothing.
    pub(super) fn take(&mut self) {
        if self.is_due {
            thread::sleep(self.next);
            let longest = if self.taken > MANY { LONG_NAP } else { NAP };
            self.next = (self.next * 2).min(longest).max(self.least);
            self.taken = 0;
        }
    }

    /// A drain has taken `taken` records.
    pub(super) fn drained(&mut self, taken: usize) {
        self.taken += taken;
        self.is_due = taken > 0 && taken < BATCH;
        if taken == 0 {
            self.next = self.least;
        }
    }
}
