//! The kernel's tables by `sock_diag` (`NETLINK_SOCK_DIAG`, `linux/inet_diag.h`): needs neither BPF nor root. It shows what
//! no iterator of ours does: queues, timers, times. It shows the network namespace of the thread that opens the socket.

use std::{collections::HashMap, fs::File, io, os::fd::OwnedFd, sync::Arc};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice::index_to_name, netlink, recv,
    send, socket_with,
};

use super::{mptcp, requests, snapshot};
use crate::model::{Address, MptcpPart, SocketInfo, State, TcpTimes, Timer, TimerKind, Transport, Tuple};

/// The older request: it walks the tables once for both families, where `SOCK_DIAG_BY_FAMILY` does so for each.
const TCPDIAG_GETSOCK: u16 = 18;
/// `struct inet_diag_req`.
const REQUEST: usize = 60;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
pub(super) const DUMP_FLAGS: u16 = 0x301;
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;
const INET_DIAG_INFO: u16 = 2;
/// `struct inet_diag_req_v2`.
const REQUEST_V2: u32 = 56;
/// A protocol that does not fit into the request's byte.
const INET_DIAG_REQ_PROTOCOL: u16 = 3;
const IPPROTO_MPTCP: u32 = 262;
/// The upper layer protocol of a TCP socket; up to some version only for CAP_NET_ADMIN.
const INET_DIAG_ULP_INFO: u16 = 19;
/// IPV6_V6ONLY of a listener.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Linux 5.7, commit b1f3e43dbfac.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// `struct inet_diag_sockopt` (Linux 5.10, commit 3f935c75eb52).
const INET_DIAG_SOCKOPT: u16 = 22;
/// Its bit `transparent`: IP_TRANSPARENT or IPV6_TRANSPARENT. Connections have it from their listener.
const TRANSPARENT: u8 = 1 << 5;
pub(super) const MS: u64 = 1_000_000;

/// Those of a network namespace, and why some of them cannot be listed.
///
/// # Errors
/// Why they cannot be listed.
pub(super) fn dump_in(inode: u32, namespace: &File) -> Result<(Vec<SocketInfo>, Option<String>), String> {
    snapshot::be_in(inode, namespace, || {
        sockets(inode).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::EOPNOTSUPP) => {
                "this kernel has no sock_diag for TCP (module tcp_diag)".to_owned()
            }
            _ => error.to_string(),
        })
    })
}

/// Those of the namespace that this thread is in, which is `netns`.
fn sockets(netns: u32) -> io::Result<(Vec<SocketInfo>, Option<String>)> {
    let socket = open()?;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend((HEADER as u32 + REQUEST as u32).to_ne_bytes());
    request.extend(TCPDIAG_GETSOCK.to_ne_bytes());
    request.extend(DUMP_FLAGS.to_ne_bytes());
    request.extend([0; 8]);
    // Of every address, in every state.
    request.extend([0, 0, 0, 1 << (INET_DIAG_INFO - 1)]);
    request.extend([0; 48]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend([0; 4]);
    let mut sockets = ask(&socket, &request, |message| parse(netns, message, Transport::Tcp))?;
    let problem = match mptcp::sockets(&socket, netns) {
        Ok(more) => {
            sockets.extend(more);
            None
        }
        Err(problem) => Some(problem),
    };
    mptcp::link(&mut sockets);
    name_interfaces(&socket, &mut sockets);
    requests::note_timers(&mut sockets);
    Ok((sockets, problem))
}

pub(super) fn open() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?)
}

/// What a request for a dump is answered with.
pub(super) fn ask(
    socket: &OwnedFd,
    request: &[u8],
    parse: impl Fn(&[u8]) -> Option<SocketInfo>,
) -> io::Result<Vec<SocketInfo>> {
    let mut sockets = Vec::new();
    send(socket, request, SendFlags::empty())?;
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let (len, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len];
        while let Some((kind, message, next)) = split_message(rest) {
            match kind {
                NLMSG_DONE => {
                    // A protocol that is not there ends the dump with an error.
                    return match i32_at(message, 0) {
                        Some(error) if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                        _ => Ok(sockets),
                    };
                }
                NLMSG_ERROR => {
                    let error = i32_at(message, 0).unwrap_or(0);
                    return Err(io::Error::from_raw_os_error(-error));
                }
                _ => sockets.extend(parse(message)),
            }
            rest = next;
        }
    }
}

