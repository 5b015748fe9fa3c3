//! The time namespace that we are in (time_namespaces(7)): its clocks differ from those that the kernel's programs read.

use std::{fs, sync::OnceLock};

/// What the namespace adds to the kernel's clocks, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOffsets {
    /// To `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// To `CLOCK_BOOTTIME`, and to the starts of processes in /proc.
    pub boottime_ns: i64,
}

impl TimeOffsets {
    /// Those of this process.
    #[must_use]
    pub fn own() -> Self {
        static OWN: OnceLock<TimeOffsets> = OnceLock::new();
        *OWN.get_or_init(|| {
            let link = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
            // The file is about the namespace of children, which is ours unless this very process has made it.
            if link("time") != link("time_for_children") {
                return Self::default();
            }
            Self::parse(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default())
        })
    }

    /// Lines of clock, seconds, nanoseconds.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_both_signs() {
        let text = "monotonic           -86400         5\nboottime            172800         0\n";
        let wanted = TimeOffsets { monotonic_ns: -86_399_999_999_995, boottime_ns: 172_800_000_000_000 };
        assert_eq!(TimeOffsets::parse(text), wanted);
        // Kernels without time namespaces have no such file.
        assert_eq!(TimeOffsets::parse(""), TimeOffsets::default());
        assert_eq!(TimeOffsets::parse("monotonic x y\nrealtime 1 1"), TimeOffsets::default());
    }
}
