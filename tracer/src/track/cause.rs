//! Why a state or a connection ended, by the kernel's own word.

use super::conns::{Resets, Sent};
use crate::model::{Cause, ClosedAs, State};

const EPIPE: u16 = 32;
const ECONNABORTED: u16 = 103;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;

/// The cause where all that is known leaves one only.
///
/// `tcp_reset()` (net/ipv4/tcp_input.c) sets ECONNREFUSED in SYN_SENT, EPIPE in CLOSE_WAIT, else ECONNRESET, before
/// the state; nothing else sets EPIPE or ECONNRESET before `-> CLOSE`. `tcp_v4_err()` sets ECONNREFUSED in SYN_SENT.
/// `tcp_abort()` (SOCK_DESTROY) sets ECONNABORTED. `tcp_write_err()` sets ETIMEDOUT; only the keepalive timer sends a
/// reset before it. In LAST_ACK without an error our FIN was acknowledged.
pub(super) fn cause(
    from: State,
    to: State,
    errno: u16,
    resets: Resets,
    closed_as: Option<ClosedAs>,
) -> Option<Cause> {
    match (from, to) {
        (State::Established | State::SynRecv, State::CloseWait)
        | (State::FinWait1, State::Closing)
        | (State::FinWait1 | State::FinWait2 | State::Closing, State::TimeWait) => return Some(Cause::Fin),
        (_, State::Close) => {}
        _ => return None,
    }
    match (from, errno) {
        (State::SynSent, ECONNREFUSED) => Some(Cause::Refused),
        (State::SynSent, ETIMEDOUT) => Some(Cause::ConnectTimeout),
        (_, ECONNABORTED) => Some(Cause::Killed),
        _ if resets.received => Some(Cause::ResetReceived),
        (State::CloseWait, EPIPE) | (_, ECONNRESET) => Some(Cause::ResetReceived),
        (_, ETIMEDOUT) if resets.sent.is_some() => Some(Cause::KeepaliveTimeout),
        // tcp_write_err() prefers the last soft error (EHOSTUNREACH, say) to ETIMEDOUT.
        (from, 1..) if from != State::SynSent && closed_as.is_some_and(|it| it.retransmitted) => {
            Some(Cause::RetransmissionTimeout)
        }
        (_, 1..) => None,
        _ if resets.sent.is_some() => Some(Cause::ResetSent),
        (State::LastAck, _) => Some(Cause::Fin),
        (State::SynSent, _) => Some(Cause::GivenUp),
        _ => None,
    }
}

/// Whether a reset that is sent behind `-> CLOSE` (close() with unread data, SO_LINGER 0, disconnect) may follow.
pub(super) fn may_be_reset_next(
    from: State,
    errno: u16,
    resets: Resets,
    closed_as: Option<ClosedAs>,
) -> bool {
    // With the peer's FIN both sides are done, and nothing is left to reset.
    let done =
        matches!(from, State::FinWait2 | State::Closing) && closed_as.is_some_and(|it| it.fin_received);
    let open = matches!(
        from,
        State::Established
            | State::CloseWait
            | State::SynRecv
            | State::FinWait1
            | State::FinWait2
            | State::Closing
    );
    open && !done && errno == 0 && !resets.received && resets.sent.is_none()
}

/// Why a reset was sent. `names` are those of the running kernel's `enum sk_rst_reason`, without their prefix.
pub(super) fn reset_why(sent: Sent, names: &[&'static str]) -> Option<&'static str> {
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
mod tests {
    use super::*;

    const SENT: Resets = Resets { received: false, sent: Some(Sent { reason: None, linger_0: false }) };
    const RECEIVED: Resets = Resets { received: true, sent: None };

    #[test]
    fn only_what_is_certain_is_named() {
        let none = Resets::default();
        let retransmitted = Some(ClosedAs { retransmitted: true, ..ClosedAs::default() });
        for (from, to, errno, resets, closed_as, expected) in [
            (State::SynSent, State::Close, 111, none, None, Some(Cause::Refused)),
            (State::SynSent, State::Close, 110, none, retransmitted, Some(Cause::ConnectTimeout)),
            (State::SynSent, State::Close, 113, none, retransmitted, None),
            (State::SynSent, State::Close, 0, none, None, Some(Cause::GivenUp)),
            (State::Established, State::Close, 104, none, None, Some(Cause::ResetReceived)),
            (State::Established, State::Close, 104, RECEIVED, None, Some(Cause::ResetReceived)),
            (State::CloseWait, State::Close, 32, none, None, Some(Cause::ResetReceived)),
            (State::Established, State::Close, 110, none, None, None),
            (State::Established, State::Close, 110, none, retransmitted, Some(Cause::RetransmissionTimeout)),
            (State::Established, State::Close, 113, none, retransmitted, Some(Cause::RetransmissionTimeout)),
            (State::Established, State::Close, 110, SENT, None, Some(Cause::KeepaliveTimeout)),
            (State::Established, State::Close, 103, SENT, None, Some(Cause::Killed)),
            (State::Established, State::Close, 0, SENT, None, Some(Cause::ResetSent)),
            (State::Established, State::Close, 0, none, None, None),
            (State::LastAck, State::Close, 0, none, None, Some(Cause::Fin)),
            (State::LastAck, State::Close, 0, SENT, None, Some(Cause::ResetSent)),
            (State::Established, State::CloseWait, 104, none, None, Some(Cause::Fin)),
            (State::FinWait2, State::TimeWait, 0, none, None, Some(Cause::Fin)),
            (State::FinWait1, State::FinWait2, 0, none, None, None),
        ] {
            assert_eq!(cause(from, to, errno, resets, closed_as), expected, "{from} {to} {errno}");
        }
    }

    #[test]
    fn the_kernels_reasons_become_words() {
        let names = ["NOT_SPECIFIED", "TCP_ABORT_ON_CLOSE", "TCP_STATE", "SOMETHING_NEW"];
        let why = |reason, linger_0| reset_why(Sent { reason, linger_0 }, &names);
        assert_eq!(why(Some(1), false), Some("unread_data"));
        assert_eq!(why(Some(2), true), Some("linger"));
        assert_eq!(why(Some(2), false), Some("abort"));
        assert_eq!(
            (why(Some(0), true), why(Some(3), false), why(Some(99), false), why(None, true)),
            (None, None, None, None)
        );
    }

    #[test]
    fn an_estimate_follows_the_sockets_flags() {
        let closed_as = |orphan, fin_received, no_linger2| ClosedAs {
            orphan,
            fin_received,
            no_linger2,
            retransmitted: false,
        };
        assert_eq!(likely_mini(State::FinWait2, 0, closed_as(true, false, false)), Some(State::FinWait2));
        assert_eq!(likely_mini(State::FinWait2, 0, closed_as(false, true, false)), Some(State::TimeWait));
        assert_eq!(likely_mini(State::Closing, 0, closed_as(true, true, false)), Some(State::TimeWait));
        assert_eq!(likely_mini(State::FinWait2, 0, closed_as(true, false, true)), None);
        assert_eq!(likely_mini(State::FinWait2, 104, closed_as(true, true, false)), None);
        assert_eq!(likely_mini(State::LastAck, 0, closed_as(true, true, false)), None);
    }
}
