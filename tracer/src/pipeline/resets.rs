//! Resets for which there is no socket. Others can cause any number of them without effort, so only the first of each second have
//! records, and the others are counted: by the kernel programs, which have the same limit for each CPU, and here.

use super::clock_offset_ns;
use crate::model::{Answered, Reset, Tuple};

const SECOND_NS: u64 = 1_000_000_000;
/// How many of a second have records.
const MOST: u32 = 100;

/// The present second, and what is known of the resets that have no record of their own.
#[derive(Debug, Default)]
pub(super) struct Resets {
    second: u64,
    /// How many of the second have had a record.
    written: u32,
    /// How many were counted here since the last report.
    counted: u64,
    /// How many of those that the kernel programs have counted were reported.
    reported: u64,
    reported_ns: u64,
    /// When a reset was last seen, with or without a record.
    seen_ns: u64,
}

impl Resets {
    /// The record of a reset at `time_ns` (`CLOCK_MONOTONIC`); `None` if it is only counted.
    pub(super) fn record(
        &mut self,
        time_ns: u64,
        netns: Option<u32>,
        tuple: &Tuple,
        flags: u8,
    ) -> Option<Reset> {
        self.seen_ns = self.seen_ns.max(time_ns);
        if time_ns / SECOND_NS != self.second {
            (self.second, self.written) = (time_ns / SECOND_NS, 0);
        }
        if self.written >= MOST {
            self.counted += 1;
            return None;
        }
        self.written += 1;
        let answered = Some(Answered { netns, tuple: tuple.of_any_interface(), flags });
        Some(Reset { time_ns: time_ns as i64 + clock_offset_ns(), answered, count: 1 })
    }

    /// The kernel programs have counted `total` so far. Returns how many are to be reported now: once in a second, or all at the end.
    pub(super) fn report(&mut self, total: u64, now_ns: u64, is_end: bool) -> Option<u64> {
        let new = total.saturating_sub(self.reported) + self.counted;
        if new > 0 {
            self.seen_ns = now_ns;
        }
        if new == 0 || !(is_end || now_ns.saturating_sub(self.reported_ns) >= SECOND_NS) {
            return None;
        }
        (self.reported, self.counted, self.reported_ns) = (total, 0, now_ns);
        Some(new)
    }

    /// How many of those that the kernel programs have counted were reported.
    pub(super) fn reported(&self) -> u64 {
        self.reported
    }

    /// Whether resets may be counted, or have been, of which no record is to come: the number has to be read again.
    pub(super) fn may_be_counted(&self, now_ns: u64) -> bool {
        // The kernel programs and this process look at the clock at different moments.
        now_ns.saturating_sub(self.seen_ns) < SECOND_NS + SECOND_NS / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood of two and a half seconds, whose number is read ten times in a second.
    #[test]
    fn a_flood_is_reported_once_in_a_second_and_exactly() {
        let mut resets = Resets::default();
        let begin_ns = 100 * SECOND_NS;
        let mut reports = Vec::new();
        let mut total = 0;
        let mut read_ns = begin_ns;
        while resets.may_be_counted(read_ns) || read_ns == begin_ns {
            total = if read_ns < begin_ns + 5 * SECOND_NS / 2 { total + 1000 } else { total };
            reports.extend(resets.report(total, read_ns, false));
            read_ns += SECOND_NS / 10;
        }
        assert_eq!(reports.iter().sum::<u64>(), 25_000);
        assert_eq!(reports.len(), 4, "{reports:?}");
        assert!(read_ns < begin_ns + 5 * SECOND_NS, "nothing is read when nothing comes");
    }

    #[test]
    fn each_reset_has_a_record_or_is_counted() {
        let mut resets = Resets::default();
        let record = |resets: &mut Resets, at: u64| {
            resets.record(7 * SECOND_NS + at, Some(1), &Tuple::example(), 2).is_some()
        };
        assert_eq!((0..250).filter(|at| record(&mut resets, *at)).count(), 100);
        assert_eq!(resets.report(1000, 7 * SECOND_NS, false), Some(1150));
        assert!(record(&mut resets, SECOND_NS), "the next second has records again");
    }

    #[test]
    fn the_end_waits_for_no_second() {
        let mut resets = Resets::default();
        assert_eq!(resets.report(7, 10 * SECOND_NS, false), Some(7));
        assert_eq!(resets.report(9, 10 * SECOND_NS + 1, false), None);
        assert_eq!(resets.reported(), 7);
        assert_eq!(resets.report(9, 10 * SECOND_NS + 2, true), Some(2));
        assert_eq!(resets.report(9, 10 * SECOND_NS + 3, true), None);
    }
}
