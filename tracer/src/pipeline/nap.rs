//! Pauses between two drains of the ring, so that the kernel need not wake the reader for each record. The thread does not
//! wait in epoll during a pause, because the next record in the ring would end the pause.

use std::{num::NonZeroU64, thread, time::Duration};

use rustix::thread::set_current_timer_slack;

use super::BATCH;

/// The first pause after the ring was empty. It is short, for people who watch.
pub const SHORT_NAP: Duration = Duration::from_micros(50);
/// While records come, pauses double up to this duration.
const NAP: Duration = Duration::from_millis(1);
/// While many records come in each pause, pauses grow up to this duration: a few long drains with warm caches cost half as
/// much as many short ones. The default ring has room for a hundred times the records of this duration.
const LONG_NAP: Duration = Duration::from_millis(8);
/// The number of records in a pause that counts as many.
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
    /// The first pause; no pause is shorter than `least`.
    pub(super) fn new(least: Duration) -> Self {
        // Without this, the kernel prolongs a sleep by up to 50 us, as much as a short pause. If the kernel refuses, pauses
        // are longer.
        let _ = set_current_timer_slack(NonZeroU64::new(1000));
        Self { least, next: least, taken: 0, is_due: false }
    }

    /// Sleeps if the last drain has found records and emptied the ring.
    pub(super) fn take(&mut self) {
        if self.is_due {
            thread::sleep(self.next);
            let longest = if self.taken > MANY { LONG_NAP } else { NAP };
            self.next = (self.next * 2).min(longest).max(self.least);
            self.taken = 0;
        }
    }

    /// Notes that a drain has taken `taken` records.
    pub(super) fn drained(&mut self, taken: usize) {
        self.taken += taken;
        self.is_due = taken > 0 && taken < BATCH;
        if taken == 0 {
            self.next = self.least;
        }
    }
}
