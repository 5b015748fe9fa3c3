//! Numbers as people read them.

use crate::model::Address;

/// A time in two or three digits: 350us, 1.2ms, 45s, 3h.
#[must_use]
pub fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    match UNITS.into_iter().find(|(size, _)| ns >= *size) {
        Some((size, unit)) => scaled(ns as f64 / size as f64, unit, 10.0),
        None => format!("{ns}ns"),
    }
}

/// A number in two or three digits: 950, 12.3k, 1.3M.
#[must_use]
pub fn number(count: u64) -> String {
    match count {
        0..1000 => count.to_string(),
        1000..1_000_000 => scaled(count as f64 / 1e3, "k", 100.0),
        1_000_000..1_000_000_000 => scaled(count as f64 / 1e6, "M", 100.0),
        _ => scaled(count as f64 / 1e9, "G", 100.0),
    }
}

/// With a digit behind the point below `whole`; never more than it is.
fn scaled(value: f64, unit: &str, whole: f64) -> String {
    if value < whole {
        format!("{:.1}{unit}", (value * 10.0).floor() / 10.0)
    } else {
        format!("{}{unit}", value as u64)
    }
}

/// An address and a port, as `ss` writes them.
#[must_use]
pub fn endpoint(address: Address, port: u16) -> String {
    let port = if port == 0 { "*".to_owned() } else { port.to_string() };
    match address.canonical() {
        std::net::IpAddr::V4(v4) => format!("{v4}:{port}"),
        std::net::IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    }
}

/// For SVG and HTML. Names may hold anything: control characters are replaced.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_500, "1.5us"),
            (19_999, "19us"),
            (59_999_999_999, "59s"),
            (60_000_000_000, "1.0m"),
            (90_000_000_000_000, "1.0d"),
        ] {
            assert_eq!(duration(ns), text);
        }
        for (count, text) in [
            (999, "999"),
            (1_000, "1.0k"),
            (16_999, "16.9k"),
            (999_999, "999k"),
            (1_250_000, "1.2M"),
            (3_000_000_000, "3.0G"),
        ] {
            assert_eq!(number(count), text);
        }
    }
}
