//! The pods and the services of the cluster, by their addresses.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    client::{ApiError, Parts},
    objects::Object,
    watch::{Objects, Query},
};
use crate::{
    enrich::{KnownPeers, MOST_PEERS},
    model::{ClusterPeer, PeerKind},
};

/// Objects of one page. A whole pod has some ten kilobytes.
const PAGE: usize = 250;

pub(super) struct Peers {
    kind: PeerKind,
    peers: KnownPeers,
    /// The addresses of each object, by its uid: a change shows only those that it still has.
    addresses: HashMap<String, Vec<IpAddr>>,
}

impl Peers {
    pub(super) fn new(kind: PeerKind, peers: KnownPeers) -> Self {
        Self { kind, peers, addresses: HashMap::new() }
    }

    pub(super) fn query(kind: PeerKind) -> Query {
        let (path, name) = match kind {
            PeerKind::Pod => ("/api/v1/pods", "the pods of the cluster"),
            PeerKind::Service => ("/api/v1/services", "the services of the cluster"),
        };
        let (selector, name) = (None, name.to_owned());
        Query { path, selector, parts: Parts::All, page: PAGE, most: MOST_PEERS, name }
    }

    /// The addresses that the object has now.
    fn addresses_of(&self, object: &Object) -> Vec<IpAddr> {
        match self.kind {
            PeerKind::Pod => object.pod_addresses(),
            PeerKind::Service => object.service_addresses(),
        }
    }

    fn peer(&self, object: &Object) -> Option<ClusterPeer> {
        let metadata = &object.metadata;
        ClusterPeer {
            kind: self.kind,
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            workload: metadata.workload(),
        }
        .checked()
    }

    fn note(&mut self, object: &Object) {
        let uid = &object.metadata.uid;
        let addresses = self.addresses_of(object);
        for before in self.addresses.remove(uid).unwrap_or_default() {
            if !addresses.contains(&before) {
                self.peers.end(before, uid);
            }
        }
        if addresses.is_empty() || self.addresses.len() >= MOST_PEERS {
            return;
        }
        let Some(peer) = self.peer(object) else { return };
        addresses.iter().for_each(|address| self.peers.set(*address, uid, peer.clone()));
        self.addresses.insert(uid.clone(), addresses);
    }
}

impl Objects for Peers {
    async fn replace(&mut self, objects: Vec<Object>) -> Result<(), ApiError> {
        let listed: HashSet<&str> = objects.iter().map(|object| object.metadata.uid.as_str()).collect();
        let (peers, addresses) = (&self.peers, &mut self.addresses);
        addresses.retain(|uid, addresses| {
            let is_listed = listed.contains(uid.as_str());
            if !is_listed {
                addresses.iter().for_each(|address| peers.end(*address, uid));
            }
            is_listed
        });
        objects.iter().for_each(|object| self.note(object));
        Ok(())
    }

    async fn set(&mut self, object: &Object) -> Result<(), ApiError> {
        self.note(object);
        Ok(())
    }

    fn remove(&mut self, object: &Object) {
        let uid = &object.metadata.uid;
        let addresses = self.addresses.remove(uid).unwrap_or_default();
        addresses.iter().for_each(|address| self.peers.end(*address, uid));
    }
}
