//! Which listener a connection came out of, or goes to.

use std::collections::{BTreeSet, HashMap};

use crate::{
    enrich::Holders,
    model::{Address, SocketInfo, State},
};

/// Listeners by namespace and port, and where addresses are.
pub(super) struct Listeners<'a> {
    by_port: HashMap<(u32, u16), Vec<&'a SocketInfo>>,
    /// The namespaces in which an address is a local one, for ends that somebody connects to.
    owners: HashMap<Address, BTreeSet<u32>>,
}

impl<'a> Listeners<'a> {
    pub(super) fn of(sockets: &'a [SocketInfo]) -> Self {
        let mut by_port: HashMap<_, Vec<&SocketInfo>> = HashMap::new();
        // An MPTCP listener has a TCP listener below it, with the same queue.
        let is_one = |socket: &&SocketInfo| socket.state == State::Listen && !socket.is_subflow();
        for socket in sockets.iter().filter(is_one) {
            by_port.entry((socket.netns, socket.tuple.local_port)).or_default().push(socket);
        }
        let called = sockets.iter().filter(|socket| socket.state == State::SynSent);
        let mut owners: HashMap<Address, BTreeSet<u32>> =
            called.map(|socket| (socket.tuple.remote, BTreeSet::new())).collect();
        if !owners.is_empty() {
            for socket in sockets {
                if let Some(namespaces) = owners.get_mut(&socket.tuple.local) {
                    namespaces.insert(socket.netns);
                }
            }
        }
        Self { by_port, owners }
    }

    /// The listeners that this socket may have come out of, or that its SYN may go to: more than one where several share the port
    /// and nothing tells which it is.
    pub(super) fn find(&self, socket: &SocketInfo) -> Vec<&'a SocketInfo> {
        match socket.state {
            State::Listen => Vec::new(),
            State::SynSent => self.called(socket),
            _ => self.behind(socket),
        }
    }

    /// Of several listeners those that the holders, or the connections that wait, point to.
    pub(super) fn narrow(
        socket: &SocketInfo,
        mut listeners: Vec<&'a SocketInfo>,
        holders: &Holders,
    ) -> Vec<&'a SocketInfo> {
        if listeners.len() < 2 || socket.state == State::SynSent {
            return listeners;
        }
        let never_accepted =
            socket.inode == 0 && matches!(socket.state, State::CloseWait | State::Established);
        let is_it = |listener: &&SocketInfo| {
            if never_accepted {
                return listener.receive_queue > 0;
            }
            holders.pids(socket.inode).any(|pid| holders.pids(listener.inode).any(|other| other == pid))
        };
        if listeners.iter().any(&is_it) {
            listeners.retain(is_it);
        }
        listeners
    }

    fn behind(&self, socket: &SocketInfo) -> Vec<&'a SocketInfo> {
        let tuple = &socket.tuple;
        let there = self.by_port.get(&(socket.netns, tuple.local_port)).map_or(&[][..], Vec::as_slice);
        // A connection is of its listener's family, unless the application has changed that (IPV6_ADDRFORM).
        let of_family = there.iter().any(|listener| listener.tuple.v6_socket == tuple.v6_socket);
        let fits = |listener: &&&SocketInfo| !of_family || listener.tuple.v6_socket == tuple.v6_socket;
        let mut fitting: Vec<&SocketInfo> = there.iter().filter(fits).copied().collect();
        // One that is bound to an interface hands that on.
        let is_bound = |listener: &&SocketInfo| listener.tuple.interface == tuple.interface;
        if fitting.iter().any(is_bound) {
            fitting.retain(is_bound);
        }
        nearest(fitting, tuple.local)
    }

    fn called(&self, socket: &SocketInfo) -> Vec<&'a SocketInfo> {
        let (remote, port) = (socket.tuple.remote, socket.tuple.remote_port);
        let owners = self.owners.get(&remote);
        let is_here =
            remote.canonical().is_loopback() || owners.is_some_and(|all| all.contains(&socket.netns));
        let netns = match (is_here, owners) {
            (true, _) => socket.netns,
            // An address of one other namespace of this host; several may have the same one.
            (false, Some(owners)) if owners.len() == 1 => owners.first().copied().unwrap_or(socket.netns),
            _ => return Vec::new(),
        };
        let there = self.by_port.get(&(netns, port)).map_or(&[][..], Vec::as_slice);
        let is_v4 = remote.canonical().is_ipv4();
        let takes = |listener: &&SocketInfo| is_v4 || listener.tuple.v6_socket;
        let nearest = nearest(there.iter().filter(|listener| takes(listener)).copied().collect(), remote);
        // For an IPv4 connection the kernel prefers IPv4 listeners to dual-stack ones.
        let has_v4 = is_v4 && nearest.iter().any(|listener| !listener.tuple.v6_socket);
        nearest.into_iter().filter(|listener| !has_v4 || !listener.tuple.v6_socket).collect()
    }
}

/// Those on just this address, else those on all addresses, as the kernel looks them up.
fn nearest(listeners: Vec<&SocketInfo>, address: Address) -> Vec<&SocketInfo> {
    let is_exact = |listener: &&SocketInfo| listener.tuple.local == address;
    let exact = listeners.iter().any(is_exact);
    let fits = |listener: &&SocketInfo| {
        if exact { is_exact(listener) } else { listener.tuple.local.is_unspecified() }
    };
    listeners.into_iter().filter(fits).collect()
}
