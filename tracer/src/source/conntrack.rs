//! Asks conntrack for the entry of one connection (`linux/netfilter/nfnetlink_conntrack.h`). Subscribing to its events would
//! switch them on for every connection of the network namespace (`nf_ct_ecache`).

use std::{collections::BTreeSet, fs, io, os::fd::OwnedFd};

use rustix::net::{RecvFlags, SendFlags, netlink, recv, send};

use super::netlink::{
    DUMP_FLAGS, REQUEST_FLAG, ask_one, attribute, each_attribute, message, open_for, split_message,
};
use crate::model::{Address, Tuple};

/// The number of entries in this thread's network namespace. Conntrack makes the file; without it, opening a socket for a request
/// would load its modules.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`.
const ENTRY: u16 = 0x100;
/// The same with `IPCTNL_MSG_CT_GET`.
const GET: u16 = 0x101;
/// `struct nfgenmsg`.
const GENERIC: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The limit of the requests for one connection in one network namespace.
const MOST_ZONES: usize = 8;

/// Conntrack's table of one network namespace.
pub(super) struct Conntrack {
    socket: OwnedFd,
}

impl Conntrack {
    /// The table of this thread's network namespace; `None` if it has no entry, or if conntrack is not loaded.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let is_used = fs::read_to_string(COUNT).is_ok_and(|count| count.trim() != "0");
        Ok(if is_used { Some(Self { socket: open_for(Some(netlink::NETFILTER))? }) } else { None })
    }

    /// Whether conntrack is loaded. Its file is in every network namespace then.
    pub(super) fn is_loaded() -> bool {
        fs::exists(COUNT).unwrap_or(false)
    }

    /// How the other side of the table sees the connection that this side sees as `seen`, still from the view of the end that is
    /// local in `seen`; `None` if the table does not translate the connection, or does not have it.
    pub(super) fn beyond(&self, seen: &Tuple, zones: &[u16]) -> io::Result<Option<Tuple>> {
        for zone in zones {
            match ask_one(&self.socket, &request(seen, *zone), |kind, payload| {
                (kind == ENTRY).then(|| Entry::parse(payload)).flatten()
            }) {
                Ok(entry) => {
                    if let Some(beyond) = entry.and_then(|entry| entry.beyond(seen)) {
                        return Ok(Some(beyond));
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The zones of the first entries of the table, and the zone 0. Reads one part of a dump, whose size the kernel bounds.
    pub(super) fn zones() -> io::Result<Vec<u16>> {
        let socket = open_for(Some(netlink::NETFILTER))?;
        send(&socket, &message(GET, DUMP_FLAGS, &[0; GENERIC]), SendFlags::empty())?;
        let mut buffer = vec![0_u8; 1 << 15];
        let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        let mut zones = BTreeSet::from([0]);
        let mut rest = &buffer[..len];
        while let Some((kind, payload, next)) = split_message(rest) {
            if kind == ENTRY {
                zones.extend(zones_of(payload));
            }
            rest = next;
        }
        Ok(zones.into_iter().take(MOST_ZONES).collect())
    }
}

/// A request for the entry that has `tuple` in one of its directions.
fn request(tuple: &Tuple, zone: u16) -> Vec<u8> {
    let (local, remote) = (tuple.local.octets(), tuple.remote.octets());
    let is_v4 = tuple.is_v4();
    let ips = if is_v4 {
        [attribute(CTA_IP_V4_SRC, &local[12..]), attribute(CTA_IP_V4_DST, &remote[12..])]
    } else {
        [attribute(CTA_IP_V6_SRC, &local), attribute(CTA_IP_V6_DST, &remote)]
    };
    let protocol = [
        attribute(CTA_PROTO_NUM, &[libc::IPPROTO_TCP as u8]),
        attribute(CTA_PROTO_SRC_PORT, &tuple.local_port.to_be_bytes()),
        attribute(CTA_PROTO_DST_PORT, &tuple.remote_port.to_be_bytes()),
    ];
    let parts = [
        attribute(CTA_TUPLE_IP | NESTED, &ips.concat()),
        attribute(CTA_TUPLE_PROTO | NESTED, &protocol.concat()),
    ];
    let family = if is_v4 { libc::AF_INET } else { libc::AF_INET6 };
    let mut payload = vec![family as u8, 0, 0, 0];
    payload.extend(attribute(CTA_TUPLE_ORIG | NESTED, &parts.concat()));
    if zone != 0 {
        payload.extend(attribute(CTA_ZONE, &zone.to_be_bytes()));
    }
    message(GET, REQUEST_FLAG, &payload)
}

/// An entry for TCP: the tuple of its packets from the host that has sent the first one, before the translation, and the tuple of
/// the answers to them. The source is the local end of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    original: Tuple,
    reply: Tuple,
}

impl Entry {
    /// Parses `struct nfgenmsg` and the attributes behind it.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (mut original, mut reply) = (None, None);
        for (kind, value) in each_attribute(payload.get(GENERIC..)?) {
            match kind {
                CTA_TUPLE_ORIG => original = tuple(value),
                CTA_TUPLE_REPLY => reply = tuple(value),
                _ => {}
            }
        }
        Some(Self { original: original?, reply: reply? })
    }

    /// Both ends agree about the connection: what one end sees beyond the translation is the other end's own tuple.
    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self) {
        let Self { original, reply } = self;
        if self.beyond(original).is_some() && self.beyond(reply).is_some() {
            assert_eq!(self.beyond(original), Some(reply.mirrored()));
        }
    }

    fn beyond(&self, seen: &Tuple) -> Option<Tuple> {
        let seen = seen.of_any_interface();
        let other = if self.original == seen {
            self.reply
        } else if self.reply == seen {
            self.original
        } else {
            return None;
        };
        Some(other.mirrored()).filter(|other| *other != seen)
    }
}

/// A `CTA_TUPLE_...` of TCP.
fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut addresses, mut ports) = (None, None);
    for (kind, value) in each_attribute(bytes) {
        match kind {
            CTA_TUPLE_IP => addresses = addresses_of(value),
            CTA_TUPLE_PROTO => ports = ports_of(value),
            _ => {}
        }
    }
    let ((local, remote), (local_port, remote_port)) = (addresses?, ports?);
    Some(Tuple { local, remote, local_port, remote_port, v6_socket: true, interface: 0 }.of_any_interface())
}

