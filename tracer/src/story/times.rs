//! A compact histogram of times, with quantiles.

/// Buckets per doubling: the error of a quantile is at most a twelfth.
const STEPS: u32 = 8;

/// A histogram of times in ns, with logarithmic buckets.
#[derive(Clone, Debug, Default)]
pub struct Times {
    counts: Vec<u64>,
    total: u64,
    longest_ns: u64,
}

impl Times {
    /// Adds a time.
    pub fn add(&mut self, ns: u64) {
        let at = bucket(ns);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest time, exact.
    #[must_use]
    pub fn longest_ns(&self) -> u64 {
        self.longest_ns
    }

    /// The approximate quantile; `None` if there are no times.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(middle(at).min(self.longest_ns));
            }
        }
        None
    }

    /// The approximate median.
    #[must_use]
    pub fn median_ns(&self) -> Option<u64> {
        self.quantile_ns(0.5)
    }

    /// Buckets: approximate upper bound in ns, and count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(at, count)| (lower(at + 1), *count))
    }
}

/// The bucket of a time; each small time has its own bucket.
fn bucket(ns: u64) -> usize {
    if ns < u64::from(STEPS) {
        return ns as usize;
    }
    let power = ns.ilog2();
    let part = (ns >> (power - STEPS.ilog2())) - u64::from(STEPS);
    ((power - STEPS.ilog2() + 1) * STEPS) as usize + part as usize
}

/// The lower bound of a bucket.
fn lower(at: usize) -> u64 {
    let (steps, at) = (u64::from(STEPS), at as u64);
    if at < steps { at } else { (steps + at % steps) << (at / steps - 1).min(60) }
}

fn middle(at: usize) -> u64 {
    lower(at).midpoint(lower(at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_is_in_its_bucket(ns in any::<u64>()) {
            let at = bucket(ns);
            prop_assert!(lower(at) <= ns, "{}", lower(at));
            if at < bucket(u64::MAX) {
                prop_assert!(ns < lower(at + 1), "{}", lower(at + 1));
            }
        }

        #[test]
        fn quantiles_are_near(mut all in prop::collection::vec(0_u64..1 << 50, 1..200), share in 0.0_f64..=1.0) {
            let mut times = Times::default();
            all.iter().for_each(|ns| times.add(*ns));
            all.sort_unstable();
            let exact = all[(((all.len() as f64 * share).ceil() as usize).max(1)) - 1];
            let about = times.quantile_ns(share).expect("some");
            prop_assert!(about.abs_diff(exact) <= exact / 12 + 1, "{about} {exact}");
            prop_assert_eq!(times.longest_ns(), *all.last().expect("some"));
        }
    }
}
