//! The clocks that records and the table go by.

use rustix::time::{ClockId, clock_gettime};

/// Wall clock minus `CLOCK_MONOTONIC`, in ns.
#[must_use]
pub fn clock_offset_ns() -> i64 {
    // Between two clocks read one after another this thread may have to wait for its turn: the quickest try counts.
    const QUICK_NS: i64 = 20_000;
    let mut best = (i64::MAX, 0);
    for _ in 0..5 {
        let before = clock_ns(ClockId::Monotonic);
        let wall = now_ns();
        let took = clock_ns(ClockId::Monotonic) - before;
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

/// `CLOCK_MONOTONIC`, ns.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic) as u64
}

fn clock_ns(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
