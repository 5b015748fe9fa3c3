//! Finds the network namespaces of processes and threads, those that are mounted (as `ip netns` does), and those that a descriptor
//! leads to. Reports gaps where others may exist.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use caps::Capability;

use super::visibility::{self, is_gone, is_refused};
use crate::{
    model::{Gap, GapKind},
    procfs::processes,
};

/// A network namespace that is held open, because the process that led to it may end at any time.
#[derive(Debug)]
pub(super) struct Namespace {
    /// The file for `setns`.
    pub(super) file: File,
    /// The path by which it was found.
    pub(super) path: PathBuf,
}

/// The network namespaces that were found.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// By inode number.
    pub(super) found: BTreeMap<u64, Namespace>,
    /// Places where other namespaces may exist.
    pub(super) gaps: Vec<Gap>,
}

impl Namespaces {
    /// Searches processes, threads and mounts below `root`.
    pub(super) fn find(root: &Path) -> Self {
        let mut all = Self::default();
        let pids = match processes(root) {
            Ok(pids) => pids,
            Err(error) => {
                all.gaps.push(Gap::new(GapKind::Processes, format!("cannot read /proc: {error}")));
                return all;
            }
        };
        let mut mounts = Mounts::default();
        mounts.read(&root.join("proc/self"), root);
        let mut leaders = Vec::new();
        for pid in &pids {
            let process = root.join("proc").join(pid.to_string());
            mounts.read(&process, &process.join("root"));
            let added = all.add(process.join("ns/net"));
            leaders.push((process, added));
        }
        // A thread may be short-lived, so that the path of a process is better. This process's own threads enter namespaces only to
        // read them.
        let own = fs::read_link(root.join("proc/self")).ok().map(|own| root.join("proc").join(own));
        let mut unread = Vec::new();
        for (process, added) in leaders {
            let is_own = own.as_ref() == Some(&process);
            let added = if is_own { added } else { all.add_threads(&process).and(added) };
            if let Err(error) = added
                && !is_gone(&error)
            {
                unread.push((process, error));
            }
        }
        all.add_mounted(&mounts);
        all.note_unread(root, unread, pids.len());
        all
    }

    /// Adds a gap for processes whose namespace cannot be read and may be one that was not found.
    fn note_unread(&mut self, root: &Path, mut unread: Vec<(PathBuf, io::Error)>, total: usize) {
        if unread.is_empty() {
            return;
        }
        let own = root.join("proc/self");
        let known = self.found.values().filter_map(|namespace| namespace.path.parent()?.parent());
        let known: HashSet<u64> = known.chain([&*own]).filter_map(device_list).collect();
        unread.retain(|(process, _)| !is_in(process, &known));
        if let Some((_, error)) = unread.first() {
            let hint = if is_refused(error) {
                visibility::needs(Capability::CAP_SYS_PTRACE)
            } else {
                error.to_string()
            };
            let unread = unread.len();
            let why = format!("cannot read the network namespaces of {unread} of {total} processes: {hint}");
            self.gaps.push(Gap::new(GapKind::NetworkNamespaces, why));
        }
    }

    /// Adds the namespace at `path`, if it is not known yet.
    ///
    /// # Errors
    /// The path no longer exists, or this process may not follow it.
    pub(super) fn add(&mut self, path: PathBuf) -> io::Result<()> {
        let is_known = self.found.contains_key(&fs::metadata(&path)?.ino());
        if !is_known {
            let file = File::open(&path)?;
            self.found.insert(file.metadata()?.ino(), Namespace { file, path });
        }
        Ok(())
    }

