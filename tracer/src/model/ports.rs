//! Ports, as a filter or a threshold names them.

use std::ops::RangeInclusive;

/// A set of ports. In a threshold, an empty set means no condition: callers test `is_empty` before `contains`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<RangeInclusive<u16>>);

impl Ports {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}
