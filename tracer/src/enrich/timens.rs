//! The time namespace of this process (time_namespaces(7)), whose clocks differ from those that the kernel programs read.

use std::{fs, sync::OnceLock, thread};

use rustix::time::{ClockId, clock_gettime};

use super::stat::Stat;
use crate::{model::Task, procfs::TICK_NS};

/// Offsets that the namespace adds to the kernel's clocks, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOffsets {
    /// Offset of `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// Offset of `CLOCK_BOOTTIME`.
    boottime_ns: i64,
    /// Offset of start times in /proc: 0 before Linux 5.11, where /proc shows those of the initial namespace.
    starts_ns: i64,
}

impl TimeOffsets {
    /// The offsets of this process.
    #[must_use]
    pub fn own() -> Self {
        static OWN: OnceLock<TimeOffsets> = OnceLock::new();
        *OWN.get_or_init(|| {
            let link = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
            // The file shows the namespace of new children, which is our own unless this process has unshared it.
            if link("time") != link("time_for_children") {
                return Self::default();
            }
            let found = Self::parse(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default());
            if found.boottime_ns == 0 {
                return found;
            }
            Self { starts_ns: starts_offset(clock_ns(), found.boottime_ns, new_start_ns()), ..found }
        })
    }

    /// The kernel's `CLOCK_BOOTTIME`, ns, without the offset of this time namespace.
    #[must_use]
    pub fn boot_clock_ns(self) -> u64 {
        u64::try_from(clock_ns() - self.boottime_ns).unwrap_or(0)
    }

    /// Whether the start times of `stat` and `task` are equal.
    pub(super) fn began_with(self, stat: &Stat, task: &Task) -> bool {
        stat.start_ticks() == Some(self.ticks(task.start_ns))
    }

    /// The age of the process, ns.
    pub(super) fn age_ns(self, stat: &Stat) -> Option<u64> {
        Some(self.boot_clock_ns().saturating_sub(self.start_ns(stat.start_ticks()?)?))
    }

    /// Converts a time of the kernel's boot clock to the ticks of /proc/PID/stat.
    fn ticks(self, start_ns: u64) -> u64 {
        start_ns.saturating_add_signed(self.starts_ns) / TICK_NS
    }

    /// Converts ticks of /proc/PID/stat to the kernel's boot clock, ns.
    fn start_ns(self, ticks: u64) -> Option<u64> {
        ticks.checked_mul(TICK_NS)?.checked_add_signed(-self.starts_ns)
    }

    /// Parses lines of clock, seconds, nanoseconds.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let clock = fields.next();
            let mut number = || fields.next().and_then(|text| text.parse::<i64>().ok());
            let (Some(seconds), Some(ns)) = (number(), number()) else { continue };
            let offset_ns = seconds.saturating_mul(1_000_000_000).saturating_add(ns);
            match clock {
                Some("monotonic") => found.monotonic_ns = offset_ns,
                Some("boottime") => found.boottime_ns = offset_ns,
                _ => {}
            }
        }
        found
    }
}

/// This namespace's `CLOCK_BOOTTIME`, ns.
fn clock_ns() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The start time that /proc shows for a thread that starts now, ns.
fn new_start_ns() -> Option<i64> {
    let read = || fs::read("/proc/thread-self/stat").ok();
    let stat = thread::Builder::new().spawn(read).ok()?.join().ok()??;
    let ticks = Stat::parse(&stat)?.start_ticks()?;
    ticks.checked_mul(TICK_NS)?.try_into().ok()
}

/// The offset of start times in /proc, `offset_ns` or 0: whichever explains that a thread that started at `now_ns` has the start
/// time `start_ns` in /proc.
fn starts_offset(now_ns: i64, offset_ns: i64, start_ns: Option<i64>) -> i64 {
    let is_shifted = start_ns.is_none_or(|start_ns| {
        let error_ns = now_ns.abs_diff(start_ns);
        error_ns <= now_ns.saturating_sub(offset_ns).abs_diff(start_ns)
    });
    if is_shifted { offset_ns } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_both_signs() {
        let text = "monotonic           -86400         5\nboottime            172800         0\n";
        let wanted = TimeOffsets {
            monotonic_ns: -86_399_999_999_995,
            boottime_ns: 172_800_000_000_000,
            ..TimeOffsets::default()
        };
        assert_eq!(TimeOffsets::parse(text), wanted);
        // Kernels without time namespaces have no such file.
        assert_eq!(TimeOffsets::parse(""), TimeOffsets::default());
        assert_eq!(TimeOffsets::parse("monotonic x y\nrealtime 1 1"), TimeOffsets::default());
    }

    #[test]
    fn which_clock_starts_go_by() {
        const HOUR: i64 = 3_600_000_000_000;
        let (now, late) = (10 * HOUR, 20_000_000);
        for offset in [2 * HOUR, -2 * HOUR] {
            assert_eq!(starts_offset(now, offset, Some(now - late)), offset);
            assert_eq!(starts_offset(now, offset, Some(now - offset - late)), 0);
            assert_eq!(starts_offset(now, offset, None), offset);
        }
    }

    #[test]
    fn ticks_and_back() {
        let offsets = TimeOffsets { starts_ns: -3_000_000_000, ..TimeOffsets::default() };
        assert_eq!((offsets.ticks(5_012_345_678), offsets.start_ns(201)), (201, Some(5_010_000_000)));
        assert_eq!(TimeOffsets::default().start_ns(u64::MAX), None);
        // A thread of this process, which is in no time namespace of its own. The thread starts between two readings of the clock,
        // and /proc rounds its start down to a tick.
        let before = clock_ns() - TICK_NS as i64;
        let start = new_start_ns().expect("a start");
        let after = clock_ns();
        assert!((before..=after).contains(&start), "{before} {start} {after}");
    }
}
