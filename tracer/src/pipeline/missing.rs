//! Records that a sink has lost or that are in doubt, and a lower bound of their times.

/// The numbers of such records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) records: u64,
    /// Records that a collector may have, and that are not sent again.
    pub(super) in_doubt: u64,
    /// None of the records has an earlier time; `None` if that is not known.
    pub(super) since_ns: Option<i64>,
}

impl Missing {
    pub(super) fn add(&mut self, other: Self) {
        self.since_ns = match (self.is_empty(), other.is_empty()) {
            (true, _) => other.since_ns,
            (_, true) => self.since_ns,
            _ => self.since_ns.zip(other.since_ns).map(|(one, other)| one.min(other)),
        };
        self.records += other.records;
        self.in_doubt += other.in_doubt;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0 && self.in_doubt == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_doubt_is_missing_too() {
        let mut sum = Missing { records: 0, in_doubt: 2, since_ns: Some(7) };
        assert!(!sum.is_empty() && Missing::default().is_empty());
        sum.add(Missing { records: 3, in_doubt: 1, since_ns: Some(9) });
        assert_eq!(sum, Missing { records: 3, in_doubt: 3, since_ns: Some(7) });
        sum.add(Missing { records: 0, in_doubt: 1, since_ns: None });
        assert_eq!(sum.since_ns, None);
    }

    #[test]
    fn what_is_lost_is_no_earlier_than_all_of_it() {
        let missing = |records, since_ns| Missing { records, in_doubt: 0, since_ns };
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
