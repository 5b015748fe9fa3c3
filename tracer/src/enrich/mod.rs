//! Looks up names: of processes, cgroups, containers, network namespaces, and holders of sockets. Reads below a root that tests
//! can replace; never writes.

mod cgroup;
mod container;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod holders;
mod names;
mod netns;
mod peers;
mod pods;
mod process;
mod stat;
mod timens;

use std::{collections::HashMap, io, path::PathBuf, rc::Rc, sync::Arc, time::Instant};

use rustc_hash::FxBuildHasher;

pub use cgroup::{CgroupError, Cgroups};
use container::CgroupNames;
pub use holders::Holders;
use names::{Catalog, NamesThread, WorkloadIds, WorkloadNames};
pub use netns::{Netns, NetnsError, netns_at};
pub use peers::{KnownPeers, MOST_PEERS};
pub use pods::{KnownPods, MOST_PODS};
pub use process::is_same;
pub use timens::TimeOffsets;

use crate::model::{
    Address, Cgroup, ClusterPeer, Identify, Owner, OwnerKey, Subject, SubjectKey, Task, bounds,
};

/// Looks up subjects, and caches each one as long as a connection uses it.
pub struct Enricher {
    root: PathBuf,
    cmdline: bool,
    cgroups: Option<Cgroups>,
    subjects: HashMap<SubjectKey, Known, FxBuildHasher>,
    names: Names,
    cluster: KnownCluster,
    /// Details of processes, cached because a process may close its sockets after it can no longer be read.
    processes: HashMap<Rc<Task>, process::Details, FxBuildHasher>,
    sweep_at: usize,
    next: u64,
}

/// What the API server of Kubernetes has said.
#[derive(Clone, Default)]
pub struct KnownCluster {
    /// The pods of this node.
    pub pods: KnownPods,
    /// What connections reach.
    pub peers: KnownPeers,
}

/// Reads the names of pods and containers.
enum Names {
    /// When they are asked for.
    Directly(Catalog),
    /// In a thread, so that a slow disk does not stop the caller.
    ByThread(NamesThread),
}

impl Names {
    /// The names of a workload as far as they are known, and when there may be more.
    fn find(&mut self, ids: &WorkloadIds) -> (WorkloadNames, Option<Instant>) {
        match self {
            Self::Directly(catalog) => (catalog.find(ids), None),
            Self::ByThread(thread) => thread.find(ids),
        }
    }
}

/// A subject, and the workload whose names are to be looked up again at a time because one is missing.
struct Known {
    subject: Rc<Subject>,
    missing: Option<(WorkloadIds, Instant)>,
    /// The version of [`KnownPods`] that the subject has.
    pods_version: u64,
}

/// Unused subjects are dropped when the number of subjects has doubled since the last time, but not below this number.
const SWEEP_MIN: usize = 4096;

impl Enricher {
    /// Reads processes below `root`/proc. Command lines are read only with `cmdline`, because they may have secrets.
    #[must_use]
    pub fn new(root: PathBuf, cmdline: bool) -> Self {
        let cgroups = Cgroups::find(&root).ok();
        let names = Names::Directly(Catalog::new(&root));
        Self {
            root,
            cmdline,
            cgroups,
            subjects: HashMap::default(),
            names,
            cluster: KnownCluster::default(),
            processes: HashMap::default(),
            sweep_at: SWEEP_MIN,
            next: 0,
        }
    }

