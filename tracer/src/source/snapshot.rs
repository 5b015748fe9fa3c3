//! The sockets that existed before the tracer, and their holders, read by the kernel's iterators.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::AsFd,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
};

use caps::Capability;
use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use sockstate_abi::abi::{Head, Listener, Task, V6};

use super::{namespaces::Namespaces, visibility};
use crate::{
    decode::decode,
    kernel::{IterKind, Loaded},
    model::Event,
};

/// Bytes of a record, and how many records are read at once.
type ReadSize = (usize, usize);

/// For [`IterKind::Sockets`].
pub(super) const SOCKETS: ReadSize = (size_of::<Head>() + size_of::<V6>() + size_of::<Listener>(), 1024);
/// For [`IterKind::OfKernel`].
pub(super) const OF_KERNEL: ReadSize = (size_of::<Head>() + size_of::<V6>(), 1024);
/// For [`IterKind::Files`]. The kernel releases files only at the end of the read() that has visited them (`fput` by task work).
/// With many records at once, a socket that is closed during the read would stay open, and its port in use.
pub(super) const FILES: ReadSize = (size_of::<Head>() + size_of::<V6>() + size_of::<Task>(), 1);

/// The result of a walk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WalkResult {
    pub records: usize,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// Passes every socket that a process holds to `take`, with its holder.
pub(super) fn held(loaded: &mut Loaded, found: &mut WalkResult, take: &mut impl FnMut(Event)) {
    read(loaded.iterate(IterKind::Files), "holders of sockets", FILES, found, take);
}

/// Passes the sockets of each namespace (of `only` if given) to `take`.
pub(super) fn sockets(
    loaded: &mut Loaded,
    only: Option<u32>,
    found: &mut WalkResult,
    take: &mut impl FnMut(Event),
) {
    let own = fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino()).unwrap_or(0);
    for (inode, namespace) in Namespaces::find(Path::new("/")).found {
        if only.is_some_and(|only| u64::from(only) != inode) {
            continue;
        }
        let file = if inode == own {
            loaded.iterate(IterKind::Sockets)
        } else {
            iterate_in(loaded, &namespace.file)
        };
        let what = format!("sockets of network namespace {inode}");
        read(file, &what, SOCKETS, found, take);
    }
}

/// Opens the iterator in another namespace: the kernel binds the namespace when the iterator is opened.
fn iterate_in(loaded: &mut Loaded, namespace: &File) -> Result<File, String> {
    let opener = loaded.opener(IterKind::Sockets)?;
    visit(namespace, || opener.open())
}

/// Runs `work` in the network namespace `inode`. If that is this thread's own namespace, no capability is needed.
pub(super) fn run_in<T: Send>(
    inode: u32,
    namespace: &File,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let own = fs::metadata("/proc/thread-self/ns/net");
    let is_own = own.is_ok_and(|metadata| metadata.ino() == u64::from(inode));
    if is_own { work() } else { visit(namespace, work) }
}

/// Runs `work` in a network namespace, in a short-lived thread: a thread that stayed would keep the namespace and its devices
/// alive.
pub(super) fn visit<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let there = || enter(namespace).and_then(|()| work());
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("visit".into())
            .spawn_scoped(scope, there)
            .map_err(|error| format!("cannot start a thread to enter it: {error}"))?;
        thread.join().unwrap_or_else(|_| Err("the thread that entered it died".into()))
    })
}

fn enter(namespace: &File) -> Result<(), String> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
        |error| match error {
            Errno::PERM => {
                format!("cannot enter it: {}", visibility::needs(Capability::CAP_SYS_ADMIN))
            }
            _ => format!("cannot enter it: {error}"),
        },
    )
}

pub(super) fn read(
    file: Result<File, String>,
    what: &str,
    (size, at_once): ReadSize,
    found: &mut WalkResult,
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
