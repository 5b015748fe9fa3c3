//! Wall-clock times as text.

use std::io::Write;

use jiff::{Timestamp, tz::TimeZone};

use super::line::{Fragment, Line, digits};

/// Writes times that mostly fall into the same second as the one before.
pub(super) struct Times {
    zone: TimeZone,
    pattern: &'static str,
    second: i64,
    prefix: Vec<u8>,
    /// The same, and a point.
    fragment: Fragment<32>,
}

impl Times {
    /// RFC 3339 in UTC.
    pub(super) fn rfc3339() -> Self {
        Self::new(TimeZone::UTC, "%Y-%m-%dT%H:%M:%S")
    }

    /// The time of day where we are.
    pub(super) fn clock() -> Self {
        Self::new(TimeZone::system(), "%H:%M:%S")
    }

    fn new(zone: TimeZone, pattern: &'static str) -> Self {
        Self { zone, pattern, second: i64::MIN, prefix: Vec::new(), fragment: Fragment::new(b"") }
    }

    /// Appends the time with nine digits of the second's fraction.
    #[inline]
    pub(super) fn nanoseconds(&mut self, time_ns: i64, line: &mut Line<'_>) {
        self.seek(time_ns);
        let nanos = time_ns.rem_euclid(1_000_000_000) as u64;
        line.fragment(&self.fragment);
        line.text(&[b'0' + (nanos / 100_000_000) as u8]);
        line.text(&digits(nanos % 100_000_000));
    }

    /// Appends the time with `digits` digits of the second's fraction.
    pub(super) fn write(&mut self, time_ns: i64, digits: usize, out: &mut Vec<u8>) {
        self.seek(time_ns);
        out.extend_from_slice(&self.prefix);
        if digits == 0 {
            return;
        }
        // A digit in front keeps the zeros behind it.
        let nanos = 1_000_000_000 + time_ns.rem_euclid(1_000_000_000);
        let mut buffer = itoa::Buffer::new();
        out.push(b'.');
        out.extend_from_slice(&buffer.format(nanos).as_bytes()[1..=digits]);
    }

    /// Makes the prefix that of `time_ns`.
    fn seek(&mut self, time_ns: i64) {
        let second = time_ns.div_euclid(1_000_000_000);
        if second == self.second {
            return;
        }
        self.second = second;
        self.prefix.clear();
        let time = Timestamp::from_second(second).unwrap_or_default();
        let time = time.to_zoned(self.zone.clone());
        // Writing to a vector does not fail.
        let _ = write!(self.prefix, "{}", time.strftime(self.pattern));
        self.fragment = Fragment::new(&[&self.prefix[..], b"."].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::line::append;

    #[test]
    fn fractions_and_seconds() {
        let mut times = Times::rfc3339();
        for (ns, text) in [
            (0, "1970-01-01T00:00:00.000000000"),
            (1_763_812_345_000_000_007, "2025-11-22T11:52:25.000000007"),
            (1_763_812_345_999_999_999, "2025-11-22T11:52:25.999999999"),
            (-1, "1969-12-31T23:59:59.999999999"),
        ] {
            let mut out = Vec::new();
            times.write(ns, 9, &mut out);
            assert_eq!(String::from_utf8(out).expect("text"), text);
            let mut out = Vec::new();
            append(&mut out, |line| times.nanoseconds(ns, line));
            assert_eq!(out, text.as_bytes());
        }
    }
}
