//! Records that a sink has lost, and from when they are.

/// Records that are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) records: u64,
    /// None of them has an earlier time; `None` where that is not known.
    pub(super) since_ns: Option<i64>,
}

impl Missing {
    pub(super) fn add(&mut self, other: Self) {
        self.since_ns = match (self.records, other.records) {
            (0, _) => other.since_ns,
            (_, 0) => self.since_ns,
            _ => self.since_ns.zip(other.since_ns).map(|(one, other)| one.min(other)),
        };
        self.records += other.records;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_no_earlier_than_all_of_it() {
        let missing = |records, since_ns| Missing { records, since_ns };
        for (one, other, both) in [
            (missing(0, None), missing(2, Some(7)), missing(2, Some(7))),
            (missing(2, Some(7)), missing(0, None), missing(2, Some(7))),
            (missing(2, Some(7)), missing(3, Some(5)), missing(5, Some(5))),
            (missing(2, Some(5)), missing(3, Some(7)), missing(5, Some(5))),
            (missing(2, None), missing(3, Some(5)), missing(5, None)),
            (missing(2, Some(5)), missing(3, None), missing(5, None)),
        ] {
            let mut sum = one;
            sum.add(other);
            assert_eq!(sum, both);
        }
    }
}
