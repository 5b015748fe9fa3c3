//! What the API server of Kubernetes has said about pods. A thread that talks to it writes here, and the main thread reads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::model::{Pod, PodWorkload};

/// The facts about one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    pub name: String,
    pub namespace: String,
    /// What manages the pod.
    pub workload: Option<PodWorkload>,
    /// The labels that the configuration allows.
    pub labels: BTreeMap<String, String>,
}

/// The facts about the pods of this node, by the uids that the paths of their cgroups have.
#[derive(Clone, Debug, Default)]
pub struct KnownPods(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Grows with each change, so that a reader sees without the lock that nothing has changed.
    version: AtomicU64,
    pods: Mutex<HashMap<String, Arc<PodFacts>>>,
}

impl KnownPods {
    /// Replaces all facts.
    pub fn replace(&self, pods: HashMap<String, PodFacts>) {
        let pods: HashMap<_, _> = pods.into_iter().map(|(uid, facts)| (uid, Arc::new(facts))).collect();
        *self.lock() = pods;
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// Sets the facts about one pod.
    pub fn set(&self, uid: &str, facts: PodFacts) {
        let mut pods = self.lock();
        if pods.get(uid).is_none_or(|known| **known != facts) {
            pods.insert(uid.to_owned(), Arc::new(facts));
            self.0.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Forgets a pod. Its connections keep what they have.
    pub fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// The facts about the pod.
    #[must_use]
    pub fn find(&self, uid: &str) -> Option<Arc<PodFacts>> {
        self.lock().get(uid).cloned()
    }

    /// How many pods there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// A number that changes when facts are set.
    pub(super) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Adds the facts to what the cgroup and the directories of the node have named.
    pub(super) fn complete(&self, pod: &mut Pod) {
        let Some(facts) = self.find(&pod.uid) else { return };
        pod.name.get_or_insert_with(|| facts.name.clone());
        pod.namespace.get_or_insert_with(|| facts.namespace.clone());
        pod.workload.clone_from(&facts.workload);
        pod.labels.clone_from(&facts.labels);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<PodFacts>>> {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, rc::Rc};

    use super::*;
    use crate::{
        enrich::Enricher,
        model::{Identify, OwnerKey, OwnerSource, SubjectKey, Task},
    };

    const POD: &str = "abcd1234-12ab-34cd-56ef-0123456789ab";

    fn facts(kind: &str, label: &str) -> PodFacts {
        PodFacts {
            name: "web-1".into(),
            namespace: "shop".into(),
            workload: Some(PodWorkload { kind: kind.into(), name: "web".into() }),
            labels: [("app".to_owned(), label.to_owned())].into(),
        }
    }

    /// A subject with other facts is another subject, because formats keep texts by its number.
    #[test]
    fn later_connections_have_new_facts() {
        let directory = tempfile::tempdir().expect("directory");
        let root = directory.path();
        fs::create_dir_all(root.join("proc/42")).expect("directory");
        fs::write(root.join("proc/42/cgroup"), format!("0::/kubepods/pod{POD}\n")).expect("file");
        let stat = "42 (app) S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 5000 0 0\n";
        fs::write(root.join("proc/42/stat"), stat).expect("file");
        let known = KnownPods::default();
        let mut enricher = Enricher::new(root.to_owned(), false);
        enricher.know_pods(known.clone());
        let task = Task { pid: 42, exec_id: 1, start_ns: 0, comm: *b"app\0\0\0\0\0\0\0\0\0\0\0\0\0" };
        let owner = Some(OwnerKey { task: task.into(), source: OwnerSource::Connect });
        let key = SubjectKey { owner, uid: None, netns: None, cgroup: None };
        let mut identify = || enricher.identify(key.clone());
        let first = identify();
        assert_eq!(first.pod, Some(Pod::new(POD.into())));
        known.set(POD, facts("ReplicaSet", "a"));
        let second = identify();
        let pod = second.pod.as_ref().expect("a pod");
        assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-1"), Some("shop")));
        assert_eq!(
            (&pod.workload, &pod.labels["app"]),
            (&facts("ReplicaSet", "a").workload, &"a".to_owned())
        );
        assert_ne!(second.id, first.id);
        // Other pods, the same facts and the end of the pod change nothing.
        known.set("another", facts("Job", "b"));
        known.set(POD, facts("ReplicaSet", "a"));
        known.remove(POD);
        known.remove("another");
        assert!(Rc::ptr_eq(&identify(), &second));
        known.replace([(POD.to_owned(), facts("Deployment", "c"))].into());
        let third = identify();
        assert_eq!(third.pod.as_ref().map(|pod| &pod.labels["app"]), Some(&"c".to_owned()));
        assert_ne!(third.id, second.id);
    }
}
