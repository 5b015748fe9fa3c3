//! Finds the listener that a connection came from, or that a SYN goes to.

use std::collections::{HashMap, HashSet};

use crate::{
    enrich::Holders,
    model::{Address, SocketInfo, State, Transport},
};

/// Listeners by namespace and port, and the namespaces of addresses.
pub(super) struct Listeners<'a> {
    by_port: HashMap<(u32, u16), Vec<&'a SocketInfo>>,
    /// Listeners that accept connections to every port (IP_TRANSPARENT), by namespace.
    transparent: HashMap<u32, Vec<&'a SocketInfo>>,
    /// Remote addresses of SYN_SENT sockets, with each namespace in which they are local.
    local: HashSet<(u32, Address)>,
    /// Namespace of a SYN_SENT socket and its remote address -> the namespace of this host in which that address is. Known only
    /// where both ends of an open connection are listed.
    netns_of_remote: HashMap<(u32, Address), u32>,
}

impl<'a> Listeners<'a> {
    pub(super) fn of(sockets: &'a [SocketInfo]) -> Self {
        let mut by_port: HashMap<_, Vec<&SocketInfo>> = HashMap::new();
        let mut transparent: HashMap<_, Vec<&SocketInfo>> = HashMap::new();
        // An MPTCP listener has a TCP listener as its subflow, with the same queue.
        let is_one = |socket: &&SocketInfo| socket.state == State::Listen && !socket.is_subflow();
        for socket in sockets.iter().filter(is_one) {
            by_port.entry((socket.netns, socket.tuple.local_port)).or_default().push(socket);
            if socket.is_transparent {
                transparent.entry(socket.netns).or_default().push(socket);
            }
        }
        let connecting = sockets.iter().filter(|socket| socket.state == State::SynSent);
        let syn_targets: HashSet<Address> = connecting.map(|socket| socket.tuple.remote).collect();
        if syn_targets.is_empty() {
            return Self { by_port, transparent, local: HashSet::new(), netns_of_remote: HashMap::new() };
        }
        let is_target = |socket: &&SocketInfo| syn_targets.contains(&socket.tuple.local);
        let local =
            sockets.iter().filter(is_target).map(|socket| (socket.netns, socket.tuple.local)).collect();
        Self { by_port, transparent, local, netns_of_remote: netns_of_remote(sockets, &syn_targets) }
    }

    /// The listeners that this socket may have come from, or that its SYN may go to; several if they share the port and there is no
    /// evidence for one of them.
    pub(super) fn find(&self, socket: &SocketInfo) -> Vec<&'a SocketInfo> {
        match socket.state {
            State::Listen => Vec::new(),
            State::SynSent => self.of_syn(socket),
            _ => self.of_accepted(socket),
        }
    }

    /// Narrows several listeners down by their holders, or by the connections in their queues.
    pub(super) fn narrow(
        socket: &SocketInfo,
        mut listeners: Vec<&'a SocketInfo>,
        holders: &Holders,
    ) -> Vec<&'a SocketInfo> {
        if socket.state == State::SynSent {
            return listeners;
        }
        let never_accepted =
            socket.inode == 0 && matches!(socket.state, State::CloseWait | State::Established);
        if never_accepted && !socket.is_subflow() {
            let is_waited_at = |listener: &&SocketInfo| listener.receive_queue > 0;
            // A listener with an empty queue is excluded: BPF_PROG_TYPE_SK_LOOKUP may have sent the connection to another one.
            let queue_is_unknown =
                |listener: &&SocketInfo| listener.is_partial || listener.transport == Transport::Mptcp;
            let is_seen = listeners.iter().any(is_waited_at);
            listeners
                .retain(|listener| if is_seen { is_waited_at(listener) } else { queue_is_unknown(listener) });
            return listeners;
        }
        let is_own = |listener: &&SocketInfo| {
            holders.pids(socket.inode).any(|pid| holders.pids(listener.inode).any(|other| other == pid))
        };
        if listeners.len() > 1 && listeners.iter().any(&is_own) {
            listeners.retain(is_own);
        }
        listeners
    }

    fn of_accepted(&self, socket: &SocketInfo) -> Vec<&'a SocketInfo> {
        let tuple = &socket.tuple;
        if socket.is_transparent
            && let Some(there) = self.transparent.get(&socket.netns)
        {
            return there.clone();
        }
        let there = self.by_port.get(&(socket.netns, tuple.local_port)).map_or(&[][..], Vec::as_slice);
        // A connection has its listener's family, unless the application has changed it (IPV6_ADDRFORM).
        let of_family = there.iter().any(|listener| listener.tuple.v6_socket == tuple.v6_socket);
        let fits = |listener: &&&SocketInfo| !of_family || listener.tuple.v6_socket == tuple.v6_socket;
        let mut fitting: Vec<&SocketInfo> = there.iter().filter(fits).copied().collect();
        // A connection inherits the interface of its listener.
        let is_bound = |listener: &&SocketInfo| listener.tuple.interface == tuple.interface;
        if fitting.iter().any(is_bound) {
            fitting.retain(is_bound);
        }
        nearest(fitting, tuple.local)
    }

    fn of_syn(&self, socket: &SocketInfo) -> Vec<&'a SocketInfo> {
        let (remote, port) = (socket.tuple.remote, socket.tuple.remote_port);
        let is_here = remote.canonical().is_loopback() || self.local.contains(&(socket.netns, remote));
        // The address may exist in an unreachable namespace and on another host, so evidence of a connection is needed.
        let there =
            if is_here { Some(&socket.netns) } else { self.netns_of_remote.get(&(socket.netns, remote)) };
        let Some(&netns) = there else { return Vec::new() };
        let there = self.by_port.get(&(netns, port)).map_or(&[][..], Vec::as_slice);
        let is_v4 = remote.canonical().is_ipv4();
        let takes =
            |listener: &&SocketInfo| if is_v4 { !listener.is_v6_only } else { listener.tuple.v6_socket };
        let nearest = nearest(there.iter().filter(|listener| takes(listener)).copied().collect(), remote);
        // For an IPv4 connection the kernel prefers IPv4 listeners to dual-stack ones.
        let has_v4 = is_v4 && nearest.iter().any(|listener| !listener.tuple.v6_socket);
        nearest.into_iter().filter(|listener| !has_v4 || !listener.tuple.v6_socket).collect()
    }
}

