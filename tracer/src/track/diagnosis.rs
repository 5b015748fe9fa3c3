//! Why a socket is stuck and what to do: from what a look at it found, never from a guess.

use std::path::Path;

use super::commands::commands;
use crate::model::{Diagnosis, Examined, Holder, Reason, State, TimerKind, Watch};

/// Explains a socket. `netns` leads to its network namespace where that is not the user's own.
#[must_use]
pub fn diagnose(it: &Examined, netns: Option<&Path>) -> Diagnosis {
    let reason = reason(it);
    Diagnosis { reason, why: why(it, reason), advice: advice(it, reason), commands: commands(it, netns) }
}

/// Why a socket is stuck.
#[must_use]
pub fn reason(it: &Examined) -> Reason {
    let socket = &it.socket;
    let sending_again =
        socket.timer.is_some_and(|timer| timer.kind == TimerKind::Retransmit) && socket.retransmits > 0;
    let probing = socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe);
    match socket.state {
        State::CloseWait => close_wait(it),
        State::FinWait2 if it.holders.is_empty() && socket.inode == 0 => Reason::OrphanWaitsForFin,
        State::FinWait2 => Reason::PeerKeepsOpen,
        State::NewSynRecv | State::SynRecv => Reason::HandshakeUnfinished,
        State::FinWait1 | State::LastAck | State::Closing if probing => Reason::PeerTakesNothing,
        State::FinWait1 | State::LastAck | State::Closing | State::SynSent if sending_again => {
            Reason::PeerNotAnswering
        }
        _ => Reason::Unknown,
    }
}

fn close_wait(it: &Examined) -> Reason {
    let socket = &it.socket;
    if socket.inode == 0 {
        return Reason::NeverAccepted;
    }
    if it.holders.is_empty() {
        return if it.hidden_holders { Reason::HolderHidden } else { Reason::InFlight };
    }
    if is_held_by_child(it) {
        return Reason::HeldByChild;
    }
    match socket.receive_queue {
        0 => Reason::NotClosed,
        1 => Reason::EofUnread,
        _ => Reason::UnreadData,
    }
}

/// Only children of who listens have it open: inherited at a fork, and forgotten.
fn is_held_by_child(it: &Examined) -> bool {
    let Some(listener) = &it.listener else { return false };
    let listens = |pid: u32| listener.holders.iter().any(|process| process.pid == pid);
    !listener.holders.is_empty()
        && it.holders.iter().all(|holder| !listens(holder.process.pid) && listens(holder.process.parent))
}

fn why(it: &Examined, reason: Reason) -> String {
    let socket = &it.socket;
    match reason {
        Reason::NeverAccepted => match &it.listener {
            Some(listener) => format!(
                "the peer has closed a connection that the listener never accepted; {} of at most {} wait there",
                listener.queued,
                u64::from(listener.backlog) + 1
            ),
            None => "the peer has closed a connection that was never accepted".into(),
        },
        Reason::EofUnread => "the peer has closed, and the application has not read the end of file".into(),
        Reason::UnreadData => {
            format!("the peer has closed, and the application leaves {} bytes unread", socket.unread_bytes())
        }
        Reason::NotClosed => {
            "the application has read everything, the end of file too, and does not close".into()
        }
        Reason::HeldByChild => {
            "the process that accepted it has closed it; a child still has it open since the fork".into()
        }
        Reason::InFlight => {
            "no process has it open: it lies in a unix socket's queue, sent and never received".into()
        }
        Reason::HolderHidden => "who has it open cannot be seen without root".into(),
        Reason::OrphanWaitsForFin => "closed here; the peer has not sent its FIN".into(),
        Reason::PeerKeepsOpen => "shut down here for sending; the peer keeps its side open".into(),
        Reason::PeerNotAnswering => {
            let what = if socket.state == State::SynSent { "our SYN" } else { "what was sent last" };
            format!("the peer does not acknowledge {what}, sent {} times more", socket.retransmits)
        }
        Reason::PeerTakesNothing => {
            format!("the peer's window is closed; {} bytes and the FIN wait", socket.unsent_bytes())
        }
        Reason::HandshakeUnfinished => "the last ACK of the handshake has not come".into(),
        Reason::Unknown => "the kernel's tables do not tell".into(),
    }
}

fn advice(it: &Examined, reason: Reason) -> String {
    let holder = it.holders.first();
    let name = holder.map_or_else(|| "the application".into(), who);
    let watched = holder.and_then(watching);
    match reason {
        Reason::NeverAccepted => {
            let listener = it.listener.as_ref().and_then(|listener| listener.holders.first());
            let name = listener.map_or_else(
                || "the listener".into(),
                |process| format!("{} ({})", process.comm, process.pid),
            );
            format!("find out why {name} does not call accept(): its threads are busy, blocked or too few")
        }
        Reason::EofUnread | Reason::UnreadData => {
            let watched = watched.unwrap_or_default();
            format!("find out why {name} does not read this descriptor{watched}")
        }
        Reason::NotClosed => {
            let watched = watched.unwrap_or_default();
            format!(
                "{name} leaks the descriptor{watched}: look for the path that returns without close(), often \
                 after an error or in a connection pool"
            )
        }
        Reason::HeldByChild => {
            format!("open sockets with SOCK_CLOEXEC, or close them in the child: {name} does not know of it")
        }
        Reason::InFlight => "find out who should receive it: a worker that does not call recvmsg()".into(),
        Reason::HolderHidden => "look again as root".into(),
        Reason::OrphanWaitsForFin => {
            "look at the peer; the kernel drops it after net.ipv4.tcp_fin_timeout".into()
        }
        Reason::PeerKeepsOpen => {
            format!("look at the peer; or {name} closes it, and the kernel drops it in a minute")
        }
        Reason::PeerNotAnswering => {
            "look at the path and the peer: firewall, host down; the kernel gives up after \
             net.ipv4.tcp_retries2, tcp_orphan_retries or tcp_syn_retries"
                .into()
        }
        Reason::PeerTakesNothing => "look at the peer: its application does not read".into(),
        Reason::HandshakeUnfinished => {
            "few are normal; many are a SYN flood or a path that loses our answer (net.ipv4.tcp_synack_retries)"
                .into()
        }
        Reason::Unknown => format!("look at {name}"),
    }
}

fn who(holder: &Holder) -> String {
    format!("{} ({})", holder.process.comm, holder.process.pid)
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
