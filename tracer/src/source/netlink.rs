//! Netlink messages (`linux/netlink.h`): requests, answers, attributes; requests of `sock_diag` (`linux/sock_diag.h`).

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::model::{Transport, Tuple};

/// `NLM_F_REQUEST | NLM_F_DUMP`.
pub(super) const DUMP_FLAGS: u16 = 0x301;
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// `struct nlattr` without its value.
const ATTRIBUTE: usize = 4;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// `NLM_F_REQUEST`.
pub(super) const REQUEST_FLAG: u16 = 1;
/// The attribute with `struct tcp_info` or `struct mptcp_info`.
pub(super) const INET_DIAG_INFO: u16 = 2;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A millisecond, in nanoseconds.
pub(super) const MS: u64 = 1_000_000;
/// `struct inet_diag_req_v2`.
const REQUEST_V2: u32 = 56;
/// Attribute for a protocol number above 255.
const INET_DIAG_REQ_PROTOCOL: u16 = 3;
const IPPROTO_MPTCP: u32 = 262;

pub(super) fn open() -> io::Result<OwnedFd> {
    open_for(Some(netlink::SOCK_DIAG))
}

/// A socket for another netlink family; `None` is `NETLINK_ROUTE`.
pub(super) fn open_for(family: Option<Protocol>) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family)?)
}

/// Sends a dump request and reads the answers.
pub(super) fn ask<T>(
    socket: &OwnedFd,
    request: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    send(socket, request, SendFlags::empty())?;
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let (len, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len];
        while let Some((kind, message, next)) = split_message(rest) {
            match kind {
                NLMSG_DONE => {
                    // The dump of a missing protocol ends with an error.
                    return match i32_at(message, 0) {
                        Some(error) if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                        _ => Ok(found),
                    };
                }
                NLMSG_ERROR => {
                    let error = i32_at(message, 0).unwrap_or(0);
                    return Err(io::Error::from_raw_os_error(-error));
                }
                _ => found.extend(parse(message)),
            }
            rest = next;
        }
    }
}

/// Sends a request that has one answer, and passes its kind and payload to `parse`. The kernel answers before send() returns, so
/// this does not wait.
pub(super) fn ask_one<T>(
    socket: &OwnedFd,
    request: &[u8],
    parse: impl Fn(u16, &[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    send(socket, request, SendFlags::empty())?;
    let mut buffer = [0_u8; 4096];
    let (len, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
    let (kind, payload, _) = split_message(&buffer[..len]).ok_or(io::ErrorKind::InvalidData)?;
    if kind == NLMSG_ERROR {
        let error = i32_at(payload, 0).unwrap_or(0);
        return Err(io::Error::from_raw_os_error(error.saturating_neg()));
    }
    Ok(parse(kind, payload))
}

/// `struct nlmsghdr` for a request with this payload, and the payload.
pub(super) fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + payload.len());
    message.extend((HEADER as u32 + payload.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(payload);
    message
}

/// `struct nlattr` with its value, padded.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(ATTRIBUTE + value.len().next_multiple_of(4));
    attribute.extend((ATTRIBUTE as u16 + value.len() as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// A request about one socket, which the kernel always answers: local and remote port 0, cookie 0, no address.
pub(super) fn exact_request(kind: u16, transport: Transport) -> Vec<u8> {
    const NLM_F_REQUEST_AND_ACK: u16 = 5;
    request(kind, NLM_F_REQUEST_AND_ACK, libc::AF_INET as u8, transport)
}

/// A request for the TCP socket with these ends, whatever its cookie (`struct inet_diag_sockid`).
pub(super) fn request_of(tuple: &Tuple) -> Vec<u8> {
    const ID: usize = HEADER + 8;
    let family = if tuple.is_v4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = request(SOCK_DIAG_BY_FAMILY, REQUEST_FLAG, family as u8, Transport::Tcp);
    let mut id = Vec::with_capacity(48);
    id.extend(tuple.local_port.to_be_bytes());
    id.extend(tuple.remote_port.to_be_bytes());
    for address in [tuple.local, tuple.remote] {
        match (tuple.is_v4(), address.octets()) {
            // The last four bytes of a v4-mapped address.
            (true, [.., a, b, c, d]) => id.extend([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (false, octets) => id.extend(octets),
        }
    }
    id.extend(tuple.interface.to_ne_bytes());
    id.extend([0xff; 8]);
    request.truncate(ID);
    request.extend(id);
    request
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2` for every state, and the attribute with a large protocol number.
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

/// The error number in a message, 0 for success; `None` for another kind of message.
pub(super) fn answer(bytes: &[u8]) -> Option<i32> {
    let (kind, payload, _) = split_message(bytes)?;
    (kind == NLMSG_ERROR).then_some(i32_at(payload, 0)?.checked_neg()?)
}

/// Kind and payload of the first message, and the following messages.
pub(super) fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32_at(bytes, 0)? as usize;
    let kind = u16_at(bytes, 4)?;
    let payload = bytes.get(HEADER..len)?;
    Some((kind, payload, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// Kind (without the flag for nested attributes) and value of each `struct nlattr`.
pub(super) fn each_attribute(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}
