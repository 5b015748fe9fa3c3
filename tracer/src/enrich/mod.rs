//! From keys to names: processes, cgroups, containers. Reads below a root that tests can replace; never writes.

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
use container::Place;
pub use holders::Holders;
pub use netns::{Netns, NetnsError, netns_at};
pub use process::is_same;
pub use timens::TimeOffsets;

use crate::model::{Cgroup, Identify, Owner, OwnerKey, Subject, SubjectKey, Task, bounds};

/// Looks keys up, and remembers every answer as long as a connection uses it.
pub struct Enricher {
    root: PathBuf,
    cmdline: bool,
    cgroups: Option<Cgroups>,
    subjects: HashMap<SubjectKey, Rc<Subject>, FxBuildHasher>,
    /// What was read while the process lived: it may close its sockets when it can no longer be read.
    processes: HashMap<Rc<Task>, process::Details, FxBuildHasher>,
    sweep_at: usize,
    next: u64,
}

/// Subjects that nobody uses are forgotten when there are twice as many as after the last time, but not below this.
const SWEEP_MIN: usize = 4096;

impl Enricher {
    /// Reads processes below `root`/proc; command lines only if asked: they hold secrets.
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

    /// Whether this process has not ended. Where /proc does not show all processes, that is not known, and it has not.
    #[must_use]
    pub fn lives(&self, task: &Task) -> bool {
        !process::shows_all(&self.root) || process::lives(&self.root, task)
    }

    fn look_up(&mut self, key: &SubjectKey) -> Subject {
        let path = match (&mut self.cgroups, key.cgroup) {
            (Some(cgroups), Some(id)) => cgroups.path(id),
            _ => None,
        };
        let mut place = path.as_deref().map(Place::of).unwrap_or_default();
        if place.container.is_none()
            && let Some(owner) = &key.owner
        {
            // With cgroup v1 the containers are in the other hierarchies, which sockets do not name.
            place = place.or(process::place(&self.root, &owner.task));
        }
        self.next += 1;
        // With BTF the kernel's programs have looked at the task itself.
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
            container: place.container,
            pod_uid: place.pod_uid,
            unit: place.unit,
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

    /// Forgets what no connection uses any more.
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

    fn read_again(&mut self, task: &Task) {
        self.processes.remove(task);
        self.subjects.retain(|key, _| key.owner.as_ref().is_none_or(|owner| *owner.task != *task));
    }
}
