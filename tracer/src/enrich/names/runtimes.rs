//! The state files of container runtimes. Only the wanted keys are kept: such a file may also have secrets, as the
//! environment of the container.
//!
//! - containerd: the runtime specification of each task, with annotations of its CRI plugin or of nerdctl
//! - docker: the configuration of each container
//! - podman and CRI-O: the lists of containers/storage

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{WorkloadNames, stamp::Stamp};
use crate::files;

/// Limit of the size of a file about one container.
const MOST_OF_CONTAINER: u64 = 4 << 20;
/// Limit of the size of a list of containers.
const MOST_OF_LIST: u64 = 16 << 20;
/// Limit of the namespaces of containerd that are looked through.
const MOST_NAMESPACES: usize = 64;

/// State directories of containerd: its own, that of k3s and RKE2, and that of MicroK8s.
const CONTAINERD: [&str; 3] =
    ["run/containerd", "run/k3s/containerd", "var/snap/microk8s/common/run/containerd"];
/// Lists of containers/storage, for each driver. Containers that end with their process (`podman run --rm`) are in a second
/// list.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// What a runtime knows about a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerState {
    pub(super) names: WorkloadNames,
    /// The uid of its pod, if the runtime has it.
    pod_uid: Option<String>,
    /// The container holds the namespaces of a pod.
    pub(super) is_sandbox: bool,
}

impl ContainerState {
    /// False if the runtime has another pod than the cgroup.
    pub(super) fn is_of_pod(&self, uid: Option<&str>) -> bool {
        match (&self.pod_uid, uid) {
            (Some(own), Some(uid)) => own == uid,
            _ => true,
        }
    }

    /// With the names from the kubelet's labels or annotations.
    fn of_kubernetes(container: Option<String>, pod: [Option<String>; 3], is_sandbox: bool) -> Self {
        let [pod, namespace, pod_uid] = pod;
        let container = container.filter(|_| !is_sandbox);
        Self { names: WorkloadNames { container, image: None, pod, namespace }, pod_uid, is_sandbox }
    }
}

pub(super) struct Runtimes {
    root: PathBuf,
    stored: Vec<StoredList>,
}

impl Runtimes {
    pub(super) fn new(root: &Path) -> Self {
        let storage = root.join("var/lib/containers/storage");
        let lists = DRIVERS.iter().flat_map(|driver| LISTS.map(|list| format!("{driver}-containers/{list}")));
        Self {
            root: root.to_owned(),
            stored: lists.map(|list| StoredList::new(storage.join(list))).collect(),
        }
    }

    /// What the runtime of this container knows. `id` is a part of paths.
    pub(super) fn find(&mut self, id: &str) -> Option<ContainerState> {
        let root = &self.root;
        let of_containerd = || CONTAINERD.iter().find_map(|state| in_containerd(&root.join(state), id));
        let of_docker = || {
            let path = root.join("var/lib/docker/containers").join(id).join("config.v2.json");
            docker(&files::read(&path, MOST_OF_CONTAINER).ok()?)
        };
        of_docker().or_else(of_containerd).or_else(|| self.stored.iter_mut().find_map(|list| list.find(id)))
    }
}

fn in_containerd(state: &Path, id: &str) -> Option<ContainerState> {
    let namespaces = fs::read_dir(state.join("io.containerd.runtime.v2.task")).ok()?.flatten();
    namespaces.take(MOST_NAMESPACES).find_map(|namespace| {
        let path = namespace.path().join(id).join("config.json");
        specification(&files::read(&path, MOST_OF_CONTAINER).ok()?)
    })
}

/// A text of the JSON; an empty one counts as absent.
fn known(text: &mut HashMap<String, String>, key: &str) -> Option<String> {
    text.remove(key).filter(|text| !text.is_empty())
}

/// A runtime specification (config.json of a bundle).
fn specification(bytes: &[u8]) -> Option<ContainerState> {
    #[derive(Deserialize)]
    struct Specification {
        annotations: HashMap<String, String>,
    }
    let mut all = serde_json::from_slice::<Specification>(bytes).ok()?.annotations;
    let mut cri = |key: &str| known(&mut all, &format!("io.kubernetes.cri.{key}"));
    let is_sandbox = cri("container-type").as_deref() == Some("sandbox");
    let pod = [cri("sandbox-name"), cri("sandbox-namespace"), cri("sandbox-uid")];
    let (container, image) = (cri("container-name"), cri("image-name"));
    let container = container.or_else(|| known(&mut all, "nerdctl/name"));
    let mut state = ContainerState::of_kubernetes(container, pod, is_sandbox);
    state.names.image = image;
    (state != ContainerState::default()).then_some(state)
}

