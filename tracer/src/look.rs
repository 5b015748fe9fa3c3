//! A look: one scan of the kernel's socket tables and of /proc, at one moment. It finds the holders of the sockets, and estimates
//! their ages. The commands `stuck` and `sockets` use it, and the tracer for each stuck connection.

mod listeners;
mod peers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use caps::Capability;
use listeners::Listeners;
use peers::Peers;

use crate::{
    enrich::Holders,
    model::{
        Event, EventKind, Gap, GapKind, Holder, Listener, Nat, Process, SocketInfo, SocketReport, State,
        Transport, Tuple, Via, bounds::Cut,
    },
    source::{self, Dump},
    track,
};

/// The result of a look.
#[derive(Debug, Default)]
pub struct Look {
    pub sockets: Vec<SocketReport>,
    /// No namespace could be read.
    pub is_blind: bool,
    /// A path to each network namespace other than our own.
    pub foreign: BTreeMap<u32, PathBuf>,
    /// The gaps of the look. The list is empty only if no socket and no holder can be missing.
    pub gaps: Vec<Gap>,
}

/// Looks at the `wanted` sockets of every network namespace (of `only` if given). `learn` adds the caller's knowledge of a socket
/// before its report is finished.
pub fn look(
    only: Option<u32>,
    wanted: impl Fn(&SocketInfo) -> bool,
    learn: impl Fn(&mut SocketReport),
) -> Look {
    let Dump { sockets, listed, namespaces: mut foreign, hidden_processes, held, mut gaps } =
        source::dump(only, source::held_sockets);
    let is_blind = listed == 0 && sockets.is_empty();
    let listeners = Listeners::of(&sockets);
    let chosen: Vec<&SocketInfo> =
        sockets.iter().filter(|socket| socket.state != State::Close && wanted(socket)).collect();
    let half_closed = half_closed(&sockets, &chosen);
    let found = chosen.iter().flat_map(|socket| listeners.find(socket)).chain(chosen.iter().copied());
    let inodes: HashSet<u64> = found
        .chain(half_closed.iter().copied())
        .map(|socket| socket.inode)
        .filter(|inode| *inode != 0)
        .collect();
    let mut holders = Holders::scan(Path::new("/"), &inodes);
    let mut protected = ProtectedHolders::default();
    let mut are_hidden = hidden_processes.is_some();
    // The sockets of a single namespace are all known, but perhaps not their holders.
    if only.is_none() || listed == 0 || !inodes.is_empty() {
        gaps.extend(hidden_processes);
    }
    if holders.are_hidden() {
        // The kernel's iterator also lists processes that a security module protects in /proc.
        let may_ask = !are_hidden && source::may_read_processes();
        match held.map_or_else(|| if may_ask { source::held_sockets() } else { Err(String::new()) }, Ok) {
            Ok(events) if may_ask => protected = ProtectedHolders::of(&events),
            listed => {
                are_hidden = true;
                if !gaps.iter().any(|gap| gap.kind == GapKind::Descriptors) {
                    let needed = source::needs(Capability::CAP_SYS_PTRACE);
                    let mut why = format!("cannot read the descriptors of some processes: {needed}");
                    // Without the capability the kernel's iterator was not asked.
                    if may_ask && let Err(error) = listed {
                        why.push_str(&format!("; the kernel cannot list them instead: {error}"));
                    }
                    gaps.push(Gap::new(GapKind::Descriptors, why));
                }
            }
        }
    }
    let missing: HashSet<u64> = chosen
        .iter()
        .map(|socket| socket.inode)
        .filter(|inode| *inode != 0 && !holders.knows(*inode))
        .collect();
    if !missing.is_empty() {
        holders.search(&missing, &sockets.iter().map(|socket| socket.inode).collect());
    }
    let of_kernel = of_kernel(&chosen, &holders, &foreign);
    let half_closed = HalfClosed::of(&half_closed, &holders);
    let peers = Peers::of(&sockets, &chosen);
    let connections = chosen.iter().copied().filter(|socket| socket.state != State::Listen);
    let translations = source::translations(connections, &foreign);
    let bound = sockets.iter().filter(|socket| socket.tuple.interface != 0);
    let bound = bound.map(|socket| (socket.netns, socket.tuple.of_any_interface())).collect();
    let mut context = LookContext {
        listeners: &listeners,
        peers: &peers,
        half_closed: &half_closed,
        holders: &mut holders,
        protected: &protected,
        of_kernel: &of_kernel,
        listening: HashMap::new(),
        are_hidden,
        translations: &translations,
        destroys: source::Destroys::default(),
        bound,
    };
    let sockets = chosen.into_iter().map(|socket| context.examine(socket, &learn)).collect();
    let own = std::fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino()).unwrap_or(0);
    foreign.retain(|inode, _| u64::from(*inode) != own);
    Look { sockets, is_blind, foreign, gaps }
}

/// The sockets without a known holder that the kernel itself uses.
fn of_kernel(
    chosen: &[&SocketInfo],
    holders: &Holders,
    namespaces: &BTreeMap<u32, PathBuf>,
) -> HashSet<(u32, u64)> {
    let is_missing = |socket: &&&SocketInfo| {
        socket.inode != 0 && socket.transport == Transport::Tcp && !holders.knows(socket.inode)
    };
    let missing = chosen.iter().filter(is_missing).map(|socket| (socket.netns, socket.inode)).collect();
    source::kernel_sockets(&missing, namespaces)
}

