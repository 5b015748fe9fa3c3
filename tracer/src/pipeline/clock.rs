//! The clocks of the records and of the table.

use rustix::time::{ClockId, clock_gettime};

use crate::enrich::TimeOffsets;

/// Wall clock minus the kernel's `CLOCK_MONOTONIC`, in ns.
#[must_use]
pub fn clock_offset_ns() -> i64 {
    // This thread may be interrupted between the readings of the two clocks, so the quickest of several attempts counts.
    const QUICK_NS: i64 = 20_000;
    let mut best = (i64::MAX, 0);
    for _ in 0..5 {
        let before = kernel_ns();
        let wall = now_ns();
        let took = kernel_ns() - before;
        best = best.min((took, wall - before - took / 2));
        if took < QUICK_NS {
            break;
        }
    }
    best.1
}

/// The wall clock, in ns since the epoch.
#[must_use]
pub fn now_ns() -> i64 {
    clock_ns(ClockId::Realtime)
}

/// The kernel's `CLOCK_MONOTONIC`, ns: the clock of `bpf_ktime_get_ns`, which does not depend on the time namespace.
#[must_use]
pub fn monotonic_ns() -> u64 {
    kernel_ns() as u64
}

fn kernel_ns() -> i64 {
    clock_ns(ClockId::Monotonic) - TimeOffsets::own().monotonic_ns
}

fn clock_ns(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
