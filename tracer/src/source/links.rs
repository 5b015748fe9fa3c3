//! Which network namespaces the interfaces of a network namespace lead to: the other end of a veth, the device below a macvlan.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use super::netlink::{
    DUMP_FLAGS, REQUEST_FLAG, ask, ask_one, attribute, each_attribute, i32_at, message, open_for, u32_at,
};

const RTM_GETLINK: u16 = 18;
const RTM_GETNSID: u16 = 90;
/// `struct ifinfomsg`.
const INTERFACE: usize = 16;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFLA_LINK_NETNSID: u16 = 37;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// The limit of the namespaces that one namespace leads to; a host with many pods has more.
const MOST: usize = 64;

/// The interfaces of a network namespace.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// How many interfaces are up, without loopback. With one alone, nothing is forwarded.
    pub(super) up: usize,
    /// Inodes of the namespaces that they lead to.
    pub(super) leads_to: Vec<u32>,
    /// An interface leads to a namespace that is not known.
    pub(super) is_incomplete: bool,
}

impl Links {
    /// The interfaces of this thread's network namespace. `known` are paths to all namespaces, by inode.
    pub(super) fn read(known: &BTreeMap<u32, PathBuf>) -> io::Result<Self> {
        let socket = open_for(None)?;
        let mut payload = vec![0; INTERFACE];
        payload.extend(attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()));
        let found = ask(&socket, &message(RTM_GETLINK, DUMP_FLAGS, &payload), link)?;
        let mut links = Self { up: found.iter().filter(|link| link.is_up).count(), ..Self::default() };
        let mut ids: BTreeSet<i32> =
            found.iter().filter(|link| link.is_up).filter_map(|link| link.leads_to).take(MOST).collect();
        for (inode, path) in known {
            if ids.is_empty() {
                break;
            }
            let Some(file) = open_namespace(path, *inode) else { continue };
            let payload = [vec![0; 4], attribute(NETNSA_FD, &file.as_raw_fd().to_ne_bytes())].concat();
            let id =
                ask_one(&socket, &message(RTM_GETNSID, REQUEST_FLAG, &payload), |_, payload| id(payload));
            if id.is_ok_and(|id| id.is_some_and(|id| ids.remove(&id))) {
                links.leads_to.push(*inode);
            }
        }
        links.is_incomplete = !ids.is_empty();
        Ok(links)
    }
}

/// The network namespace at `path`, if it is still the one with this inode.
pub(super) fn open_namespace(path: &PathBuf, inode: u32) -> Option<File> {
    let file = File::open(path).ok()?;
    let is_same = file.metadata().is_ok_and(|metadata| metadata.ino() == u64::from(inode));
    is_same.then_some(file)
}

#[derive(Debug, PartialEq)]
pub(super) struct Link {
    is_up: bool,
    /// The kernel's number for the other namespace, in this one.
    leads_to: Option<i32>,
}

/// An answer to `RTM_GETLINK`: `struct ifinfomsg` with attributes.
pub(super) fn link(payload: &[u8]) -> Option<Link> {
    let flags = u32_at(payload, 8)?.cast_signed();
    let is_up = flags & libc::IFF_UP != 0 && flags & libc::IFF_LOOPBACK == 0;
    let mut attributes = each_attribute(payload.get(INTERFACE..)?);
    let leads_to = attributes.find(|(kind, _)| *kind == IFLA_LINK_NETNSID);
    Some(Link { is_up, leads_to: leads_to.and_then(|(_, value)| i32_at(value, 0)) })
}

/// An answer to `RTM_GETNSID`: `struct rtgenmsg` with the number, which is negative if there is none.
pub(super) fn id(payload: &[u8]) -> Option<i32> {
    let mut attributes = each_attribute(payload.get(4..)?);
    let (_, value) = attributes.find(|(kind, _)| *kind == NETNSA_NSID)?;
    i32_at(value, 0).filter(|id| *id >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_kernel() {
        let mut interface = vec![0; INTERFACE];
        interface[8..12].copy_from_slice(&(libc::IFF_UP | libc::IFF_RUNNING).to_ne_bytes());
        interface.extend(attribute(3, b"eth0\0"));
        assert_eq!(link(&interface), Some(Link { is_up: true, leads_to: None }));
        interface.extend(attribute(IFLA_LINK_NETNSID, &5_i32.to_ne_bytes()));
        assert_eq!(link(&interface), Some(Link { is_up: true, leads_to: Some(5) }));
        interface[8..12].copy_from_slice(&(libc::IFF_UP | libc::IFF_LOOPBACK).to_ne_bytes());
        assert_eq!(link(&interface), Some(Link { is_up: false, leads_to: Some(5) }));
        assert_eq!(link(&interface[..10]), None);
        for (number, wanted) in [(7_i32, Some(7)), (-1, None)] {
            let payload = [vec![0; 4], attribute(NETNSA_NSID, &number.to_ne_bytes())].concat();
            assert_eq!(id(&payload), wanted);
        }
    }
}
