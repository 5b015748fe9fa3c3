//! Timers of requests, from /proc/net/tcp and tcp6. `sock_diag` shows how many SYN-ACKs were sent, which includes answers to
//! repeated SYNs. Only these tables show how often the timer has expired (`num_timeout`).

use std::{collections::HashMap, fs, path::Path};

use crate::{
    model::{Address, RequestTimer, SocketInfo, State, Tuple},
    procfs::{TICK_NS, text},
};

/// `TCP_SYN_RECV`, the state of a request in the table.
const SYN_RECV: &str = "03";

/// Adds the timers of the requests in `sockets`, which must be of this thread's network namespace.
pub(super) fn note_timers(sockets: &mut [SocketInfo]) {
    if !sockets.iter().any(|socket| socket.state == State::NewSynRecv) {
        return;
    }
    // Since 6.15 a listener can shorten the timeout, down to a second (TCP_RTO_MAX_MS), and the kernel does not show that.
    let may_be_short = fs::exists("/proc/sys/net/ipv4/tcp_rto_max_ms").unwrap_or(true);
    let mut timers = HashMap::new();
    for table in ["tcp", "tcp6"] {
        let table = Path::new("/proc/thread-self/net").join(table);
        for (tuple, timer) in text::lines(&table).filter_map(|line| request(&line, may_be_short)) {
            // The table does not show the interface: of two requests with equal ends the younger one counts.
            let known = timers.entry(tuple).or_insert(timer);
            if (timer.timeouts, known.left_ns) < (known.timeouts, timer.left_ns) {
                *known = timer;
            }
        }
    }
    for socket in sockets.iter_mut().filter(|socket| socket.state == State::NewSynRecv) {
        socket.request = timers.get(&socket.tuple.of_any_interface()).copied();
    }
}

/// `sl local remote st tx:rx tr:when retrnsmt uid timeout inode ...`
pub(super) fn request(line: &str, may_be_short: bool) -> Option<(Tuple, RequestTimer)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let tuple = tuple(fields.next()?, fields.next()?)?;
    if fields.next()? != SYN_RECV {
        return None;
    }
    let (_, when) = fields.nth(1)?.split_once(':')?;
    let ticks = u64::from_str_radix(when, 16).ok()?;
    let timeouts = u32::from_str_radix(fields.next()?, 16).ok()?;
    let timer = RequestTimer {
        timeouts: u8::try_from(timeouts).ok()?,
        // A part of a tick is not shown.
        left_ns: (ticks + 1).checked_mul(TICK_NS)?,
        may_be_short,
    };
    Some((tuple, timer))
}

/// The endpoints of a socket in the table, of any family and interface.
pub(super) fn tuple(local: &str, remote: &str) -> Option<Tuple> {
    let ((local, local_port), (remote, remote_port)) = (end(local)?, end(remote)?);
    let tuple = Tuple { local, remote, local_port, remote_port, v6_socket: true, interface: 0 };
    Some(tuple.of_any_interface())
}

/// Parses an address in words of the machine's byte order, and a port.
fn end(text: &str) -> Option<(Address, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let address = match address.len() {
        8 => Address::from_v4(word(0)?),
        32 => Address::from_v6([word(0)?, word(1)?, word(2)?, word(3)?].concat().try_into().ok()?),
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_both_tables() {
        let v4 = "   1: 0100007F:1BF2 0200007F:C350 03 00000000:00000000 01:00000064 00000002     0        0 0 0 0000000000000000";
        let (tuple, timer) = request(v4, false).expect("a request");
        assert_eq!((tuple.local, tuple.local_port), (Address::from_v4([127, 0, 0, 1]), 0x1bf2));
        assert_eq!((tuple.remote, tuple.remote_port), (Address::from_v4([127, 0, 0, 2]), 50000));
        assert_eq!(timer, RequestTimer { timeouts: 2, left_ns: 1_010_000_000, may_be_short: false });
        let v6 = v4
            .replace("0100007F:", "000080FE000000000000000001000000:")
            .replace("0200007F:", "000080FE000000000000000002000000:");
        let (tuple, _) = request(&v6, true).expect("a request");
        assert_eq!(tuple.local.canonical().to_string(), "fe80::1");
        for line in [&v4.replace(" 03 ", " 01 "), "sl local_address rem_address st", "", &v4[..60]] {
            assert_eq!(request(line, false), None, "{line}");
        }
    }
}
