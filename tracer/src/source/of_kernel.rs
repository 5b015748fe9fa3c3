//! The sockets that the kernel itself uses: they have a `struct socket` and no file, so no process can have a descriptor of them.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    path::PathBuf,
};

use super::{
    protocols,
    snapshot::{self, Found},
};
use crate::{
    kernel::{self, Loaded, Walk},
    model::EventKind,
};

/// A socket by its network namespace and inode.
type Place = (u32, u64);

/// Those of `wanted` that the kernel itself uses, as far as it says so. `namespaces` has a path to each network namespace.
#[must_use]
pub fn of_kernel(wanted: &HashSet<Place>, namespaces: &BTreeMap<u32, PathBuf>) -> HashSet<Place> {
    let mut found = HashSet::new();
    if wanted.is_empty() {
        return found;
    }
    // Without BPF nothing tells.
    let Ok(mut loaded) = kernel::for_walks() else { return found };
    let inodes: HashSet<u32> = wanted.iter().map(|(netns, _)| *netns).collect();
    for netns in inodes {
        let Some(path) = namespaces.get(&netns) else { continue };
        if let Ok(all) = File::open(path).map_err(|error| error.to_string()).and_then(|namespace| {
            // What the path leads to may meanwhile be another namespace; the records say which one.
            in_namespace(&mut loaded, netns, &namespace)
        }) {
            found.extend(all.into_iter().filter(|place| wanted.contains(place)));
        }
    }
    found
}

fn in_namespace(loaded: &mut Loaded, netns: u32, namespace: &File) -> Result<Vec<Place>, String> {
    let opener = loaded.opener(Walk::OfKernel)?;
    let open = || {
        // Below each SMC socket, which a process has open, is a TCP socket that looks like one of the kernel's.
        let table = protocols::read().map_err(|error| error.to_string())?;
        if protocols::has_sockets(&table, "SMC") {
            return Err("there are SMC sockets".into());
        }
        opener.open()
    };
    let file = snapshot::be_in(netns, namespace, open);
    let (mut found, mut places) = (Found::default(), Vec::new());
    snapshot::read(file, "sockets of the kernel", snapshot::OF_KERNEL, &mut found, &mut |event| {
        if let (EventKind::OfKernel { inode }, Some(netns)) = (event.kind, event.netns) {
            places.push((netns, inode));
        }
    });
    match found.problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(places),
    }
}
