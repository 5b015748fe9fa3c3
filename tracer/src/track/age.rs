//! How long a socket has been in its state, by the kernel's own clocks. Nobody watched, so these are bounds, and each is one
//! whatever the socket's options, its route and its peer are; docs/stuck.md says by which evidence.

use crate::model::{InState, RequestTimer, SocketInfo, State, TimerKind, Transport};

/// The longest tick of a kernel (`CONFIG_HZ` of 100).
pub(super) const TICK_NS: u64 = 10_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// `TCP_TIMEWAIT_LEN` (include/net/tcp.h).
const TIMEWAIT_NS: u64 = 60 * SECOND_NS;
/// `TCP_TIMEOUT_INIT`: until the first SYN-ACK is sent again.
const REQUEST_NS: u64 = SECOND_NS;
/// `TCP_RTO_MAX`, the longest distance of two transmissions.
const LONGEST_NS: u64 = 120 * SECOND_NS;
/// `TCP_RESOURCE_PROBE_INTERVAL`: until the next try where the host itself could not send.
const LOCAL_NS: u64 = SECOND_NS / 2;

/// The least time that the socket has been in its state; `None` where it is not known.
#[must_use]
pub fn age(socket: &SocketInfo) -> Option<InState> {
    let left_ns = socket.timer.map(|timer| timer.left_ns);
    let ns = match socket.state {
        // The timer starts again when the peer's FIN comes once more.
        State::TimeWait => Some(TIMEWAIT_NS.saturating_sub(left_ns?)),
        State::NewSynRecv => Some(half_open(socket.request.unwrap_or_else(|| by_timer(left_ns)))),
        State::SynSent => unanswered_ns(socket),
        // Each began with a segment that carried an acknowledgment; a later acknowledgment makes this less. A time in ticks may be
        // one tick too long.
        State::CloseWait | State::FinWait2 | State::Closing => {
            Some(socket.times?.since_ack_ns.saturating_sub(TICK_NS))
        }
        _ => None,
    };
    ns.map(|ns| InState { ns, at_least: true })
}

/// The most time that the socket has been in its state; `None` where it is not known.
#[must_use]
pub fn age_at_most_ns(socket: &SocketInfo) -> Option<u64> {
    let times = socket.times?;
    match socket.state {
        // No data comes behind the peer's FIN.
        State::CloseWait | State::Closing => Some(times.since_data_received_ns),
        // No data is sent behind ours.
        State::FinWait2 => Some(times.since_data_sent_ns),
        _ => None,
    }
    // A time in ticks may be one tick too short.
    .map(|ns| ns.max(times.since_ack_ns).saturating_add(TICK_NS))
}

/// Whether the age may be `after_ns` or more although [`age`] is less. Acknowledgments may have come since the state began: for
/// keepalive probes, or for data that was sent recently (in FIN_WAIT2: with data that has come recently).
#[must_use]
pub fn may_be_older(socket: &SocketInfo, after_ns: u64) -> bool {
    let (Some(least), Some(most_ns), Some(times)) = (age(socket), age_at_most_ns(socket), socket.times)
    else {
        // Up to 6.9, the kernel shows no times of an MPTCP socket.
        let is_watched = matches!(socket.state, State::CloseWait | State::FinWait2);
        return is_watched && socket.transport == Transport::Mptcp && socket.times.is_none();
    };
    let since_traffic_ns = match socket.state {
        State::FinWait2 => times.since_data_received_ns,
        _ => times.since_data_sent_ns,
    };
    // An orphan in FIN_WAIT2 sends no probes: its keepalive timer is how long the kernel keeps it (`tcp_fin_time`).
    let is_orphan = socket.state == State::FinWait2 && socket.inode == 0;
    // The subflows of an MPTCP socket send the probes.
    let probes = socket.transport == Transport::Mptcp
        || socket.timer.is_some_and(|timer| match timer.kind {
            TimerKind::Keepalive => !is_orphan,
            TimerKind::Probe => true,
            _ => false,
        });
    least.ns < after_ns && most_ns >= after_ns && (probes || since_traffic_ns < after_ns)
}

/// Lower bound of the time since the oldest unanswered segment was sent, ns; `None` if nothing is being sent again. In FIN_WAIT1
/// and LAST_ACK this time may have begun before the state. The time since the last retransmission does not count, because
/// TCP_USER_TIMEOUT can make the timer shorter than `tcpi_rto`, and the kernel does not show that.
#[must_use]
pub fn unanswered_ns(socket: &SocketInfo) -> Option<u64> {
    let (timer, times) = (socket.timer?, socket.times?);
    if timer.kind != TimerKind::Retransmit || socket.retransmits == 0 {
        return None;
    }
    let first_ns = times.rto_ns >> times.backoff.min(63);
    let doubled = (1_u64 << times.backoff.min(20)) - 1;
    // A SYN may be sent several times before the interval doubles (net.ipv4.tcp_syn_linear_timeouts, 6.5). In other states a
    // repetition without a doubled interval is no evidence, because `tcpi_rto` may have been different then.
    let linear = match socket.state {
        State::SynSent => u64::from(socket.retransmits.saturating_sub(times.backoff)),
        _ => 0,
    };
    Some(first_ns.saturating_mul(doubled) + linear * first_ns.min(LOCAL_NS))
}