    /// Reads the names of pods and containers in a thread from now on, and `prepare` is called in it first.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn read_names_in_thread(&mut self, prepare: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.names = Names::ByThread(NamesThread::start(self.root.clone(), prepare)?);
        Ok(())
    }

    /// Adds what is known of the cluster to subjects, and names peers.
    pub fn know_cluster(&mut self, cluster: KnownCluster) {
        self.cluster = cluster;
    }

    /// Whether this process still exists. True if /proc does not show all processes, because then it is not known.
    #[must_use]
    pub fn lives(&self, task: &Task) -> bool {
        !process::shows_all(&self.root) || process::lives(&self.root, task)
    }

    fn look_up(&mut self, key: &SubjectKey) -> Known {
        let path = match (&mut self.cgroups, key.cgroup) {
            (Some(cgroups), Some(id)) => cgroups.path(id),
            _ => None,
        };
        let mut names = path.as_deref().map(CgroupNames::of).unwrap_or_default();
        if names.container.is_none()
            && let Some(owner) = &key.owner
        {
            // With cgroup v1 the other hierarchies have the containers, and a socket does not name those.
            names = names.or(process::cgroup_names(&self.root, &owner.task));
        }
        let missing = self.add_names(&mut names);
        let pods_version = self.cluster.pods.version();
        if let Some(pod) = &mut names.pod {
            self.cluster.pods.complete(pod);
        }
        self.next += 1;
        // With BTF the kernel programs have already excluded kernel threads.
        let is_process = |owner: &&OwnerKey| {
            owner.task.start_ns != 0 || !process::is_kernel_thread(&self.root, owner.task.pid)
        };
        let owner = key.owner.as_ref().filter(is_process);
        let subject = Subject {
            id: self.next,
            owner: owner.map(|owner| self.owner(owner, key.uid)),
            netns: key.netns,
            cgroup: key
                .cgroup
                .map(|id| Cgroup { id, path: path.map(|path| bounds::keep(path, bounds::PATH)) }),
            container: names.container,
            pod: names.pod,
            unit: names.unit,
        };
        Known { subject: Rc::new(subject), missing, pods_version }
    }

    /// Adds the names of the pod and the container.
    fn add_names(&mut self, names: &mut CgroupNames) -> Option<(WorkloadIds, Instant)> {
        let ids = WorkloadIds::of(names)?;
        let (found, again) = self.names.find(&ids);
        found.add_to(&mut names.container, &mut names.pod);
        Some((ids, again?))
    }

    /// The subject of `key` if it is known, with names that were found meanwhile.
    fn known(&mut self, key: &SubjectKey) -> Option<Rc<Subject>> {
        let known = self.subjects.get_mut(key)?;
        let is_due = known.missing.as_ref().is_some_and(|(_, again)| *again <= Instant::now());
        let pods_version = self.cluster.pods.version();
        let has_news = known.subject.pod.is_some() && known.pods_version != pods_version;
        if is_due || has_news {
            let mut subject = (*known.subject).clone();
            if is_due && let Some((ids, again)) = &mut known.missing {
                let (found, later) = self.names.find(ids);
                found.add_to(&mut subject.container, &mut subject.pod);
                match later {
                    Some(later) => *again = later,
                    None => known.missing = None,
                }
            }
            subject.pod.iter_mut().for_each(|pod| self.cluster.pods.complete(pod));
            known.pods_version = pods_version;
            if subject != *known.subject {
                // A number never gets another subject.
                self.next += 1;
                known.subject = Rc::new(Subject { id: self.next, ..subject });
            }
        }
        Some(Rc::clone(&known.subject))
    }

    fn owner(&mut self, key: &OwnerKey, uid: Option<u32>) -> Owner {
        let details = self.processes.entry(Rc::clone(&key.task)).or_default();
        if details.exe.is_none() {
            *details = process::details(&self.root, &key.task, self.cmdline);
        }
        Owner {
            task: Rc::clone(&key.task),
            comm: String::from_utf8_lossy(key.task.comm()).into_owned(),
            exe: details.exe.clone(),
            uid,
            source: key.source,
            cmdline: details.cmdline.clone(),
        }
    }

    /// Drops subjects and details that no connection uses.
    fn sweep(&mut self) {
        self.subjects.retain(|_, known| Rc::strong_count(&known.subject) > 1);
        self.processes.retain(|task, _| Rc::strong_count(task) > 1);
        self.sweep_at = (self.subjects.len() * 2).max(SWEEP_MIN);
    }
}

impl Identify for Enricher {
    fn identify(&mut self, key: SubjectKey) -> Rc<Subject> {
        if let Some(subject) = self.known(&key) {
            return subject;
        }
        if self.subjects.len() >= self.sweep_at {
            self.sweep();
        }
        let known = self.look_up(&key);
        let subject = Rc::clone(&known.subject);
        self.subjects.insert(key, known);
        subject
    }

    fn peer(&self, remote: Address) -> Option<Arc<ClusterPeer>> {
        self.cluster.peers.find(remote.canonical())
    }

    fn forget_process(&mut self, task: &Task) {
        self.processes.remove(task);
        self.subjects.retain(|key, _| key.owner.as_ref().is_none_or(|owner| *owner.task != *task));
    }
}
