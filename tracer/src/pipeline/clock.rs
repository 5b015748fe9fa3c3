//! The clocks that records and the table go by.

use rustix::time::{ClockId, clock_gettime};

use crate::enrich::TimeOffsets;

/// Wall clock minus the kernel's `CLOCK_MONOTONIC`, in ns.
#[must_use]
pub fn clock_offset_ns() -> i64 {
    // Between two clocks read one after another this thread may have to wait for its turn: the quickest try counts.
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

/// The kernel's `CLOCK_MONOTONIC`, ns: what `bpf_ktime_get_ns` gives, whatever time namespace we are in.
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
