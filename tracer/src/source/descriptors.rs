//! The descriptors of all processes and threads that lead to sockets, network namespaces and io_uring instances.

use std::{
    fs, io, iter,
    mem::MaybeUninit,
    path::{Path, PathBuf},
};

use caps::Capability;
use rustix::{
    fs::{Dir, Mode, OFlags, getxattr, open, readlinkat_raw},
    io::Errno,
};

use super::visibility::{self, is_gone, is_refused};
use crate::{
    model::{Gap, GapKind},
    procfs::{for_each_process, inode_of, own_tables, processes, socket_inode},
};

const RING: &[u8] = b"anon_inode:[io_uring]";
/// Longer targets are neither sockets nor namespaces nor io_uring instances.
const TARGET: usize = 64;

/// A descriptor and the inode that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) inode: u64,
    pub(super) pid: u32,
    /// The thread that has a table of its own.
    pub(super) tid: Option<u32>,
    pub(super) fd: u32,
}

/// The directory of a process's descriptors, or of a thread's own.
fn table(root: &Path, pid: u32, tid: Option<u32>) -> PathBuf {
    let process = root.join("proc").join(pid.to_string());
    match tid {
        Some(tid) => process.join("task").join(tid.to_string()).join("fd"),
        None => process.join("fd"),
    }
}

impl Descriptor {
    pub(super) fn path(&self, root: &Path) -> PathBuf {
        table(root, self.pid, self.tid).join(self.fd.to_string())
    }

    /// The name of the socket's protocol (`TCP`, `TCPv6`, `UDP`, `UNIX`, ...); `None` if the descriptor no longer leads to the
    /// socket.
    ///
    /// # Errors
    /// The kernel does not show the protocol.
    pub(super) fn protocol(&self, root: &Path) -> io::Result<Option<String>> {
        let path = self.path(root);
        let mut name = [0; 32];
        let len = match getxattr(&path, "system.sockprotoname", &mut name) {
            Ok(len) => len,
            Err(error) if is_gone(&error.into()) => return Ok(None),
            // Another file may have this number by now.
            Err(Errno::NOTSUP | Errno::NODATA) if !self.is_there(root) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let name = String::from_utf8_lossy(&name[..len]).trim_end_matches('\0').to_owned();
        Ok(self.is_there(root).then_some(name))
    }

    /// Whether the descriptor still leads to the socket.
    pub(super) fn is_there(&self, root: &Path) -> bool {
        fs::read_link(self.path(root))
            .is_ok_and(|target| target.as_os_str() == format!("socket:[{}]", self.inode).as_str())
    }
}

/// The descriptors of all processes, by what they lead to.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    pub(super) sockets: Vec<Descriptor>,
    pub(super) namespaces: Vec<Descriptor>,
    /// io_uring instances: process and descriptor.
    pub(super) rings: Vec<(u32, u32)>,
    /// How many processes have descriptors that could not be read.
    unread: usize,
    why: Option<io::Error>,
}

impl Descriptors {
    /// Reads the descriptors of every process below `root`.
    pub(super) fn scan(root: &Path) -> (Self, Option<Gap>) {
        let mut all = Self::default();
        // If /proc itself cannot be read, the search for namespaces reports it.
        let pids = processes(root).unwrap_or_default();
        let work = |part: &mut Self, pid| part.read(root, pid);
        // A thread that panicked has written why on standard error, and makes a gap.
        let failed =
            || Self { unread: 1, why: Some(io::Error::other("a thread has failed")), ..Self::default() };
        for_each_process(&pids, work, failed).into_iter().for_each(|part| all.add(part));
        let gap = all.gap(pids.len());
        (all, gap)
    }

    fn add(&mut self, part: Self) {
        self.sockets.extend(part.sockets);
        self.namespaces.extend(part.namespaces);
        self.rings.extend(part.rings);
        self.unread += part.unread;
        self.why = self.why.take().or(part.why);
    }

    fn gap(&self, total: usize) -> Option<Gap> {
        let error = self.why.as_ref()?;
        let hint =
            if is_refused(error) { visibility::needs(Capability::CAP_SYS_PTRACE) } else { error.to_string() };
        let why = format!("cannot read the descriptors of {} of {total} processes: {hint}", self.unread);
        Some(Gap::new(GapKind::Descriptors, why))
    }

    /// Adds the descriptors of a process, and of its threads with their own descriptor table.
    fn read(&mut self, root: &Path, pid: u32) {
        let own = own_tables(root, pid).into_iter().map(Some);
        for tid in iter::once(None).chain(own) {
            if let Err(error) = self.read_table(root, pid, tid).map_err(io::Error::from)
                && !is_gone(&error)
            {
                self.unread += 1;
                self.why = Some(error);
                break;
            }
        }
    }

    fn read_table(&mut self, root: &Path, pid: u32, tid: Option<u32>) -> rustix::io::Result<()> {
        let path = table(root, pid, tid);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&path, flags, Mode::empty())?;
        let mut room = [MaybeUninit::uninit(); TARGET];
        for entry in Dir::read_from(&directory)? {
            let name = entry?;
            let fd = name.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok());
            let target = readlinkat_raw(&directory, name.file_name(), &mut room);
            if let Err(error @ (Errno::ACCESS | Errno::PERM)) = target {
                // Root may list descriptors without the right to read where they lead.
                return Err(error);
            }
            let (Some(fd), Ok((target, _))) = (fd, target) else { continue };
            if let Some(inode) = socket_inode(target) {
                self.sockets.push(Descriptor { inode, pid, tid, fd });
            } else if let Some(inode) = inode_of(target, b"net:[") {
                self.namespaces.push(Descriptor { inode, pid, tid, fd });
            } else if target == RING && tid.is_none() {
                self.rings.push((pid, fd));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sockets_and_namespaces_are_told_from_other_files() {
        let root = tempfile::tempdir().expect("directory");
        let fds = root.path().join("proc/10/fd");
        fs::create_dir_all(&fds).expect("fd");
        let long = format!("/{}", "x".repeat(200));
        let targets = ["socket:[500]", "net:[600]", "/dev/null", "mnt:[700]", "socket:[x]", &long];
        for (fd, target) in targets.iter().enumerate() {
            symlink(target, fds.join(fd.to_string())).expect("link");
        }
        // Ended in the meantime: no gap.
        fs::create_dir_all(root.path().join("proc/11")).expect("process");
        let (all, gap) = Descriptors::scan(root.path());
        assert_eq!(all.sockets, [Descriptor { inode: 500, pid: 10, tid: None, fd: 0 }]);
        assert_eq!(all.namespaces, [Descriptor { inode: 600, pid: 10, tid: None, fd: 1 }]);
        assert_eq!(gap, None);
    }
}
