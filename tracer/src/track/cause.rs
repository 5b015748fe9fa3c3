//! Why a state or a connection ended, by evidence from the kernel. docs/causes.md has the evidence of each answer and where
//! in the kernel it comes from.

use super::resets::{Resets, Sent};
use crate::model::{Cause, ClosedAs, State};

const EPIPE: u16 = 32;
const EADDRNOTAVAIL: u16 = 99;
const ECONNABORTED: u16 = 103;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;

/// Why a full socket went to CLOSE, as far as it is known then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CloseCause {
    pub(super) cause: Option<Cause>,
    /// The error that ended the connection; 0 if none did. `sk_err` may also hold an old error.
    pub(super) errno: u16,
    /// A reset that is sent from here may follow, and would be the cause.
    pub(super) may_be_reset: bool,
}

impl CloseCause {
    fn ended(cause: Cause, errno: u16) -> Self {
        Self { cause: Some(cause), errno, may_be_reset: false }
    }

    fn unknown(errno: u16) -> Self {
        Self { cause: None, errno, may_be_reset: false }
    }
}

/// The cause of a transition that is not `-> CLOSE`.
pub(super) fn step_cause(from: State, to: State) -> Option<Cause> {
    let fin = matches!(
        (from, to),
        (State::Established | State::SynRecv, State::CloseWait)
            | (State::FinWait1, State::Closing)
            | (State::FinWait1 | State::FinWait2 | State::Closing, State::TimeWait)
    );
    fin.then_some(Cause::Fin)
}

/// The cause of a full socket's `-> CLOSE`. `resets` are those of this moment; without `closed` no cause is known.
pub(super) fn close_cause(from: State, errno: u16, resets: Resets, closed: Option<ClosedAs>) -> CloseCause {
    let Some(closed) = closed else { return CloseCause::default() };
    match from {
        // A listener ends by close(); an error on it is an old one.
        State::Listen | State::NewSynRecv | State::TimeWait | State::Close => CloseCause::default(),
        State::SynSent => connect(errno, resets, closed),
        _ => connection(from, errno, resets, closed),
    }
}

/// The cause for a connect. `tcp_connect_init()` clears `sk_err`, so an error that the socket has after a SYN was sent belongs to this
/// connect.
fn connect(errno: u16, resets: Resets, closed: ClosedAs) -> CloseCause {
    if resets.received {
        return CloseCause::ended(Cause::Refused, errno);
    }
    if closed.connecting && closed.no_local_port {
        // __inet_hash_connect() sets the port as soon as it has found a free one.
        return CloseCause::ended(Cause::NoLocalPort, EADDRNOTAVAIL);
    }
    if closed.connecting {
        // tcp_v4_connect() and tcp_v6_connect() give up by themselves; the error is what connect() returns.
        return CloseCause::ended(Cause::ConnectFailedLocally, 0);
    }
    match errno {
        ECONNABORTED => CloseCause::ended(Cause::Killed, errno),
        // The connect waits for its first data (TCP_FASTOPEN_CONNECT). Either the application has closed the socket, or the SYN could
        // not be sent.
        _ if closed.nothing_sent && closed.receive_shut && closed.send_shut => {
            CloseCause::ended(Cause::GivenUp, 0)
        }
        _ if closed.nothing_sent => CloseCause::default(),
        // The kernel purges the write queue before it ends a connect by an error, so a SYN in flight means that there was no error.
        // Without it there may have been one, which getsockopt(SO_ERROR) has cleared.
        0 if closed.in_flight => CloseCause::ended(Cause::GivenUp, 0),
        0 => CloseCause::default(),
        ECONNREFUSED => CloseCause::ended(Cause::Refused, errno),
        ETIMEDOUT => CloseCause::ended(Cause::ConnectTimeout, errno),
        _ => CloseCause::unknown(errno),
    }
}

