//! Parsers for the values of flags and configuration keys.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use crate::model::{MetricLabel, ParseStateError, Ports, RecordKind, Scope, State, StateSet, Threshold};

/// The smallest ring: the kernel wants a power of two that is a multiple of the page size. A
/// stack of `hunt` takes 8 KB, so it needs a larger one.
const RING_MIN: u64 = 4096;
/// The largest ring: a quarter of the range of the kernel's u32.
const RING_MAX: u64 = 1 << 30;

/// `80`, `80,443`, `8000-8099`.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_ports(text: &str) -> Result<Ports, String> {
    let port = |text: &str| match text.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("'{}' is not a port (1 to 65535)", text.trim())),
        Ok(port) => Ok(port),
    };
    let ranges = text.split(',').map(|item| match item.split_once('-') {
        Some((first, last)) => {
            let range = port(first)?..=port(last)?;
            if range.is_empty() { Err(format!("'{item}' ends before it begins")) } else { Ok(range) }
        }
        None => port(item).map(|port| port..=port),
    });
    ranges.collect::<Result<_, _>>().map(Ports)
}

/// `10.0.0.0/8`, `2001:db8::1`.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("'{text}' is not an address or prefix (examples: 10.0.0.0/8, 2001:db8::1)"))?;
    if net.addr() != net.network() {
        return Err(format!("'{text}' has address bits after its prefix; did you mean {}?", net.trunc()));
    }
    Ok(net)
}

/// A process id.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_pid(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("no process has the id 0".into()),
        Ok(pid) => Ok(pid),
        Err(_) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Err(format!("'{text}' is not a number; --comm {text}?"))
        }
        Err(_) => Err(format!("'{text}' is not a process id (example: 1234)")),
    }
}

/// The bytes of a process's name that the kernel keeps (`TASK_COMM_LEN`, without the last byte).
const COMM: usize = 15;

/// The name of a process.
///
/// # Errors
/// Why no process can have this name, as a message.
pub fn parse_comm(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a process name is empty".into());
    }
    if text.len() <= COMM {
        return Ok(text.to_owned());
    }
    let end = (0..=COMM).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Err(format!(
        "no process has the name '{text}', because the kernel keeps {COMM} bytes of a name; use '{}'",
        text.get(..end).unwrap_or_default()
    ))
}

/// `127.0.0.1:9435`, `[::1]:9435`; `9435` and `:9435` for 127.0.0.1.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    match port.parse::<u16>() {
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => text.parse().map_err(|_| {
            format!("'{text}' is not an address with a port (examples: 9435, 127.0.0.1:9435, [::1]:9435)")
        }),
    }
}

/// One state's name, or a group of `ss`.
///
/// # Errors
/// There is no such state.
pub fn parse_states(text: &str) -> Result<StateSet, ParseStateError> {
    text.parse()
}

/// A kind of records, in the singular or the plural, in any case.
///
/// # Errors
/// There is no such kind.
pub fn parse_record_kind(text: &str) -> Result<RecordKind, String> {
    let typed = text.trim().to_ascii_lowercase();
    let singular = match typed.as_str() {
        "losses" => "lost",
        plural => plural.strip_suffix('s').unwrap_or(plural),
    };
    let is_it = |kind: &RecordKind| typed == kind.name() || singular == kind.name();
    RecordKind::ALL.into_iter().find(is_it).ok_or_else(|| {
        let names: Vec<&str> = RecordKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("there are no records of the kind '{text}'; there are {}", names.join(", "))
    })
}

/// The same for a trace, which counts no transitions.
///
/// # Errors
/// There is no such kind, or no trace has it.
pub fn parse_traced_kind(text: &str) -> Result<RecordKind, String> {
    match parse_record_kind(text)? {
        RecordKind::Aggregate => {
            Err("a trace writes every transition and has no records of the kind 'aggregate'; a sink of \
             `sockstate run` with the key 'aggregate' has them"
                .into())
        }
        kind => Ok(kind),
    }
}

