//! What the API server of Kubernetes has said about pods. A thread that talks to it writes here, and the main thread reads.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::model::{Pod, PodFacts, bounds};

/// Limit of pods. A node has some hundred.
pub const MOST_PODS: usize = 4096;

/// Gets the uid of a pod and its new facts, or `None` at its end.
type Listener = Box<dyn Fn(&str, Option<&PodFacts>) + Send + Sync>;

/// The facts about the pods of this node, by the uids that the paths of their cgroups have.
#[derive(Clone, Default)]
pub struct KnownPods(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Grows with each change, so that a reader sees without the lock that nothing has changed.
    version: AtomicU64,
    pods: Mutex<HashMap<String, Arc<PodFacts>>>,
    listener: Option<Listener>,
}

impl KnownPods {
    /// Also passes each change on.
    #[must_use]
    pub fn passing_on(listener: impl Fn(&str, Option<&PodFacts>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { listener: Some(Box::new(listener)), ..Shared::default() }))
    }

    /// Replaces all facts.
    pub fn replace(&self, pods: HashMap<String, PodFacts>) {
        let gone: Vec<String> = self.lock().keys().filter(|uid| !pods.contains_key(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.remove(uid));
        pods.into_iter().for_each(|(uid, facts)| self.set(&uid, facts));
    }

    /// Sets the facts about one pod, if there is room for it.
    pub fn set(&self, uid: &str, facts: PodFacts) {
        let facts = Arc::new(facts);
        let mut pods = self.lock();
        let known = pods.get(uid);
        if known == Some(&facts) || uid.len() > bounds::NAME || known.is_none() && pods.len() >= MOST_PODS {
            return;
        }
        pods.insert(uid.to_owned(), Arc::clone(&facts));
        drop(pods);
        self.0.version.fetch_add(1, Ordering::Release);
        self.pass_on(uid, Some(&facts));
    }

    /// Forgets a pod. Its connections keep what they have.
    pub fn remove(&self, uid: &str) {
        if self.lock().remove(uid).is_some() {
            self.pass_on(uid, None);
        }
    }

    fn pass_on(&self, uid: &str, facts: Option<&PodFacts>) {
        if let Some(listener) = &self.0.listener {
            listener(uid, facts);
        }
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
        enrich::{Enricher, KnownCluster},
        model::{Identify, OwnerKey, OwnerSource, PodWorkload, SubjectKey, Task},
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

    #[test]
    fn changes_are_passed_on_once() {
        let (sender, changes) = std::sync::mpsc::channel();
        let known = KnownPods::passing_on(move |uid, facts| {
            let label = facts.map(|facts| facts.labels["app"].clone());
            sender.send((uid.to_owned(), label)).expect("the test");
        });
        let change = |uid: &str, label: Option<&str>| (uid.to_owned(), label.map(str::to_owned));
        known.replace([("a".to_owned(), facts("Job", "1"))].into());
        known.set("a", facts("Job", "1"));
        known.set("a", facts("Job", "2"));
        known.replace([("b".to_owned(), facts("Job", "3"))].into());
        known.remove("a");
        let expected =
            [change("a", Some("1")), change("a", Some("2")), change("a", None), change("b", Some("3"))];
        assert_eq!(changes.try_iter().collect::<Vec<_>>(), expected);
        for uid in (0..=MOST_PODS).map(|number| number.to_string()) {
            known.set(&uid, facts("Job", "x"));
        }
        known.set(&"u".repeat(bounds::NAME + 1), facts("Job", "x"));
        assert_eq!(known.count(), MOST_PODS);
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
        enricher.know_cluster(KnownCluster { pods: known.clone(), ..KnownCluster::default() });
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