    /// Adds the namespaces of all threads: a thread may be in another one than the group leader, and may outlive it.
    fn add_threads(&mut self, process: &Path) -> io::Result<()> {
        for task in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            match self.add(task.path().join("ns/net")) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds mounted namespaces. A file that is not a mount of a namespace, as a killed `ip netns` leaves one, is not a gap.
    fn add_mounted(&mut self, mounts: &Mounts) {
        for (inode, paths) in &mounts.namespaces {
            let mut why = None;
            for path in paths {
                if self.found.contains_key(inode) {
                    break;
                }
                // Another mount may cover this one.
                let same_inode = fs::metadata(path).map(|metadata| metadata.ino() == *inode);
                why = match same_inode {
                    Ok(true) => self.add(path.clone()).err(),
                    Ok(false) => None,
                    Err(error) => Some(error),
                };
            }
            if !self.found.contains_key(inode)
                && let Some(path) = paths.first()
            {
                let why = why.map_or_else(|| "another mount covers it".into(), |error| error.to_string());
                let why =
                    format!("cannot open network namespace {inode}, mounted at {}: {why}", path.display());
                self.gaps.push(Gap::new(GapKind::NetworkNamespaces, why));
            }
        }
    }
}

/// Whether all threads of a process are in namespaces whose device lists are `known`.
fn is_in(process: &Path, known: &HashSet<u64>) -> bool {
    let Ok(tasks) = fs::read_dir(process.join("task")) else { return false };
    let mut tasks = tasks.flatten().map(|task| device_list(&task.path())).peekable();
    tasks.peek().is_some() && tasks.all(|inode| inode.is_some_and(|inode| known.contains(&inode)))
}

/// Inode of `net/dev` of a process or thread. Each namespace has its own file, which every user may stat.
fn device_list(process: &Path) -> Option<u64> {
    fs::metadata(process.join("net/dev")).ok().map(|metadata| metadata.ino())
}

/// How many mounts of one network namespace are tried, in each mount namespace.
const MAX_MOUNTS: usize = 8;

/// Mounted network namespaces, in the mount namespaces of all processes.
#[derive(Default)]
struct Mounts {
    /// Mount namespaces that were read.
    seen: HashSet<u64>,
    /// Mount points of each network namespace, by inode number.
    namespaces: BTreeMap<u64, Vec<PathBuf>>,
}

impl Mounts {
    /// Reads the mounts that a process sees; `root` leads to its root directory. If the mounts cannot be read, neither can the
    /// network namespace of the process, which is counted elsewhere.
    fn read(&mut self, process: &Path, root: &Path) {
        let Ok(namespace) = fs::metadata(process.join("ns/mnt")) else { return };
        if !self.seen.insert(namespace.ino()) {
            return;
        }
        let Ok(file) = File::open(process.join("mountinfo")) else { return };
        // A user may make 100,000 mounts in a namespace of its own.
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            let Some((inode, place)) = mounted_namespace(&String::from_utf8_lossy(&line)) else { continue };
            let count = counts.entry(inode).or_default();
            *count += 1;
            if *count <= MAX_MOUNTS {
                self.namespaces.entry(inode).or_default().push(root.join(place.trim_start_matches('/')));
            }
        }
    }
}

/// The network namespace and the mount point in a line of mountinfo (proc(5)).
fn mounted_namespace(line: &str) -> Option<(u64, String)> {
    let mut fields = line.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let inode = root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    line.contains(" - nsfs ").then(|| (inode, unescaped(place)))
}