/// Connections that a process has shut down for sending and may still read from; empty if no CLOSE_WAIT is chosen. A proxy that
/// forwards an end of file has one for each of its CLOSE_WAIT sockets.
fn half_closed<'a>(sockets: &'a [SocketInfo], chosen: &[&SocketInfo]) -> Vec<&'a SocketInfo> {
    if !chosen.iter().any(|socket| socket.state == State::CloseWait) {
        return Vec::new();
    }
    let is_one =
        |socket: &&SocketInfo| socket.inode != 0 && matches!(socket.state, State::FinWait1 | State::FinWait2);
    sockets.iter().filter(is_one).collect()
}

/// Half-closed connections by process.
#[derive(Default)]
struct HalfClosed {
    counts: HashMap<u32, usize>,
    /// Process and ends of each connection.
    ends: HashSet<(u32, Tuple)>,
}

impl HalfClosed {
    fn of(sockets: &[&SocketInfo], holders: &Holders) -> Self {
        let mut all = Self::default();
        for socket in sockets {
            for pid in holders.pids(socket.inode) {
                *all.counts.entry(pid).or_default() += 1;
                all.ends.insert((pid, socket.tuple.of_any_interface()));
            }
        }
        all
    }

    /// How many half-closed connections a process has, without the other end of this connection.
    fn count(&self, pid: u32, socket: &SocketInfo) -> usize {
        let own = usize::from(self.ends.contains(&(pid, socket.tuple.mirrored())));
        self.counts.get(&pid).map_or(0, |count| count - own)
    }
}

/// Holders that /proc does not show, by the namespace and ends of the socket.
#[derive(Default)]
struct ProtectedHolders(HashMap<(u32, Tuple), Vec<Holder>>);

impl ProtectedHolders {
    fn of(events: &[Event]) -> Self {
        let mut all: HashMap<_, Vec<Holder>> = HashMap::new();
        for event in events {
            if let (EventKind::Held { task, fd, .. }, Some(netns)) = (&event.kind, event.netns) {
                let comm = String::from_utf8_lossy(task.comm()).into_owned();
                let process = Arc::new(Process { pid: task.pid, comm, ..Process::default() });
                let via = Via::Descriptor(*fd);
                let holder = Holder { process, via, tid: None, close_on_exec: None, watch: None };
                all.entry((netns, event.tuple.of_any_socket())).or_default().push(holder);
            }
        }
        Self(all)
    }

    fn add_to(&self, report: &mut SocketReport) {
        let all =
            self.0.get(&(report.socket.netns, report.socket.tuple.of_any_socket())).into_iter().flatten();
        for other in all {
            let is_same = |known: &Holder| (known.process.pid, known.via) == (other.process.pid, other.via);
            if !report.holders.iter().any(is_same) {
                report.holders.push(other.clone());
            }
        }
    }
}

/// All data that the report of a socket is made from.
struct LookContext<'a> {
    listeners: &'a Listeners<'a>,
    peers: &'a Peers,
    half_closed: &'a HalfClosed,
    holders: &'a mut Holders,
    protected: &'a ProtectedHolders,
    of_kernel: &'a HashSet<(u32, u64)>,
    /// The processes that listen, by the listener's inode.
    listening: HashMap<u64, Arc<[Arc<Process>]>>,
    /// Some holders are neither in /proc nor in `protected`.
    are_hidden: bool,
    translations: &'a HashMap<(u32, Tuple), Nat>,
    destroys: source::Destroys,
    /// Namespaces and ends of sockets that are bound to an interface.
    bound: HashSet<(u32, Tuple)>,
}

impl LookContext<'_> {
    fn examine(&mut self, socket: &SocketInfo, learn: impl Fn(&mut SocketReport)) -> SocketReport {
        let listeners = Listeners::narrow(socket, self.listeners.find(socket), self.holders);
        let listeners: Vec<_> = listeners.into_iter().map(|listener| self.listener(listener)).collect();
        let mut found = SocketReport {
            age: track::age(socket),
            age_at_most_ns: track::age_at_most_ns(socket),
            unanswered_ns: track::unanswered_ns(socket),
            hidden_holders: self.are_hidden,
            listeners,
            peer: self.peers.find(socket),
            nat: self.translations.get(&(socket.netns, socket.tuple)).copied(),
            destroy: self.destroys.of(socket.transport),
            has_bound_twin: socket.tuple.interface == 0
                && !self.bound.is_empty()
                && self.bound.contains(&(socket.netns, socket.tuple.of_any_interface())),
            ..SocketReport::new(socket.clone())
        };
        if socket.inode != 0 {
            found.holders = self.holders.of(socket.inode);
            let more = self.holders.count(socket.inode) - found.holders.len();
            self.protected.add_to(&mut found);
            if more > 0 {
                found.cut.push(Cut { field: "holders", total: Some(found.holders.len() + more) });
            }
            found.of_kernel =
                found.holders.is_empty() && self.of_kernel.contains(&(socket.netns, socket.inode));
            let is_elsewhere = found.holders.is_empty() && !found.of_kernel;
            found.elsewhere = self.holders.elsewhere().filter(|_| is_elsewhere);
            let pids = self.holders.pids(socket.inode);
            found.half_closed = pids.map(|pid| self.half_closed.count(pid, socket)).sum();
        }
        learn(&mut found);
        if track::is_suspect(&found) {
            self.holders.read_flags(&mut found.holders);
        }
        found
    }

    fn listener(&mut self, socket: &SocketInfo) -> Listener {
        let all = &mut *self.holders;
        let known = self.listening.entry(socket.inode).or_insert_with(|| {
            let mut holders: Vec<_> = all.of(socket.inode).into_iter().map(|holder| holder.process).collect();
            holders.dedup();
            holders.into()
        });
        Listener { queued: socket.receive_queue, backlog: socket.send_queue, holders: Arc::clone(known) }
    }
}
