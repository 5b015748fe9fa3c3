//! The processes that /proc lists, looked through by a few threads.

use std::{
    fs, io,
    num::NonZeroUsize,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// A host has other work.
const MOST_THREADS: usize = 4;

/// The processes that `root`/proc lists.
///
/// # Errors
/// It cannot be read.
pub fn processes(root: &Path) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(root.join("proc"))?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Does something for each of these processes, in a few threads; gives what each thread made of its share, and `failed` for one that
/// has failed.
pub fn for_each_process<T: Default + Send>(
    pids: &[u32],
    work: impl Fn(&mut T, u32) + Sync,
    failed: impl Fn() -> T,
) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST_THREADS);
    // Few processes have most of the descriptors: each thread takes the next process when it is done with one.
    let next = AtomicUsize::new(0);
    let part = || {
        let mut found = T::default();
        while let Some(&pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(&mut found, pid);
        }
        found
    };
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, part);
        // Where no thread can be started, this one does it all.
        let started: Vec<_> = (1..threads).map_while(|number| spawn(number).ok()).collect();
        let own = part();
        let others = started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed()));
        std::iter::once(own).chain(others).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_once() {
        let root = tempfile::tempdir().expect("directory");
        for name in ["1", "20", "300", "self", "net"] {
            fs::create_dir_all(root.path().join("proc").join(name)).expect("process");
        }
        let pids = processes(root.path()).expect("processes");
        let parts = for_each_process(&pids, |seen: &mut Vec<u32>, pid| seen.push(pid), Vec::new);
        let mut seen = parts.concat();
        seen.sort_unstable();
        assert_eq!(seen, [1, 20, 300]);
        assert!(processes(&root.path().join("nowhere")).is_err());
    }
}
