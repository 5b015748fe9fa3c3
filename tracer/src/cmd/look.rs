//! One look at all sockets: the kernel's tables, who has them open, how old their states are.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::{
    enrich::{Enricher, Holders},
    model::{
        Examined, Filter, Holder, Identify, Listener, OwnerKey, OwnerSource, SocketInfo, State, SubjectKey,
        Task,
    },
    route::Router,
    source::{self, Dump},
    track,
};

/// What a look found.
pub(super) struct Look {
    pub(super) sockets: Vec<Examined>,
    /// A path to each namespace that is not our own.
    pub(super) foreign: BTreeMap<u32, PathBuf>,
    pub(super) problems: Vec<String>,
}

/// Looks at the sockets that `filter` and `wanted` let through; the latter is asked before anything is known of holders.
pub(super) fn look(filter: &Filter, cgroup: Option<&str>, wanted: impl Fn(&SocketInfo) -> bool) -> Look {
    let Dump { sockets, mut namespaces, mut problems } = source::dump(filter.netns);
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
    let router = Router::new(filter.clone());
    let mut enricher = Enricher::new(PathBuf::from("/"), false);
    let examined = chosen.into_iter().map(|socket| examine(socket, &listeners, &mut holders, &mut enricher));
    let sockets = examined.filter(|it| router.wants_examined(it) && is_below(it, cgroup)).collect();
    namespaces.remove(&own_netns());
    Look { sockets, foreign: namespaces, problems }
}

fn examine(
    socket: &SocketInfo,
    listeners: &Listeners<'_>,
    holders: &mut Holders,
    enricher: &mut Enricher,
) -> Examined {
    let held_by = if socket.inode == 0 { Vec::new() } else { holders.of(socket.inode) };
    let listener = listeners.find(socket).map(|listener| {
        let mut processes: Vec<_> = holders.of(listener.inode).into_iter().map(|it| it.process).collect();
        processes.dedup();
        Listener { queued: listener.receive_queue, backlog: listener.send_queue, holders: processes }
    });
    let key = SubjectKey {
        owner: held_by.first().map(owner),
        uid: socket.uid,
        netns: Some(socket.netns),
        cgroup: socket.cgroup,
    };
    Examined {
        age: track::age(socket),
        unanswered_ns: track::unanswered_ns(socket),
        subject: enricher.identify(key),
        hidden_holders: holders.are_hidden(),
        holders: held_by,
        listener,
        socket: socket.clone(),
    }
}

fn owner(holder: &Holder) -> OwnerKey {
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().zip(holder.process.comm.bytes()) {
        *to = from;
    }
    let task = Task { pid: holder.process.pid, exec_id: 0, start_ns: 0, comm };
    OwnerKey { task: Rc::new(task), source: OwnerSource::Scan }
}

/// Whether it is in the cgroup at `path`, or below.
fn is_below(it: &Examined, path: Option<&str>) -> bool {
    let Some(path) = path else { return true };
    let wanted = format!("/{}", path.trim_matches('/'));
    let found = it.subject.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
    found.is_some_and(|found| {
        found
            .strip_prefix(wanted.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn own_netns() -> u32 {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self/ns/net").map(|it| it.ino()).unwrap_or(0);
    u32::try_from(own).unwrap_or(0)
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
