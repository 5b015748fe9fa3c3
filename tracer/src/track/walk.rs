//! What has happened to sockets during the walk over the existing ones. The walk may show a socket as it was before.

use std::collections::HashSet;

use rustc_hash::FxBuildHasher;

use super::identity::Endpoints;

/// Empty unless the walk is under way.
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

    /// The socket `sk` has ended, known or not.
    pub(super) fn note_ended(&mut self, sk: u64) {
        if self.is_running {
            self.ended.insert(sk);
        }
    }

    pub(super) fn has_ended(&self, sk: u64) -> bool {
        self.ended.contains(&sk)
    }

    /// A child without a known request. No event of its own ends a request that becomes a child.
    pub(super) fn note_child(&mut self, ends: Endpoints) {
        if self.is_running {
            self.children.insert(ends);
        }
    }

    /// Whether the request with these endpoints has become a child.
    pub(super) fn is_child(&self, ends: &Endpoints) -> bool {
        self.children.contains(ends)
    }

    /// Several processes hold the connection `sk`.
    pub(super) fn note_shared(&mut self, sk: u64) {
        self.shared.insert(sk);
    }

    pub(super) fn is_shared(&self, sk: u64) -> bool {
        self.shared.contains(&sk)
    }
}
