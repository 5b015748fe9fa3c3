//! The sockets that live, in one vector with an index by the kernel's address.

use std::{
    hash::{BuildHasher, BuildHasherDefault},
    rc::Rc,
};

use hashbrown::{HashSet, HashTable};
use rustc_hash::{FxBuildHasher, FxHasher};

use crate::model::{ConnId, InState, Role, State, Subject, Tuple};

/// One socket. Kept small: there may be a million.
pub(super) struct Conn {
    /// The kernel's key; only valid between a birth and a death.
    pub(super) sk: u64,
    pub(super) id: ConnId,
    /// `CLOCK_MONOTONIC` ns of the entry into `state`, or of the first sight of it.
    pub(super) since_ns: u64,
    pub(super) subject: Rc<Subject>,
    pub(super) tuple: Tuple,
    pub(super) state: State,
    pub(super) role: Option<Role>,
    /// How far `since_ns` can be trusted.
    pub(super) since: Since,
    /// It is a mini-socket.
    pub(super) mini: bool,
    /// Its first transition waits for its ends.
    pub(super) unborn: bool,
    /// The stream says what is only likely.
    pub(super) estimated: bool,
    /// How often it was said that it is stuck in this state.
    pub(super) stuck: u8,
    /// When the next reminder of that is due, `CLOCK_MONOTONIC` ns.
    pub(super) remind_ns: u64,
    /// The watchdog's bucket that it is in, 0 for none.
    pub(super) watched: u32,
}

/// How far a time can be trusted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Since {
    /// Seen when it happened.
    Exact,
    /// It was in the state earlier already.
    AtLeast,
    /// Nobody knows.
    Never,
}

impl Conn {
    /// Time in `from`, which is left at `now_ns`.
    pub(super) fn in_state(&self, from: State, now_ns: u64) -> Option<InState> {
        if plain(self.state) != plain(from) || self.since == Since::Never {
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

/// All of them.
#[derive(Default)]
pub(super) struct Conns {
    conns: Vec<Conn>,
    index: HashTable<u32>,
    hasher: BuildHasherDefault<FxHasher>,
    /// Keys that were given up, while that is wanted.
    ended: Option<HashSet<u64, FxBuildHasher>>,
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

    /// Remembers from now on which keys are given up, or forgets them all.
    pub(super) fn remember_ended(&mut self, wanted: bool) {
        self.ended = wanted.then(HashSet::default);
    }

    /// Whether that is wanted.
    pub(super) fn remembers_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// A socket with this key has ended, known or not.
    pub(super) fn note_ended(&mut self, sk: u64) {
        if let Some(ended) = &mut self.ended {
            ended.insert(sk);
        }
    }

    /// Whether a socket with this key has ended since.
    pub(super) fn has_ended(&self, sk: u64) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.contains(&sk))
    }

    /// Where the socket with this key is.
    pub(super) fn find(&self, sk: u64) -> Option<usize> {
        let conns = &self.conns;
        self.index.find(self.hash(sk), |&at| conns[at as usize].sk == sk).map(|&at| at as usize)
    }

    /// Adds one whose key is not there.
    pub(super) fn add(&mut self, conn: Conn) -> usize {
        let at = self.conns.len();
        self.link(conn.sk, at);
        self.conns.push(conn);
        at
    }

    /// Takes one out; the last one moves into its place.
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

    /// Gives one another key, which is not there.
    pub(super) fn rename(&mut self, at: usize, sk: u64) {
        self.unlink(at);
        self.conns[at].sk = sk;
        self.link(sk, at);
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
        self.note_ended(sk);
        let hash = self.hash(sk);
        if let Ok(entry) = self.index.find_entry(hash, |&slot| slot as usize == at) {
            entry.remove();
        }
    }
}
