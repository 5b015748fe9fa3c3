//! Paths to network namespaces, for threads that enter them again and again and keep none of them alive.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    links::open_namespace,
    namespaces::{Namespace, Namespaces},
};

/// The limit of the namespaces that are remembered.
const MOST_KNOWN: usize = 1 << 14;
/// The pause between two searches for namespaces, as a multiple of the time that a search takes.
const SEARCH_PART: u32 = 100;
/// The shortest pause.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// A path to each known namespace, by its inode.
#[derive(Default)]
pub(super) struct NamespacePaths {
    known: BTreeMap<u32, PathBuf>,
    next_search: Option<Instant>,
}

impl From<BTreeMap<u32, PathBuf>> for NamespacePaths {
    fn from(known: BTreeMap<u32, PathBuf>) -> Self {
        Self { known, next_search: None }
    }
}

impl NamespacePaths {
    pub(super) fn known(&self) -> &BTreeMap<u32, PathBuf> {
        &self.known
    }

    /// The file of a namespace, by a path that is known, or by the process `pid`.
    pub(super) fn open(&mut self, at: u32, pid: Option<u32>) -> Option<File> {
        let known = self.known.get(&at).and_then(|path| open_namespace(path, at));
        if known.is_some() {
            return known;
        }
        self.known.remove(&at);
        let path = PathBuf::from(format!("/proc/{}/ns/net", pid?));
        let file = open_namespace(&path, at)?;
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(at, path);
        Some(file)
    }

    /// Lists the namespaces of the host. Returns whether it did: a host may have thousands of processes, and a search reads all.
    pub(super) fn search(&mut self) -> bool {
        let began = Instant::now();
        if self.next_search.is_some_and(|next| began < next) {
            return false;
        }
        let found = Namespaces::find(Path::new("/")).found.into_iter();
        let path =
            |(inode, Namespace { path, .. }): (u64, Namespace)| Some((u32::try_from(inode).ok()?, path));
        self.known = found.filter_map(path).collect();
        let pause = SEARCH_PAUSE.max(began.elapsed() * SEARCH_PART);
        self.next_search = Some(Instant::now() + pause);
        true
    }
}
