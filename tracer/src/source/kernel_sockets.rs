//! The sockets that the kernel itself uses: they have a `struct socket` and no file, so no process can hold them.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    path::PathBuf,
};

use super::{
    protocols,
    snapshot::{self, WalkResult},
};
use crate::{
    kernel::{self, IterKind, Loaded},
    model::EventKind,
};

/// A socket by its network namespace and inode.
type SocketKey = (u32, u64);

/// The sockets of `wanted` that the kernel itself uses. `namespaces` has a path to each network namespace.
#[must_use]
pub fn kernel_sockets(
    wanted: &HashSet<SocketKey>,
    namespaces: &BTreeMap<u32, PathBuf>,
) -> HashSet<SocketKey> {
    let mut found = HashSet::new();
    if wanted.is_empty() {
        return found;
    }
    // Without BPF there is no evidence.
    let Ok(mut loaded) = kernel::for_iterators() else { return found };
    let inodes: HashSet<u32> = wanted.iter().map(|(netns, _)| *netns).collect();
    for netns in inodes {
        let Some(path) = namespaces.get(&netns) else { continue };
        if let Ok(all) = File::open(path).map_err(|error| error.to_string()).and_then(|namespace| {
            // The path may lead to another namespace by now; the records name the namespace that was listed.
            in_namespace(&mut loaded, netns, &namespace)
        }) {
            found.extend(all.into_iter().filter(|key| wanted.contains(key)));
        }
    }
    found
}

fn in_namespace(loaded: &mut Loaded, netns: u32, namespace: &File) -> Result<Vec<SocketKey>, String> {
    let opener = loaded.opener(IterKind::OfKernel)?;
    let open = || {
        // An SMC socket of a process uses an internal TCP socket, which looks like a socket of the kernel.
        let table = protocols::read().map_err(|error| error.to_string())?;
        if protocols::has_sockets(&table, "SMC") {
            return Err("there are SMC sockets".into());
        }
        opener.open()
    };
    let file = snapshot::run_in(netns, namespace, open);
    let (mut found, mut keys) = (WalkResult::default(), Vec::new());
    snapshot::read(file, "sockets of the kernel", snapshot::OF_KERNEL, &mut found, &mut |event| {
        if let (EventKind::OfKernel { inode }, Some(netns)) = (event.kind, event.netns) {
            keys.push((netns, inode));
        }
    });
    match found.problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(keys),
    }
}
