//! /proc/net/protocols: how many sockets of each protocol a network namespace has.

use std::{fs, io};

/// The table of this thread's namespace.
///
/// # Errors
/// The table cannot be read.
pub(super) fn read() -> io::Result<String> {
    fs::read_to_string("/proc/thread-self/net/protocols")
}

/// Whether the table counts sockets of a protocol, for IPv4 or IPv6: `name size sockets ...`.
pub(super) fn has_sockets(table: &str, protocol: &str) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().and_then(|name| name.strip_prefix(protocol));
        let is_named_so = name.is_some_and(|rest| ["", "6", "v6"].contains(&rest));
        is_named_so
            && fields.nth(1).and_then(|count| count.parse::<i64>().ok()).is_some_and(|count| count > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_protocols() {
        let text = |count| {
            format!(
                "protocol  size sockets  memory\nMPTCPv6   2016      0       2\nMPTCP     1856      {count}       2\nSMC6 1 1 -1\n\
                 TCP 1 9 2\n"
            )
        };
        assert!(has_sockets(&text(3), "MPTCP") && has_sockets(&text(3), "SMC"));
        assert!(!has_sockets(&text(0), "MPTCP"));
        assert!(!has_sockets(&text(0), "M") && !has_sockets("", "TCP") && !has_sockets("TCP 1 -1 2", "TCP"));
    }
}
