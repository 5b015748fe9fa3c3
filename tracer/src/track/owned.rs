//! Which sockets a process owns. The end of a connection looks nothing up here: the entry of a socket that has ended, or that has
//! another owner now, stays until there are as many such entries as sockets.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

/// How many entries may always be out of date.
const LEFT_OVER: usize = 1024;

/// Addresses of sockets, by the process id of an owner that each has or had.
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

    /// The sockets that the process `pid` owns or has owned, in order, each once.
    pub(super) fn of(&self, pid: u32) -> Vec<u64> {
        let mut keys = self.by_pid.get(&pid).cloned().unwrap_or_default();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether most entries are out of date, where there are `living` sockets.
    pub(super) fn is_stale(&self, living: usize) -> bool {
        self.len > 2 * living + LEFT_OVER
    }

    /// Replaces all entries.
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