fn addresses_of(bytes: &[u8]) -> Option<(Address, Address)> {
    let (mut source, mut destination) = (None, None);
    for (kind, value) in each_attribute(bytes) {
        let v4 = value.first_chunk().map(|bytes| Address::from_v4(*bytes));
        let v6 = value.first_chunk().map(|bytes| Address::from_v6(*bytes));
        match kind {
            CTA_IP_V4_SRC => source = v4,
            CTA_IP_V4_DST => destination = v4,
            CTA_IP_V6_SRC => source = v6,
            CTA_IP_V6_DST => destination = v6,
            _ => {}
        }
    }
    Some((source?, destination?))
}

fn ports_of(bytes: &[u8]) -> Option<(u16, u16)> {
    let (mut is_tcp, mut source, mut destination) = (false, None, None);
    for (kind, value) in each_attribute(bytes) {
        match kind {
            CTA_PROTO_NUM => is_tcp = value.first() == Some(&(libc::IPPROTO_TCP as u8)),
            CTA_PROTO_SRC_PORT => source = number(value),
            CTA_PROTO_DST_PORT => destination = number(value),
            _ => {}
        }
    }
    is_tcp.then_some((source?, destination?))
}

/// The zones of an entry: one for both directions beside the tuples, or one for a direction in its tuple.
pub(super) fn zones_of(payload: &[u8]) -> Vec<u16> {
    let mut zones = Vec::new();
    for (kind, value) in each_attribute(payload.get(GENERIC..).unwrap_or_default()) {
        match kind {
            CTA_ZONE => zones.extend(number(value)),
            CTA_TUPLE_ORIG | CTA_TUPLE_REPLY => {
                let parts = each_attribute(value).filter(|(kind, _)| *kind == CTA_TUPLE_ZONE);
                zones.extend(parts.filter_map(|(_, value)| number(value)));
            }
            _ => {}
        }
    }
    zones
}

