//! The reason as a sentence.

use super::{
    advice::read_is_unknown,
    inherited::{is_younger, openers},
    name, names, queues,
    reason::{segments_received, since_sent_ns},
};
use crate::model::{Listener, Reason, SocketReport, State, TimerKind, Transport};

pub(super) fn why(found: &SocketReport, reason: Reason) -> String {
    let socket = &found.socket;
    match reason {
        Reason::NeverAccepted => never_accepted(found),
        Reason::EofUnread => "the peer has closed, and the application has not read the end of file".into(),
        Reason::UnreadData if socket.transport == Transport::Mptcp => {
            "the peer has closed, and the application leaves data unread".into()
        }
        Reason::UnreadData => {
            format!("the peer has closed, and the application leaves {} bytes unread", socket.unread_bytes())
        }
        Reason::HalfClosedSending => half_closed_sending(found),
        Reason::NotClosed => not_closed(found),
        Reason::HeldByChild => held_by_child(found),
        Reason::HeldByKernel => held_by_kernel(found),
        Reason::InFlight => in_flight(found),
        Reason::HolderHidden => "the process that has the socket open cannot be seen from here".into(),
        Reason::OrphanWaitsForFin if socket.transport == Transport::Mptcp => {
            "closed here; the peer has not sent its DATA_FIN".into()
        }
        Reason::OrphanWaitsForFin => "closed here; the peer has not sent its FIN".into(),
        Reason::PeerKeepsOpen => "shut down here for sending; the peer keeps its side open".into(),
        Reason::PeerNotAnswering if socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe) => {
            format!("the peer's window is closed, and the peer does not answer: {} probes", socket.retransmits)
        }
        Reason::PeerNotAnswering => {
            let what = if socket.state == State::SynSent { "the SYN" } else { "what was sent" };
            format!("the peer does not acknowledge {what}: {} retransmissions", socket.retransmits)
        }
        Reason::AnsweredWithoutSynAck => answered_without_syn_ack(found),
        Reason::PeerTakesNothing if socket.state == State::CloseWait => {
            format!("the peer has closed its side only, and its window; {} bytes wait", socket.unsent_bytes())
        }
        Reason::PeerTakesNothing => {
            format!("the peer's window is closed; {} bytes and the FIN wait", socket.unsent_bytes())
        }
        Reason::CannotSend => format!(
            "the peer's window is open, and nothing is on its way: this host does not send {} bytes{}",
            socket.unsent_bytes(),
            if socket.state == State::CloseWait { "" } else { " and the FIN" }
        ),
        Reason::AcceptQueueFull => accept_queue_full(found),
        Reason::DeferredAccept => {
            "the handshake is done: the peer is ESTABLISHED, and the SYN-ACK is not sent again; the kernel \
             waits for data (TCP_DEFER_ACCEPT)"
                .into()
        }
        Reason::HandshakeUnfinished => handshake_unfinished(found),
        Reason::Unknown if read_is_unknown(found) => {
            "the peer has closed; for an MPTCP socket the kernel does not show whether the application has read the end of file".into()
        }
        Reason::Unknown => unknown(found),
    }
}

fn never_accepted(found: &SocketReport) -> String {
    match &found.listeners[..] {
        [] => "the peer has closed a connection that was never accepted".into(),
        [_] => format!(
            "the peer has closed a connection that the listener never accepted; {} wait there",
            queues(&found.listeners)
        ),
        several => format!(
            "the peer has closed a connection that was never accepted; it is not known at which of {} listeners it waits: {}",
            several.len(),
            queues(several)
        ),
    }
}

fn half_closed_sending(found: &SocketReport) -> String {
    let sent = since_sent_ns(found).map(|since_ns| format!("data was sent {} ms ago", since_ns / 1_000_000));
    let waits = match found.socket.unsent_bytes() {
        0 => None,
        bytes => Some(format!("{bytes} bytes are on their way")),
    };
    let used: Vec<String> = [sent, waits].into_iter().flatten().collect();
    format!("the peer has closed its side, and the other direction is in use: {}", used.join(", "))
}

fn not_closed(found: &SocketReport) -> String {
    let read = "the application has read everything, the end of file too, and does not close";
    match found.half_closed {
        0 => read.into(),
        count => format!(
            "{read}; it has shut down {count} other connections for sending and still reads them, as a proxy does that passes an \
             end of file on"
        ),
    }
}