/// A request about one socket, with an answer in any case: of local and remote port 0 and the cookie 0, on no address.
pub(super) fn exact_request(kind: u16, transport: Transport) -> Vec<u8> {
    const NLM_F_REQUEST_AND_ACK: u16 = 5;
    request(kind, NLM_F_REQUEST_AND_ACK, libc::AF_INET as u8, transport)
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2` for every state, and what does not fit into that.
pub(super) fn request(kind: u16, flags: u16, family: u8, transport: Transport) -> Vec<u8> {
    let extra = if transport == Transport::Mptcp { 8_u32 } else { 0 };
    let protocol = if transport == Transport::Mptcp { libc::IPPROTO_RAW } else { libc::IPPROTO_TCP };
    let mut request = Vec::new();
    request.extend((HEADER as u32 + REQUEST_V2 + extra).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, protocol as u8, 1 << (INET_DIAG_INFO - 1), 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend([0; 48]);
    if transport == Transport::Mptcp {
        request.extend(8_u16.to_ne_bytes());
        request.extend(INET_DIAG_REQ_PROTOCOL.to_ne_bytes());
        request.extend(IPPROTO_MPTCP.to_ne_bytes());
    }
    request
}

/// The error that a message brings, 0 for none; `None` for another message.
pub(super) fn answer(bytes: &[u8]) -> Option<i32> {
    let (kind, payload, _) = split_message(bytes)?;
    (kind == NLMSG_ERROR).then_some(i32_at(payload, 0)?.checked_neg()?)
}

/// Adds the names of interfaces, from the namespace of the socket `netlink`. An interface that was renamed or removed since
/// then has only its index.
fn name_interfaces(netlink: &OwnedFd, sockets: &mut [SocketInfo]) {
    let mut names: HashMap<u32, Option<Arc<str>>> = HashMap::new();
    for socket in sockets.iter_mut().filter(|socket| socket.tuple.interface != 0) {
        let index = socket.tuple.interface;
        let name = names.entry(index).or_insert_with(|| index_to_name(netlink, index).ok().map(Arc::from));
        socket.interface.clone_from(name);
    }
}

/// Kind and payload of the first message, and what follows it.
pub(super) fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32_at(bytes, 0)? as usize;
    let kind = u16_at(bytes, 4)?;
    let payload = bytes.get(HEADER..len)?;
    Some((kind, payload, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// A `struct inet_diag_msg` with its attributes.
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
    let Attributes { info, cgroup, mptcp, is_v6_only, is_transparent } =
        attributes(&message[MESSAGE..], transport);
    let listed = State::from_number(fixed[1]);
    // Requests are listed as SYN_RECV; unlike a full socket they have no info.
    let request = listed == State::SynRecv && info.is_none() && transport == Transport::Tcp;
    let state = if request { State::NewSynRecv } else { listed };
    let mini = request || kind == Some(TimerKind::TimeWait);
    Some(SocketInfo {
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
        request: None,
    })
}

/// What is read of the attributes.
#[derive(Default)]
struct Attributes {
    info: Option<TcpTimes>,
    cgroup: Option<u64>,
    mptcp: Option<MptcpPart>,
    is_v6_only: bool,
    is_transparent: bool,
}

fn attributes(bytes: &[u8], transport: Transport) -> Attributes {
    let is_whole = transport == Transport::Mptcp;
    let mut found = Attributes { mptcp: is_whole.then_some(mptcp::WHOLE), ..Attributes::default() };
    for (kind, value) in each_attribute(bytes) {
        match kind {
            INET_DIAG_INFO if is_whole => {
                (found.info, found.mptcp) = (mptcp::times(value), Some(mptcp::whole(value)));
            }
            INET_DIAG_INFO => found.info = tcp_times(value),
            INET_DIAG_ULP_INFO if !is_whole => found.mptcp = mptcp::subflow(value),
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

/// Kind and value of each `struct nlattr`.
pub(super) fn each_attribute(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
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

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
