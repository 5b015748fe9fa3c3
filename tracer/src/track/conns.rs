//! The store of the sockets that exist: one vector, with an index by the kernel's address and one by the owner's process.

use std::{
    hash::{BuildHasher, BuildHasherDefault},
    rc::Rc,
    sync::Arc,
};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::owned::Owned;
use crate::model::{
    ClusterPeer, ConnId, Connection, InState, Nat, Owner, Role, State, Subject, Traffic, Tuple,
};

/// One socket. Kept small: there may be a million.
pub(super) struct Conn {
    /// The kernel's address; only valid between a beginning and an end.
    pub(super) sk: u64,
    pub(super) id: ConnId,
    /// `CLOCK_MONOTONIC` ns of the entry into `state`, or of the first time that the socket was seen in it.
    pub(super) since_ns: u64,
    pub(super) subject: Rc<Subject>,
    /// The ends beyond translations, once they are known.
    pub(super) nat: Option<Rc<Nat>>,
    /// What Kubernetes has at the remote address.
    pub(super) peer: Option<Arc<ClusterPeer>>,
    pub(super) tuple: Tuple,
    pub(super) state: State,
    pub(super) role: Option<Role>,
    /// How far `since_ns` can be trusted.
    pub(super) since: Since,
    /// The kernel object is a mini-socket.
    pub(super) mini: bool,
    /// A child whose first transition waits until its ends are known.
    pub(super) awaits_endpoints: bool,
    /// The stream reports what is only likely.
    pub(super) estimated: bool,
    /// How many `stuck` records this state has.
    pub(super) stuck: u8,
    /// When the next `stuck` record is due, `CLOCK_MONOTONIC` ns.
    pub(super) remind_ns: u64,
    /// The watchdog's bucket that holds the socket, 0 for none.
    pub(super) watched: u32,
    /// What the full socket had transferred, once it is gone; until a record has it.
    pub(super) traffic: Option<Rc<Traffic>>,
}

/// How far a time can be trusted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Since {
    /// Seen when it happened.
    Exact,
    /// The socket was in the state already before this time.
    AtLeast,
    /// The time is not known.
    Unknown,
}

impl Conn {
    /// A full socket of which nothing else is known.
    pub(super) fn new(sk: u64, id: ConnId, subject: Rc<Subject>, tuple: Tuple, state: State) -> Self {
        Self {
            sk,
            id,
            since_ns: 0,
            subject,
            nat: None,
            peer: None,
            tuple,
            state,
            role: None,
            since: Since::Unknown,
            mini: false,
            awaits_endpoints: false,
            estimated: false,
            stuck: 0,
            remind_ns: 0,
            watched: 0,
            traffic: None,
        }
    }

    /// As records show it.
    pub(super) fn connection(&self) -> Connection {
        let (subject, nat, peer) = (Rc::clone(&self.subject), self.nat.clone(), self.peer.clone());
        Connection { id: self.id, role: self.role, tuple: self.tuple, nat, peer, subject, mini: self.mini }
    }

    /// Time in `from`, which is left at `now_ns`.
    pub(super) fn in_state(&self, from: State, now_ns: u64) -> Option<InState> {
        if plain(self.state) != plain(from) || self.since == Since::Unknown {
            return None;
        }
        // Two CPUs' clocks may differ by less than a transition takes.
        let ns = now_ns.saturating_sub(self.since_ns);
        Some(InState { ns, at_least: self.since == Since::AtLeast })
    }
}

/// A request's state and its child's have one name.
pub(super) fn plain(state: State) -> State {
    if state == State::NewSynRecv { State::SynRecv } else { state }
}

/// All sockets.
#[derive(Default)]
pub(super) struct Conns {
    conns: Vec<Conn>,
    index: HashTable<u32>,
    hasher: BuildHasherDefault<FxHasher>,
    /// By the owner's process id.
    owned: Owned,
}

