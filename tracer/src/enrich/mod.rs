//! Looks up names: of processes, cgroups, containers, network namespaces, and holders of sockets. Reads below a root that tests
//! can replace; never writes.

mod cgroup;
mod container;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod holders;
mod netns;
mod process;
mod stat;
mod timens;

use std::{collections::HashMap, path::PathBuf, rc::Rc};

use rustc_hash::FxBuildHasher;

pub use cgroup::{CgroupError, Cgroups};
use container::CgroupNames;
pub use holders::Holders;
pub use netns::{Netns, NetnsError, netns_at};
pub use process::is_same;
pub use timens::TimeOffsets;

use crate::model::{Cgroup, Identify, Owner, OwnerKey, Subject, SubjectKey, Task, bounds};

/// Looks up subjects, and caches each one as long as a connection uses it.
pub struct Enricher {
    root: PathBuf,
    cmdline: bool,
    cgroups: Option<Cgroups>,
    subjects: HashMap<SubjectKey, Rc<Subject>, FxBuildHasher>,
    /// Details of processes, cached because a process may close its sockets after it can no longer be read.
    processes: HashMap<Rc<Task>, process::Details, FxBuildHasher>,
    sweep_at: usize,
    next: u64,
}

/// Unused subjects are dropped when the number of subjects has doubled since the last time, but not below this number.
const SWEEP_MIN: usize = 4096;

impl Enricher {
    /// Reads processes below `root`/proc. Command lines are read only with `cmdline`, because they may have secrets.
    #[must_use]
    pub fn new(root: PathBuf, cmdline: bool) -> Self {
        let cgroups = Cgroups::find(&root).ok();
        Self {
            root,
            cmdline,
            cgroups,
            subjects: HashMap::default(),
            processes: HashMap::default(),
            sweep_at: SWEEP_MIN,
            next: 0,
        }
    }

    /// Whether this process still exists. True if /proc does not show all processes, because then it is not known.
    #[must_use]
    pub fn lives(&self, task: &Task) -> bool {
        !process::shows_all(&self.root) || process::lives(&self.root, task)
    }

    fn look_up(&mut self, key: &SubjectKey) -> Subject {
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
        self.next += 1;
        // With BTF the kernel programs have already excluded kernel threads.
        let is_process = |owner: &&OwnerKey| {
            owner.task.start_ns != 0 || !process::is_kernel_thread(&self.root, owner.task.pid)
        };
        let owner = key.owner.as_ref().filter(is_process);
        Subject {
            id: self.next,
            owner: owner.map(|owner| self.owner(owner, key.uid)),
            netns: key.netns,
            cgroup: key
                .cgroup
                .map(|id| Cgroup { id, path: path.map(|path| bounds::keep(path, bounds::PATH)) }),
            container: names.container,
            pod_uid: names.pod_uid,
            unit: names.unit,
        }
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
        self.subjects.retain(|_, subject| Rc::strong_count(subject) > 1);
        self.processes.retain(|task, _| Rc::strong_count(task) > 1);
        self.sweep_at = (self.subjects.len() * 2).max(SWEEP_MIN);
    }
}

impl Identify for Enricher {
    fn identify(&mut self, key: SubjectKey) -> Rc<Subject> {
        if let Some(subject) = self.subjects.get(&key) {
            return Rc::clone(subject);
        }
        if self.subjects.len() >= self.sweep_at {
            self.sweep();
        }
        let subject = Rc::new(self.look_up(&key));
        self.subjects.insert(key, Rc::clone(&subject));
        subject
    }

    fn forget_process(&mut self, task: &Task) {
        self.processes.remove(task);
        self.subjects.retain(|key, _| key.owner.as_ref().is_none_or(|owner| *owner.task != *task));
    }
}
