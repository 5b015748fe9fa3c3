//! The TCP sockets of every network namespace, and gaps where sockets may be missing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use super::{
    descriptors::{Descriptor, Descriptors},
    diag,
    namespaces::{Namespace, Namespaces},
    unlisted,
    visibility::{self, is_gone},
};
use crate::model::{Event, EventKind, Gap, GapKind, SocketInfo, State};

/// The kernel's names of TCP (`tcp_prot.name`, `tcpv6_prot.name`).
const TCP: [&str; 2] = ["TCP", "TCPv6"];
/// The kernel's names of MPTCP (`mptcp_prot.name`, `mptcp_v6_prot.name`).
const MPTCP: [&str; 2] = ["MPTCP", "MPTCPv6"];

/// The result of a dump of several namespaces.
#[derive(Debug, Default)]
pub struct Dump {
    pub sockets: Vec<SocketInfo>,
    /// How many namespaces were listed.
    pub listed: usize,
    /// A path that leads to each namespace, by its inode.
    pub namespaces: BTreeMap<u32, PathBuf>,
    /// The gap if /proc does not show every process.
    pub hidden_processes: Option<Gap>,
    /// The result of `held`, if it was called.
    pub held: Option<Vec<Event>>,
    /// Reasons why other sockets may exist.
    pub gaps: Vec<Gap>,
}

/// Lists the TCP sockets of every network namespace (of `only` if given). `held` lists the sockets that processes hold, in all
/// namespaces; it is called only if some of them may be in an unknown namespace.
#[must_use]
pub fn dump(only: Option<u32>, held: impl FnOnce() -> Result<Vec<Event>, String>) -> Dump {
    let root = Path::new("/");
    let mut dump = Dump { hidden_processes: visibility::hidden_processes(), ..Dump::default() };
    let mut all = Namespaces::find(root);
    if let Some(only) = only
        && let Some(namespace) = all.found.remove(&only.into())
    {
        dump.list(only, namespace);
        return dump;
    }
    let (descriptors, unread) = Descriptors::scan(root);
    all.add_held(&descriptors, root);
    for (inode, namespace) in all.found {
        if let Ok(inode) = u32::try_from(inode)
            && only.is_none_or(|only| only == inode)
        {
            dump.list(inode, namespace);
        }
    }
    if only.is_none() || dump.listed == 0 {
        dump.gaps.append(&mut all.gaps);
        dump.add_unlisted(only, root, &descriptors, unread, held);
    }
    dump
}

impl Namespaces {
    /// Adds namespaces that a process holds open, possibly without any process in them.
    pub(super) fn add_held(&mut self, descriptors: &Descriptors, root: &Path) {
        for namespace in &descriptors.namespaces {
            if !self.found.contains_key(&namespace.inode)
                && let Err(error) = self.add(namespace.path(root))
                && !is_gone(&error)
            {
                let why = format!(
                    "cannot open network namespace {}, which process {} has open: {error}",
                    namespace.inode, namespace.pid
                );
                self.gaps.push(Gap::new(GapKind::NetworkNamespaces, why));
            }
        }
    }
}

impl Dump {
    fn list(&mut self, inode: u32, namespace: Namespace) {
        match diag::dump_in(inode, &namespace.file) {
            Ok((sockets, missing)) => {
                self.sockets.extend(sockets);
                let why = missing.map(|why| format!("in network namespace {inode}, {why}"));
                self.gaps.extend(why.map(|why| Gap::new(GapKind::Sockets, why)));
                self.listed += 1;
            }
            Err(error) => {
                let why = format!("cannot list the sockets of network namespace {inode}: {error}");
                self.gaps.push(Gap::new(GapKind::NetworkNamespaces, why));
            }
        }
        self.namespaces.insert(inode, namespace.path);
    }

    /// Handles sockets that a process holds and no table has: closed ones, or sockets of a namespace without process and name.
    fn add_unlisted(
        &mut self,
        only: Option<u32>,
        root: &Path,
        descriptors: &Descriptors,
        unread: Option<Gap>,
        held: impl FnOnce() -> Result<Vec<Event>, String>,
    ) {
        let listed: HashSet<u64> = self.sockets.iter().map(|socket| socket.inode).collect();
        let mut known = HashSet::new();
        let mut unlisted = 0;
        let mut mptcp = Vec::new();
        for descriptor in descriptors.sockets.iter().filter(|descriptor| !listed.contains(&descriptor.inode))
        {
            if known.contains(&descriptor.inode) {
                continue;
            }
            let protocol = match descriptor.protocol(root) {
                Ok(None) => continue,
                Ok(protocol) => protocol,
                Err(_) => None,
            };
            known.insert(descriptor.inode);
            let is_one_of = |names: [&str; 2]| protocol.as_deref().is_some_and(|name| names.contains(&name));
            if is_one_of(MPTCP) {
                mptcp.push(descriptor);
            }
            unlisted += usize::from(protocol.is_none() || is_one_of(TCP));
        }
        self.gaps.extend(unlisted::gaps(root, descriptors, &mptcp, &listed));
        // The kernel's iterator also lists processes that a security module protects in /proc.
        let (protected, unread) = match unread {
            Some(gap) if self.hidden_processes.is_none() && visibility::may_read_processes() => {
                (Some(gap), None)
            }
            unread => (None, unread),
        };
        self.gaps.extend(unread);
        if unlisted == 0 && protected.is_none() {
            return;
        }
        match held() {
            Ok(events) => {
                self.add_of_unknown_namespaces(only, root, &descriptors.sockets, events.clone());
                self.held = Some(events);
            }
            Err(error) => {
                self.gaps.extend(protected);
                if unlisted == 0 {
                    return;
                }
                let why = format!(
                    "cannot tell whether {unlisted} TCP sockets that processes hold are closed, or in a network \
                     namespace that no process is in: {error}"
                );
                self.gaps.push(Gap::new(GapKind::Sockets, why));
            }
        }
    }

