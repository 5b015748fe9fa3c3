//! A histogram of the times that connections spent in a state.

use super::InState;

/// Times spent in a state. Times whose beginning was not seen are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dwell {
    /// The sum of all times, in ns.
    pub sum_ns: u64,
    /// The number of times in each bucket of [`Dwell::ENDS_S`]; not cumulative.
    pub counts: [u64; Dwell::ENDS_S.len()],
}

impl Dwell {
    /// Upper bounds of the buckets, in seconds: from a handshake on loopback to a forgotten connection.
    pub const ENDS_S: [f64; 9] = [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 3600.0, f64::INFINITY];

    /// Adds one time, unless it is only a lower bound.
    pub fn add(&mut self, in_state: InState) {
        if in_state.at_least {
            return;
        }
        let seconds = in_state.ns as f64 / 1e9;
        self.sum_ns = self.sum_ns.saturating_add(in_state.ns);
        let bucket = Self::ENDS_S.partition_point(|end| *end < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }
}