/// docker's config.v2.json.
fn docker(bytes: &[u8]) -> Option<ContainerState> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Docker {
        name: String,
        config: Config,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        image: Option<String>,
        labels: Option<HashMap<String, String>>,
    }
    let Docker { name, config } = serde_json::from_slice(bytes).ok()?;
    let mut labels = config.labels.unwrap_or_default();
    let mut label = |key: &str| known(&mut labels, &format!("io.kubernetes.{key}"));
    let is_sandbox = label("docker.type").as_deref() == Some("podsandbox");
    let pod = [label("pod.name"), label("pod.namespace"), label("pod.uid")];
    let own = name.trim_start_matches('/');
    let container = label("container.name").or_else(|| (!own.is_empty()).then(|| own.to_owned()));
    let mut state = ContainerState::of_kubernetes(container, pod, is_sandbox);
    state.names.image = config.image.filter(|image| !image.is_empty());
    Some(state)
}

/// A list of containers/storage.
struct StoredList {
    path: PathBuf,
    /// The file just before it was read.
    read: Option<Stamp>,
    containers: HashMap<String, ContainerState>,
}

impl StoredList {
    fn new(path: PathBuf) -> Self {
        Self { path, read: None, containers: HashMap::new() }
    }

    /// The list is read again for a container that is not known.
    fn find(&mut self, id: &str) -> Option<ContainerState> {
        if !self.containers.contains_key(id) {
            let now = Stamp::of(&self.path)?;
            if now.is_news(self.read) {
                let bytes = files::read(&self.path, MOST_OF_LIST);
                self.containers = bytes.ok().and_then(|bytes| stored(&bytes)).unwrap_or_default();
                self.read = Some(now);
            }
        }
        self.containers.get(id).cloned()
    }
}

/// containers.json of containers/storage. podman and CRI-O write their metadata as a text with JSON.
fn stored(bytes: &[u8]) -> Option<HashMap<String, ContainerState>> {
    #[derive(Deserialize)]
    struct Stored {
        id: String,
        names: Option<Vec<String>>,
        #[serde(default)]
        metadata: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct Metadata {
        image_name: String,
        pod: bool,
    }
    let all: Vec<Stored> = serde_json::from_slice(bytes).ok()?;
    let state = |Stored { id, names, metadata }: Stored| {
        let Metadata { image_name, pod } = serde_json::from_str(&metadata).unwrap_or_default();
        let name = names.into_iter().flatten().next();
        let mut state = name.map(|name| named(name, pod)).unwrap_or_default();
        state.names.image = (!image_name.is_empty()).then_some(image_name);
        (id, state)
    };
    Some(all.into_iter().map(state).collect())
}

/// The container of this name. CRI-O's names are `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
fn named(name: String, is_sandbox: bool) -> ContainerState {
    let owned = |text: &str| Some(text.to_owned());
    match name.split('_').collect::<Vec<_>>()[..] {
        ["k8s", container, pod, namespace, uid, _] => {
            let pod = [owned(pod), owned(namespace), owned(uid)];
            ContainerState::of_kubernetes(owned(container), pod, is_sandbox || container == "POD")
        }
        _ => ContainerState::of_kubernetes(Some(name), [None, None, None], is_sandbox),
    }
}

/// Fuzz target: the names that are found must be in the file, which may have escaped them.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    let lists = stored(bytes).into_iter().flat_map(HashMap::into_values);
    for state in specification(bytes).into_iter().chain(docker(bytes)).chain(lists) {
        let WorkloadNames { container, image, pod, namespace } = state.names;
        let texts = [container, image, pod, namespace].into_iter().flatten();
        // An escape for one character (`\u00ff`) is longer than the character.
        assert!(texts.map(|text| text.len()).sum::<usize>() <= bytes.len());
    }
}
