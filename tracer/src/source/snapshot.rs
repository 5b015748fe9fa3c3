//! Everything that existed before the tracer: the sockets of every network namespace, and who holds them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::fd::AsFd,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sockstate_abi::abi::{Head, Listener, Task, V6};

use crate::{
    decode::decode,
    kernel::{Loaded, Walk},
    model::Event,
};

/// Bytes of a record, and how many are read at once.
type Reads = (usize, usize);

/// Of [`Walk::Sockets`].
pub(super) const SOCKETS: Reads = (size_of::<Head>() + size_of::<V6>() + size_of::<Listener>(), 1024);
/// Of [`Walk::Files`]. The kernel lets go of files at the end of the call that has come by them (`fput` by task work): a socket that
/// is closed meanwhile would be open until all are read, and its port taken.
pub(super) const FILES: Reads = (size_of::<Head>() + size_of::<V6>() + size_of::<Task>(), 1);

/// What became of the walk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records read.
    pub records: usize,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// A network namespace, held open: whoever led to it may die at any time.
#[derive(Debug)]
pub struct Namespace {
    /// What `setns` takes.
    pub file: File,
    /// A path that led there.
    pub path: PathBuf,
}

/// Network namespaces by inode number: the named ones and those of threads.
#[must_use]
pub fn namespaces(root: &Path) -> BTreeMap<u64, Namespace> {
    let mut found = BTreeMap::new();
    let mut add = |path: PathBuf| {
        let is_new = |inode| !found.contains_key(&inode);
        if fs::metadata(&path).is_ok_and(|metadata| is_new(metadata.ino()))
            && let Ok(file) = File::open(&path)
            && let Ok(metadata) = file.metadata()
        {
            found.insert(metadata.ino(), Namespace { file, path });
        }
    };
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    // These outlive processes, and are what people know.
    for named in ["run/netns", "run/docker/netns"] {
        entries(root.join(named)).for_each(|entry| add(entry.path()));
    }
    for entry in entries(root.join("proc")) {
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            add(entry.path().join("ns/net"));
            for task in entries(entry.path().join("task")) {
                add(task.path().join("ns/net"));
            }
        }
    }
    found
}

/// Hands every socket that a process holds to `take`, with its holder.
pub(super) fn held(loaded: &mut Loaded, found: &mut Found, take: &mut impl FnMut(Event)) {
    read(loaded.walk(Walk::Files), "holders of sockets", FILES, found, take);
}

/// Hands the sockets of each namespace (of `only` if given) to `take`.
pub(super) fn sockets(
    loaded: &mut Loaded,
    only: Option<u32>,
    found: &mut Found,
    take: &mut impl FnMut(Event),
) {
    let own = fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino()).unwrap_or(0);
    for (inode, namespace) in namespaces(Path::new("/")) {
        if only.is_some_and(|only| u64::from(only) != inode) {
            continue;
        }
        let file = if inode == own { loaded.walk(Walk::Sockets) } else { walk_in(loaded, &namespace.file) };
        let what = format!("sockets of network namespace {inode}");
        read(file, &what, SOCKETS, found, take);
    }
}

/// The namespace is bound when the iterator is opened.
fn walk_in(loaded: &mut Loaded, namespace: &File) -> Result<File, String> {
    let opener = loaded.opener(Walk::Sockets)?;
    visit(namespace, || opener.open())
}

/// Does something in a network namespace: a thread of its own goes there, for that moment only.
pub(super) fn visit<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let there = || enter(namespace).and_then(|()| work());
    thread::scope(|scope| scope.spawn(there).join())
        .unwrap_or_else(|_| Err("the thread that entered it died".into()))
}

/// Moves this thread into a network namespace.
pub(super) fn enter(namespace: &File) -> Result<(), String> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("cannot enter it (needs CAP_SYS_ADMIN): {error}"))
}

pub(super) fn read(
    file: Result<File, String>,
    what: &str,
    (size, at_once): Reads,
    found: &mut Found,
    take: &mut impl FnMut(Event),
) {
    let result = file.and_then(|mut file| {
        let mut buffer = vec![0; size * at_once];
        let mut filled = 0;
        loop {
            let count = file.read(&mut buffer[filled..]).map_err(|error| error.to_string())?;
            if count == 0 {
                return if filled == 0 { Ok(()) } else { Err("the last record is cut short".into()) };
            }
            filled += count;
            let whole = filled - filled % size;
            for record in buffer[..whole].chunks_exact(size) {
                take(decode(record).map_err(|error| error.to_string())?);
                found.records += 1;
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    });
    if let Err(error) = result {
        found.problems.push(format!("cannot list the {what}: {error}"));
    }
}

#[cfg(test)]
mod tests {
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
        let found = namespaces(root.path());
        fs::remove_dir_all(process).expect("it dies");
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [inode]);
        assert_eq!(found[&inode].file.metadata().expect("open").ino(), inode);
    }
}
