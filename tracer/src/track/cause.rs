//! What a transition says about its own reason.

use crate::model::{Cause, State};

const EPIPE: u16 = 32;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;

/// The cause where state and `sk_err` leave one only.
///
/// `tcp_reset()` (net/ipv4/tcp_input.c) sets ECONNREFUSED in SYN_SENT, EPIPE in CLOSE_WAIT, else ECONNRESET, before
/// the state; nothing else sets EPIPE or ECONNRESET before `-> CLOSE`. `tcp_v4_err()` sets ECONNREFUSED in SYN_SENT.
pub(super) fn cause(from: State, to: State, errno: u16) -> Option<Cause> {
    if to != State::Close {
        return None;
    }
    match (from, errno) {
        (State::SynSent, ECONNREFUSED) => Some(Cause::Refused),
        (State::SynSent, ETIMEDOUT) => Some(Cause::ConnectTimeout),
        (State::CloseWait, EPIPE) | (_, ECONNRESET) => Some(Cause::ResetReceived),
        _ => None,
    }
}

/// Whether `-> CLOSE` is the end. From FIN_WAIT2 and CLOSING without an error the kernel usually goes on with a
/// mini-socket (FIN_WAIT2 or TIME_WAIT) that this tracepoint does not show.
pub(super) fn is_exact(from: State, to: State, errno: u16) -> bool {
    !(to == State::Close && errno == 0 && matches!(from, State::FinWait2 | State::Closing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_named() {
        for (from, to, errno, expected) in [
            (State::SynSent, State::Close, 111, Some(Cause::Refused)),
            (State::SynSent, State::Close, 110, Some(Cause::ConnectTimeout)),
            (State::SynSent, State::Close, 0, None),
            (State::Established, State::Close, 104, Some(Cause::ResetReceived)),
            (State::CloseWait, State::Close, 32, Some(Cause::ResetReceived)),
            (State::Established, State::Close, 110, None),
            (State::Established, State::Close, 0, None),
            (State::Established, State::CloseWait, 104, None),
        ] {
            assert_eq!(cause(from, to, errno), expected, "{from} {to} {errno}");
        }
    }

    #[test]
    fn a_hidden_mini_socket_makes_it_inexact() {
        assert!(!is_exact(State::FinWait2, State::Close, 0));
        assert!(!is_exact(State::Closing, State::Close, 0));
        assert!(is_exact(State::FinWait2, State::Close, 104));
        assert!(is_exact(State::LastAck, State::Close, 0));
        assert!(is_exact(State::FinWait1, State::FinWait2, 0));
    }
}
