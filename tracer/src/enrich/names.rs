//! Names of pods and containers by their ids: from the kubelet's directories of logs, and from the state files of container
//! runtimes. No service is asked. Every text is one that a user of the cluster may choose.

mod kubelet;
mod runtimes;
mod stamp;
mod thread;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use kubelet::Kubelet;
use runtimes::Runtimes;
pub(super) use thread::NamesThread;

use super::container::CgroupNames;
use crate::model::{Container, Pod, bounds};

/// The ids of a workload, by which its names are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WorkloadIds {
    container: Option<String>,
    pod: Option<String>,
    /// The container is one of the pod ([`CgroupNames::is_of_pod`]).
    is_of_pod: bool,
}

impl WorkloadIds {
    /// `None` if the workload has neither a pod nor a container with a name of its own.
    pub(super) fn of(names: &CgroupNames) -> Option<Self> {
        let has_id = |container: &&Container| is_container_id(&container.id);
        let container = names.container.as_ref().filter(has_id).map(|container| container.id.clone());
        let pod = names.pod.as_ref().map(|pod| pod.uid.clone());
        (container.is_some() || pod.is_some()).then_some(Self { container, pod, is_of_pod: names.is_of_pod })
    }
}

/// Whether `id` may be a part of a path: container runtimes make ids of 64 hexadecimal digits.
fn is_container_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What was found for a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WorkloadNames {
    container: Option<String>,
    image: Option<String>,
    pod: Option<String>,
    namespace: Option<String>,
}

impl WorkloadNames {
    /// Adds the names to what the cgroup has named.
    pub(super) fn add_to(&self, container: &mut Option<Container>, pod: &mut Option<Pod>) {
        let add = |name: &mut Option<String>, found: &Option<String>| {
            if found.is_some() {
                name.clone_from(found);
            }
        };
        if let Some(Container { name, image, .. }) = container {
            add(name, &self.container);
            add(image, &self.image);
        }
        if let Some(Pod { name, namespace, .. }) = pod {
            add(name, &self.pod);
            add(namespace, &self.namespace);
        }
    }

    /// Whether nothing more can be found for a workload with these ids.
    fn is_complete(&self, ids: &WorkloadIds) -> bool {
        (ids.container.is_none() || (self.container.is_some() && self.image.is_some()))
            && (ids.pod.is_none() || self.pod.is_some())
    }

    fn with_limits(self) -> Self {
        let name = |text: Option<String>| text.map(|text| bounds::keep(text, bounds::NAME));
        Self {
            container: name(self.container),
            image: self.image.map(|image| bounds::keep(image, bounds::IMAGE)),
            pod: name(self.pod),
            namespace: name(self.namespace),
        }
    }
}

/// Reads the names. A directory or a list is read again only if it has changed.
pub(super) struct Catalog {
    hosts: Vec<Host>,
}

/// The files below one root.
struct Host {
    kubelet: Kubelet,
    runtimes: Runtimes,
}

impl Catalog {
    /// The files below `root`. In a container with the host's pid namespace, the host's files are below /proc/1/root.
    pub(super) fn new(root: &Path) -> Self {
        let mut roots = vec![root.to_owned()];
        let host = root.join("proc/1/root");
        if identity(&host).is_some_and(|host| Some(host) != identity(root)) {
            roots.push(host);
        }
        let host = |root: PathBuf| Host { kubelet: Kubelet::new(&root), runtimes: Runtimes::new(&root) };
        Self { hosts: roots.into_iter().map(host).collect() }
    }

    pub(super) fn find(&mut self, ids: &WorkloadIds) -> WorkloadNames {
        let mut found = WorkloadNames::default();
        for host in &mut self.hosts {
            host.find(ids, &mut found);
            if found.is_complete(ids) {
                break;
            }
        }
        found.with_limits()
    }

    /// Adds what is found to what a cgroup has named.
    pub(super) fn complete(&mut self, names: &mut CgroupNames) {
        if let Some(ids) = WorkloadIds::of(names) {
            self.find(&ids).add_to(&mut names.container, &mut names.pod);
        }
    }
}

/// The device and inode of a directory.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Host {
    fn find(&mut self, ids: &WorkloadIds, found: &mut WorkloadNames) {
        let mut may_be_only_one = ids.is_of_pod;
        if let Some(id) = &ids.container
            && let Some(state) = self.runtimes.find(id)
            && state.is_of_pod(ids.pod.as_deref())
        {
            // The kubelet's directories do not name the container that holds the namespaces of a pod.
            may_be_only_one &= !state.is_sandbox;
            fill(found, state.names);
        }
        let Some(uid) = &ids.pod else { return };
        if let Some(pod) = self.kubelet.pod(uid) {
            fill(found, pod);
        }
        if let Some(id) = &ids.container
            && found.container.is_none()
            && may_be_only_one
        {
            found.container = self.kubelet.container(uid, id);
        }
    }
}

/// Adds what is not known yet.
fn fill(names: &mut WorkloadNames, other: WorkloadNames) {
    let WorkloadNames { container, image, pod, namespace } = other;
    let either = |known: &mut Option<String>, other: Option<String>| {
        *known = known.take().or(other);
    };
    either(&mut names.container, container);
    either(&mut names.image, image);
    either(&mut names.pod, pod);
    either(&mut names.namespace, namespace);
}

/// Fuzz target: the names of directories and the state files of all runtimes.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for name in text.lines() {
        kubelet::fuzz(name);
    }
    runtimes::fuzz(bytes);
}

#[cfg(test)]
mod tests;
