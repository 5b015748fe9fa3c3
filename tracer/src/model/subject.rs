//! The subject of a socket: its owner, network namespace, cgroup, container, pod and unit.

use std::{collections::BTreeMap, fmt, rc::Rc, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Address, ClusterPeer, Task, bounds};

/// The evidence for an owner (`owner.source`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerSource {
    /// The process called `connect`.
    Connect,
    /// The process called `listen`.
    Listen,
    /// The process owns the listener that the connection came from.
    Inherited,
    /// Only this process held the socket, at the start or later. Of several holders of a listener, it started first.
    Scan,
    /// The process closed the socket, or shut down its sending side, and is not the owner that was known before.
    Close,
}

impl OwnerSource {
    pub const ALL: [Self; 5] = [Self::Connect, Self::Listen, Self::Inherited, Self::Scan, Self::Close];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Inherited => "inherited",
            Self::Scan => "scan",
            Self::Close => "close",
        }
    }
}

/// The process that owns a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process as the kernel knew it.
    pub task: Rc<Task>,
    /// The process name, with invalid UTF-8 replaced.
    pub comm: String,
    /// The executable; `None` where it could not be read any more.
    pub exe: Option<String>,
    /// Uid of the socket, which it has from its creator.
    pub uid: Option<u32>,
    pub source: OwnerSource,
    /// The command line, with `--cmdline` only; all sockets of the process share the text.
    pub cmdline: Option<Rc<str>>,
}

impl Owner {
    /// Process id in the initial pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.task.pid
    }
}

/// A cgroup v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The inode number of the cgroup's directory.
    pub id: u64,
    /// The path below the hierarchy's root; `None` where the cgroup no longer exists.
    pub path: Option<String>,
}

/// A cgroup and all cgroups below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupTree {
    /// Id that the top cgroup had at the start; 0 where it did not exist.
    pub id: u64,
    /// Path of the top cgroup below the mount point, with a leading slash; `/` for the root.
    pub path: String,
}

impl CgroupTree {
    /// Whether the cgroup at `path` is in this tree.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A container, by the path of its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The container's id or name.
    pub id: String,
    /// The container runtime, where the path names it.
    pub runtime: Option<&'static str>,
    /// The name by which the pod or the runtime knows it.
    pub name: Option<String>,
    /// The image, as the runtime was told.
    pub image: Option<String>,
}

impl Container {
    /// A container of which only the path is known.
    #[must_use]
    pub fn new(id: String, runtime: Option<&'static str>) -> Self {
        Self { id, runtime, name: None, image: None }
    }

    /// The name for people; the id if the container has no name.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The uid, as the path of a cgroup names it.
    pub uid: String,
    pub name: Option<String>,
    pub namespace: Option<String>,
    /// What manages the pod, as far as the API server has said.
    pub workload: Option<PodWorkload>,
    /// The labels that the configuration allows.
    pub labels: BTreeMap<String, String>,
}

/// The object of Kubernetes that manages a pod: a Deployment, a StatefulSet and so on.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PodWorkload {
    /// The kind, as Kubernetes writes it.
    pub kind: String,
    pub name: String,
}

impl PodWorkload {
    /// The same within the limits of records.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { kind: bounds::keep(self.kind, bounds::NAME), name: bounds::keep(self.name, bounds::NAME) }
    }
}

/// What the API server says about one pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct PodFacts {
    pub name: String,
    pub namespace: String,
    /// What manages the pod.
    pub workload: Option<PodWorkload>,
    /// The labels that the configuration allows.
    pub labels: BTreeMap<String, String>,
}

impl PodFacts {
    /// The same within the limits of records.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            name: bounds::keep(self.name, bounds::NAME),
            namespace: bounds::keep(self.namespace, bounds::NAME),
            workload: self.workload.map(PodWorkload::bounded),
            labels: bounds::labels(self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
        }
    }
}

impl Pod {
    /// A pod of which only the path is known.
    #[must_use]
    pub fn new(uid: String) -> Self {
        Self { uid, ..Self::default() }
    }

    /// The name for people; the uid if the name is not known.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.uid)
    }
}

/// `NAMESPACE/NAME`; the uid if the name is not known.
impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, "{namespace}/{name}"),
            _ => f.write_str(&self.uid),
        }
    }
}

/// The part of a record that usually stays the same from transition to transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Number of this combination of values; formats use it as the key of cached text.
    pub id: u64,
    pub owner: Option<Owner>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// The socket's cgroup.
    pub cgroup: Option<Cgroup>,
    /// The container that this cgroup belongs to.
    pub container: Option<Container>,
    /// The Kubernetes pod that this cgroup belongs to.
    pub pod: Option<Pod>,
    /// The systemd unit that this cgroup belongs to.
    pub unit: Option<String>,
}

impl Subject {
    /// Bytes of memory that this subject takes, approximately.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let owner = self.owner.as_ref();
        let path = self.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        let (container, pod) = (self.container.as_ref(), self.pod.as_ref());
        let workload = pod.and_then(|pod| pod.workload.as_ref());
        let texts = [
            owner.map(|owner| owner.comm.as_str()),
            owner.and_then(|owner| owner.exe.as_deref()),
            owner.and_then(|owner| owner.cmdline.as_deref()),
            path,
            container.map(|container| container.id.as_str()),
            container.and_then(|container| container.name.as_deref()),
            container.and_then(|container| container.image.as_deref()),
            pod.map(|pod| pod.uid.as_str()),
            pod.and_then(|pod| pod.name.as_deref()),
            pod.and_then(|pod| pod.namespace.as_deref()),
            workload.map(|workload| workload.kind.as_str()),
            workload.map(|workload| workload.name.as_str()),
            self.unit.as_deref(),
        ];
        let labels = pod.into_iter().flat_map(|pod| &pod.labels);
        let labels: usize =
            labels.map(|(name, value)| 2 * size_of::<String>() + name.len() + value.len()).sum();
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        size_of::<Self>() + size_of::<Task>() + texts + labels
    }
}

/// An owner before its executable and command line are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerKey {
    pub task: Rc<Task>,
    pub source: OwnerSource,
}

/// The key of a [`Subject`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubjectKey {
    pub owner: Option<OwnerKey>,
    /// Uid of the socket.
    pub uid: Option<u32>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// Cgroup v2 id.
    pub cgroup: Option<u64>,
}

/// Looks up subjects. The connection table asks once for each connection, immediately, while the process still exists.
pub trait Identify {
    fn identify(&mut self, key: SubjectKey) -> Rc<Subject>;

    /// What Kubernetes has at the remote address of a connection.
    fn peer(&self, _remote: Address) -> Option<Arc<ClusterPeer>> {
        None
    }

    /// Forgets what is cached of this process, so that the next question reads it again: it has executed another program.
    fn forget_process(&mut self, task: &Task);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_holds_its_top_and_what_is_below() {
        for (top, path, is_in) in [
            ("/", "/", true),
            ("/", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
        ] {
            let tree = CgroupTree { id: 1, path: top.into() };
            assert_eq!(tree.contains(path), is_in, "{path} in {top}");
        }
    }
}