/// A label of metrics, in any case, also with a hyphen.
///
/// # Errors
/// There is no such label.
pub fn parse_metric_label(text: &str) -> Result<MetricLabel, String> {
    let typed = text.trim().to_ascii_lowercase().replace('-', "_");
    MetricLabel::ALL.into_iter().find(|label| label.name() == typed).ok_or_else(|| {
        let names: Vec<&str> = MetricLabel::ALL.iter().map(|label| label.name()).collect();
        format!("metrics have no label '{text}'; there are {}", names.join(", "))
    })
}

/// `10s`, `1h30m`; plain numbers are seconds.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration_or_zero(text)?;
    if duration.is_zero() {
        Err(format!("'{text}': the duration must be greater than zero"))
    } else {
        Ok(duration)
    }
}

/// Like [`parse_duration`], and 0 is allowed.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_duration_or_zero(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration (examples: 10s, 5m, 1h30m)");
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong()),
        Err(_) => {
            let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
            signed.try_into().map_err(|_| wrong())
        }
    }
}

/// The shortest interval of records about connections that go on.
const SHORTEST_INTERIM: Duration = Duration::from_secs(1);

/// The interval of records about connections that go on.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_interim(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < SHORTEST_INTERIM {
        return Err(format!("'{text}' is too short: use 1s or more; 5m is usual"));
    }
    Ok(interval)
}

/// `[STATE][:PORTS][@COMM]=TIME`; TIME may be `never`.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_threshold(text: &str) -> Result<Threshold, String> {
    let wrong = || {
        format!("'{text}' is not a threshold (examples: CLOSE_WAIT=5m, :8080=30s, CLOSE_WAIT@backup=never)")
    };
    let (scope, time) = text.rsplit_once('=').ok_or_else(wrong)?;
    let (scope, comm) = match scope.split_once('@') {
        Some((scope, comm)) if !comm.is_empty() => (scope, Some(parse_comm(comm)?)),
        Some(_) => return Err(wrong()),
        None => (scope, None),
    };
    let (state, ports) = match scope.split_once(':') {
        Some((state, ports)) => (state, parse_ports(ports)?),
        None => (scope, Ports::default()),
    };
    let state = match state {
        "" => None,
        name => {
            let states = parse_states(name).map_err(|error| error.to_string())?;
            let one =
                (1..=12).map(State::from_number).filter(|state| states.contains(*state)).collect::<Vec<_>>();
            match one[..] {
                [state] | [state, State::NewSynRecv] => Some(state),
                _ => return Err(format!("'{name}' is more than one state; write a threshold for each")),
            }
        }
    };
    if state.is_none() && ports.is_empty() && comm.is_none() {
        return Err(format!("{}; give a state, a port or a process name before the =", wrong()));
    }
    let after_ns = match time {
        time if time.eq_ignore_ascii_case("never") => None,
        time => Some(u64::try_from(parse_duration_or_zero(time)?.as_nanos()).map_err(|_| wrong())?),
    };
    Ok(Threshold { scope: Scope { state, ports, comm }, after_ns })
}

/// `65536`, `64K`, `16M`, `1G`.
///
/// # Errors
/// The text is not a size, or the size is zero.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        upper if upper.ends_with('K') => (upper[..upper.len() - 1].to_owned(), 1 << 10),
        upper if upper.ends_with('M') => (upper[..upper.len() - 1].to_owned(), 1 << 20),
        upper if upper.ends_with('G') => (upper[..upper.len() - 1].to_owned(), 1 << 30),
        upper => (upper.to_owned(), 1),
    };
    let bytes = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("'{text}' is not a size (examples: 1M, 65536)"))
}

/// A size that is a power of two.
///
/// # Errors
/// Why the text is not valid, as a message.
pub fn parse_ring_size(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    if !(RING_MIN..=RING_MAX).contains(&bytes) {
        return Err(format!("'{text}' is not between 4K and 1G"));
    }
    if !bytes.is_power_of_two() {
        let next = bytes.next_power_of_two();
        return Err(format!("'{text}' is not a power of two; the next is {next}"));
    }
    u32::try_from(bytes).map_err(|_| format!("'{text}' is too large"))
}

