//! Reads the kernel's tables by `sock_diag` (`NETLINK_SOCK_DIAG`, `linux/inet_diag.h`), which needs neither BPF nor root. Unlike
//! our iterators, it shows queues, timers and times. It lists the network namespace of the thread that opens the netlink socket.

use std::{collections::HashMap, fs::File, io, os::fd::OwnedFd, sync::Arc};

use rustix::net::netdevice::index_to_name;

use super::{
    message::parse,
    mptcp,
    netlink::{DUMP_FLAGS, HEADER, INET_DIAG_INFO, ask, ask_one, open, request_of},
    requests, snapshot,
};
use crate::model::{SocketInfo, Transport, Tuple};

/// The older request, which walks the tables once for both families; `SOCK_DIAG_BY_FAMILY` walks them once for each.
const TCPDIAG_GETSOCK: u16 = 18;
/// `struct inet_diag_req`.
const REQUEST: usize = 60;

/// The sockets of a network namespace, and why some of them cannot be listed.
///
/// # Errors
/// Why they cannot be listed.
pub(super) fn dump_in(inode: u32, namespace: &File) -> Result<(Vec<SocketInfo>, Option<String>), String> {
    snapshot::run_in(inode, namespace, || {
        sockets(inode).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::EOPNOTSUPP) => {
                "this kernel has no sock_diag for TCP (module tcp_diag)".to_owned()
            }
            _ => error.to_string(),
        })
    })
}

/// The sockets of the namespace of this thread, whose inode is `netns`.
fn sockets(netns: u32) -> io::Result<(Vec<SocketInfo>, Option<String>)> {
    let socket = open()?;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend((HEADER as u32 + REQUEST as u32).to_ne_bytes());
    request.extend(TCPDIAG_GETSOCK.to_ne_bytes());
    request.extend(DUMP_FLAGS.to_ne_bytes());
    request.extend([0; 8]);
    // Every address, in every state.
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

/// The TCP socket with the ends `tuple` in the namespace of the socket `netlink`, whose inode is `netns`.
///
/// # Errors
/// There is none (ENOENT), or the kernel does not say.
pub(super) fn exact(netlink: &OwnedFd, netns: u32, tuple: &Tuple) -> io::Result<Option<SocketInfo>> {
    ask_one(netlink, &request_of(tuple), |_, message| parse(netns, message, Transport::Tcp))
}

/// Adds the names of interfaces, from the namespace of the socket `netlink`. An interface that no longer exists
/// keeps only its index.
fn name_interfaces(netlink: &OwnedFd, sockets: &mut [SocketInfo]) {
    let mut names: HashMap<u32, Option<Arc<str>>> = HashMap::new();
    for socket in sockets.iter_mut().filter(|socket| socket.tuple.interface != 0) {
        let index = socket.tuple.interface;
        let name = names.entry(index).or_insert_with(|| index_to_name(netlink, index).ok().map(Arc::from));
        socket.interface.clone_from(name);
    }
}