/// A mount point without its escapes (`\040` for a space).
fn unescaped(place: &str) -> String {
    let mut pieces = place.split('\\');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let code = piece.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(code.into());
                out.push_str(&piece[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(piece);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_namespace_outlives_the_process_that_led_to_it() {
        let root = tempfile::tempdir().expect("directory");
        let process = root.path().join("proc/10");
        fs::create_dir_all(process.join("ns")).expect("ns");
        fs::create_dir_all(root.path().join("proc/uptime/ns")).expect("no process");
        fs::write(process.join("ns/net"), "").expect("net");
        fs::write(root.path().join("proc/uptime/ns/net"), "").expect("none");
        let inode = fs::metadata(process.join("ns/net")).expect("metadata").ino();
        let all = Namespaces::find(root.path());
        fs::remove_dir_all(process).expect("it dies");
        assert_eq!(all.found.keys().copied().collect::<Vec<_>>(), [inode]);
        assert_eq!(all.found[&inode].file.metadata().expect("open").ino(), inode);
        assert!(all.gaps.is_empty(), "{:?}", all.gaps);
    }

    #[test]
    fn a_thread_has_a_namespace_of_its_own_also_when_its_leader_has_ended() {
        let root = tempfile::tempdir().expect("directory");
        let thread = root.path().join("proc/10/task/11/ns");
        fs::create_dir_all(&thread).expect("thread");
        fs::write(thread.join("net"), "").expect("net");
        let all = Namespaces::find(root.path());
        assert_eq!((all.found.len(), all.gaps.len()), (1, 0));
    }

    #[test]
    fn the_path_of_a_process_is_better_than_that_of_a_thread_and_own_threads_do_not_count() {
        let root = tempfile::tempdir().expect("directory");
        let path = |name: &str| root.path().join("proc").join(name).join("ns");
        for name in ["10", "10/task/10", "10/task/11", "20", "20/task/20", "30", "30/task/30", "30/task/31"] {
            fs::create_dir_all(path(name)).expect("ns");
        }
        let link = |name: &str, target: &str| {
            fs::hard_link(path(target).join("net"), path(name).join("net")).expect("the same namespace");
        };
        fs::write(path("10").join("net"), "").expect("the host's");
        fs::write(path("20").join("net"), "").expect("of a process");
        fs::write(path("30/task/31").join("net"), "").expect("of a thread");
        link("10/task/10", "10");
        link("10/task/11", "20");
        link("20/task/20", "20");
        link("30", "10");
        link("30/task/30", "10");
        std::os::unix::fs::symlink("10", root.path().join("proc/self")).expect("self");
        let paths = || -> BTreeSet<PathBuf> {
            Namespaces::find(root.path()).found.into_values().map(|found| found.path).collect()
        };
        let expected = |names: &[&str]| names.iter().map(|name| path(name).join("net")).collect();
        let found = paths();
        assert!(found.contains(&path("20").join("net")) && found.contains(&path("30/task/31").join("net")));
        assert_eq!(found.len(), 3);
        // A thread of this process is in a namespace that no other process is in any more.
        fs::remove_dir_all(root.path().join("proc/20")).expect("it ends");
        fs::remove_file(path("30").join("net")).expect("it ends");
        fs::remove_file(path("30/task/30").join("net")).expect("it ends");
        assert_eq!(paths(), expected(&["10", "30/task/31"]));
    }

    #[test]
    fn mounts_of_network_namespaces() {
        for (line, found) in [
            (
                "40 30 0:4 net:[4026532200] /run/netns/blue rw shared:9 - nsfs nsfs rw",
                Some((4_026_532_200, "/run/netns/blue")),
            ),
            (
                r"40 30 0:4 net:[4026532200] /tmp/a\040b\134c rw - nsfs nsfs rw",
                Some((4_026_532_200, r"/tmp/a b\c")),
            ),
            ("40 30 0:4 uts:[4026532201] /run/uts/red rw - nsfs nsfs rw", None),
            ("41 30 0:25 /net:[5] /mnt rw - tmpfs tmpfs rw", None),
            ("41 30 0:25 net:[5] /mnt rw - tmpfs tmpfs rw", None),
            ("41 30", None),
        ] {
            let found = found.map(|(inode, place): (u64, &str)| (inode, place.to_owned()));
            assert_eq!(mounted_namespace(line), found, "{line}");
        }
    }

    #[test]
    fn a_mounted_namespace_that_cannot_be_opened_is_a_gap() {
        let root = tempfile::tempdir().expect("directory");
        let process = root.path().join("proc/10");
        fs::create_dir_all(process.join("ns")).expect("ns");
        fs::write(process.join("ns/net"), "").expect("net");
        fs::write(process.join("ns/mnt"), "").expect("mnt");
        let line = "40 30 0:4 net:[77] /run/netns/blue rw - nsfs nsfs rw\n";
        fs::write(process.join("mountinfo"), line).expect("mountinfo");
        let all = Namespaces::find(root.path());
        assert_eq!(all.gaps.len(), 1);
        assert!(all.gaps[0].why.contains("namespace 77"), "{:?}", all.gaps);
        // A file of that name that is not a namespace, and no mount: nothing is missing.
        fs::write(process.join("mountinfo"), "").expect("mountinfo");
        fs::create_dir_all(process.join("root/run/netns")).expect("names");
        fs::write(process.join("root/run/netns/blue"), "").expect("stale");
        assert!(Namespaces::find(root.path()).gaps.is_empty());
    }
}