impl Conns {
    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter()
    }

    pub(super) fn get(&self, at: usize) -> &Conn {
        &self.conns[at]
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut Conn {
        &mut self.conns[at]
    }

    /// The place of the socket at the address `sk`.
    pub(super) fn find(&self, sk: u64) -> Option<usize> {
        let conns = &self.conns;
        self.index.find(self.hash(sk), |&at| conns[at as usize].sk == sk).map(|&at| at as usize)
    }

    /// Adds a socket whose address is not in the store.
    pub(super) fn add(&mut self, conn: Conn) -> usize {
        let at = self.conns.len();
        self.link(conn.sk, at);
        self.conns.push(conn);
        self.note_owner(at);
        at
    }

    /// Gives the socket at `at` another subject.
    pub(super) fn set_subject(&mut self, at: usize, subject: Rc<Subject>) {
        let conn = &mut self.conns[at];
        let before = std::mem::replace(&mut conn.subject, subject);
        if pid_of(&before) != pid_of(&conn.subject) {
            self.note_owner(at);
        }
    }

    /// Addresses of the sockets that the process `pid` owns.
    pub(super) fn owned_by(&self, pid: u32) -> Vec<u64> {
        let is_owned = |sk: &u64| {
            let found = self.find(*sk).map(|at| pid_of(&self.conns[at].subject));
            found == Some(Some(pid))
        };
        self.owned.of(pid).into_iter().filter(is_owned).collect()
    }

    fn note_owner(&mut self, at: usize) {
        let conn = &self.conns[at];
        let Some(pid) = pid_of(&conn.subject) else { return };
        self.owned.note(pid, conn.sk);
        if self.owned.is_stale(self.conns.len()) {
            self.owned.renew(self.conns.iter().filter_map(|conn| Some((pid_of(&conn.subject)?, conn.sk))));
        }
    }

    /// Removes the socket at `at`; the last one moves into its place.
    pub(super) fn remove(&mut self, at: usize) -> Conn {
        self.unlink(at);
        let last = self.conns.len() - 1;
        if at != last {
            let hash = self.hash(self.conns[last].sk);
            if let Some(slot) = self.index.find_mut(hash, |&slot| slot as usize == last) {
                *slot = at as u32;
            }
        }
        self.conns.swap_remove(at)
    }

    /// Another kernel object continues the connection at `at`. Its address must not be in the store.
    pub(super) fn rekey(&mut self, at: usize, sk: u64) {
        self.unlink(at);
        self.conns[at].sk = sk;
        self.link(sk, at);
        self.note_owner(at);
    }

    fn hash(&self, sk: u64) -> u64 {
        self.hasher.hash_one(sk)
    }

    fn link(&mut self, sk: u64, at: usize) {
        let hash = self.hash(sk);
        let (conns, hasher) = (&self.conns, &self.hasher);
        // A host has fewer sockets than u32 counts.
        self.index.insert_unique(hash, at as u32, |&at| hasher.hash_one(conns[at as usize].sk));
    }

    fn unlink(&mut self, at: usize) {
        let sk = self.conns[at].sk;
        let hash = self.hash(sk);
        if let Ok(entry) = self.index.find_entry(hash, |&slot| slot as usize == at) {
            entry.remove();
        }
    }
}

fn pid_of(subject: &Subject) -> Option<u32> {
    subject.owner.as_ref().map(Owner::pid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{OwnerSource, Task};

    fn subject(pid: u32) -> Rc<Subject> {
        let task = Rc::new(Task { pid, exec_id: 0, start_ns: 1, comm: [0; 16] });
        let owner = (pid != 0).then(|| Owner {
            task,
            comm: String::new(),
            exe: None,
            uid: None,
            source: OwnerSource::Scan,
            cmdline: None,
        });
        Rc::new(Subject { id: 1, owner, netns: None, cgroup: None, container: None, pod: None, unit: None })
    }

    fn conn(sk: u64, pid: u32) -> Conn {
        Conn::new(sk, ConnId(sk), subject(pid), Tuple::example(), State::Established)
    }

    proptest! {
        /// The index gives the same sockets for each process as a pass over all connections.
        #[test]
        fn the_sockets_of_a_process(steps in prop::collection::vec((0_u8..4, 1_u64..40, 0_u32..4), 0..400)) {
            let mut conns = Conns::default();
            for (what, sk, pid) in steps {
                match (what, conns.find(sk)) {
                    (0, None) => drop(conns.add(conn(sk, pid))),
                    (1, Some(at)) => drop(conns.remove(at)),
                    (2, Some(at)) => conns.set_subject(at, subject(pid)),
                    (3, Some(at)) if conns.find(sk + 100).is_none() => conns.rekey(at, sk + 100),
                    (3, None) => {
                        if let Some(at) = conns.find(sk + 100) {
                            conns.rekey(at, sk);
                        }
                    }
                    _ => {}
                }
                for pid in 1..4 {
                    let mut all: Vec<u64> =
                        conns.iter().filter(|conn| pid_of(&conn.subject) == Some(pid)).map(|conn| conn.sk).collect();
                    all.sort_unstable();
                    prop_assert_eq!(conns.owned_by(pid), all);
                }
            }
        }
    }

    #[test]
    fn the_index_does_not_grow_with_what_has_ended() {
        let mut conns = Conns::default();
        for sk in 0..100_000 {
            let at = conns.add(conn(sk, sk as u32 % 1000 + 1));
            conns.remove(at);
        }
        assert!(conns.owned.len() < 5000, "{}", conns.owned.len());
        assert_eq!(conns.owned_by(1), [0_u64; 0]);
    }
}
