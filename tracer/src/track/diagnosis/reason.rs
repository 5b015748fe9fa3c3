//! What the numbers of a socket, its holders, its listeners and its other end come to.

use super::inherited::is_inherited;
use crate::{
    model::{Listener, Reason, SocketInfo, SocketReport, State, TimerKind, Transport},
    track::age::TICK_NS,
};

const SECOND_NS: u64 = 1_000_000_000;
/// Data that was sent within this time, and after the peer's FIN, shows that a half-closed connection is in use (docs/stuck.md).
const RECENT_NS: u64 = 10 * SECOND_NS;
/// The same where nothing tells when the FIN came: if that was after the data, then the state is younger than this.
const RECENT_AT_LEAST_NS: u64 = SECOND_NS;
/// A SYN-ACK is sent again after a second (`TCP_TIMEOUT_INIT`), and TCP_DEFER_ACCEPT suppresses that: after twice this time the timer
/// has run out in any case.
const ANSWERED_NS: u64 = 2 * SECOND_NS;

/// Why a socket is stuck.
#[must_use]
pub fn reason(found: &SocketReport) -> Reason {
    let socket = &found.socket;
    match socket.state {
        // What reasons are told by is not known of it.
        _ if socket.is_partial => Reason::Unknown,
        State::CloseWait => close_wait(found),
        State::FinWait2 if found.holders.is_empty() && socket.inode == 0 => Reason::OrphanWaitsForFin,
        State::FinWait2 => Reason::PeerKeepsOpen,
        State::NewSynRecv | State::SynRecv => handshake(found),
        State::SynSent if found.listeners.iter().any(Listener::is_full) => Reason::AcceptQueueFull,
        State::FinWait1 | State::LastAck | State::Closing if cannot_send(socket) => Reason::CannotSend,
        State::FinWait1 | State::LastAck | State::Closing if takes_nothing(socket) => {
            Reason::PeerTakesNothing
        }
        State::FinWait1 | State::LastAck | State::Closing | State::SynSent if is_not_answering(socket) => {
            Reason::PeerNotAnswering
        }
        _ => Reason::Unknown,
    }
}

/// Something was sent again and not acknowledged, or more than one probe of a closed window was not answered.
fn is_not_answering(socket: &SocketInfo) -> bool {
    match socket.timer.map(|timer| timer.kind) {
        Some(TimerKind::Retransmit) => socket.retransmits > 0 && !refuses_again(socket),
        // `icsk_probes_out`, which every acknowledgment clears: the last probe may be on its way.
        Some(TimerKind::Probe) => socket.retransmits > 1,
        _ => false,
    }
}

/// The timer of closed windows runs, and the peer's window has room for what is to be sent: the timer is also set where
/// the host itself could not send.
fn cannot_send(socket: &SocketInfo) -> bool {
    socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe)
        && socket.times.is_some_and(|times| {
            times
                .peer_window
                .is_some_and(|window| window > 0 && window >= times.segment_bytes.min(socket.send_queue))
        })
}

/// The peer's window is closed, and the peer answers.
fn takes_nothing(socket: &SocketInfo) -> bool {
    refuses_again(socket) || is_probed(socket)
}

/// The kernel asks for the peer's closed window, and the peer answers.
fn is_probed(socket: &SocketInfo) -> bool {
    socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe) && socket.retransmits <= 1
}

/// What is sent again, since it came when there was no room, was answered by a closed window.
fn refuses_again(socket: &SocketInfo) -> bool {
    // Before the handshake there is no window yet.
    socket.state != State::SynSent
        && socket.timer.is_some_and(|timer| timer.kind == TimerKind::Retransmit)
        && socket.retransmits > 0
        && socket.times.is_some_and(|times| {
            times.peer_window == Some(0) && times.since_ack_ns <= times.since_data_sent_ns
        })
}

fn close_wait(found: &SocketReport) -> Reason {
    let socket = &found.socket;
    if socket.inode == 0 {
        return Reason::NeverAccepted;
    }
    if found.holders.is_empty() && !found.of_kernel {
        return nobody(found);
    }
    if socket.transport == Transport::Mptcp {
        // Its queues count memory: no end of file, and not what is being sent.
        return if socket.receive_queue == 0 { Reason::Unknown } else { Reason::UnreadData };
    }
    if let Some(reason) = sending(found) {
        return reason;
    }
    if found.of_kernel {
        return Reason::HeldByKernel;
    }
    if is_inherited(found) {
        return Reason::HeldByChild;
    }
    match socket.receive_queue {
        0 => Reason::NotClosed,
        1 => Reason::EofUnread,
        _ => Reason::UnreadData,
    }
}

/// It has a file, but no process is known to have it open.
fn nobody(found: &SocketReport) -> Reason {
    match &found.elsewhere {
        _ if found.hidden_holders => Reason::HolderHidden,
        Some(elsewhere) if elsewhere.rings.is_empty() && !elsewhere.messages.is_empty() => Reason::InFlight,
        _ => Reason::Unknown,
    }
}

/// What the other direction does, if that is in use.
fn sending(found: &SocketReport) -> Option<Reason> {
    let socket = &found.socket;
    let waits = socket.send_queue > 0;
    if waits && cannot_send(socket) {
        return Some(Reason::CannotSend);
    }
    // What is sent again counts as sent.
    if waits && is_not_answering(socket) {
        return Some(Reason::PeerNotAnswering);
    }
    if waits && refuses_again(socket) {
        return Some(Reason::PeerTakesNothing);
    }
    if since_sent_ns(found).is_some() {
        return Some(Reason::HalfClosedSending);
    }
    if waits && is_probed(socket) {
        return Some(Reason::PeerTakesNothing);
    }
    waits.then_some(Reason::HalfClosedSending)
}

/// Since data was sent, if that is not long ago, and not before the peer's FIN as far as anything tells.
pub(super) fn since_sent_ns(found: &SocketReport) -> Option<u64> {
    let times = found.socket.times.filter(|times| times.data_segments_sent > 0)?;
    let since_ns = times.since_data_sent_ns;
    let is_recent = match found.age.filter(|age| !age.at_least) {
        // A time in ticks may be one tick too short: what was sent just before the FIN was not sent after it.
        Some(age) => since_ns.saturating_add(TICK_NS) < age.ns && since_ns < RECENT_NS,
        // The FIN came behind the peer's data: what was sent before that, or in the same tick, may have been sent before the FIN.
        None => since_ns < RECENT_AT_LEAST_NS && since_ns < times.since_data_received_ns,
    };
    is_recent.then_some(since_ns)
}

/// A request waits for the last ACK, for data, or for room in the accept queue.
fn handshake(found: &SocketReport) -> Reason {
    let listeners = &found.listeners;
    if found.peer.is_some_and(|peer| peer.state == State::SynSent) {
        return Reason::HandshakeUnfinished;
    }
    // The peer has the SYN-ACK and has said all it had to say, and the kernel does not send the SYN-ACK again, as it would
    // for lack of room.
    let is_done = found.peer.is_some_and(|peer| {
        peer.state == State::Established
            && peer.unacknowledged == 0
            && peer.since_data_sent_ns.is_some_and(|since_ns| since_ns >= ANSWERED_NS)
    });
    if is_done && found.socket.retransmits == 0 && !listeners.is_empty() {
        Reason::DeferredAccept
    } else if !listeners.is_empty() && listeners.iter().all(Listener::is_full) {
        Reason::AcceptQueueFull
    } else {
        Reason::HandshakeUnfinished
    }
}
