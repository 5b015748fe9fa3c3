//! Searches for sockets that no descriptor leads to: in messages of unix sockets, and in mappings. Runs only if such a socket
//! exists, because it costs more than the scan of all descriptors.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
};

use super::{FDINFO, scan::HolderRef};
use crate::{
    model::Via,
    procfs::{for_each_process, processes, socket_inode, text},
};

/// Results for some processes.
#[derive(Default)]
pub(super) struct SearchResult {
    /// Mapped sockets, by inode.
    pub(super) mapped: Vec<(u64, HolderRef)>,
    /// Unix sockets with descriptors in their queues: pid, descriptor, number of queued descriptors.
    pub(super) messages: Vec<(u32, u32, u32)>,
    /// Processes that have mapped an io_uring instance.
    pub(super) rings: Vec<u32>,
}

/// Searches mappings for `missing` sockets, and lists all unix sockets with queued descriptors, because /proc does not show which
/// files are in a queue. `tcp` are inodes that cannot be unix sockets.
pub(super) fn search(root: &Path, missing: &HashSet<u64>, tcp: &HashSet<u64>) -> SearchResult {
    let work = |found: &mut SearchResult, pid| {
        found.read_mappings(root, pid, missing);
        found.read_queues(root, pid, tcp);
    };
    let mut all = SearchResult::default();
    for mut part in for_each_process(&processes(root).unwrap_or_default(), work, SearchResult::default) {
        all.mapped.append(&mut part.mapped);
        all.messages.append(&mut part.messages);
        all.rings.append(&mut part.rings);
    }
    all.messages.sort_unstable();
    all.rings.sort_unstable();
    all
}

impl SearchResult {
    fn read_mappings(&mut self, root: &Path, pid: u32, missing: &HashSet<u64>) {
        let Ok(file) = fs::File::open(root.join("proc").join(pid.to_string()).join("maps")) else { return };
        let mut has_ring = false;
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            // Address, rights, offset, device, inode, name.
            let Some(name) = line.split_ascii_whitespace().nth(5) else { continue };
            has_ring |= name == "anon_inode:[io_uring]";
            if let Some(inode) = socket_inode(name.as_bytes()).filter(|inode| missing.contains(inode)) {
                self.mapped.push((inode, HolderRef { pid, tid: None, via: Via::Mapping }));
            }
        }
        if has_ring {
            self.rings.push(pid);
        }
    }

    fn read_queues(&mut self, root: &Path, pid: u32, tcp: &HashSet<u64>) {
        let process = root.join("proc").join(pid.to_string());
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let inode = socket_inode(target.as_os_str().as_encoded_bytes());
            if inode.is_none_or(|inode| tcp.contains(&inode)) {
                continue;
            }
            let info = text::head(&process.join("fdinfo").join(fd.to_string()), FDINFO);
            if let Some(count) = in_flight(&info).filter(|count| *count > 0) {
                self.messages.push((pid, fd, count));
            }
        }
    }
}

/// Descriptors in the queue of a unix socket; `None` for every other file.
pub(super) fn in_flight(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse().ok())
}
