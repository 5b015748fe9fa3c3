//! Each row that is true has rows beside it that are nearly so.

use super::*;

const NO_RESETS: Resets = Resets { received: false, sent: None };
const RECEIVED: Resets = Resets { received: true, sent: None };
const SENT: Resets = Resets { received: false, sent: Some(Sent { reason: None, linger_0: false }) };

/// A socket with the named properties: `with("unacked probed")`.
fn with(words: &str) -> Option<ClosedAs> {
    let has = |word: &str| words.split(' ').any(|known| known == word);
    Some(ClosedAs {
        orphan: has("orphan"),
        fin_received: has("fin"),
        no_linger2: has("no_linger2"),
        retransmitted: has("retransmitted"),
        receive_shut: has("receive_shut") || has("shut"),
        send_shut: has("send_shut") || has("shut"),
        unacked: has("unacked"),
        unsent: has("unsent"),
        in_flight: has("in_flight"),
        connecting: has("connecting"),
        nothing_sent: has("nothing_sent"),
        probed: has("probed"),
        no_window: has("no_window"),
        no_local_port: has("no_local_port"),
    })
}

/// The state that ends, the error, the resets, what the socket was, and the cause and the error that follow.
type Row = (State, u16, Resets, &'static str, Option<Cause>, u16);

fn check(table: impl IntoIterator<Item = Row>) {
    for (from, errno, resets, words, cause, said) in table {
        let why = close_cause(from, errno, resets, with(words));
        assert_eq!((why.cause, why.errno), (cause, said), "{from} {errno} {words}");
    }
}

#[test]
fn ends_of_a_connect() {
    use State::SynSent;
    check([
        (SynSent, 0, NO_RESETS, "connecting nothing_sent", Some(Cause::ConnectFailedLocally), 0),
        (SynSent, 0, NO_RESETS, "connecting nothing_sent no_local_port", Some(Cause::NoLocalPort), 99),
        (SynSent, 104, NO_RESETS, "connecting nothing_sent no_local_port", Some(Cause::NoLocalPort), 99),
        (SynSent, 0, NO_RESETS, "nothing_sent no_local_port", None, 0),
        // An error of an earlier connection lies on the socket.
        (SynSent, 104, NO_RESETS, "connecting nothing_sent", Some(Cause::ConnectFailedLocally), 0),
        // A packet filter of this host refused the SYN.
        (SynSent, 0, NO_RESETS, "connecting in_flight", Some(Cause::ConnectFailedLocally), 0),
        (SynSent, 0, NO_RESETS, "unacked in_flight shut", Some(Cause::GivenUp), 0),
        (SynSent, 0, NO_RESETS, "unacked in_flight", Some(Cause::GivenUp), 0),
        // The error was taken.
        (SynSent, 0, NO_RESETS, "unacked", None, 0),
        // TCP_FASTOPEN_CONNECT, and never a byte: closed; or not known how.
        (SynSent, 0, NO_RESETS, "nothing_sent shut", Some(Cause::GivenUp), 0),
        (SynSent, 113, NO_RESETS, "nothing_sent shut", Some(Cause::GivenUp), 0),
        (SynSent, 0, NO_RESETS, "nothing_sent", None, 0),
        (SynSent, 111, RECEIVED, "unacked", Some(Cause::Refused), 111),
        (SynSent, 111, NO_RESETS, "unacked", Some(Cause::Refused), 111),
        (SynSent, 113, NO_RESETS, "unacked", None, 113),
        (SynSent, 110, NO_RESETS, "unacked retransmitted", Some(Cause::ConnectTimeout), 110),
        // shutdown() before connect() leaves its mark.
        (SynSent, 110, NO_RESETS, "unacked retransmitted shut", Some(Cause::ConnectTimeout), 110),
        (SynSent, 103, NO_RESETS, "unacked", Some(Cause::Killed), 103),
        (SynSent, 103, NO_RESETS, "nothing_sent", Some(Cause::Killed), 103),
    ]);
}

#[test]
fn resets() {
    use State::{CloseWait, Established, FinWait1};
    check([
        (Established, 104, RECEIVED, "", Some(Cause::ResetReceived), 104),
        (CloseWait, 32, RECEIVED, "receive_shut", Some(Cause::ResetReceived), 32),
        (Established, 104, NO_RESETS, "", Some(Cause::ResetReceived), 104),
        (Established, 104, NO_RESETS, "receive_shut", Some(Cause::ResetReceived), 104),
        (FinWait1, 104, NO_RESETS, "shut", None, 104),
        (CloseWait, 32, NO_RESETS, "receive_shut", None, 32),
        (FinWait1, 104, NO_RESETS, "send_shut", Some(Cause::ResetReceived), 104),
        (Established, 0, SENT, "orphan", Some(Cause::ResetSent), 0),
        (FinWait1, 113, SENT, "orphan unsent probed", Some(Cause::ResetSent), 0),
    ]);
}

#[test]
fn timers_that_ran_out() {
    use State::{Established, FinWait1, LastAck, SynRecv};
    check([
        (Established, 110, SENT, "probed", Some(Cause::KeepaliveTimeout), 110),
        (Established, 113, SENT, "probed", Some(Cause::KeepaliveTimeout), 113),
        (Established, 110, NO_RESETS, "probed", Some(Cause::KeepaliveTimeout), 110),
        (Established, 110, NO_RESETS, "", None, 110),
        (Established, 110, NO_RESETS, "unacked retransmitted", Some(Cause::RetransmissionTimeout), 110),
        (Established, 113, NO_RESETS, "unacked retransmitted", Some(Cause::RetransmissionTimeout), 113),
        (Established, 0, NO_RESETS, "unacked retransmitted", Some(Cause::RetransmissionTimeout), 0),
        // An old error, and an end while a packet was being retransmitted.
        (Established, 113, NO_RESETS, "unacked retransmitted in_flight", None, 0),
        (SynRecv, 110, NO_RESETS, "retransmitted", Some(Cause::RetransmissionTimeout), 110),
        (SynRecv, 113, NO_RESETS, "unacked retransmitted", None, 113),
        (Established, 110, NO_RESETS, "unsent probed no_window", Some(Cause::ZeroWindowTimeout), 110),
        // The peer answered the probes.
        (FinWait1, 110, NO_RESETS, "unsent orphan shut no_window", Some(Cause::ZeroWindowTimeout), 110),
        (LastAck, 110, NO_RESETS, "unsent orphan shut no_window", Some(Cause::ZeroWindowTimeout), 110),
        (Established, 113, NO_RESETS, "unsent probed no_window", Some(Cause::ZeroWindowTimeout), 113),
        // This host could not send.
        (Established, 110, NO_RESETS, "unsent probed", None, 110),
        (Established, 113, NO_RESETS, "unsent probed", None, 0),
        (
            Established,
            110,
            NO_RESETS,
            "unsent unacked retransmitted",
            Some(Cause::RetransmissionTimeout),
            110,
        ),
    ]);
}

#[test]
fn ends_from_outside_and_orderly_ends() {
    use State::{Closing, Established, FinWait2, LastAck, Listen};
    check([
        // From outside.
        (Established, 103, SENT, "", Some(Cause::Killed), 103),
        (LastAck, 103, NO_RESETS, "unacked", Some(Cause::Killed), 103),
        // Orderly, also with an old error.
        (LastAck, 0, NO_RESETS, "orphan fin shut", Some(Cause::Fin), 0),
        (LastAck, 113, NO_RESETS, "orphan fin shut", Some(Cause::Fin), 0),
        (LastAck, 0, NO_RESETS, "orphan fin shut unacked in_flight", None, 0),
        (LastAck, 104, RECEIVED, "orphan fin shut", Some(Cause::ResetReceived), 104),
        (Closing, 113, NO_RESETS, "fin", Some(Cause::Fin), 0),
        (FinWait2, 0, NO_RESETS, "fin", Some(Cause::Fin), 0),
        (FinWait2, 0, NO_RESETS, "orphan shut", None, 0),
        (Closing, 0, NO_RESETS, "fin unacked in_flight", None, 0),
        (Established, 0, NO_RESETS, "", None, 0),
        // A listener has errors of earlier connections only.
        (Listen, 104, NO_RESETS, "", None, 0),
    ]);
    let bare = close_cause(LastAck, 0, NO_RESETS, None);
    assert_eq!(bare, CloseCause::default());
}

#[test]
fn a_reset_is_waited_for_where_it_can_follow() {
    for (from, errno, resets, words, waits) in [
        (State::Established, 0, NO_RESETS, "", true),
        (State::CloseWait, 113, NO_RESETS, "receive_shut", true),
        (State::LastAck, 0, NO_RESETS, "shut unacked in_flight", true),
        (State::LastAck, 0, NO_RESETS, "shut", false),
        (State::FinWait2, 0, NO_RESETS, "fin", false),
        (State::FinWait2, 0, NO_RESETS, "orphan shut no_linger2", true),
        (State::FinWait2, 104, RECEIVED, "shut", true),
        (State::FinWait2, 104, RECEIVED, "send_shut", false),
        (State::Established, 104, RECEIVED, "receive_shut", false),
        (State::Established, 110, NO_RESETS, "probed", false),
        (State::Established, 103, NO_RESETS, "", false),
        (State::SynSent, 0, NO_RESETS, "connecting", false),
    ] {
        assert_eq!(
            close_cause(from, errno, resets, with(words)).may_be_reset,
            waits,
            "{from} {errno} {words}"
        );
    }
}

#[test]
fn a_state_that_is_left_for_another_one_has_a_cause_where_a_fin_came() {
    for (from, to, cause) in [
        (State::Established, State::CloseWait, Some(Cause::Fin)),
        (State::FinWait2, State::TimeWait, Some(Cause::Fin)),
        (State::FinWait1, State::Closing, Some(Cause::Fin)),
        (State::FinWait1, State::FinWait2, None),
        (State::Established, State::FinWait1, None),
    ] {
        assert_eq!(step_cause(from, to), cause, "{from} {to}");
    }
}

#[test]
fn only_a_connection_that_was_established_ends_by_its_own_reset() {
    assert!(can_end_by_own_reset(State::Established) && can_end_by_own_reset(State::FinWait2));
    assert!(!can_end_by_own_reset(State::SynSent) && !can_end_by_own_reset(State::SynRecv));
}

#[test]
fn a_reset_has_the_reason_that_the_kernel_or_the_socket_tells() {
    let names = ["NOT_SPECIFIED", "TCP_ABORT_ON_CLOSE", "TCP_STATE", "SOMETHING_NEW", "TCP_ABORT_ON_DATA"];
    let why = |from, received, before, reason, linger_0, words: &str| {
        let closed = with(words).unwrap_or_default();
        reset_why(from, received, before, Sent { reason, linger_0 }, closed, &names)
    };
    let established = |reason, linger_0| why(State::Established, false, false, reason, linger_0, "");
    assert_eq!(established(Some(1), false), Some("unread_data"));
    assert_eq!(established(Some(2), true), Some("linger"));
    assert_eq!(established(Some(2), false), Some("abort"));
    assert_eq!(established(Some(0), true), None);
    assert_eq!(established(Some(3), false), None);
    assert_eq!(established(Some(99), false), None);
    assert_eq!(established(None, true), None);
    assert_eq!(why(State::FinWait2, true, false, None, false, "shut"), Some("data_after_close"));
    let lingers = "orphan shut no_linger2";
    assert_eq!(why(State::FinWait2, false, false, Some(4), false, lingers), Some("linger2"));
    assert_eq!(why(State::FinWait2, false, false, None, false, lingers), Some("linger2"));
    assert_eq!(why(State::FinWait2, false, false, Some(4), false, "orphan shut"), Some("data_after_close"));
    assert_eq!(why(State::FinWait2, false, false, None, false, "orphan shut"), None);
    assert_eq!(why(State::FinWait2, false, false, Some(1), false, "shut no_linger2"), Some("unread_data"));
    assert_eq!(why(State::FinWait2, false, true, None, false, "orphan shut"), Some("fin_timeout"));
}

#[test]
fn an_estimate_follows_the_sockets_flags() {
    for (from, errno, words, likely) in [
        (State::FinWait2, 0, "orphan", Some(State::FinWait2)),
        (State::FinWait2, 0, "fin", Some(State::TimeWait)),
        (State::Closing, 0, "orphan fin", Some(State::TimeWait)),
        (State::FinWait2, 0, "orphan no_linger2", None),
        (State::FinWait2, 104, "orphan fin", None),
        (State::LastAck, 0, "orphan fin", None),
    ] {
        assert_eq!(likely_mini(from, errno, with(words).unwrap_or_default()), likely, "{from} {words}");
    }
}
