//! A network namespace that the user has given by its path.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

/// The network namespace that a path leads to. A namespace that is created again under the same path is a different one, and
/// may get the inode of a deleted one. So the path is read repeatedly, and each answer holds for the time between two reads.
#[derive(Clone, Debug)]
pub struct NamedNetns {
    path: PathBuf,
    now: Cell<Option<u32>>,
    /// The beginning of the last read that found another namespace, or none.
    elsewhere_ns: Cell<i64>,
    /// The beginning of the last read.
    read_ns: Cell<i64>,
    /// The namespace that the path led to before, and the latest time until which it did.
    before: Cell<Option<(u32, i64)>>,
}

impl NamedNetns {
    /// The namespace at `path`, with the inode `now` from the beginning of time.
    #[must_use]
    pub fn new(path: PathBuf, now: Option<u32>) -> Self {
        let none = || Cell::new(i64::MIN);
        Self { path, now: Cell::new(now), elsewhere_ns: none(), read_ns: none(), before: Cell::new(None) }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The inode that the path leads to.
    #[must_use]
    pub fn now(&self) -> Option<u32> {
        self.now.get()
    }

    /// Stores what a read of the path has found. The path may have changed right after the beginning of the read, `began_ns`, or
    /// right before its end, `ended_ns`. Returns whether the answer is another one than before.
    pub fn set_now(&self, now: Option<u32>, began_ns: i64, ended_ns: i64) -> bool {
        let last_read_ns = self.read_ns.replace(began_ns);
        let was = self.now.replace(now);
        if was != now {
            self.elsewhere_ns.set(last_read_ns);
            self.before.set(was.map(|inode| (inode, ended_ns)));
        }
        was != now
    }

    /// Whether the path led to `inode` at `time_ns`.
    #[must_use]
    pub fn is(&self, inode: u32, time_ns: i64) -> bool {
        let is_now = self.now.get() == Some(inode) && time_ns > self.elsewhere_ns.get();
        is_now || self.before.get().is_some_and(|(was, until_ns)| was == inode && time_ns <= until_ns)
    }
}

/// Two filters are equal if they name the same path, wherever it leads now.
impl PartialEq for NamedNetns {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for NamedNetns {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_what_it_leads_to_at_that_time() {
        let name = NamedNetns::new("/run/netns/web".into(), Some(5));
        assert!(name.is(5, 0) && !name.is(6, 0));
        assert!(!name.set_now(Some(5), 90, 100));
        // Deleted between 90 and 200.
        assert!(name.set_now(None, 190, 200));
        assert!(name.is(5, 150), "what happened before it was noticed");
        assert!(!name.is(5, 201), "its inode may be another's");
        // Made again between 190 and 300.
        assert!(name.set_now(Some(7), 290, 300));
        assert!(name.is(7, 250) && name.is(7, 400));
        assert!(name.is(7, 195), "it may have been made during the read that did not find it");
        assert!(!name.is(7, 190), "that was another one's");
        assert!(!name.is(5, 250));
    }
}
