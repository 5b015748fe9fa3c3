//! Reads /proc: the list of processes, which a few threads work through, descriptor tables of threads, io_uring instances.

pub mod rings;
pub mod text;

use std::{
    fs, io,
    num::NonZeroUsize,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rustix::io::Errno;

/// Length of a tick in /proc (`USER_HZ`, 100 on every architecture that Linux supports), ns.
pub const TICK_NS: u64 = 10_000_000;
/// `KCMP_FILES` of linux/kcmp.h: whether two tasks share their descriptor table.
const KCMP_FILES: libc::c_int = 2;
/// A few threads only, because the host has other work.
const MAX_THREADS: usize = 4;

/// The processes that `root`/proc lists.
///
/// # Errors
/// /proc cannot be read.
pub fn processes(root: &Path) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(root.join("proc"))?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Calls `work` for each process, in a few threads. Returns the result of each thread; `failed` makes that of a thread that
/// panicked.
pub fn for_each_process<T: Default + Send>(
    pids: &[u32],
    work: impl Fn(&mut T, u32) + Sync,
    failed: impl Fn() -> T,
) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS);
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
        // If no thread can be started, this thread does all the work.
        let started: Vec<_> = (1..threads).map_while(|number| spawn(number).ok()).collect();
        let own = part();
        let others = started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed()));
        std::iter::once(own).chain(others).collect()
    })
}

/// One thread for each descriptor table of a process, except for the table of the thread group leader. A leader that has ended
/// has no table, so its threads' table is then in the result. Costs a system call for each thread, and none for a process with
/// one thread.
#[must_use]
pub fn own_tables(root: &Path, pid: u32) -> Vec<u32> {
    let tasks = root.join("proc").join(pid.to_string()).join("task");
    // ".", ".." and the threads.
    if fs::metadata(&tasks).map_or(0, |metadata| metadata.nlink()) <= 3 {
        return Vec::new();
    }
    let mut found: Vec<u32> = Vec::new();
    for entry in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let tid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(tid) = tid.filter(|tid| *tid != pid) else { continue };
        // Threads that share a table usually start one after another.
        let last = found.last().copied();
        match shares_table(pid, tid) {
            Ok(true) => {}
            Ok(false) if last.is_some_and(|last| shares_table(last, tid) == Ok(true)) => {}
            Ok(false) => found.push(tid),
            // This kernel has no kcmp(), or the thread has ended.
            Err(_) => {}
        }
    }
    found
}

/// Whether two tasks share their descriptor table.
fn shares_table(one: u32, other: u32) -> Result<bool, Errno> {
    // SAFETY: takes numbers and changes nothing.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    if order < 0 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(order == 0)
    }
}

/// The inode of `socket:[...]`.
#[must_use]
pub fn socket_inode(target: &[u8]) -> Option<u64> {
    inode_of(target, b"socket:[")
}

/// The number between `prefix` and the bracket at the end.
#[must_use]
pub fn inode_of(target: &[u8], prefix: &[u8]) -> Option<u64> {
    std::str::from_utf8(target.strip_prefix(prefix)?.strip_suffix(b"]")?).ok()?.parse().ok()
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