    fn add_of_unknown_namespaces(
        &mut self,
        only: Option<u32>,
        root: &Path,
        descriptors: &[Descriptor],
        mut events: Vec<Event>,
    ) {
        events.retain(|event| {
            event.netns.is_some_and(|netns| {
                !self.namespaces.contains_key(&netns) && only.is_none_or(|only| only == netns)
            })
        });
        if events.is_empty() {
            return;
        }
        // A process may have created a namespace since the search.
        let mut found = Namespaces::find(root).found;
        let unknown: HashSet<u32> = events.iter().filter_map(|event| event.netns).collect();
        for inode in unknown {
            if let Some(namespace) = found.remove(&inode.into()) {
                self.list(inode, namespace);
            }
        }
        // The kernel's list names only the process, but threads may have their own descriptor tables.
        let mut inodes: HashMap<(u32, u32), Option<&Descriptor>> = HashMap::new();
        for held in descriptors {
            let known = inodes.entry((held.pid, held.fd)).or_insert(Some(held));
            *known = known.filter(|known| known.inode == held.inode);
        }
        let mut sockets: BTreeMap<u32, HashMap<u64, SocketInfo>> = BTreeMap::new();
        for event in events {
            let (Some(netns), EventKind::Held { state, task, fd }) = (event.netns, &event.kind) else {
                continue;
            };
            if self.namespaces.contains_key(&netns) {
                continue;
            }
            let descriptor = inodes
                .get(&(task.pid, *fd))
                .copied()
                .flatten()
                .filter(|descriptor| descriptor.is_there(root));
            let socket = partial(&event, netns, *state, descriptor.map_or(0, |descriptor| descriptor.inode));
            let known = sockets.entry(netns).or_default().entry(event.sk).or_insert_with(|| socket.clone());
            known.inode = known.inode.max(socket.inode);
        }
        for (netns, sockets) in sockets {
            let why = format!(
                "network namespace {netns} has neither a process nor a name and cannot be entered: of its sockets only \
                 the {} that processes hold are known, without queues, timers and ages",
                sockets.len()
            );
            self.gaps.push(Gap::new(GapKind::Sockets, why));
            self.sockets.extend(sockets.into_values());
        }
    }
}

/// The known fields of a socket whose namespace cannot be entered.
fn partial(event: &Event, netns: u32, state: State, inode: u64) -> SocketInfo {
    SocketInfo {
        uid: event.uid,
        inode,
        cgroup: event.cgroup,
        is_partial: true,
        ..SocketInfo::bare(netns, state, event.tuple)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Task, Tuple};

    fn held(netns: u32, sk: u64, pid: u32, fd: u32) -> Event {
        let task = Task { pid, exec_id: 0, start_ns: 0, comm: [0; 16] };
        Event {
            time_ns: 1,
            sk,
            cgroup: None,
            netns: Some(netns),
            uid: Some(0),
            error: 0,
            tuple: Tuple::example(),
            kind: EventKind::Held { state: State::CloseWait, task, fd },
        }
    }

    #[test]
    fn a_namespace_that_only_sockets_lead_to_is_known_by_them_and_is_a_gap() {
        let root = tempfile::tempdir().expect("directory");
        let mut dump = Dump { namespaces: BTreeMap::from([(5, "/proc/1/ns/net".into())]), ..Dump::default() };
        // Two holders of one socket; one socket of a namespace that was listed.
        let events = vec![held(7, 100, 10, 3), held(7, 100, 11, 3), held(7, 101, 10, 4), held(5, 102, 10, 5)];
        dump.add_of_unknown_namespaces(None, root.path(), &[], events.clone());
        assert_eq!(dump.sockets.len(), 2);
        assert!(
            dump.sockets.iter().all(|socket| socket.is_partial && socket.netns == 7),
            "{:?}",
            dump.sockets
        );
        assert_eq!((dump.gaps.len(), dump.gaps[0].kind), (1, GapKind::Sockets));
        let mut of_another = Dump::default();
        of_another.add_of_unknown_namespaces(Some(8), root.path(), &[], events);
        assert!(of_another.sockets.is_empty() && of_another.gaps.is_empty());
    }
}
