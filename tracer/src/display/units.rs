//! Formats times, numbers and addresses.

use std::net::IpAddr;

use crate::model::{Address, InState, Tuple, bounds, printable};

/// A time: 350us, 1.2ms, 45s, 2m05s, 3h02m, 4d07h; rounded down.
#[must_use]
pub fn duration(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = ns / SECOND;
    let two = |large: u64, unit: &str, small: u64, rest: &str| format!("{large}{unit}{small:02}{rest}");
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => scaled(ns as f64 / 1e3, "us", 10.0),
        1_000_000..SECOND => scaled(ns as f64 / 1e6, "ms", 10.0),
        _ => match seconds {
            0..10 => scaled(ns as f64 / 1e9, "s", 10.0),
            10..120 => format!("{seconds}s"),
            120..7_200 => two(seconds / 60, "m", seconds % 60, "s"),
            7_200..172_800 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
            _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
        },
    }
}

/// The prefix of a time that is a lower bound.
#[must_use]
pub fn lower_bound(time: InState) -> &'static str {
    if time.at_least { ">" } else { "" }
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

/// A number with one decimal below `whole`, rounded down.
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
    at(address, "", port)
}

/// Both ends, as `ss` writes them: the local one with the interface that the socket is bound to, by its name where that is known.
#[must_use]
pub fn endpoints(tuple: &Tuple, interface: Option<&str>) -> (String, String) {
    let zone = match (tuple.interface, interface) {
        (0, _) => String::new(),
        (_, Some(name)) => format!("%{}", printable(name)),
        (index, None) => format!("%{index}"),
    };
    (at(tuple.local, &zone, tuple.local_port), at(tuple.remote, "", tuple.remote_port))
}

fn at(address: Address, zone: &str, port: u16) -> String {
    let port = if port == 0 { "*".to_owned() } else { port.to_string() };
    match address.canonical() {
        IpAddr::V4(v4) => format!("{v4}{zone}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]{zone}:{port}"),
    }
}

/// A text that others have chosen, up to `most` bytes, without what would command a terminal.
#[must_use]
pub fn readable(text: &str, most: usize) -> String {
    let (shown, is_all) = bounds::shown(text, most);
    printable(shown) + if is_all { "" } else { "..." }
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
            (999_999_999, "999ms"),
            (9_999_999_999, "9.9s"),
            (119_999_999_999, "119s"),
            (120_000_000_000, "2m00s"),
            (7_199_000_000_000, "119m59s"),
            (7_500_000_000_000, "2h05m"),
            (200_000_000_000_000, "2d07h"),
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

    #[test]
    fn ends_are_as_ss_writes_them() {
        let local = Address::from_v4([10, 0, 0, 1]);
        let remote = Address::from_v6([0; 16]);
        let tuple = Tuple { local, remote, local_port: 80, remote_port: 0, v6_socket: false, interface: 0 };
        let shown = |interface, name| endpoints(&Tuple { interface, ..tuple }, name);
        assert_eq!(shown(0, None), ("10.0.0.1:80".into(), endpoint(remote, 0)));
        assert_eq!(shown(3, None).0, "10.0.0.1%3:80");
        assert_eq!(shown(3, Some("eth\n0")).0, "10.0.0.1%eth\u{fffd}0:80");
        assert!(endpoint(remote, 0).ends_with(":*"));
    }
}