/// A factor above zero.
///
/// # Errors
/// The text is not such a number.
pub fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text
        .strip_suffix('x')
        .unwrap_or(text)
        .parse::<f64>()
        .ok()
        .filter(|speed| speed.is_finite() && *speed > 0.0);
    speed.ok_or_else(|| format!("'{text}' is not a factor (examples: 1, 0.5, 10x)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(parse_ports("80,8000-8002").expect("ports"), Ports(vec![80..=80, 8000..=8002]));
        for wrong in ["0", "65536", "-1", "", "80,", "90-80", "http", "1-2-3", "99999999999"] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(parse_prefix("10.0.0.0/8").expect("v4").to_string(), "10.0.0.0/8");
        assert_eq!(parse_prefix("::1").expect("v6").to_string(), "::1/128");
        assert!(parse_prefix("10.1.0.0/8").expect_err("host bits").contains("10.0.0.0/8"));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0", "localhost", ""] {
            assert!(parse_prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_of_records() {
        for (text, kind) in [
            ("transitions", RecordKind::Transition),
            ("transition", RecordKind::Transition),
            ("STUCK", RecordKind::Stuck),
            ("aggregates", RecordKind::Aggregate),
            ("resyncs", RecordKind::Resync),
            ("losses", RecordKind::Lost),
            ("lost", RecordKind::Lost),
            ("resolved", RecordKind::Resolved),
        ] {
            assert_eq!(parse_record_kind(text), Ok(kind), "{text}");
        }
        assert_eq!(parse_traced_kind("Transitions"), Ok(RecordKind::Transition));
        assert!(parse_traced_kind("aggregates").is_err_and(|error| error.contains("`sockstate run`")));
        for wrong in ["", "s", "transitionss", "close_wait", "all"] {
            assert!(
                parse_record_kind(wrong).is_err_and(|error| error.contains("there are start, ")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn processes() {
        assert_eq!(parse_pid("1234"), Ok(1234));
        assert_eq!(parse_pid("nginx"), Err("'nginx' is not a number; --comm nginx?".into()));
        for wrong in ["0", "-1", "", "1.5", "99999999999"] {
            assert!(parse_pid(wrong).is_err_and(|error| !error.contains("--comm")), "{wrong}");
        }
        for name in ["nginx", "fifteen-letters", "\u{2026}\u{2026}\u{2026}\u{2026}\u{2026}"] {
            assert_eq!(parse_comm(name).as_deref(), Ok(name));
        }
        let error = parse_comm("sixteen-letters-").expect_err("too long");
        assert!(error.ends_with("use 'sixteen-letters'"), "{error}");
        let error = parse_comm("12345678901234\u{e9}").expect_err("too long");
        assert!(error.ends_with("use '12345678901234'"), "{error}");
        assert!(parse_comm("").is_err());
        assert!(parse_threshold("CLOSE_WAIT@sixteen-letters-=5m").is_err());
    }

    #[test]
    fn addresses_to_listen_at() {
        for (text, address) in [
            ("9435", "127.0.0.1:9435"),
            (":9435", "127.0.0.1:9435"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:9435", "[::1]:9435"),
        ] {
            assert_eq!(parse_listen_address(text).map(|found| found.to_string()).as_deref(), Ok(address));
        }
        for wrong in ["", ":", "localhost:9435", "65536", "127.0.0.1", "::1:9435:"] {
            assert!(
                parse_listen_address(wrong).is_err_and(|error| error.contains("examples: 9435")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn ring_sizes() {
        for (text, bytes) in
            [("4096", 4096), ("64k", 65536), ("16M", 16 << 20), ("1MiB", 1 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(parse_ring_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["0", "4095", "5000", "3M", "2G", "M", "-1M", "99999999999999999999G"] {
            assert!(parse_ring_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("2", 2000),
            ("0.5", 500),
            ("250ms", 250),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "0", "-1", "-5s", "soon", "nan", "1e999"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