/// Time since the SYN came. A repeated SYN is answered and sets the timer again, but does not count as a timeout.
fn half_open(timer: RequestTimer) -> u64 {
    let longest_ns = if timer.may_be_short { timer.left_ns.max(SECOND_NS) } else { LONGEST_NS };
    let run_ns = |number: u8| (REQUEST_NS << number.min(10)).min(longest_ns);
    let over: u64 = (0..timer.timeouts).map(run_ns).sum();
    over + run_ns(timer.timeouts).saturating_sub(timer.left_ns)
}

/// For a request that /proc does not show: the smallest number of timeouts after which the timer can have so much time left.
fn by_timer(left_ns: Option<u64>) -> RequestTimer {
    let left_ns = left_ns.unwrap_or(u64::MAX);
    let timeouts = (0..7).find(|number| REQUEST_NS << number >= left_ns).unwrap_or(0);
    RequestTimer { timeouts, left_ns, may_be_short: true }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{TcpTimes, Timer, Tuple};

    fn socket(state: State, timer: Option<(TimerKind, u64)>, retransmits: u8, times: TcpTimes) -> SocketInfo {
        SocketInfo {
            inode: 1,
            timer: timer.map(|(kind, left)| Timer { kind, left_ns: left * SECOND_NS }),
            retransmits,
            times: Some(times),
            ..SocketInfo::bare(1, state, Tuple::example())
        }
    }

    fn times(since_ack: u64, rto: u64, backoff: u8) -> TcpTimes {
        TcpTimes {
            since_ack_ns: since_ack * SECOND_NS,
            rto_ns: rto * SECOND_NS,
            backoff,
            ..TcpTimes::default()
        }
    }

    #[test]
    fn ages_by_each_clock() {
        use TimerKind::{Keepalive, Retransmit, TimeWait};
        for (socket, seconds) in [
            // The ages are less than a tick below 90 s and 10 s.
            (socket(State::CloseWait, None, 0, times(90, 1, 0)), Some(89)),
            (socket(State::CloseWait, Some((Keepalive, 7000)), 0, times(10, 1, 0)), Some(9)),
            (socket(State::TimeWait, Some((TimeWait, 45)), 0, times(0, 0, 0)), Some(15)),
            // The kernel's timer wheel may be late.
            (socket(State::TimeWait, Some((TimeWait, 61)), 0, times(0, 0, 0)), Some(0)),
            // The timer is this long only after two timeouts, of 1 s and 2 s. The 30 repeated SYNs were answered, and are no
            // evidence.
            (socket(State::NewSynRecv, Some((Retransmit, 3)), 30, times(0, 0, 0)), Some(3)),
            (socket(State::NewSynRecv, None, 0, times(0, 0, 0)), Some(0)),
            (socket(State::SynSent, Some((Retransmit, 3)), 2, times(0, 4, 2)), Some(3)),
            // Four SYNs at the first interval, which may be as short as the host's own minimum.
            (socket(State::SynSent, Some((Retransmit, 1)), 4, times(0, 1, 0)), Some(2)),
            (socket(State::Established, None, 0, times(90, 1, 0)), None),
            (socket(State::LastAck, Some((Retransmit, 1)), 3, times(90, 8, 3)), None),
        ] {
            let found = age(&socket);
            assert_eq!(found.map(|age| age.ns / SECOND_NS), seconds, "{socket:?}");
            assert!(found.is_none_or(|age| age.at_least));
        }
        let last_ack = socket(State::LastAck, Some((Retransmit, 1)), 3, times(90, 8, 3));
        assert_eq!(unanswered_ns(&last_ack), Some(7 * SECOND_NS));
        let seconds = |timeouts, left, may_be_short| {
            half_open(RequestTimer { timeouts, left_ns: left * SECOND_NS, may_be_short }) / SECOND_NS
        };
        assert_eq!((seconds(5, 32, false), seconds(5, 2, false)), (31, 61));
        assert_eq!((seconds(5, 32, true), seconds(5, 2, true)), (31, 9));
    }

    #[test]
    fn an_age_that_acknowledgments_may_hide() {
        use TimerKind::Keepalive;
        let bounds = |state, timer, since_ack, received, sent| {
            let times = TcpTimes {
                since_data_received_ns: received * SECOND_NS,
                since_data_sent_ns: sent * SECOND_NS,
                ..times(since_ack, 1, 0)
            };
            let socket = socket(state, timer, 0, times);
            (age_at_most_ns(&socket).map(|ns| ns / SECOND_NS), may_be_older(&socket, 60 * SECOND_NS))
        };
        let probes = Some((Keepalive, 5));
        assert_eq!(bounds(State::CloseWait, probes, 1, 90, 100), (Some(90), true));
        // Data came a moment ago: the FIN is younger.
        assert_eq!(bounds(State::CloseWait, probes, 1, 20, 100), (Some(20), false));
        // Nothing can have been acknowledged since the FIN.
        assert_eq!(bounds(State::CloseWait, None, 1, 90, 100), (Some(90), false));
        assert_eq!(bounds(State::CloseWait, None, 1, 90, 2), (Some(90), true));
        // Old enough in any case.
        assert_eq!(bounds(State::CloseWait, probes, 61, 90, 100), (Some(90), false));
        assert_eq!(bounds(State::FinWait2, probes, 1, 100, 90), (Some(90), true));
        assert_eq!(bounds(State::FinWait2, None, 1, 1, 90), (Some(90), true));
        assert_eq!(bounds(State::FinWait2, None, 1, 100, 90), (Some(90), false));
        assert_eq!(bounds(State::Established, probes, 1, 90, 90), (None, false));
        let quiet_ns = 90 * SECOND_NS;
        let times =
            TcpTimes { since_data_sent_ns: quiet_ns, since_data_received_ns: quiet_ns, ..times(1, 1, 0) };
        let held = socket(State::FinWait2, probes, 0, times);
        let orphan = SocketInfo { inode: 0, ..held.clone() };
        assert!(may_be_older(&held, 60 * SECOND_NS) && !may_be_older(&orphan, 60 * SECOND_NS));
    }

    proptest! {
        /// A request as the kernel has it: each timeout doubles, a repeated SYN sets the timer again.
        #[test]
        fn a_half_open_connection_is_never_said_to_be_older(
            repeated_ms in prop::collection::vec(1_u64..3000, 0..40),
            longest_ms in 1000_u64..=120_000,
            is_settable: bool,
            at_ms in 0_u64..150_000,
        ) {
            let longest_ms = if is_settable { longest_ms } else { 120_000 };
            let run_ms = |timeouts: u8| (1000_u64 << timeouts).min(longest_ms);
            let mut syns = repeated_ms.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).peekable();
            let (mut due_ms, mut timeouts) = (run_ms(0), 0_u8);
            loop {
                let next = syns.peek().copied().unwrap_or(u64::MAX);
                if next.min(due_ms) > at_ms || timeouts > 8 {
                    break;
                }
                if next < due_ms {
                    syns.next();
                    due_ms = next + run_ms(timeouts);
                } else {
                    timeouts += 1;
                    due_ms += run_ms(timeouts);
                }
            }
            let left_ns = due_ms.saturating_sub(at_ms) * 1_000_000;
            let timer = RequestTimer { timeouts, left_ns, may_be_short: is_settable };
            let true_ns = at_ms * 1_000_000;
            prop_assert!(half_open(timer) <= true_ns, "{timer:?}");
            prop_assert!(half_open(by_timer(Some(left_ns))) <= true_ns, "{timer:?}");
            if repeated_ms.is_empty() && !is_settable {
                prop_assert_eq!(half_open(timer), true_ns);
            }
        }

        /// A connect as the kernel has it, with every knob that shortens a wait.
        #[test]
        fn a_connect_is_never_said_to_be_older(
            linear in 0_u64..6,
            longest_ms in 1000_u64..=120_000,
            user_timeout_ms in prop::option::of(1_u64..100_000),
            congested in prop::collection::vec(any::<bool>(), 0..6),
            at_ms in 0_u64..150_000,
        ) {
            let (mut rto_ms, mut backoff, mut retransmits, mut sent_ms, mut due_ms) = (1000, 0_u8, 0_u8, 0, 1000);
            let mut congested = congested.into_iter();
            while due_ms <= at_ms && retransmits < 20 {
                sent_ms = due_ms;
                retransmits += 1;
                if congested.next().unwrap_or(false) {
                    due_ms = sent_ms + 500;
                    continue;
                }
                if u64::from(retransmits) > linear {
                    backoff += 1;
                    rto_ms = (rto_ms << 1).min(longest_ms);
                }
                let remaining = user_timeout_ms.map_or(u64::MAX, |timeout_ms| timeout_ms.saturating_sub(sent_ms));
                if remaining == 0 {
                    // TCP_USER_TIMEOUT ends the connect here.
                    return Ok(());
                }
                due_ms = sent_ms + rto_ms.min(remaining);
            }
            let times = TcpTimes { rto_ns: rto_ms * 1_000_000, backoff, ..TcpTimes::default() };
            let mut connect = socket(State::SynSent, Some((TimerKind::Retransmit, 0)), retransmits, times);
            connect.timer = Some(Timer { kind: TimerKind::Retransmit, left_ns: due_ms.saturating_sub(at_ms) * 1_000_000 });
            prop_assert!(age(&connect).is_none_or(|age| age.ns <= at_ms * 1_000_000), "{connect:?} sent at {sent_ms} ms");
        }
    }
}
