//! Who has a socket open, by /proc: the descriptors of every process, and what epoll waits for on them. Needs no
//! privilege for one's own processes; says where it was not let in.

use std::{
    collections::{HashMap, HashSet},
    fs,
    mem::MaybeUninit,
    num::NonZeroUsize,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::{
    fs::{Dir, Mode, OFlags, open, readlinkat_raw},
    io::Errno,
};

use crate::model::{Holder, Process, Watch};

/// Events of epoll (`linux/eventpoll.h`) that say what a program waits for.
const EVENTS: [(u32, &str); 5] =
    [(1, "EPOLLIN"), (4, "EPOLLOUT"), (0x2000, "EPOLLRDHUP"), (8, "EPOLLERR"), (0x10, "EPOLLHUP")];

const EPOLL: &[u8] = b"anon_inode:[eventpoll]";
/// Longer names are neither sockets nor epolls.
const TARGET: usize = 64;
/// A host has other work.
const MOST_THREADS: usize = 4;

/// The descriptors of all processes that are sockets of interest.
#[derive(Default)]
pub struct Holders {
    root: PathBuf,
    by_inode: HashMap<u64, Vec<(u32, u32)>>,
    /// Descriptors of each process's epoll instances.
    epolls: HashMap<u32, Vec<u32>>,
    hidden: bool,
    processes: HashMap<u32, Arc<Process>>,
    /// What each process's epoll instances wait for, by inode.
    watches: HashMap<u32, Option<HashMap<u64, u32>>>,
}

/// What some processes have open.
#[derive(Default)]
struct Descriptors {
    /// Inode, pid, descriptor.
    sockets: Vec<(u64, u32, u32)>,
    /// Pid, descriptor.
    epolls: Vec<(u32, u32)>,
    hidden: bool,
}

impl Descriptors {
    /// Adds those of a process.
    fn read(&mut self, root: &Path, pid: u32, wanted: &HashSet<u64>) {
        let path = root.join("proc").join(pid.to_string()).join("fd");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match open(&path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(error) => {
                self.hidden |= error == Errno::ACCESS;
                return;
            }
        };
        let Ok(mut entries) = Dir::read_from(&directory) else { return };
        let mut room = [MaybeUninit::uninit(); TARGET];
        while let Some(Ok(entry)) = entries.next() {
            let fd = entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok());
            let target = readlinkat_raw(&directory, entry.file_name(), &mut room);
            let (Some(fd), Ok((target, _))) = (fd, target) else { continue };
            if let Some(inode) = socket_inode(target).filter(|inode| wanted.contains(inode)) {
                self.sockets.push((inode, pid, fd));
            } else if target == EPOLL {
                self.epolls.push((pid, fd));
            }
        }
    }
}

impl Holders {
    /// Looks through `root`/proc for descriptors of these inodes.
    #[must_use]
    pub fn scan(root: &Path, wanted: &HashSet<u64>) -> Self {
        let mut found = Self { root: root.to_owned(), ..Self::default() };
        if wanted.is_empty() {
            return found;
        }
        let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
        let pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST_THREADS);
        // Few have most of the descriptors: each thread takes the next process when it is done with one.
        let next = AtomicUsize::new(0);
        let part = || {
            let mut descriptors = Descriptors::default();
            while let Some(&pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
                descriptors.read(root, pid, wanted);
            }
            descriptors
        };
        let parts: Vec<Descriptors> = thread::scope(|scope| {
            let started: Vec<_> = (1..threads).map(|_| scope.spawn(part)).collect();
            let own = part();
            // A part whose thread failed is hidden.
            let failed = |_| Descriptors { hidden: true, ..Descriptors::default() };
            let others = started.into_iter().map(|it| it.join().unwrap_or_else(failed));
            std::iter::once(own).chain(others).collect()
        });
        for part in parts {
            found.hidden |= part.hidden;
            for (inode, pid, fd) in part.sockets {
                found.by_inode.entry(inode).or_default().push((pid, fd));
            }
            for (pid, fd) in part.epolls {
                found.epolls.entry(pid).or_default().push(fd);
            }
        }
        found.by_inode.values_mut().for_each(|list| list.sort_unstable());
        found
    }

    /// Some processes' descriptors could not be read.
    #[must_use]
    pub fn are_hidden(&self) -> bool {
        self.hidden
    }

    /// Everybody who has this socket open. One who has died since the scan has no name.
    pub fn of(&mut self, inode: u64) -> Vec<Holder> {
        let list = self.by_inode.get(&inode).cloned().unwrap_or_default();
        let holder = |(pid, fd)| {
            let process = self.process(pid, fd, inode);
            let watch = self.watches(pid).map(|watches| match watches.get(&inode) {
                Some(events) => Watch::Epoll(names(*events)),
                None => Watch::NoEpoll,
            });
            Holder { process, fd, watch }
        };
        list.into_iter().map(holder).collect()
    }

    /// The process that had this socket as `fd` at the scan.
    fn process(&mut self, pid: u32, fd: u32, inode: u64) -> Arc<Process> {
        let root = &self.root;
        let read = || {
            let found = process(root, pid);
            let path = root.join("proc").join(pid.to_string()).join("fd").join(fd.to_string());
            // Asked last: if the pid was passed on in between, what was read is another process's.
            found.filter(|_| {
                let target = fs::read_link(&path).unwrap_or_default();
                socket_inode(target.as_os_str().as_bytes()) == Some(inode)
            })
        };
        let unnamed = || Process { pid, comm: String::new(), exe: None, parent: 0 };
        let known = self.processes.entry(pid);
        Arc::clone(known.or_insert_with(|| Arc::new(read().unwrap_or_else(unnamed))))
    }

    fn watches(&mut self, pid: u32) -> Option<&HashMap<u64, u32>> {
        let root = &self.root;
        let epolls = self.epolls.get(&pid).map_or(&[][..], Vec::as_slice);
        self.watches.entry(pid).or_insert_with(|| watches(root, pid, epolls)).as_ref()
    }
}

