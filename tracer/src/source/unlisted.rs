//! Sockets that are in use and in no table of a known namespace: MPTCP sockets, and sockets that only an io_uring instance holds.

use std::{collections::HashSet, path::Path};

use super::{
    descriptors::{Descriptor, Descriptors},
    diag,
    namespaces::Namespaces,
};
use crate::{
    model::{Gap, GapKind},
    procfs::{rings, text},
};

/// Tables of other protocols in /proc/PID/net, which show inodes.
const OTHERS: [&str; 8] = ["unix", "udp", "udp6", "raw", "raw6", "netlink", "packet", "icmp"];

/// Gaps for the sockets of `mptcp` and of io_uring instances that may be in an unknown namespace. `listed` are the inodes in the
/// tables.
pub(super) fn gaps(root: &Path, all: &Descriptors, mptcp: &[&Descriptor], listed: &HashSet<u64>) -> Vec<Gap> {
    let is_held: HashSet<u64> = all.sockets.iter().map(|held| held.inode).collect();
    let mut registered = registered(root, all);
    registered.retain(|(_, inode)| !listed.contains(inode) && !is_held.contains(inode));
    if mptcp.is_empty() && registered.is_empty() {
        return Vec::new();
    }
    // A socket may be younger than the tables, so the tables are read again, and then it is checked whether the socket still exists.
    let mut known = Namespaces::find(root);
    known.add_held(all, root);
    let listed = listed_now(&known);
    let is_unlisted = |held: &&&Descriptor| !listed.contains(&held.inode) && held.is_there(root);
    let mptcp = mptcp.iter().filter(is_unlisted).count();
    registered.retain(|(_, inode)| !listed.contains(inode) && !is_of_another_protocol(&known, *inode));
    if !registered.is_empty() {
        let now: HashSet<u64> = self::registered(root, all).into_iter().map(|(_, inode)| inode).collect();
        registered.retain(|(_, inode)| now.contains(inode));
    }
    let why = [
        (mptcp > 0).then(|| format!("{mptcp} MPTCP sockets that processes hold are in no table")),
        registered.first().map(|(pid, _)| {
            let count = registered.len();
            format!("{count} sockets that only io_uring instances have (the first: of process {pid}) are in no table")
        }),
    ];
    let gap = |why| {
        let why = format!("{why}: they are closed, or in a network namespace that no process is in");
        Gap::new(GapKind::Sockets, why)
    };
    why.into_iter().flatten().map(gap).collect()
}

/// Process and inode of the sockets that are registered with io_uring instances (the kernel shows inodes since Linux 6.13).
fn registered(root: &Path, all: &Descriptors) -> Vec<(u32, u64)> {
    let of_ring = |&(pid, fd): &(u32, u32)| {
        rings::read(root, pid, fd).sockets.into_iter().map(move |inode| (pid, inode))
    };
    let mut found: Vec<(u32, u64)> = all.rings.iter().flat_map(of_ring).collect();
    found.sort_unstable_by_key(|(_, inode)| *inode);
    found.dedup_by_key(|(_, inode)| *inode);
    found
}

/// Inodes of the current TCP sockets of these namespaces.
fn listed_now(known: &Namespaces) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for (inode, namespace) in &known.found {
        if let Ok(inode) = u32::try_from(*inode)
            && let Ok((sockets, _)) = diag::dump_in(inode, &namespace.file)
        {
            inodes.extend(sockets.into_iter().map(|socket| socket.inode));
        }
    }
    inodes
}

/// Whether a table of another protocol has this inode, in a namespace that a process is in.
fn is_of_another_protocol(known: &Namespaces, inode: u64) -> bool {
    let inode = inode.to_string();
    let has_inode = |line: String| line.split_ascii_whitespace().any(|field| field == inode);
    let processes = known.found.values().filter_map(|namespace| namespace.path.parent()?.parent());
    let mut tables = processes.flat_map(|process| OTHERS.map(|name| process.join("net").join(name)));
    tables.any(|table| text::lines(&table).any(has_inode))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A process with an io_uring instance that has a socket registered.
    fn process_with_ring() -> (tempfile::TempDir, Descriptors) {
        let root = tempfile::tempdir().expect("directory");
        let process = root.path().join("proc/10");
        fs::create_dir_all(process.join("fdinfo")).expect("fdinfo");
        fs::create_dir_all(process.join("net")).expect("net");
        fs::create_dir_all(process.join("ns")).expect("ns");
        fs::write(process.join("ns/net"), "").expect("namespace");
        fs::write(process.join("fdinfo/7"), "UserFiles:\t1\n    0: socket:[500]\nPollList:\n").expect("ring");
        let mut all = Descriptors::default();
        all.rings.push((10, 7));
        (root, all)
    }

    #[test]
    fn a_registered_socket_that_no_table_has_is_a_gap() {
        let (root, mut all) = process_with_ring();
        let gaps_of = |all: &Descriptors, listed: &[u64]| {
            gaps(root.path(), all, &[], &listed.iter().copied().collect()).len()
        };
        assert_eq!(gaps_of(&all, &[]), 1);
        assert_eq!(gaps_of(&all, &[500]), 0, "a table has it");
        all.sockets.push(Descriptor { inode: 500, pid: 11, tid: None, fd: 3 });
        assert_eq!(gaps_of(&all, &[]), 0, "its descriptor shows what it is");
        all.sockets.clear();
        fs::write(root.path().join("proc/10/net/udp"), "  sl  local_address\n 5: 0100007F:0035 500 2\n")
            .expect("udp");
        assert_eq!(gaps_of(&all, &[]), 0, "it is a UDP socket");
    }

    #[test]
    fn an_mptcp_socket_that_no_table_has_is_a_gap_while_it_is_there() {
        let root = tempfile::tempdir().expect("directory");
        let fds = root.path().join("proc/10/fd");
        fs::create_dir_all(&fds).expect("fd");
        std::os::unix::fs::symlink("socket:[500]", fds.join("3")).expect("link");
        let socket = |inode| Descriptor { inode, pid: 10, tid: None, fd: 3 };
        let (there, gone) = (socket(500), socket(501));
        let all = Descriptors::default();
        assert_eq!(gaps(root.path(), &all, &[&there], &HashSet::new()).len(), 1);
        assert_eq!(gaps(root.path(), &all, &[&gone], &HashSet::new()).len(), 0);
    }
}
