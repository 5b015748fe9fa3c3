//! The pods and services of the cluster by their addresses. A thread that talks to the API server writes here, and the main
//! thread reads.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::model::{ClusterPeer, bounds};

/// Limit of addresses.
pub const MOST_PEERS: usize = 65_536;

/// Gets an address, the uid of an object, and what the object is, or `None` at its end.
type Listener = Box<dyn Fn(IpAddr, &str, Option<&ClusterPeer>) + Send + Sync>;

/// What has each address. An address keeps its name after the end of its object, because connections to it may begin later,
/// until another object has the address or the room is needed.
#[derive(Clone, Default)]
pub struct KnownPeers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Lets a reader see without the lock that nothing is known.
    is_used: AtomicBool,
    addresses: Mutex<Addresses>,
    listener: Option<Listener>,
}

#[derive(Default)]
struct Addresses {
    held: HashMap<IpAddr, Held>,
    /// How many of them belong to objects that have ended.
    ended: usize,
}

impl Addresses {
    /// Whether there is room for another address, also by forgetting those of objects that have ended.
    fn has_room(&mut self) -> bool {
        // The main thread waits for the lock: without such objects, nothing is looked through.
        if self.held.len() >= MOST_PEERS && self.ended > 0 {
            self.held.retain(|_, held| !held.has_ended);
            self.ended = 0;
        }
        self.held.len() < MOST_PEERS
    }
}

/// An address that an object has or had.
struct Held {
    uid: String,
    peer: Arc<ClusterPeer>,
    has_ended: bool,
}

impl KnownPeers {
    /// Also passes each change on.
    #[must_use]
    pub fn passing_on(listener: impl Fn(IpAddr, &str, Option<&ClusterPeer>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { listener: Some(Box::new(listener)), ..Shared::default() }))
    }

    /// Notes that the object `uid` has this address, if there is room for it.
    pub fn set(&self, address: IpAddr, uid: &str, peer: ClusterPeer) {
        if uid.len() > bounds::NAME {
            return;
        }
        let mut addresses = self.lock();
        match addresses.held.get(&address) {
            Some(held) if held.has_ended => addresses.ended -= 1,
            Some(held) if held.uid == uid && *held.peer == peer => return,
            Some(_) => {}
            None => {
                if !addresses.has_room() {
                    return;
                }
            }
        }
        let peer = Arc::new(peer);
        let held = Held { uid: uid.to_owned(), peer: Arc::clone(&peer), has_ended: false };
        addresses.held.insert(address, held);
        drop(addresses);
        self.0.is_used.store(true, Ordering::Release);
        self.pass_on(address, uid, Some(&peer));
    }

    /// The object `uid` has ended, or has lost this address.
    pub fn end(&self, address: IpAddr, uid: &str) {
        let mut addresses = self.lock();
        let held = addresses.held.get_mut(&address).filter(|held| held.uid == uid && !held.has_ended);
        let Some(held) = held else { return };
        held.has_ended = true;
        addresses.ended += 1;
        drop(addresses);
        self.pass_on(address, uid, None);
    }

    /// What has this address.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<Arc<ClusterPeer>> {
        if !self.0.is_used.load(Ordering::Acquire) {
            return None;
        }
        self.lock().held.get(&address).map(|held| Arc::clone(&held.peer))
    }

    fn pass_on(&self, address: IpAddr, uid: &str, peer: Option<&ClusterPeer>) {
        if let Some(listener) = &self.0.listener {
            listener(address, uid, peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::PeerKind;

    fn peer(kind: PeerKind, name: &str) -> ClusterPeer {
        ClusterPeer { kind, namespace: "shop".into(), name: name.into(), workload: None }
    }

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn name(known: &KnownPeers, number: u32) -> Option<String> {
        known.find(address(number)).map(|peer| peer.name.clone())
    }

    #[test]
    fn an_address_keeps_its_name_until_another_object_has_it() {
        let (sender, changes) = std::sync::mpsc::channel();
        let known = KnownPeers::passing_on(move |_, uid, peer| {
            sender.send((uid.to_owned(), peer.is_some())).expect("the test");
        });
        assert_eq!(name(&known, 1), None);
        known.set(address(1), "a", peer(PeerKind::Pod, "first"));
        known.set(address(1), "a", peer(PeerKind::Pod, "first"));
        known.set(address(2), "s", peer(PeerKind::Service, "web"));
        known.end(address(1), "another");
        known.end(address(1), "a");
        known.end(address(1), "a");
        assert_eq!(name(&known, 1).as_deref(), Some("first"), "it has ended");
        known.set(address(1), "b", peer(PeerKind::Pod, "second"));
        // The end of the first one comes late.
        known.end(address(1), "a");
        assert_eq!(name(&known, 1).as_deref(), Some("second"));
        known.end(address(1), "b");
        assert_eq!(name(&known, 2).as_deref(), Some("web"));
        let seen: Vec<(String, bool)> = changes.try_iter().collect();
        let seen: Vec<(&str, bool)> = seen.iter().map(|(uid, is_new)| (uid.as_str(), *is_new)).collect();
        assert_eq!(seen, [("a", true), ("s", true), ("a", false), ("b", true), ("b", false)]);
    }

    #[test]
    fn what_has_ended_makes_room() {
        let known = KnownPeers::default();
        let most = u32::try_from(MOST_PEERS).expect("a number");
        (0..=most).for_each(|number| known.set(address(number), "uid", peer(PeerKind::Pod, "pod")));
        assert_eq!(name(&known, most), None, "there is no room");
        known.end(address(0), "uid");
        known.set(address(most), "uid", peer(PeerKind::Pod, "pod"));
        assert!(name(&known, most).is_some() && name(&known, 0).is_none());
        known.set(address(1), &"u".repeat(bounds::NAME + 1), peer(PeerKind::Pod, "other"));
        assert_eq!(name(&known, 1).as_deref(), Some("pod"));
    }
}
