//! One look at all sockets: the kernel's tables, who has them open, how old their states are. Wires rooms together, for
//! the commands that look once and for the tracer that has found something stuck.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    enrich::Holders,
    model::{Examined, Listener, SocketInfo, State},
    source::{self, Dump},
    track,
};

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    /// The sockets that were wanted.
    pub sockets: Vec<Examined>,
    /// No namespace could be looked into.
    pub is_blind: bool,
    /// A path to each network namespace that is not our own.
    pub foreign: BTreeMap<u32, PathBuf>,
    /// What could not be seen, and why.
    pub problems: Vec<String>,
}

/// Looks at the sockets of every network namespace (of `only` if given) that are `wanted`.
pub fn look(only: Option<u32>, wanted: impl Fn(&SocketInfo) -> bool) -> Look {
    let Dump { sockets, listed, namespaces: mut foreign, mut problems } = source::dump(only);
    let listeners = Listeners::of(&sockets);
    let chosen: Vec<&SocketInfo> =
        sockets.iter().filter(|socket| socket.state != State::Close && wanted(socket)).collect();
    let inodes: HashSet<u64> = chosen
        .iter()
        .flat_map(|socket| [Some(socket.inode), listeners.find(socket).map(|it| it.inode)])
        .flatten()
        .filter(|inode| *inode != 0)
        .collect();
    let mut holders = Holders::scan(Path::new("/"), &inodes);
    if holders.are_hidden() {
        problems.push("cannot see the descriptors of other users' processes: needs root".into());
    }
    let sockets = chosen.into_iter().map(|socket| examine(socket, &listeners, &mut holders)).collect();
    let own = std::fs::metadata("/proc/self/ns/net").map(|it| it.ino()).unwrap_or(0);
    foreign.retain(|inode, _| u64::from(*inode) != own);
    Look { sockets, is_blind: listed == 0, foreign, problems }
}

fn examine(socket: &SocketInfo, listeners: &Listeners<'_>, holders: &mut Holders) -> Examined {
    let listener = listeners.find(socket).map(|listener| {
        let mut processes: Vec<_> = holders.of(listener.inode).into_iter().map(|it| it.process).collect();
        processes.dedup();
        Listener { queued: listener.receive_queue, backlog: listener.send_queue, holders: processes }
    });
    Examined {
        age: track::age(socket),
        unanswered_ns: track::unanswered_ns(socket),
        hidden_holders: holders.are_hidden(),
        holders: if socket.inode == 0 { Vec::new() } else { holders.of(socket.inode) },
        listener,
        socket: socket.clone(),
    }
}

/// Listeners by namespace and port.
struct Listeners<'a>(HashMap<(u32, u16), Vec<&'a SocketInfo>>);

impl<'a> Listeners<'a> {
    fn of(sockets: &'a [SocketInfo]) -> Self {
        let mut all: HashMap<_, Vec<&SocketInfo>> = HashMap::new();
        for socket in sockets.iter().filter(|socket| socket.state == State::Listen) {
            all.entry((socket.netns, socket.tuple.local_port)).or_default().push(socket);
        }
        Self(all)
    }

    /// The one that an accepted socket came out of: on its address, else on all.
    fn find(&self, socket: &SocketInfo) -> Option<&'a SocketInfo> {
        if socket.state == State::Listen {
            return None;
        }
        let there = self.0.get(&(socket.netns, socket.tuple.local_port))?;
        let exact = there.iter().find(|it| it.tuple.local == socket.tuple.local);
        exact.or_else(|| there.iter().find(|it| it.tuple.local.is_unspecified())).copied()
    }
}
