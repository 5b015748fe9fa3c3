//! Decides why a socket is stuck, by the socket's numbers, its holders, its listeners and its other end.

use super::inherited::is_inherited;
use crate::{
    model::{Listener, Reason, SocketInfo, SocketReport, State, TimerKind, Transport},
    track::age::TICK_NS,
};

const SECOND_NS: u64 = 1_000_000_000;
/// Data that was sent within this time, and after the peer's FIN, shows that a half-closed connection is in use (docs/stuck.md).
const RECENT_NS: u64 = 10 * SECOND_NS;
/// The same where the time of the FIN is not known. The data may have been sent before the FIN: then the connection has been in its
/// state for less than this.
const RECENT_AT_LEAST_NS: u64 = SECOND_NS;
/// If the accept queue has no room, the kernel sends the SYN-ACK again after a second (`TCP_TIMEOUT_INIT`); while TCP_DEFER_ACCEPT waits
/// for data, it does not. After twice that time, the timer of the SYN-ACK has expired in either case.
const ANSWERED_NS: u64 = 2 * SECOND_NS;

/// Why a socket is stuck.
#[must_use]
pub fn reason(found: &SocketReport) -> Reason {
    let socket = &found.socket;
    match socket.state {
        // The fields that decide the reason could not be read.
        _ if socket.is_partial => Reason::Unknown,
        State::CloseWait => close_wait(found),
        State::FinWait2 if found.holders.is_empty() && socket.inode == 0 => Reason::OrphanWaitsForFin,
        State::FinWait2 => Reason::PeerKeepsOpen,
        State::NewSynRecv | State::SynRecv => handshake(found),
        State::SynSent if found.listeners.iter().any(Listener::is_full) => Reason::AcceptQueueFull,
        State::SynSent if segments_received(socket) > 0 => Reason::AnsweredWithoutSynAck,
        State::FinWait1 | State::LastAck | State::Closing if cannot_send(socket) => Reason::CannotSend,
        State::FinWait1 | State::LastAck | State::Closing if has_zero_window(socket) => {
            Reason::PeerTakesNothing
        }
        State::FinWait1 | State::LastAck | State::Closing | State::SynSent if is_not_answering(socket) => {
            Reason::PeerNotAnswering
        }
        _ => Reason::Unknown,
    }
}

/// In SYN_SENT: segments for the socket that began no connection. An acceptable SYN-ACK, SYN or reset would have ended the state.
pub(super) fn segments_received(socket: &SocketInfo) -> u32 {
    socket.traffic.map_or(0, |traffic| traffic.segments_received)
}

/// Something was retransmitted and not acknowledged, or more than one window probe was not answered.
fn is_not_answering(socket: &SocketInfo) -> bool {
    match socket.timer.map(|timer| timer.kind) {
        Some(TimerKind::Retransmit) => socket.retransmits > 0 && !has_refused_retransmission(socket),
        // `icsk_probes_out`, which every acknowledgment clears: the last probe may be on its way.
        Some(TimerKind::Probe) => socket.retransmits > 1,
        _ => false,
    }
}

/// The persist timer runs, and the peer's window has room for what is to be sent: the kernel also sets this timer where the host itself
/// could not send.
fn cannot_send(socket: &SocketInfo) -> bool {
    socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe)
        && socket.times.is_some_and(|times| {
            times
                .peer_window
                .is_some_and(|window| window > 0 && window >= times.segment_bytes.min(socket.send_queue))
        })
}

/// The peer's window is zero, and the peer answers.
fn has_zero_window(socket: &SocketInfo) -> bool {
    has_refused_retransmission(socket) || is_window_probed(socket)
}

/// The kernel sends window probes, and the peer answers them.
fn is_window_probed(socket: &SocketInfo) -> bool {
    socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe) && socket.retransmits <= 1
}

/// A retransmission was acknowledged with a zero window: the peer had no room for the segment, and has none now.
fn has_refused_retransmission(socket: &SocketInfo) -> bool {
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
        // For MPTCP the kernel gives the memory that the queues use: a receive queue of 1 is no FIN, and the send queue is not the
        // unsent data.
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

/// The socket has a file, but no process is known to have it open.
fn nobody(found: &SocketReport) -> Reason {
    match &found.elsewhere {
        _ if found.hidden_holders => Reason::HolderHidden,
        Some(elsewhere) if elsewhere.rings.is_empty() && !elsewhere.messages.is_empty() => Reason::InFlight,
        _ => Reason::Unknown,
    }
}

/// The reason, if this host still sends data or tries to.
fn sending(found: &SocketReport) -> Option<Reason> {
    let socket = &found.socket;
    let waits = socket.send_queue > 0;
    if waits && cannot_send(socket) {
        return Some(Reason::CannotSend);
    }
    // A retransmission counts as sent, too: this comes before the test for data that was sent recently.
    if waits && is_not_answering(socket) {
        return Some(Reason::PeerNotAnswering);
    }
    if waits && has_refused_retransmission(socket) {
        return Some(Reason::PeerTakesNothing);
    }
    if since_sent_ns(found).is_some() {
        return Some(Reason::HalfClosedSending);
    }
    if waits && is_window_probed(socket) {
        return Some(Reason::PeerTakesNothing);
    }
    waits.then_some(Reason::HalfClosedSending)
}

/// The time since data was last sent, ns: if that is recent, and, as far as is known, after the peer's FIN.
pub(super) fn since_sent_ns(found: &SocketReport) -> Option<u64> {
    let times = found.socket.times.filter(|times| times.data_segments_sent > 0)?;
    let since_ns = times.since_data_sent_ns;
    let is_recent = match found.age.filter(|age| !age.at_least) {
        // A time in ticks may be one tick too short: data that was sent just before the FIN must not count.
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
    // The peer has the SYN-ACK and has no unacknowledged data, and the kernel does not send the SYN-ACK again, as it would if the
    // accept queue had no room.
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
