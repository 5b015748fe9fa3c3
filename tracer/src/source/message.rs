//! Answers about one socket: `struct inet_diag_msg` with its attributes (`linux/inet_diag.h`).

use super::{
    mptcp_info,
    netlink::{INET_DIAG_INFO, MS, each_attribute, u32_at, u64_at},
};
use crate::model::{
    Address, MptcpPart, SocketInfo, State, TcpTimes, Timer, TimerKind, Traffic, Transport, Tuple,
};

/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// The upper layer protocol of a TCP socket; older kernels show it only to CAP_NET_ADMIN.
const INET_DIAG_ULP_INFO: u16 = 19;
/// IPV6_V6ONLY of a listener.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Linux 5.7, commit b1f3e43dbfac.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// `struct inet_diag_sockopt` (Linux 5.10, commit 3f935c75eb52).
const INET_DIAG_SOCKOPT: u16 = 22;
/// The bit `transparent` of `struct inet_diag_sockopt`: IP_TRANSPARENT or IPV6_TRANSPARENT. Connections inherit it from their
/// listener.
const TRANSPARENT: u8 = 1 << 5;

/// Parses a `struct inet_diag_msg` with its attributes.
pub(super) fn parse(netns: u32, message: &[u8], transport: Transport) -> Option<SocketInfo> {
    let fixed = message.first_chunk::<MESSAGE>()?;
    let v6_socket = i32::from(fixed[0]) == libc::AF_INET6;
    let address = |at: usize| -> Option<Address> {
        let bytes = fixed.get(at..)?;
        Some(if v6_socket {
            Address::from_v6(*bytes.first_chunk()?)
        } else {
            Address::from_v4(*bytes.first_chunk()?)
        })
    };
    let port = |at: usize| Some(u16::from_be_bytes([*fixed.get(at)?, *fixed.get(at + 1)?]));
    let kind = match fixed[2] {
        1 => Some(TimerKind::Retransmit),
        2 => Some(TimerKind::Keepalive),
        3 => Some(TimerKind::TimeWait),
        4 => Some(TimerKind::Probe),
        _ => None,
    };
    let left_ns = u64::from(u32_at(fixed, 52)?) * MS;
    let inode = u32_at(fixed, 68)?;
    let Attributes { info, traffic, cgroup, mptcp, is_v6_only, is_transparent } =
        attributes(&message[MESSAGE..], transport);
    let listed = State::from_number(fixed[1]);
    // A request is listed as SYN_RECV; unlike a full socket it has no `tcp_info`.
    let request = listed == State::SynRecv && info.is_none() && transport == Transport::Tcp;
    let state = if request { State::NewSynRecv } else { listed };
    let mini = request || kind == Some(TimerKind::TimeWait);
    let socket = SocketInfo {
        netns,
        transport,
        mptcp,
        state,
        mini,
        tuple: Tuple {
            local: address(8)?,
            remote: address(24)?,
            local_port: port(4)?,
            remote_port: port(6)?,
            v6_socket,
            interface: u32_at(fixed, 40)?,
        },
        interface: None,
        uid: if mini { None } else { Some(u32_at(fixed, 64)?) },
        inode: inode.into(),
        cgroup,
        is_v6_only,
        is_transparent,
        is_partial: false,
        receive_queue: u32_at(fixed, 56)?,
        send_queue: u32_at(fixed, 60)?,
        timer: kind.map(|kind| Timer { kind, left_ns }),
        retransmits: fixed[3],
        times: info.filter(|_| state != State::Listen),
        traffic: None,
        request: None,
    };
    // The kernel counts the peer's FIN as a received byte.
    let fin = matches!(state, State::CloseWait | State::LastAck | State::Closing);
    let traffic = traffic.filter(|_| state != State::Listen).map(|traffic| Traffic {
        bytes_received: traffic.bytes_received.saturating_sub(fin.into()),
        unread_bytes: socket.unread_bytes().into(),
        ..traffic
    });
    Some(SocketInfo { traffic, ..socket })
}

/// The attributes that are read.
#[derive(Default)]
struct Attributes {
    info: Option<TcpTimes>,
    traffic: Option<Traffic>,
    cgroup: Option<u64>,
    mptcp: Option<MptcpPart>,
    is_v6_only: bool,
    is_transparent: bool,
}

fn attributes(bytes: &[u8], transport: Transport) -> Attributes {
    let is_whole = transport == Transport::Mptcp;
    let mut found = Attributes { mptcp: is_whole.then_some(mptcp_info::WHOLE), ..Attributes::default() };
    for (kind, value) in each_attribute(bytes) {
        match kind {
            INET_DIAG_INFO if is_whole => {
                (found.info, found.mptcp) = (mptcp_info::times(value), Some(mptcp_info::whole(value)));
            }
            INET_DIAG_INFO => (found.info, found.traffic) = (tcp_times(value), traffic(value)),
            INET_DIAG_ULP_INFO if !is_whole => found.mptcp = mptcp_info::subflow(value),
            INET_DIAG_CGROUP_ID => {
                let id = value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
                found.cgroup = id.filter(|id| *id != 0);
            }
            INET_DIAG_SOCKOPT => {
                found.is_transparent = value.first().is_some_and(|flags| flags & TRANSPARENT != 0);
            }
            INET_DIAG_SKV6ONLY => found.is_v6_only = value.first().is_some_and(|flag| *flag != 0),
            _ => {}
        }
    }
    found
}

