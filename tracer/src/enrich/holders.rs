//! Finds the holders of sockets in /proc: descriptors of every process and thread, registered files of io_uring instances, and the
//! events that epoll waits for. A user's own processes need no privilege; processes that could not be read are reported.

mod elsewhere;
mod process;
mod scan;
mod served;

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use scan::HolderRef;

use super::names::Catalog;
use crate::{
    model::{Elsewhere, Holder, Message, Process, Via, bounds},
    procfs::{rings, socket_inode, text},
};

/// `O_CLOEXEC` in fdinfo, on every architecture except alpha, parisc and sparc.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// Reads a process, with its age when the scan began: the ages of the sockets are of that time, and a scan may take seconds.
fn read_process(root: &Path, pid: u32, scan_began: Instant, catalog: &mut Catalog) -> Option<Process> {
    let later_ns = scan_began.elapsed().as_nanos() as u64;
    let mut process = process::read(root, pid, catalog)?;
    process.age_ns = process.age_ns.map(|age_ns| age_ns.saturating_sub(later_ns));
    Some(process)
}

/// The holders of the wanted sockets.
pub struct Holders {
    root: PathBuf,
    /// Start of the scan.
    began: Instant,
    catalog: Catalog,
    by_inode: HashMap<u64, Vec<HolderRef>>,
    /// Descriptors of each process's epoll instances.
    epolls: HashMap<u32, Vec<u32>>,
    /// By process: whether all sockets of its io_uring instances are known.
    rings: HashMap<u32, bool>,
    hidden: bool,
    processes: HashMap<u32, Arc<Process>>,
    /// By process: the events that its epoll instances wait for, by inode.
    watches: HashMap<u32, Option<HashMap<u64, u32>>>,
    elsewhere: Option<Arc<Elsewhere>>,
}

impl Holders {
    /// Searches `root`/proc for descriptors of these inodes.
    #[must_use]
    pub fn scan(root: &Path, wanted: &HashSet<u64>) -> Self {
        let mut found = Self {
            root: root.to_owned(),
            began: Instant::now(),
            catalog: Catalog::new(root),
            by_inode: HashMap::new(),
            epolls: HashMap::new(),
            rings: HashMap::new(),
            hidden: false,
            processes: HashMap::new(),
            watches: HashMap::new(),
            elsewhere: None,
        };
        if wanted.is_empty() {
            return found;
        }
        for part in scan::scan(root, wanted) {
            found.hidden |= part.hidden;
            for (inode, reference) in part.sockets {
                found.by_inode.entry(inode).or_default().push(reference);
            }
            for (pid, fd) in part.epolls {
                found.epolls.entry(pid).or_default().push(fd);
            }
            for (pid, fd) in part.rings {
                found.read_ring(pid, fd, wanted);
            }
        }
        found.by_inode.values_mut().for_each(|list| list.sort_unstable());
        found
    }

    fn read_ring(&mut self, pid: u32, fd: u32, wanted: &HashSet<u64>) {
        let ring = rings::read(&self.root, pid, fd);
        for inode in ring.sockets.iter().filter(|inode| wanted.contains(inode)) {
            self.by_inode.entry(*inode).or_default().push(HolderRef {
                pid,
                tid: None,
                via: Via::IoUring(fd),
            });
        }
        *self.rings.entry(pid).or_insert(true) &= !ring.may_hold_more;
    }

    /// Whether the descriptors of some processes could not be read.
    #[must_use]
    pub fn are_hidden(&self) -> bool {
        self.hidden
    }

    /// Whether a holder of this socket is known.
    #[must_use]
    pub fn knows(&self, inode: u64) -> bool {
        self.by_inode.contains_key(&inode)
    }

    /// The processes that hold this socket, without repetition.
    pub fn pids(&self, inode: u64) -> impl Iterator<Item = u32> {
        let list = self.by_inode.get(&inode).map_or(&[][..], Vec::as_slice);
        list.chunk_by(|one, other| one.pid == other.pid)
            .filter_map(|references| references.first())
            .map(|reference| reference.pid)
    }

    /// Searches for sockets that no descriptor leads to. `tcp` are the inodes of all TCP sockets.
    pub fn search(&mut self, missing: &HashSet<u64>, tcp: &HashSet<u64>) {
        let found = elsewhere::search(&self.root, missing, tcp);
        for (inode, reference) in found.mapped {
            let list = self.by_inode.entry(inode).or_default();
            // A process may map the socket many times.
            if !list.contains(&reference) {
                list.push(reference);
            }
        }
        let messages = found.messages.into_iter().map(|(pid, fd, count)| Message {
            process: self.named(pid),
            fd,
            count,
        });
        let messages = messages.collect();
        let unread = self.rings.iter().filter(|(_, is_known)| !**is_known).map(|(pid, _)| *pid);
        let mut pids: Vec<u32> = unread.collect();
        // The descriptor of the io_uring instance may be closed, and then its files cannot be read.
        pids.extend(found.rings.into_iter().filter(|pid| !self.rings.contains_key(pid)));
        pids.sort_unstable();
        let rings = pids.into_iter().map(|pid| self.named(pid)).collect();
        self.elsewhere = Some(Arc::new(Elsewhere { messages, rings }));
    }

