//! Which sockets a process owns. An entry stays when its socket ends or gets another owner, until there are as many of those as
//! sockets: nothing is looked up where a connection ends.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

/// Stale entries that are always allowed.
const LEFT_OVER: usize = 1024;

/// Keys of sockets, by the process id of an owner that each has or had.
#[derive(Default)]
pub(super) struct Owned {
    by_pid: HashMap<u32, Vec<u64>, FxBuildHasher>,
    len: usize,
}

impl Owned {
    /// A process owns a socket.
    pub(super) fn note(&mut self, pid: u32, sk: u64) {
        self.by_pid.entry(pid).or_default().push(sk);
        self.len += 1;
    }

    /// What it owns or has owned, in order, each once.
    pub(super) fn of(&self, pid: u32) -> Vec<u64> {
        let mut keys = self.by_pid.get(&pid).cloned().unwrap_or_default();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether most of it is left over, where `living` sockets live.
    pub(super) fn is_stale(&self, living: usize) -> bool {
        self.len > 2 * living + LEFT_OVER
    }

    /// Begins again with what is true now.
    pub(super) fn renew(&mut self, owned: impl Iterator<Item = (u32, u64)>) {
        self.by_pid.values_mut().for_each(Vec::clear);
        self.len = 0;
        for (pid, sk) in owned {
            self.note(pid, sk);
        }
        self.by_pid.retain(|_, keys| !keys.is_empty());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }
}
