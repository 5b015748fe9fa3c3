//! Notes of what happens to sockets during the walk over the existing ones. The walk may show a socket as it was before
//! that.

use std::collections::HashSet;

use rustc_hash::FxBuildHasher;

use super::identity::Endpoints;

/// The notes are empty unless the walk is running.
#[derive(Default)]
pub(super) struct WalkNotes {
    is_running: bool,
    /// Addresses of sockets that have ended.
    ended: HashSet<u64, FxBuildHasher>,
    /// Children whose requests were not known: the walk may still show those.
    children: HashSet<Endpoints, FxBuildHasher>,
    /// Connections that several processes hold.
    shared: HashSet<u64, FxBuildHasher>,
}

impl WalkNotes {
    pub(super) fn begin(&mut self) {
        *self = Self { is_running: true, ..Self::default() };
    }

    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Notes that the socket `sk` has ended, also if the table did not have it.
    pub(super) fn note_ended(&mut self, sk: u64) {
        if self.is_running {
            self.ended.insert(sk);
        }
    }

    pub(super) fn has_ended(&self, sk: u64) -> bool {
        self.ended.contains(&sk)
    }

    /// Notes a child without a known request. There is no event for the end of a request that becomes a child.
    pub(super) fn note_child(&mut self, ends: Endpoints) {
        if self.is_running {
            self.children.insert(ends);
        }
    }

    /// Whether the request with these endpoints has become a child.
    pub(super) fn is_child(&self, ends: &Endpoints) -> bool {
        self.children.contains(ends)
    }

    /// Notes that several processes hold the connection `sk`.
    pub(super) fn note_shared(&mut self, sk: u64) {
        self.shared.insert(sk);
    }

    pub(super) fn is_shared(&self, sk: u64) -> bool {
        self.shared.contains(&sk)
    }
}
