//! Everything that existed before the tracer: the sockets of every network namespace, and who holds them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
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

/// Bytes of one record of [`Walk::Sockets`].
pub(super) const SOCKET_BYTES: usize = size_of::<Head>() + size_of::<V6>() + size_of::<Listener>();
/// Bytes of one record of [`Walk::Files`].
pub(super) const FILE_BYTES: usize = size_of::<Head>() + size_of::<V6>() + size_of::<Task>();

/// What became of the walk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records read.
    pub records: usize,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// Network namespaces by inode number, each with a path that leads there: those of threads and the named ones.
#[must_use]
pub fn namespaces(root: &Path) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut add = |path: PathBuf| {
        if let Ok(metadata) = fs::metadata(&path) {
            found.entry(metadata.ino()).or_insert(path);
        }
    };
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries(root.join("proc")) {
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            add(entry.path().join("ns/net"));
            for task in entries(entry.path().join("task")) {
                add(task.path().join("ns/net"));
            }
        }
    }
    for named in ["run/netns", "run/docker/netns"] {
        entries(root.join(named)).for_each(|entry| add(entry.path()));
    }
    found
}

/// Hands every socket to `take`: first the sockets of each namespace (of `only` if given), then the holders.
pub fn take(loaded: &mut Loaded, only: Option<u32>, mut take: impl FnMut(Event)) -> Found {
    let mut found = Found::default();
    if loaded.btf.is_none() {
        // Said already, with the reason why there are no types.
        return found;
    }
    let own = fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino()).unwrap_or(0);
    for (inode, path) in namespaces(Path::new("/")) {
        if only.is_some_and(|only| u64::from(only) != inode) {
            continue;
        }
        let file = if inode == own { loaded.walk(Walk::Sockets) } else { walk_in(loaded, &path) };
        let what = format!("sockets of network namespace {inode}");
        read(file, &what, SOCKET_BYTES, &mut found, &mut take);
    }
    read(loaded.walk(Walk::Files), "holders of sockets", FILE_BYTES, &mut found, &mut take);
    found
}

/// The namespace is bound when the iterator is opened.
fn walk_in(loaded: &mut Loaded, path: &Path) -> Result<File, String> {
    let opener = loaded.opener(Walk::Sockets)?;
    visit(path, || opener.open())
}

/// Does something in a network namespace: a thread of its own goes there, for that moment only.
pub(super) fn visit<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let there = || enter(path).and_then(|()| work());
    thread::scope(|scope| scope.spawn(there).join())
        .unwrap_or_else(|_| Err("the thread that entered it died".into()))
}

/// Moves this thread into a network namespace.
pub(super) fn enter(path: &Path) -> Result<(), String> {
    let namespace = File::open(path).map_err(|error| error.to_string())?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("cannot enter it (needs CAP_SYS_ADMIN): {error}"))
}

pub(super) fn read(
    file: Result<File, String>,
    what: &str,
    size: usize,
    found: &mut Found,
    take: &mut impl FnMut(Event),
) {
    let result = file.and_then(|mut file| {
        let mut buffer = vec![0; size * 1024];
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
