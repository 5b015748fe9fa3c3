//! How long a socket has been in its state, by the kernel's own clocks: lower bounds, for nobody watched.

use crate::model::{InState, SocketInfo, State, TimerKind};

const SECOND_NS: u64 = 1_000_000_000;
/// `TCP_TIMEWAIT_LEN` (include/net/tcp.h).
const TIMEWAIT_NS: u64 = 60 * SECOND_NS;

/// Time in its state; null where nothing tells.
#[must_use]
pub fn age(socket: &SocketInfo) -> Option<InState> {
    let left_ns = socket.timer.map(|timer| timer.left_ns);
    let ns = match socket.state {
        // Its timer begins anew when the peer's FIN comes once more.
        State::TimeWait => Some(TIMEWAIT_NS.saturating_sub(left_ns?)),
        State::NewSynRecv => Some(sent_again(SECOND_NS, socket.retransmits, left_ns?)),
        State::SynSent => unanswered_ns(socket),
        // They began with a segment that carried an acknowledgment; whatever came later makes this less.
        State::CloseWait | State::FinWait2 | State::Closing => Some(socket.times?.since_ack_ns),
        _ => None,
    };
    ns.map(|ns| InState { ns, at_least: true })
}

/// For how long what was sent has not been answered, at least, ns; null where nothing is being sent again. In FIN_WAIT1
/// and LAST_ACK this may have begun before the state.
#[must_use]
pub fn unanswered_ns(socket: &SocketInfo) -> Option<u64> {
    let (timer, times) = (socket.timer?, socket.times?);
    if timer.kind != TimerKind::Retransmit || socket.retransmits == 0 {
        return None;
    }
    let first_ns = times.rto_ns >> times.backoff.min(63);
    // Some kernels send a SYN several times before they begin to double (net.ipv4.tcp_syn_linear_timeouts, 6.5).
    let linear = u64::from(socket.retransmits.saturating_sub(times.backoff));
    let doubled = (1_u64 << times.backoff.min(20)) - 1;
    let waited = first_ns.saturating_mul(linear + doubled);
    Some(waited + times.rto_ns.saturating_sub(timer.left_ns))
}

/// Time since the first of `times` + 1 transmissions whose distance began at `first_ns` and doubled, with `left_ns` left.
fn sent_again(first_ns: u64, times: u8, left_ns: u64) -> u64 {
    let times = times.min(20);
    let waited = ((1_u64 << times) - 1) * first_ns;
    waited + (first_ns << times).saturating_sub(left_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, TcpTimes, Timer, Tuple};

    fn socket(state: State, timer: Option<(TimerKind, u64)>, retransmits: u8, times: TcpTimes) -> SocketInfo {
        let address = Address::from_v4([127, 0, 0, 1]);
        SocketInfo {
            netns: 1,
            state,
            mini: false,
            tuple: Tuple {
                local: address,
                remote: address,
                local_port: 1,
                remote_port: 2,
                v6_socket: false,
                interface: 0,
            },
            interface: None,
            uid: None,
            inode: 1,
            cgroup: None,
            receive_queue: 0,
            send_queue: 0,
            timer: timer.map(|(kind, left)| Timer { kind, left_ns: left * SECOND_NS }),
            retransmits,
            times: Some(times),
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
        for (it, seconds) in [
            (socket(State::CloseWait, None, 0, times(90, 1, 0)), Some(90)),
            (socket(State::CloseWait, Some((Keepalive, 7000)), 0, times(10, 1, 0)), Some(10)),
            (socket(State::TimeWait, Some((TimeWait, 45)), 0, times(0, 0, 0)), Some(15)),
            // The wheel may be late.
            (socket(State::TimeWait, Some((TimeWait, 61)), 0, times(0, 0, 0)), Some(0)),
            // 1 + 2 s, and one of the four that follow.
            (socket(State::NewSynRecv, Some((Retransmit, 3)), 2, times(0, 0, 0)), Some(4)),
            (socket(State::SynSent, Some((Retransmit, 3)), 2, times(0, 4, 2)), Some(4)),
            // Linear: three times one second, half of the next.
            (socket(State::SynSent, Some((Retransmit, 1)), 3, times(0, 1, 0)), Some(3)),
            (socket(State::Established, None, 0, times(90, 1, 0)), None),
            (socket(State::LastAck, Some((Retransmit, 1)), 3, times(90, 8, 3)), None),
        ] {
            let found = age(&it);
            assert_eq!(found.map(|age| age.ns / SECOND_NS), seconds, "{it:?}");
            assert!(found.is_none_or(|age| age.at_least));
        }
        let last_ack = socket(State::LastAck, Some((Retransmit, 1)), 3, times(90, 8, 3));
        assert_eq!(unanswered_ns(&last_ack), Some(14 * SECOND_NS));
    }
}