/// For the remote addresses of SYN_SENT sockets: which namespaces have a connection to the address, and to which namespace of
/// this host it leads. Evidence is a connection with both ends listed.
fn netns_of_remote(sockets: &[SocketInfo], syn_targets: &HashSet<Address>) -> HashMap<(u32, Address), u32> {
    let ends = |socket: &SocketInfo| {
        let tuple = &socket.tuple;
        ((tuple.local, tuple.local_port), (tuple.remote, tuple.remote_port))
    };
    let is_open = |socket: &&SocketInfo| !matches!(socket.state, State::Listen | State::SynSent);
    let open = || sockets.iter().filter(is_open);
    let answering: HashMap<_, u32> = open()
        .filter(|socket| syn_targets.contains(&socket.tuple.local))
        .map(|socket| (ends(socket), socket.netns))
        .collect();
    open()
        .filter(|socket| syn_targets.contains(&socket.tuple.remote))
        .filter_map(|socket| {
            let (local, remote) = ends(socket);
            Some(((socket.netns, socket.tuple.remote), *answering.get(&(remote, local))?))
        })
        .collect()
}

/// The listeners on exactly this address; if there is none, those on all addresses, as in the kernel's lookup.
fn nearest(listeners: Vec<&SocketInfo>, address: Address) -> Vec<&SocketInfo> {
    let is_exact = |listener: &&SocketInfo| listener.tuple.local == address;
    let exact = listeners.iter().any(is_exact);
    let fits = |listener: &&SocketInfo| {
        if exact { is_exact(listener) } else { listener.tuple.local.is_unspecified() }
    };
    listeners.into_iter().filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tuple;

    fn socket(netns: u32, state: State, local: (Address, u16), remote: (Address, u16)) -> SocketInfo {
        let v6_socket = !local.0.canonical().is_ipv4();
        let ((local, local_port), (remote, remote_port)) = (local, remote);
        SocketInfo::bare(
            netns,
            state,
            Tuple { local, remote, local_port, remote_port, v6_socket, interface: 0 },
        )
    }

    #[test]
    fn a_syn_goes_to_a_listener_that_can_hear_it() {
        let host = Address::from_v4([10, 0, 0, 1]);
        let isolated = Address::from_v4([10, 99, 0, 5]);
        let listener = socket(2, State::Listen, (isolated, 80), (Address::from_v4([0; 4]), 0));
        let syn = socket(1, State::SynSent, (host, 5000), (isolated, 80));
        let mut sockets = vec![listener, syn];
        // Another machine may have the address as well.
        assert!(Listeners::of(&sockets).find(&sockets[1]).is_empty());
        // Both ends of another connection are here: this is the machine.
        sockets.push(socket(1, State::Established, (host, 5001), (isolated, 80)));
        assert!(Listeners::of(&sockets).find(&sockets[1]).is_empty());
        sockets.push(socket(2, State::Established, (isolated, 80), (host, 5001)));
        assert_eq!(Listeners::of(&sockets).find(&sockets[1]), [&sockets[0]]);
    }

    #[test]
    fn a_listener_for_ipv6_only_hears_no_ipv4() {
        let any = Address::from_v6([0; 16]);
        let ours = Address::from_v4([127, 0, 0, 1]);
        let mut listener = socket(1, State::Listen, (any, 80), (any, 0));
        let syn = socket(1, State::SynSent, (ours, 5000), (ours, 80));
        for is_v6_only in [false, true] {
            listener.is_v6_only = is_v6_only;
            let sockets = [listener.clone(), syn.clone()];
            assert_eq!(Listeners::of(&sockets).find(&sockets[1]).is_empty(), is_v6_only);
        }
    }
}
