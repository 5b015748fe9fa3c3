//! Scans the descriptor tables of processes, and of threads with their own table.

use std::{
    collections::HashSet,
    mem::MaybeUninit,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Dir, Mode, OFlags, open, readlinkat_raw},
    io::Errno,
};

use crate::{
    model::Via,
    procfs::{for_each_process, own_tables, processes, socket_inode},
};

const EPOLL: &[u8] = b"anon_inode:[eventpoll]";
const RING: &[u8] = b"anon_inode:[io_uring]";
/// Longer targets are neither sockets nor epoll nor io_uring instances.
const TARGET: usize = 64;

/// A reference of a process to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HolderRef {
    pub(super) pid: u32,
    /// The thread, if it has its own descriptor table.
    pub(super) tid: Option<u32>,
    pub(super) via: Via,
}

impl HolderRef {
    /// The directory of the descriptor table.
    pub(super) fn table(&self, root: &Path, name: &str) -> PathBuf {
        let process = root.join("proc").join(self.pid.to_string());
        match self.tid {
            Some(tid) => process.join("task").join(tid.to_string()).join(name),
            None => process.join(name),
        }
    }
}

/// The descriptors of some processes.
#[derive(Default)]
pub(super) struct Descriptors {
    /// Wanted sockets, by inode.
    pub(super) sockets: Vec<(u64, HolderRef)>,
    /// epoll instances: pid, descriptor.
    pub(super) epolls: Vec<(u32, u32)>,
    /// io_uring instances: pid, descriptor.
    pub(super) rings: Vec<(u32, u32)>,
    /// Some descriptors could not be read.
    pub(super) hidden: bool,
}

impl Descriptors {
    /// Adds the descriptors of a process.
    fn read(&mut self, root: &Path, pid: u32, wanted: &HashSet<u64>) {
        self.read_table(root, pid, None, wanted);
        for tid in own_tables(root, pid) {
            self.read_table(root, pid, Some(tid), wanted);
        }
    }

    fn read_table(&mut self, root: &Path, pid: u32, tid: Option<u32>, wanted: &HashSet<u64>) {
        let reference = |fd| HolderRef { pid, tid, via: Via::Descriptor(fd) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match open(reference(0).table(root, "fd"), flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(error) => {
                self.hidden |= matches!(error, Errno::ACCESS | Errno::PERM);
                return;
            }
        };
        let Ok(mut entries) = Dir::read_from(&directory) else { return };
        let mut room = [MaybeUninit::uninit(); TARGET];
        while let Some(Ok(entry)) = entries.next() {
            let fd = entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok());
            let target = readlinkat_raw(&directory, entry.file_name(), &mut room);
            if let Err(Errno::ACCESS | Errno::PERM) = target {
                // Root may list descriptors without the right to read where they lead.
                self.hidden = true;
                return;
            }
            let (Some(fd), Ok((target, _))) = (fd, target) else { continue };
            if let Some(inode) = socket_inode(target).filter(|inode| wanted.contains(inode)) {
                self.sockets.push((inode, reference(fd)));
            } else if target == EPOLL && tid.is_none() {
                self.epolls.push((pid, fd));
            } else if target == RING && tid.is_none() {
                self.rings.push((pid, fd));
            }
        }
    }
}

/// The descriptors of all processes.
pub(super) fn scan(root: &Path, wanted: &HashSet<u64>) -> Vec<Descriptors> {
    let work = |found: &mut Descriptors, pid| found.read(root, pid, wanted);
    let pids = processes(root).unwrap_or_default();
    for_each_process(&pids, work, || Descriptors { hidden: true, ..Descriptors::default() })
}
