//! Times in a state, as a histogram.

use super::InState;

/// Times that were spent in a state, where they were seen from their beginning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dwell {
    /// Their sum, in ns.
    pub sum_ns: u64,
    /// How many fall into each of [`Dwell::ENDS_S`]'s buckets; not added up.
    pub counts: [u64; Dwell::ENDS_S.len()],
}

impl Dwell {
    /// Upper ends of the buckets, in seconds: from a handshake on loopback to a forgotten connection.
    pub const ENDS_S: [f64; 9] = [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 3600.0, f64::INFINITY];

    /// One more; a lower bound is no time.
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