fn held_by_child(found: &SocketReport) -> String {
    let holders = names(found.holders.iter().map(|holder| &holder.process)).unwrap_or_default();
    let others = match openers(found).next() {
        Some(opener) => {
            format!(
                "runs another program than {}, which opened or accepted the connection and no longer has it open",
                name(opener)
            )
        }
        None => "was started when the connection already existed".into(),
    };
    let young = found.holders.iter().all(|holder| is_younger(found, &holder.process));
    let and =
        if young && openers(found).next().is_some() { ", and is younger than the connection" } else { "" };
    format!("{holders} {others}{and}: it may have inherited it")
}

fn held_by_kernel(found: &SocketReport) -> String {
    let what = match found.socket.receive_queue {
        0 => "has read everything, the end of file too, and does not close".into(),
        1 => "has not read the end of file".into(),
        _ => format!("leaves {} bytes unread", found.socket.unread_bytes()),
    };
    format!(
        "the kernel itself uses it (its socket has no file, so no process can have it open): the peer has closed, and the kernel \
         {what}"
    )
}

fn in_flight(found: &SocketReport) -> String {
    let messages = found.elsewhere.iter().flat_map(|elsewhere| &elsewhere.messages);
    let queues: Vec<String> = messages
        .take(super::MOST_NAMES)
        .map(|message| {
            format!("{} in descriptor {} of {}", message.count, message.fd, name(&message.process))
        })
        .collect();
    format!(
        "no process has it open, and no io_uring instance; there are descriptors in the queues of unix sockets, sent and never \
         received: {}",
        queues.join(", ")
    )
}

fn answered_without_syn_ack(found: &SocketReport) -> String {
    let segments = match segments_received(&found.socket) {
        1 => "1 segment has come, and it is no SYN-ACK that fits it".into(),
        count => format!("{count} segments have come, and none is a SYN-ACK that fits it"),
    };
    format!(
        "the peer answers the SYN: {segments}; the peer may have another connection with these addresses and ports (in TIME_WAIT, or \
         ESTABLISHED after this host forgot it), and answer by challenge ACKs"
    )
}

fn accept_queue_full(found: &SocketReport) -> String {
    let full: Vec<Listener> = found.listeners.iter().filter(|listener| listener.is_full()).cloned().collect();
    let whose = names(full.iter().flat_map(|listener| &*listener.holders));
    let whose = whose.unwrap_or_else(|| "a process that is not known".into());
    let what = match (found.socket.state, found.peer) {
        (State::SynSent, _) => "the SYN is dropped",
        (_, Some(peer)) if peer.state == State::Established => {
            "the ACK of the handshake has come and is dropped"
        }
        _ => "the handshake cannot be finished",
    };
    let share = match found.listeners.len() {
        count if count > full.len() => format!(" (one of {count} listeners that share the port)"),
        _ => String::new(),
    };
    format!("{what}: the accept queue of {whose}{share}, on this host, is full: {}", queues(&full))
}

fn handshake_unfinished(found: &SocketReport) -> String {
    let full = found.listeners.iter().filter(|listener| listener.is_full()).count();
    if full > 0 {
        return format!(
            "the handshake is not finished; the accept queues of {full} of {} listeners that share the port are full, and it is \
             not known whose request it is: {}",
            found.listeners.len(),
            queues(&found.listeners)
        );
    }
    if found.peer.is_some_and(|peer| peer.state == State::Established) {
        return "the peer is ESTABLISHED, the handshake is not finished here: its ACK is lost, was dropped by an accept queue that \
                was full, or the kernel waits for data (TCP_DEFER_ACCEPT)"
            .into();
    }
    "the handshake is not finished: the last ACK has not come, or it has and the kernel waits for data (TCP_DEFER_ACCEPT)".into()
}

fn unknown(found: &SocketReport) -> String {
    let Some(elsewhere) = found.elsewhere.as_ref().filter(|_| found.holders.is_empty()) else {
        return "the kernel's tables do not show the reason".into();
    };
    match names(&elsewhere.rings) {
        Some(rings) => format!(
            "it is not known who holds the socket: no process by a descriptor; perhaps an io_uring instance of {rings}, whose files or requests \
             /proc does not show"
        ),
        None => "it is not known who holds the socket: no process by a descriptor, an io_uring file or a mapping, and no unix socket by a message; \
             the kernel itself may, or a call under way"
            .into(),
    }
}
