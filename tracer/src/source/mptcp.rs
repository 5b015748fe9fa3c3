//! MPTCP's own sockets (`IPPROTO_MPTCP`): the peers' closes are theirs, while the subflows below, which are TCP sockets, stay
//! established. `sock_diag` shows them since Linux 5.9 (module mptcp_diag).

use std::{fs, io, os::fd::OwnedFd};

use super::diag::{DUMP_FLAGS, MS, SOCK_DIAG_BY_FAMILY, ask, open, parse, request, u32_at};
use crate::model::{SocketInfo, State, TcpTimes, Transport};

/// Where `mptcpi_last_data_sent` is; it and what follows it came with Linux 6.10.
const LAST_DATA_SENT: usize = 84;

/// Those of the namespace that `diag` and this thread are of; none where the kernel has no MPTCP.
pub(super) fn sockets(diag: &OwnedFd, netns: u32) -> Result<Vec<SocketInfo>, String> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = request(SOCK_DIAG_BY_FAMILY, DUMP_FLAGS, family as u8, Transport::Mptcp);
        match ask(diag, &request, |message| parse(netns, message, Transport::Mptcp)) {
            // A listener's table may show others that are not what was asked for.
            Ok(sockets) => found.extend(sockets.into_iter().filter(|it| it.state != State::Close)),
            Err(_)
                if !are_there(&fs::read_to_string("/proc/thread-self/net/protocols").unwrap_or_default()) => {
            }
            Err(error) => return Err(missing(&error)),
        }
    }
    Ok(found)
}

/// What the kernel has of MPTCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mptcp {
    /// `net.mptcp.enabled` of this network namespace: whether programs can open such sockets. `None` where the kernel has no MPTCP.
    pub enabled: Option<bool>,
    /// Why a look cannot list its sockets; `None` where it can.
    pub unlisted: Option<String>,
}

impl Mptcp {
    /// Asks the kernel.
    #[must_use]
    pub fn find() -> Self {
        let enabled = fs::read_to_string("/proc/sys/net/mptcp/enabled").ok().map(|text| text.trim() != "0");
        let asked = open().and_then(|diag| {
            let request = request(SOCK_DIAG_BY_FAMILY, DUMP_FLAGS, libc::AF_INET as u8, Transport::Mptcp);
            ask(&diag, &request, |_| None)
        });
        Self { enabled, unlisted: asked.err().map(|error| missing(&error)) }
    }
}

fn missing(error: &io::Error) -> String {
    format!("MPTCP's sockets cannot be listed (module mptcp_diag): {error}")
}

/// Whether /proc/net/protocols counts sockets of it: `name size sockets ...`.
fn are_there(protocols: &str) -> bool {
    protocols.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_mptcp = fields.next().is_some_and(|name| name.starts_with("MPTCP"));
        is_mptcp && fields.nth(1).and_then(|count| count.parse::<i64>().ok()).is_some_and(|count| count > 0)
    })
}

/// Of `struct mptcp_info`.
pub(super) fn times(info: &[u8]) -> Option<TcpTimes> {
    let since_ns = |at: usize| u32_at(info, LAST_DATA_SENT + at).map(|ms| u64::from(ms) * MS);
    Some(TcpTimes {
        since_data_sent_ns: since_ns(0)?,
        since_data_received_ns: since_ns(4)?,
        since_ack_ns: since_ns(8)?,
        ..TcpTimes::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_protocols() {
        let text = |count| {
            format!(
                "protocol  size sockets  memory\nMPTCPv6   2016      0       2\nMPTCP     1856      {count}       2\nTCP 1 9 2\n"
            )
        };
        assert!(are_there(&text(3)));
        assert!(!are_there(&text(0)) && !are_there("") && !are_there("TCP 2016 3 2"));
    }

    #[test]
    fn times_of_kernels_that_have_them() {
        let mut info = vec![0; 96];
        info[84..88].copy_from_slice(&1_u32.to_ne_bytes());
        info[88..92].copy_from_slice(&2_u32.to_ne_bytes());
        info[92..96].copy_from_slice(&3_u32.to_ne_bytes());
        let found = times(&info).expect("times");
        assert_eq!(
            (found.since_data_sent_ns, found.since_data_received_ns, found.since_ack_ns),
            (MS, 2 * MS, 3 * MS)
        );
        assert_eq!(times(&info[..84]), None);
    }
}