fn connection(from: State, errno: u16, resets: Resets, closed: ClosedAs) -> CloseCause {
    let may_be_own = closed.receive_shut && answers_data_by_reset(from);
    if resets.received {
        // tcp_reset() also runs for data after close(); then a reset is sent next.
        return CloseCause { cause: Some(Cause::ResetReceived), errno, may_be_reset: may_be_own };
    }
    if errno == ECONNABORTED {
        return CloseCause::ended(Cause::Killed, errno);
    }
    if resets.sent.is_some() {
        let keepalive = errno == ETIMEDOUT || (errno != 0 && closed.probed && !closed.orphan);
        return if keepalive {
            CloseCause::ended(Cause::KeepaliveTimeout, errno)
        } else {
            CloseCause::ended(Cause::ResetSent, 0)
        };
    }
    match errno {
        // Where no hook shows resets, or its record was lost.
        ECONNRESET | EPIPE if !may_be_own => CloseCause::ended(Cause::ResetReceived, errno),
        ECONNRESET | EPIPE => CloseCause::unknown(errno),
        ETIMEDOUT => CloseCause { cause: timeout(from, closed), errno, may_be_reset: false },
        // ICMP ends a handshake at once.
        1.. if from == State::SynRecv => CloseCause::unknown(errno),
        // tcp_write_err() prefers the last soft error (EHOSTUNREACH, say) to ETIMEDOUT, and purges the queues first.
        // getsockopt(SO_ERROR) may have taken the error.
        _ if closed.unacked && !closed.in_flight && closed.retransmitted && from != State::SynRecv => {
            CloseCause::ended(Cause::RetransmissionTimeout, errno)
        }
        _ if from == State::LastAck && closed.is_done() => CloseCause::ended(Cause::Fin, 0),
        // There was no room for TIME_WAIT (tcp_max_tw_buckets).
        _ if matches!(from, State::FinWait2 | State::Closing) && closed.fin_received && closed.is_done() => {
            CloseCause::ended(Cause::Fin, 0)
        }
        1.. if closed.unsent && closed.no_window && !closed.unacked => {
            CloseCause { cause: Some(Cause::ZeroWindowTimeout), errno, may_be_reset: true }
        }
        // An old error, of an ICMP message (IP_RECVERR), may lie on the socket.
        _ => CloseCause { cause: None, errno: 0, may_be_reset: true },
    }
}

/// Which timer gave up. The keepalive timer waits until all is sent and acknowledged, the zero-window timer until all
/// that was sent is.
fn timeout(from: State, closed: ClosedAs) -> Option<Cause> {
    let fast_open = matches!(from, State::SynRecv | State::FinWait1) && closed.retransmitted;
    if closed.unacked || fast_open {
        Some(Cause::RetransmissionTimeout)
    } else if closed.unsent {
        // The persist timer also runs where this host could not send: the peer's window is open then, and there is no cause.
        closed.no_window.then_some(Cause::ZeroWindowTimeout)
    } else {
        closed.probed.then_some(Cause::KeepaliveTimeout)
    }
}

/// In which states `tcp_rcv_state_process()` resets for data that nobody will read.
fn answers_data_by_reset(from: State) -> bool {
    matches!(from, State::FinWait1 | State::FinWait2 | State::CloseWait | State::Closing | State::LastAck)
}

/// Whether a reset that was sent in this state, before CLOSE, can be why the socket went to CLOSE. In the others the
/// kernel answers a packet by a reset, and the connection lives on.
pub(super) fn can_end_by_own_reset(state: State) -> bool {
    !matches!(state, State::SynSent | State::SynRecv | State::Close)
}

/// The record's `reset_why`: why this host sent a reset. `by_tcp_reset`: `tcp_reset()` ran for the socket. `before`: the reset was sent
/// before `-> CLOSE`.
pub(super) fn reset_why(
    from: State,
    by_tcp_reset: bool,
    before: bool,
    sent: Sent,
    closed: ClosedAs,
    names: &[&'static str],
) -> Option<&'static str> {
    let orphan_waits = from == State::FinWait2 && closed.orphan;
    if by_tcp_reset {
        // A reset is never answered by a reset: `tcp_reset()` ran for data that came after close().
        Some("data_after_close")
    } else if orphan_waits && before {
        // tcp_keepalive_timer() ends an orphan whose peer sent no FIN.
        Some("fin_timeout")
    } else if orphan_waits && closed.no_linger2 {
        Some("linger2")
    } else {
        reason(sent, names)
    }
}

/// By the kernel's reason. `names` are those of the running kernel's `enum sk_rst_reason`, without their prefix.
fn reason(sent: Sent, names: &[&'static str]) -> Option<&'static str> {
    let name = sent.reason.and_then(|reason| names.get(usize::from(reason)).copied())?;
    match name {
        "TCP_ABORT_ON_CLOSE" => Some("unread_data"),
        "TCP_ABORT_ON_LINGER" => Some("linger2"),
        "TCP_ABORT_ON_MEMORY" => Some("memory"),
        "TCP_ABORT_ON_DATA" => Some("data_after_close"),
        "TCP_KEEPALIVE_TIMEOUT" => Some("keepalive_timeout"),
        "TCP_DISCONNECT_WITH_DATA" => Some("disconnect"),
        "TCP_TIMEWAIT_SOCKET" => Some("timewait_socket"),
        // tcp_disconnect(), which close() with SO_LINGER 0 calls, names the state only.
        "TCP_STATE" if sent.linger_0 => Some("linger"),
        "TCP_STATE" => Some("abort"),
        _ => None,
    }
}

/// Where no hook shows mini-sockets: the one that most likely takes a full socket's place at `-> CLOSE`.
pub(super) fn likely_mini(from: State, errno: u16, closed_as: ClosedAs) -> Option<State> {
    if errno != 0 || !matches!(from, State::FinWait2 | State::Closing | State::FinWait1) {
        None
    } else if closed_as.fin_received {
        Some(State::TimeWait)
    } else if from == State::FinWait2 && closed_as.orphan && !closed_as.no_linger2 {
        Some(State::FinWait2)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