    /// The result of [`Self::search`].
    #[must_use]
    pub fn elsewhere(&self) -> Option<Arc<Elsewhere>> {
        self.elsewhere.clone()
    }

    /// How many references (descriptors, registered files, mappings) to this socket were found.
    #[must_use]
    pub fn count(&self, inode: u64) -> usize {
        self.by_inode.get(&inode).map_or(0, Vec::len)
    }

    /// The holders of this socket, with some of the descriptors of each. A process that has ended since the scan has no name.
    pub fn of(&mut self, inode: u64) -> Vec<Holder> {
        let list = self.by_inode.get(&inode).map_or(&[][..], Vec::as_slice);
        let of_each = list.chunk_by(|one, other| one.pid == other.pid);
        let list: Vec<HolderRef> =
            of_each.flat_map(|references| references.iter().take(bounds::DESCRIPTORS)).copied().collect();
        let holder = |reference: HolderRef| {
            let process = self.process(reference, inode);
            let watch = match reference {
                HolderRef { pid, tid: None, via: Via::Descriptor(_) } => {
                    self.watches(pid).map(|watches| process::watch(watches.get(&inode)))
                }
                _ => None,
            };
            Holder { process, via: reference.via, tid: reference.tid, close_on_exec: None, watch }
        };
        list.into_iter().map(holder).collect()
    }

    /// Reads whether the holders' descriptors are closed at an exec.
    pub fn read_flags(&self, holders: &mut [Holder]) {
        for holder in holders {
            let reference = HolderRef { pid: holder.process.pid, tid: holder.tid, via: holder.via };
            let Some(fd) = holder.fd() else { continue };
            let path = reference.table(&self.root, "fdinfo").join(fd.to_string());
            holder.close_on_exec = close_on_exec(&text::head(&path, FDINFO));
        }
    }

    /// The process that held this socket during the scan.
    fn process(&mut self, reference: HolderRef, inode: u64) -> Arc<Process> {
        let (root, began, catalog) = (&self.root, self.began, &mut self.catalog);
        let mut read = || {
            let mut found = read_process(root, reference.pid, began, catalog);
            if let Some(process) = &mut found {
                process.serves = served::served(root, process, catalog).map(Box::new);
            }
            let Via::Descriptor(fd) = reference.via else { return found };
            let path = reference.table(root, "fd").join(fd.to_string());
            // Checked last: if the pid was reused during the reads, they are from another process.
            found.filter(|_| {
                let target = fs::read_link(&path).unwrap_or_default();
                socket_inode(target.as_os_str().as_bytes()) == Some(inode)
            })
        };
        let unnamed = || Process { pid: reference.pid, ..Process::default() };
        let known = self.processes.entry(reference.pid);
        Arc::clone(known.or_insert_with(|| Arc::new(read().unwrap_or_else(unnamed))))
    }

    /// Reads a process by its pid, without a check of its descriptor.
    fn named(&mut self, pid: u32) -> Arc<Process> {
        let (root, began, catalog) = (&self.root, self.began, &mut self.catalog);
        let mut read = || {
            read_process(root, pid, began, catalog).unwrap_or_else(|| Process { pid, ..Process::default() })
        };
        Arc::clone(self.processes.entry(pid).or_insert_with(|| Arc::new(read())))
    }

    fn watches(&mut self, pid: u32) -> Option<&HashMap<u64, u32>> {
        let root = &self.root;
        let epolls = self.epolls.get(&pid).map_or(&[][..], Vec::as_slice);
        let is_wanted = |inode: u64| self.by_inode.contains_key(&inode);
        self.watches.entry(pid).or_insert_with(|| watches(root, pid, epolls, is_wanted)).as_ref()
    }
}

/// The limit of bytes that are read from a `fdinfo`. The wanted lines are at its beginning, and the descriptor may have
/// become an epoll instance with a million lines.
const FDINFO: u64 = 4096;

/// Parses the flags in a `fdinfo`.
fn close_on_exec(info: &str) -> Option<bool> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    Some(flags & CLOSE_ON_EXEC != 0)
}

/// The events that these epoll instances of a process wait for, by wanted inode; `None` if that cannot be read. Only wanted inodes
/// are kept, because an instance may have a million others.
fn watches(
    root: &Path,
    pid: u32,
    epolls: &[u32],
    is_wanted: impl Fn(u64) -> bool,
) -> Option<HashMap<u64, u32>> {
    let directory = root.join("proc").join(pid.to_string()).join("fdinfo");
    let mut watches: HashMap<u64, u32> = HashMap::new();
    for epoll in epolls {
        let file = fs::File::open(directory.join(epoll.to_string())).ok()?;
        for line in BufReader::new(file).lines() {
            if let Some((inode, events)) = watched(&line.ok()?).filter(|(inode, _)| is_wanted(*inode)) {
                *watches.entry(inode).or_default() |= events;
            }
        }
    }
    Some(watches)
}