/// A number in network byte order.
fn number(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(local: &str, local_port: u16, remote: &str, remote_port: u16) -> Tuple {
        let address = |text: &str| text.parse::<std::net::IpAddr>().expect("address").into();
        let (local, remote) = (address(local), address(remote));
        Tuple { local, remote, local_port, remote_port, v6_socket: true, interface: 0 }.of_any_interface()
    }

    /// The payload of an entry, made of the same parts as requests, which the live tests send to the kernel.
    fn entry(original: &Tuple, reply: &Tuple) -> Vec<u8> {
        let part = |tuple: &Tuple, kind: u16| {
            let request = request(tuple, 0);
            let (_, payload, _) = split_message(&request).expect("a message");
            let (_, value) = each_attribute(&payload[GENERIC..]).next().expect("a tuple");
            attribute(kind | NESTED, value)
        };
        [vec![2, 0, 0, 0], part(original, CTA_TUPLE_ORIG), part(reply, CTA_TUPLE_REPLY)].concat()
    }

    #[test]
    fn each_end_gets_what_the_other_end_sees() {
        for (client, service, server) in [
            (("10.0.0.2", 40000), ("10.96.0.1", 80), ("10.0.1.7", 8080)),
            (("2001:db8::2", 40000), ("fd00::1", 80), ("2001:db8:1::7", 8080)),
        ] {
            let original = of(client.0, client.1, service.0, service.1);
            let reply = of(server.0, server.1, client.0, client.1);
            let found = Entry::parse(&entry(&original, &reply)).expect("an entry");
            assert_eq!(found, Entry { original, reply });
            let of_client = found.beyond(&original).expect("translated");
            assert_eq!(of_client, of(client.0, client.1, server.0, server.1));
            let of_server = found.beyond(&reply).expect("translated");
            assert_eq!(of_server, of(service.0, service.1, client.0, client.1));
            assert_eq!(of_client, reply.mirrored(), "the id of the server's own tuple");
            assert_eq!(of_server, original.mirrored(), "the id of the client's own tuple");
            let plain = Entry { original, reply: original.mirrored() };
            assert_eq!(plain.beyond(&original), None);
            assert_eq!(found.beyond(&original.mirrored()), None, "another connection");
        }
    }

    #[test]
    fn an_entry_of_another_protocol_or_without_a_part_is_none() {
        let tuple = of("10.0.0.2", 1, "10.0.0.3", 2);
        let bytes = entry(&tuple, &tuple.mirrored());
        assert!(Entry::parse(&bytes).is_some());
        for end in 0..bytes.len() {
            assert_eq!(Entry::parse(&bytes[..end]), None, "{end} bytes");
        }
        let udp: Vec<u8> = bytes.iter().map(|byte| if *byte == 6 { 17 } else { *byte }).collect();
        assert_eq!(Entry::parse(&udp), None);
    }

    #[test]
    fn zones_of_both_directions_and_of_one() {
        let tuple = of("10.0.0.2", 1, "10.0.0.3", 2);
        let mut bytes = entry(&tuple, &tuple.mirrored());
        assert!(zones_of(&bytes).is_empty());
        bytes.extend(attribute(CTA_ZONE, &7_u16.to_be_bytes()));
        bytes.extend(attribute(CTA_TUPLE_REPLY | NESTED, &attribute(CTA_TUPLE_ZONE, &9_u16.to_be_bytes())));
        assert_eq!(zones_of(&bytes), [7, 9]);
    }
}
