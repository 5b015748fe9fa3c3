//! Fuzz targets: the parsers of the kernel's socket tables, with any bytes.

use super::{
    conntrack::{self, Entry},
    links, message, netlink, protocols, requests,
};
use crate::model::Transport;

/// `/proc/net/tcp`, `/proc/net/protocols`.
pub(crate) fn tables(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        requests::request(line, false);
    }
    protocols::has_sockets(&text, "MPTCP");
}

/// Messages of `sock_diag`.
pub(crate) fn diag(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((_, message, next)) = netlink::split_message(rest) {
        assert!(next.len() < rest.len(), "it goes on");
        for transport in [Transport::Tcp, Transport::Mptcp] {
            assert!(message::parse(1, message, transport).is_none_or(|socket| socket.netns == 1));
        }
        rest = next;
    }
    netlink::answer(bytes);
}

/// Messages of conntrack and of routing netlink.
pub(crate) fn conntrack(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((_, message, next)) = netlink::split_message(rest) {
        assert!(next.len() < rest.len(), "it goes on");
        if let Some(entry) = Entry::parse(message) {
            entry.check();
        }
        assert!(conntrack::zones_of(message).len() <= message.len());
        links::link(message);
        assert!(links::id(message).is_none_or(|id| id >= 0));
        rest = next;
    }
}