fn tcp_times(info: &[u8]) -> Option<TcpTimes> {
    Some(TcpTimes {
        since_ack_ns: u64::from(u32_at(info, 56)?) * MS,
        rto_ns: u64::from(u32_at(info, 8)?) * 1000,
        backoff: *info.get(4)?,
        since_data_sent_ns: u64::from(u32_at(info, 44)?) * MS,
        since_data_received_ns: u64::from(u32_at(info, 52)?) * MS,
        data_segments_sent: u32_at(info, 156).unwrap_or(0),
        peer_window: u32_at(info, 228),
        segment_bytes: u32_at(info, 16)?,
    })
}

/// The counters of `struct tcp_info`; the received bytes with the peer's FIN. `None` for a kernel that lacks one.
fn traffic(info: &[u8]) -> Option<Traffic> {
    let microseconds =
        |at: usize, none: u32| Some(u32_at(info, at)?).map(|us| (us != none).then(|| u64::from(us) * 1000));
    Some(Traffic {
        bytes_sent: u64_at(info, 200)?.saturating_sub(u64_at(info, 208)?),
        bytes_received: u64_at(info, 128)?,
        unread_bytes: 0,
        segments_sent: u32_at(info, 136)?,
        segments_received: u32_at(info, 140)?,
        retransmits: u32_at(info, 100)?,
        rtt_smoothed_ns: microseconds(68, 0)?,
        rtt_min_ns: microseconds(148, u32::MAX)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::netlink::split_message;

    /// A CLOSE_WAIT as a 6.18 kernel sent it, cut to what is read.
    fn message() -> Vec<u8> {
        let mut bytes = vec![libc::AF_INET as u8, 8, 2, 0];
        bytes.extend(443_u16.to_be_bytes());
        bytes.extend(50000_u16.to_be_bytes());
        bytes.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0; 12]);
        for value in [7000_u32, 42, 3, 1000, 123_456] {
            bytes.extend(value.to_ne_bytes());
        }
        let mut info = vec![0; 232];
        info[4] = 2;
        info[16..20].copy_from_slice(&1448_u32.to_ne_bytes());
        info[44..48].copy_from_slice(&5000_u32.to_ne_bytes());
        info[52..56].copy_from_slice(&6000_u32.to_ne_bytes());
        info[156..160].copy_from_slice(&3_u32.to_ne_bytes());
        info[228..232].copy_from_slice(&65_160_u32.to_ne_bytes());
        info[8..12].copy_from_slice(&800_000_u32.to_ne_bytes());
        info[56..60].copy_from_slice(&90_000_u32.to_ne_bytes());
        bytes.extend(236_u16.to_ne_bytes());
        bytes.extend(INET_DIAG_INFO.to_ne_bytes());
        bytes.extend(info);
        bytes.extend(12_u16.to_ne_bytes());
        bytes.extend(INET_DIAG_CGROUP_ID.to_ne_bytes());
        bytes.extend(77_u64.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_message_is_read_as_the_kernel_lays_it_out() {
        let socket = parse(5, &message(), Transport::Tcp).expect("a socket");
        assert_eq!((socket.state, socket.mini, socket.netns), (State::CloseWait, false, 5));
        assert_eq!((socket.tuple.local_port, socket.tuple.remote_port), (443, 50000));
        assert_eq!(socket.tuple.remote, Address::from_v4([10, 0, 0, 2]));
        assert_eq!(
            (socket.receive_queue, socket.send_queue, socket.uid, socket.inode),
            (42, 3, Some(1000), 123_456)
        );
        assert_eq!(socket.timer, Some(Timer { kind: TimerKind::Keepalive, left_ns: 7000 * MS }));
        let times = TcpTimes {
            since_ack_ns: 90_000 * MS,
            rto_ns: 800 * MS,
            backoff: 2,
            since_data_sent_ns: 5000 * MS,
            since_data_received_ns: 6000 * MS,
            data_segments_sent: 3,
            peer_window: Some(65_160),
            segment_bytes: 1448,
        };
        assert_eq!((socket.times, socket.cgroup), (Some(times), Some(77)));
    }

    #[test]
    fn cut_messages_are_no_sockets_and_no_panic() {
        let whole = message();
        for len in 0..whole.len() {
            assert_eq!(parse(5, &whole[..len], Transport::Tcp).is_some(), len >= MESSAGE, "{len}");
            assert!(split_message(&whole[..len.min(15)]).is_none());
        }
    }
}