/// Parses a line in `fdinfo` of an epoll instance: an inode and its events.
fn watched(line: &str) -> Option<(u64, u32)> {
    line.starts_with("tfd:").then_some(())?;
    Some((hex(line, "ino:")?, hex(line, "events:")? as u32))
}

/// Fuzz target: all parsers of `fdinfo`.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        watched(line);
    }
    assert!(rings::parse(bytes).is_none_or(|ring| ring.sockets.len() <= text.len()));
    elsewhere::in_flight(&text);
    close_on_exec(&text);
    let _ = socket_inode(bytes);
}

/// The hexadecimal number after `key`.
fn hex(line: &str, key: &str) -> Option<u64> {
    let value = line.split(key).nth(1)?.split_ascii_whitespace().next()?;
    u64::from_str_radix(value, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::model::Watch;

    fn fixture() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("directory");
        for (pid, fd, inode) in [(10, 3, 500), (10, 4, 501), (11, 7, 500)] {
            let process = root.path().join(format!("proc/{pid}"));
            fs::create_dir_all(process.join("fd")).expect("fd");
            fs::create_dir_all(process.join("fdinfo")).expect("fdinfo");
            symlink(format!("socket:[{inode}]"), process.join(format!("fd/{fd}"))).expect("link");
            fs::write(process.join("comm"), "we\nird\n").expect("comm");
            let stat = format!("{pid} (we\nird) S 9 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0");
            fs::write(process.join("stat"), stat).expect("stat");
            let cgroup = "1:name=systemd:/\n0::/system.slice/we.service\n";
            fs::write(process.join("cgroup"), cgroup).expect("cgroup");
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
        assert_eq!(
            of_500.iter().map(|holder| (holder.process.pid, holder.fd())).collect::<Vec<_>>(),
            [(10, Some(3)), (11, Some(7))]
        );
        assert_eq!(of_500[0].watch, Some(Watch::NoEpoll));
        assert_eq!((&*of_500[1].process.comm, of_500[1].process.parent), ("we\nird", 9));
        assert!(of_500[1].process.age_ns.is_some_and(|age_ns| age_ns > 0));
        assert_eq!(of_500[1].process.unit.as_deref(), Some("we.service"));
        assert_eq!(of_500[1].process.cgroup.as_deref(), Some("/system.slice/we.service"));
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
        let pids: Vec<u32> = of_500.iter().map(|holder| holder.process.pid).collect();
        assert_eq!(pids, [10, 11]);
        assert!(of_500.iter().all(|holder| holder.process.comm.is_empty()), "{of_500:?}");
        assert_eq!(of_500[0].watch, None, "its epoll cannot be read");
    }

    #[test]
    fn registered_files_messages_and_mappings() {
        let root = fixture();
        let process = root.path().join("proc/11");
        symlink("anon_inode:[io_uring]", process.join("fd/9")).expect("link");
        let ring = "UserFiles:\t1\n    0: socket:[700]\nUserBufs:\t0\nPollList:\n";
        fs::write(process.join("fdinfo/9"), ring).expect("fdinfo");
        symlink("socket:[800]", process.join("fd/10")).expect("link");
        fs::write(process.join("fdinfo/10"), "pos:\t0\nscm_fds: 2\n").expect("fdinfo");
        symlink("socket:[801]", process.join("fd/11")).expect("link");
        fs::write(process.join("fdinfo/11"), "pos:\t0\nscm_fds: 0\n").expect("fdinfo");
        let maps = "7f00-7f10 r--s 00000000 00:08 900 socket:[900]\n7f20-7f30 r--s 00000000 00:08 900 socket:[900]\n";
        fs::write(root.path().join("proc/10/maps"), maps).expect("maps");
        let missing = HashSet::from([700, 900, 901]);
        let mut holders = Holders::scan(root.path(), &missing);
        let of_700 = holders.of(700);
        assert_eq!(
            of_700.iter().map(|holder| (holder.process.pid, holder.via)).collect::<Vec<_>>(),
            [(11, Via::IoUring(9))]
        );
        holders.search(&missing, &HashSet::from([500, 501]));
        let of_900 = holders.of(900);
        assert_eq!(
            of_900.iter().map(|holder| (holder.process.pid, holder.via)).collect::<Vec<_>>(),
            [(10, Via::Mapping)]
        );
        let elsewhere = holders.elsewhere().expect("searched");
        let messages: Vec<_> = elsewhere
            .messages
            .iter()
            .map(|message| (message.process.pid, message.fd, message.count))
            .collect();
        assert_eq!((messages, elsewhere.rings.len()), (vec![(11, 10, 2)], 0));
        assert!(!holders.knows(901));

        // A request that waits in an io_uring may use any socket.
        fs::write(process.join("fdinfo/9"), "UserFiles:\t0\nPollList:\n  op=6, task_works=0\n")
            .expect("fdinfo");
        let mut holders = Holders::scan(root.path(), &missing);
        holders.search(&missing, &HashSet::new());
        assert_eq!(holders.elsewhere().expect("searched").rings.len(), 1);
    }
}
