//! Finds the other end of a connection, if it is on the same host.

use std::collections::HashMap;

use crate::model::{Peer, SocketInfo, State, Tuple};

/// The other ends of requests, by their tuple.
#[derive(Default)]
pub(super) struct Peers(HashMap<Tuple, Vec<(u32, Peer)>>);

impl Peers {
    /// Finds the other ends of `chosen` requests.
    pub(super) fn of(sockets: &[SocketInfo], chosen: &[&SocketInfo]) -> Self {
        let requests = chosen.iter().filter(|socket| is_request(socket));
        let mut peers: HashMap<Tuple, Vec<(u32, Peer)>> =
            requests.map(|socket| (socket.tuple.mirrored(), Vec::new())).collect();
        if peers.is_empty() {
            return Self::default();
        }
        for socket in sockets {
            if let Some(list) = peers.get_mut(&socket.tuple.of_any_interface()) {
                let peer = Peer {
                    state: socket.state,
                    unacknowledged: socket.send_queue,
                    since_data_sent_ns: socket.times.map(|times| times.since_data_sent_ns),
                };
                list.push((socket.netns, peer));
            }
        }
        Self(peers)
    }

    /// The other end in the same namespace; otherwise the only one in all other namespaces.
    pub(super) fn find(&self, socket: &SocketInfo) -> Option<Peer> {
        if !is_request(socket) {
            return None;
        }
        let list = self.0.get(&socket.tuple.mirrored())?;
        let near = list.iter().find(|(netns, _)| *netns == socket.netns);
        let only = if let [one] = &list[..] { Some(one) } else { None };
        near.or(only).map(|(_, peer)| *peer)
    }
}

fn is_request(socket: &SocketInfo) -> bool {
    matches!(socket.state, State::NewSynRecv | State::SynRecv)
}
