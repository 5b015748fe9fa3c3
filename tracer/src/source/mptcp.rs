//! MPTCP sockets (`IPPROTO_MPTCP`). A peer's close changes the state of the MPTCP socket, while its subflows, which are TCP
//! sockets, stay established. `sock_diag` lists MPTCP sockets since Linux 5.9 (module mptcp_diag).

use std::{collections::HashMap, fs, io, os::fd::OwnedFd};

use super::{
    message::parse,
    netlink::{DUMP_FLAGS, SOCK_DIAG_BY_FAMILY, ask, open, request},
    protocols,
};
use crate::model::{MptcpPart, SocketInfo, State, Transport};

/// The MPTCP sockets of the namespace of `diag` and of this thread; none if the kernel has no MPTCP.
pub(super) fn sockets(diag: &OwnedFd, netns: u32) -> Result<Vec<SocketInfo>, String> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = request(SOCK_DIAG_BY_FAMILY, DUMP_FLAGS, family as u8, Transport::Mptcp);
        match ask(diag, &request, |message| parse(netns, message, Transport::Mptcp)) {
            // The table of listeners may list sockets in other states.
            Ok(sockets) => found.extend(sockets.into_iter().filter(|socket| socket.state != State::Close)),
            Err(_) if !protocols::read().is_ok_and(|table| protocols::has_sockets(&table, "MPTCP")) => {}
            Err(error) => return Err(missing(&error)),
        }
    }
    Ok(found)
}

/// The kernel's support of MPTCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mptcp {
    /// `net.mptcp.enabled` of this network namespace; `None` if the kernel has no MPTCP.
    pub enabled: Option<bool>,
    /// Why MPTCP sockets cannot be listed; `None` if they can.
    pub unlisted: Option<String>,
}

impl Mptcp {
    /// Asks the kernel.
    #[must_use]
    pub fn find() -> Self {
        let enabled = fs::read_to_string("/proc/sys/net/mptcp/enabled").ok().map(|text| text.trim() != "0");
        let answer = open().and_then(|diag| {
            let request = request(SOCK_DIAG_BY_FAMILY, DUMP_FLAGS, libc::AF_INET as u8, Transport::Mptcp);
            ask(&diag, &request, |_| None::<SocketInfo>)
        });
        Self { enabled, unlisted: answer.err().map(|error| missing(&error)) }
    }
}

fn missing(error: &io::Error) -> String {
    format!("MPTCP's sockets cannot be listed (module mptcp_diag): {error}")
}

/// Finds the MPTCP socket of each subflow: by its token, by its inode, or by its ends, which are those of the first subflow. A
/// listener may share its ends with listeners of plain TCP. If no MPTCP socket is listed, the connection has fallen back to TCP.
pub(super) fn link(sockets: &mut [SocketInfo]) {
    let is_whole = |socket: &SocketInfo| matches!(socket.mptcp, Some(MptcpPart::Whole { .. }));
    let (mut by_token, mut by_ends, mut by_inode) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (at, socket) in sockets.iter().enumerate().filter(|(_, socket)| is_whole(socket)) {
        by_token.extend(socket.mptcp.and_then(MptcpPart::token).map(|token| (token, at)));
        by_ends.insert(socket.tuple, at);
        by_inode.extend((socket.inode != 0).then_some((socket.inode, at)));
    }
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for at in 0..sockets.len() {
        let Some(socket) = sockets.get(at).filter(|socket| !is_whole(socket)) else { continue };
        let token = socket.mptcp.and_then(MptcpPart::token);
        let has_unique_ends = socket.state != State::Listen || socket.mptcp.is_some();
        let whole = token
            .and_then(|token| by_token.get(&token))
            .or_else(|| by_inode.get(&socket.inode))
            .or_else(|| by_ends.get(&socket.tuple).filter(|_| has_unique_ends))
            .copied();
        let found = whole.and_then(|whole| sockets.get(whole));
        let found = found.map(|whole| (whole.inode, whole.mptcp.and_then(MptcpPart::token)));
        let Some(socket) = sockets.get_mut(at) else { continue };
        socket.mptcp = found.map(|(_, token)| MptcpPart::Subflow { token });
        if let (Some(whole), Some((inode, _))) = (whole, found) {
            socket.inode = inode;
            *counts.entry(whole).or_default() += 1;
        }
    }
    for (at, count) in counts {
        if let Some(MptcpPart::Whole { subflows, .. }) =
            sockets.get_mut(at).and_then(|whole| whole.mptcp.as_mut())
        {
            *subflows = count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(part: Option<MptcpPart>, state: State, inode: u64, port: u16) -> SocketInfo {
        let address = crate::model::Address::from_v4([127, 0, 0, 1]);
        let transport =
            if matches!(part, Some(MptcpPart::Whole { .. })) { Transport::Mptcp } else { Transport::Tcp };
        let tuple = crate::model::Tuple {
            local: address,
            remote: address,
            local_port: port,
            remote_port: if state == State::Listen { 0 } else { 9 },
            v6_socket: false,
            interface: 0,
        };
        SocketInfo { transport, mptcp: part, inode, ..SocketInfo::bare(1, state, tuple) }
    }

    #[test]
    fn each_subflow_finds_its_connection() {
        use State::{Established, Listen};
        let whole = |token| Some(MptcpPart::Whole { token, subflows: 0 });
        let below = |token| Some(MptcpPart::Subflow { token });
        let mut sockets = vec![
            socket(below(Some(7)), Established, 0, 50), // by its token, from another port
            socket(None, Established, 0, 1),            // by its ends
            socket(below(None), Listen, 99, 80),        // by its ends, as it is MPTCP's
            socket(None, Listen, 4, 81),                // by its inode
            socket(None, Listen, 5, 80),                // of TCP, on the same port
            socket(below(Some(8)), Established, 6, 51), // has fallen back to TCP
            socket(whole(Some(7)), Established, 2, 1),
            socket(whole(None), Listen, 3, 80),
            socket(whole(None), Listen, 4, 81),
        ];
        link(&mut sockets);
        let parts: Vec<_> = sockets.iter().map(|socket| (socket.mptcp, socket.inode)).collect();
        let subflow = |token| Some(MptcpPart::Subflow { token });
        let counted = |token, subflows| Some(MptcpPart::Whole { token, subflows });
        assert_eq!(
            parts,
            [
                (subflow(Some(7)), 2),
                (subflow(Some(7)), 2),
                (subflow(None), 3),
                (subflow(None), 4),
                (None, 5),
                (None, 6),
                (counted(Some(7), 2), 2),
                (counted(None, 1), 3),
                (counted(None, 1), 4),
            ]
        );
    }
}
