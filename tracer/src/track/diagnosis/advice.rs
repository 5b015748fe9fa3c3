//! The advice: what to do. It names no process as the culprit where that is not proven.

use super::{
    inherited::{is_unsure, openers},
    name, names,
};
use crate::model::{Holder, Listener, Reason, SocketReport, State, Transport, Via, Watch};

pub(super) fn advice(found: &SocketReport, reason: Reason) -> String {
    let holder = found.holders.first();
    let fallback = if found.of_kernel { "the kernel" } else { "the application" };
    let who = holder.map_or_else(|| fallback.into(), |holder| name(&holder.process));
    let watched = holder.and_then(watching).unwrap_or_default();
    match reason {
        Reason::NeverAccepted => {
            let who = names(found.listening()).unwrap_or_else(|| "the listener".into());
            format!("find out why {who} does not call accept(): its threads are busy, blocked or too few")
        }
        Reason::EofUnread | Reason::UnreadData => {
            let handle = handle(holder);
            let unsure = if is_unsure(found) {
                format!("; {who} may have inherited the {handle} from its parent without using it")
            } else {
                String::new()
            };
            format!("find out why {who} does not read this {handle}{watched}{unsure}")
        }
        Reason::HalfClosedSending => {
            format!("no action while {who} has data to send; after that, {who} should call close()")
        }
        Reason::NotClosed => not_closed(found, &who, &watched),
        Reason::HeldByChild => {
            let opener = openers(found).next().map_or_else(|| "its parent".into(), name);
            format!(
                "if {who} should serve the connection, find out why it does not read or close it; if not, {opener} should open sockets \
                 with SOCK_CLOEXEC"
            )
        }
        Reason::HeldByKernel => "look at the kernel's log, and at kernel services that use these ports: mounts and exports (SMB, Ceph, NFS), block \
             devices over TCP, RDS"
            .into(),
        Reason::InFlight => "find out who should receive it: a worker that does not call recvmsg()".into(),
        Reason::HolderHidden => "look again as root, in the host's pid namespace".into(),
        Reason::OrphanWaitsForFin => {
            format!("find out why the peer does not close; the kernel drops the connection after {}", orphan_time(found))
        }
        Reason::PeerKeepsOpen => format!(
            "find out why the peer does not close; if {who} closes the socket, the kernel then drops the connection after {}",
            orphan_time(found)
        ),
        Reason::PeerNotAnswering => {
            "look at the path and the peer: firewall, host down; the kernel gives up after net.ipv4.tcp_retries2, \
             tcp_orphan_retries or tcp_syn_retries"
                .into()
        }
        Reason::AnsweredWithoutSynAck => {
            "look for the peer's connection with these addresses and ports, and end it or connect from another local port; this host answers a \
             challenge ACK by a reset, which ends that connection: find out what drops the reset (a firewall, a load balancer)"
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
        // syn_ack_recalc() and tcp_check_req().
        Reason::DeferredAccept => "no action: the client has connected and has sent no data; at the end of the TCP_DEFER_ACCEPT period the \
             kernel sends the SYN-ACK again, and then completes the connection, or drops it if the client does not answer"
            .into(),
        Reason::HandshakeUnfinished => "a few are normal; many can mean a SYN flood, packet loss (see net.ipv4.tcp_synack_retries), or \
             clients that delay their first data"
            .into(),
        Reason::Unknown if found.holders.is_empty() && found.elsewhere.is_some() => {
            "look at the processes that listen on its port, at io_uring instances, and at kernel services (NFS, SMB, NVMe over TCP) that use its port"
                .into()
        }
        Reason::Unknown if read_is_unknown(found) => {
            format!("find out whether {who} reads and closes this {}{watched}", handle(holder))
        }
        Reason::Unknown => format!("look at {who}"),
    }
}

/// An MPTCP socket that the peer has closed: it is not known whether the application has read the end of file.
pub(super) fn read_is_unknown(found: &SocketReport) -> bool {
    let SocketReport { socket, holders, .. } = found;
    socket.transport == Transport::Mptcp && socket.state == State::CloseWait && !holders.is_empty()
}

/// How long the kernel keeps a socket in FIN_WAIT2 after close(). MPTCP has its own timer.
fn orphan_time(found: &SocketReport) -> &'static str {
    match found.socket.transport {
        Transport::Mptcp => "net.mptcp.close_timeout (a minute on kernels that do not have it)",
        _ => "net.ipv4.tcp_fin_timeout",
    }
}

fn not_closed(found: &SocketReport, who: &str, watched: &str) -> String {
    if found.half_closed > 0 {
        return format!(
            "check whether {who} waits for the other side of a tunnel; if not, it may leak the {}{watched}: look for the path that \
             returns without close()",
            handle(found.holders.first())
        );
    }
    format!(
        "{who} may leak the {}{watched}: look for the path that returns without close(), often after an error or in a connection \
         pool; or it still has data to send",
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
        Watch::NoEpoll => Some(", which none of its epoll instances watches".into()),
        Watch::Epoll(events) if events.contains(&"EPOLLIN") || events.contains(&"EPOLLRDHUP") => {
            Some(format!(", although its epoll waits for {}", events.join(" | ")))
        }
        Watch::Epoll(events) if events.is_empty() => {
            Some(", for which its epoll instance has all events disabled".into())
        }
        Watch::Epoll(events) => {
            Some(format!(": its epoll waits for {} only, not for EPOLLIN", events.join(" | ")))
        }
    }
}
