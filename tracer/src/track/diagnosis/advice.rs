//! What to do. Nobody is accused whose fault is not proven.

use super::{
    inherited::{is_unsure, makers},
    name, names,
};
use crate::model::{Holder, Listener, Reason, SocketReport, State, Transport, Via, Watch};

pub(super) fn advice(found: &SocketReport, reason: Reason) -> String {
    let holder = found.holders.first();
    let nobody = if found.of_kernel { "the kernel" } else { "the application" };
    let who = holder.map_or_else(|| nobody.into(), |holder| name(&holder.process));
    let watched = holder.and_then(watching).unwrap_or_default();
    match reason {
        Reason::NeverAccepted => {
            let who = names(found.listening()).unwrap_or_else(|| "the listener".into());
            format!("find out why {who} does not call accept(): its threads are busy, blocked or too few")
        }
        Reason::EofUnread | Reason::UnreadData => {
            let unsure = if is_unsure(found) { "; or it has inherited it from its parent and does not know of it" } else { "" };
            format!("find out why {who} does not read this {}{watched}{unsure}", handle(holder))
        }
        Reason::HalfClosedSending => format!("nothing, as long as {who} has something to send; then it is to close"),
        Reason::NotClosed => not_closed(found, &who, &watched),
        Reason::HeldByChild => {
            let maker = makers(found).next().map_or_else(|| "its parent".into(), name);
            format!(
                "if {who} is to serve the connection, find out why it does not read or close it; if not, {maker} is to open sockets \
                 with SOCK_CLOEXEC"
            )
        }
        Reason::HeldByKernel => "look at the kernel's log, and at kernel services that use these ports: mounts and exports (SMB, Ceph, NFS), block \
             devices over TCP, RDS"
            .into(),
        Reason::InFlight => "find out who should receive it: a worker that does not call recvmsg()".into(),
        Reason::HolderHidden => "look again as root, in the host's pid namespace".into(),
        // Its timer is MPTCP's own: net.mptcp.close_timeout on kernels that have that, a minute on others.
        Reason::OrphanWaitsForFin if found.socket.transport == Transport::Mptcp => {
            "look at the peer; the kernel drops it a minute after close(), or net.mptcp.close_timeout where there is one".into()
        }
        Reason::OrphanWaitsForFin => {
            "look at the peer; the kernel drops it after net.ipv4.tcp_fin_timeout".into()
        }
        Reason::PeerKeepsOpen => {
            format!("look at the peer; or {who} closes it, and the kernel drops it in a minute")
        }
        Reason::PeerNotAnswering => {
            "look at the path and the peer: firewall, host down; the kernel gives up after net.ipv4.tcp_retries2, \
             tcp_orphan_retries or tcp_syn_retries"
                .into()
        }
        Reason::PeerTakesNothing => "look at the peer: its application does not read".into(),
        Reason::CannotSend => {
            "look at what drops packets on this host: its firewall's output rules, its queues (tc -s qdisc), its routes".into()
        }
        Reason::AcceptQueueFull => {
            let full = found.listeners.iter().filter(|listener| listener.is_full());
            let who = names(full.flat_map(|listener: &Listener| &*listener.holders));
            let who = who.unwrap_or_else(|| "the listener".into());
            format!(
                "find out why {who} does not call accept(): its threads are busy, blocked or too few; or its backlog is too small for \
                 bursts (net.core.somaxconn)"
            )
        }
        Reason::DeferredAccept => "nothing: the client connects and says nothing; the kernel drops the request after the time of \
             TCP_DEFER_ACCEPT"
            .into(),
        Reason::HandshakeUnfinished => "few are normal; many may be a SYN flood, a path that loses packets \
             (net.ipv4.tcp_synack_retries), or clients that wait before they speak"
            .into(),
        Reason::Unknown if found.holders.is_empty() && found.elsewhere.is_some() => {
            "look at who listens on its port, at io_uring instances, and at kernel services (NFS, SMB, NVMe over TCP) that use its port"
                .into()
        }
        Reason::Unknown if read_is_unknown(found) => {
            format!("find out whether {who} reads and closes this {}{watched}", handle(holder))
        }
        Reason::Unknown => format!("look at {who}"),
    }
}

/// An MPTCP socket that the peer has closed: nothing tells whether the end of file was read.
pub(super) fn read_is_unknown(found: &SocketReport) -> bool {
    let SocketReport { socket, holders, .. } = found;
    socket.transport == Transport::Mptcp && socket.state == State::CloseWait && !holders.is_empty()
}

fn not_closed(found: &SocketReport, who: &str, watched: &str) -> String {
    if found.half_closed > 0 {
        return format!(
            "look if {who} waits for the other side of a tunnel{watched}; if not, it may leak the descriptor: look for the path that \
             returns without close()"
        );
    }
    format!(
        "{who} may leak the {}{watched}: look for the path that returns without close(), often after an error or in a connection \
         pool; or it still has something to send",
        handle(found.holders.first())
    )
}

fn handle(holder: Option<&Holder>) -> &'static str {
    match holder.map(|holder| holder.via) {
        Some(Via::IoUring(_)) => "registered file",
        Some(Via::Mapping) => "mapping",
        _ => "descriptor",
    }
}

/// What the process waits for, as a part of a sentence.
fn watching(holder: &Holder) -> Option<String> {
    match holder.watch.as_ref()? {
        Watch::NoEpoll => Some(", which no epoll of it watches".into()),
        Watch::Epoll(events) if events.contains(&"EPOLLIN") || events.contains(&"EPOLLRDHUP") => {
            Some(format!(", although its epoll waits for {}", events.join(" | ")))
        }
        Watch::Epoll(events) if events.is_empty() => Some(", whose events its epoll has switched off".into()),
        Watch::Epoll(events) => {
            Some(format!(": its epoll waits for {} only, not for EPOLLIN", events.join(" | ")))
        }
    }
}