fn socket_inode(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn process(root: &Path, pid: u32) -> Option<Process> {
    let directory = root.join("proc").join(pid.to_string());
    let comm = fs::read(directory.join("comm")).ok()?;
    let status = fs::read(directory.join("status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    Some(Process {
        pid,
        comm: String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned(),
        exe: fs::read_link(directory.join("exe")).ok().map(|path| path.to_string_lossy().into()),
        parent: parent.unwrap_or(0),
    })
}

/// Inodes that these epoll instances of a process have, with their events; null where that cannot be read.
fn watches(root: &Path, pid: u32, epolls: &[u32]) -> Option<HashMap<u64, u32>> {
    let directory = root.join("proc").join(pid.to_string()).join("fdinfo");
    let mut watches: HashMap<u64, u32> = HashMap::new();
    for epoll in epolls {
        let text = fs::read_to_string(directory.join(epoll.to_string())).ok()?;
        for line in text.lines().filter(|line| line.starts_with("tfd:")) {
            if let (Some(events), Some(inode)) = (hex(line, "events:"), hex(line, "ino:")) {
                *watches.entry(inode).or_default() |= events as u32;
            }
        }
    }
    Some(watches)
}

/// The hexadecimal number behind `key`.
fn hex(line: &str, key: &str) -> Option<u64> {
    let value = line.split(key).nth(1)?.split_ascii_whitespace().next()?;
    u64::from_str_radix(value, 16).ok()
}

fn names(events: u32) -> Vec<&'static str> {
    EVENTS.iter().filter(|(bit, _)| events & bit != 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn fixture() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("directory");
        for (pid, fd, inode) in [(10, 3, 500), (10, 4, 501), (11, 7, 500)] {
            let process = root.path().join(format!("proc/{pid}"));
            fs::create_dir_all(process.join("fd")).expect("fd");
            fs::create_dir_all(process.join("fdinfo")).expect("fdinfo");
            symlink(format!("socket:[{inode}]"), process.join(format!("fd/{fd}"))).expect("link");
            fs::write(process.join("comm"), "we\nird\n").expect("comm");
            fs::write(process.join("status"), "Name:\twe\\nird\nPPid:\t9\n").expect("status");
        }
        let process = root.path().join("proc/10");
        symlink("anon_inode:[eventpoll]", process.join("fd/5")).expect("link");
        let line = "pos:\t0\ntfd:        4 events:     2019 data:                4  pos:0 ino:1f5 sdev:8\n";
        fs::write(process.join("fdinfo/5"), line).expect("fdinfo");
        root
    }

    #[test]
    fn every_holder_and_what_it_waits_for() {
        let root = fixture();
        let mut holders = Holders::scan(root.path(), &HashSet::from([500, 501]));
        assert!(!holders.are_hidden());
        let of_500 = holders.of(500);
        assert_eq!(of_500.iter().map(|it| (it.process.pid, it.fd)).collect::<Vec<_>>(), [(10, 3), (11, 7)]);
        assert_eq!(of_500[0].watch, Some(Watch::NoEpoll));
        assert_eq!((&*of_500[1].process.comm, of_500[1].process.parent), ("we\nird", 9));
        let watch = Watch::Epoll(vec!["EPOLLIN", "EPOLLRDHUP", "EPOLLERR", "EPOLLHUP"]);
        assert_eq!(holders.of(501)[0].watch, Some(watch));
        assert!(holders.of(502).is_empty());
    }

    #[test]
    fn who_dies_or_is_replaced_meanwhile_has_no_name() {
        let root = fixture();
        let mut holders = Holders::scan(root.path(), &HashSet::from([500, 501]));
        fs::remove_dir_all(root.path().join("proc/10")).expect("it dies");
        let link = root.path().join("proc/11/fd/7");
        fs::remove_file(&link).expect("another process has its pid");
        symlink("socket:[777]", link).expect("link");
        let of_500 = holders.of(500);
        let pids: Vec<u32> = of_500.iter().map(|it| it.process.pid).collect();
        assert_eq!(pids, [10, 11]);
        assert!(of_500.iter().all(|it| it.process.comm.is_empty()), "{of_500:?}");
        assert_eq!(of_500[0].watch, None, "its epoll cannot be read");
    }
}
