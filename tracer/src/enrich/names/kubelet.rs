//! The directories in which the kubelet keeps the logs of containers: /var/log/pods/NAMESPACE_POD_UID/CONTAINER, and links
//! /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log. Only their names are read.

use std::{
    collections::HashMap,
    fs::{self, DirEntry},
    path::{Path, PathBuf},
};

use super::{WorkloadNames, is_container_id, stamp::Stamp};

/// Limit of entries that are read of a directory. A node has some hundred pods.
const MOST_ENTRIES: usize = 32_768;

/// A pod, as the name of its directory says.
struct PodDirectory {
    name: String,
    namespace: String,
    path: PathBuf,
}

pub(super) struct Kubelet {
    /// By uid.
    pods: Listing<PodDirectory>,
    /// Names of containers, by id.
    links: Listing<String>,
}

impl Kubelet {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            pods: Listing::new(root.join("var/log/pods"), pod_directory),
            links: Listing::new(root.join("var/log/containers"), link),
        }
    }

    /// Name and namespace of the pod.
    pub(super) fn pod(&mut self, uid: &str) -> Option<WorkloadNames> {
        let PodDirectory { name, namespace, .. } = self.pods.find(uid)?;
        let (pod, namespace) = (Some(name.clone()), Some(namespace.clone()));
        Some(WorkloadNames { pod, namespace, ..WorkloadNames::default() })
    }

    /// The name of a container of the pod: by the link with its id, or as the only one that the pod has had so far. The kubelet
    /// makes the directory of a container before it starts the container.
    pub(super) fn container(&mut self, uid: &str, id: &str) -> Option<String> {
        if let Some(name) = self.links.find(id) {
            return Some(name.clone());
        }
        let mut entries = fs::read_dir(&self.pods.find(uid)?.path).ok()?.flatten();
        let is_directory = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let mut containers = entries.by_ref().filter(is_directory);
        let only = containers.next()?;
        containers.next().is_none().then(|| only.file_name().into_string().ok())?
    }
}

/// The entries of a directory, by an id in their names.
struct Listing<T> {
    path: PathBuf,
    parse: fn(&DirEntry) -> Option<(String, T)>,
    /// The directory just before it was read.
    read: Option<Stamp>,
    entries: HashMap<String, T>,
}

impl<T> Listing<T> {
    fn new(path: PathBuf, parse: fn(&DirEntry) -> Option<(String, T)>) -> Self {
        Self { path, parse, read: None, entries: HashMap::new() }
    }

    /// The entry with this id. The directory is read again for an id that is not known.
    fn find(&mut self, id: &str) -> Option<&T> {
        if !self.entries.contains_key(id) {
            let now = Stamp::of(&self.path)?;
            if now.is_news(self.read) {
                let entries = fs::read_dir(&self.path).ok()?.flatten().take(MOST_ENTRIES);
                self.entries = entries.filter_map(|entry| (self.parse)(&entry)).collect();
                self.read = Some(now);
            }
        }
        self.entries.get(id)
    }
}

fn pod_directory(entry: &DirEntry) -> Option<(String, PodDirectory)> {
    let name = entry.file_name().into_string().ok()?;
    let (uid, name, namespace) = parse_pod(&name)?;
    Some((
        uid.to_owned(),
        PodDirectory { name: name.to_owned(), namespace: namespace.to_owned(), path: entry.path() },
    ))
}

/// Uid, name and namespace: `NAMESPACE_POD_UID`. None of them can have an underscore.
fn parse_pod(directory: &str) -> Option<(&str, &str, &str)> {
    match directory.split('_').collect::<Vec<_>>()[..] {
        [namespace, name, uid] if [namespace, name, uid].iter().all(|part| !part.is_empty()) => {
            Some((uid, name, namespace))
        }
        _ => None,
    }
}

fn link(entry: &DirEntry) -> Option<(String, String)> {
    let name = entry.file_name().into_string().ok()?;
    let (id, container) = parse_link(&name)?;
    Some((id.to_owned(), container.to_owned()))
}

/// Id and name of the container: `POD_NAMESPACE_CONTAINER-ID.log`.
fn parse_link(name: &str) -> Option<(&str, &str)> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let [_, _, container] = names.split('_').collect::<Vec<_>>()[..] else { return None };
    (is_container_id(id) && !container.is_empty()).then_some((id, container))
}

/// Fuzz target: every part must be in the name.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(name: &str) {
    if let Some((uid, pod, namespace)) = parse_pod(name) {
        assert_eq!(format!("{namespace}_{pod}_{uid}"), name);
    }
    if let Some((id, container)) = parse_link(name) {
        assert!(name.ends_with(&format!("_{container}-{id}.log")));
    }
}
