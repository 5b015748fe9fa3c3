//! The parts of the API server's objects that are read. They are the metadata of objects only.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::model::PodWorkload;

/// The metadata of a static pod has the uid that its cgroup has.
const STATIC_UID: &str = "kubernetes.io/config.hash";
/// A ReplicaSet of a Deployment has the name of the Deployment and this label of its pods.
const TEMPLATE: &str = "pod-template-hash";

/// A page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct List {
    pub(super) metadata: ListMetadata,
    #[serde(deserialize_with = "or_default")]
    pub(super) items: Vec<Object>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
    pub(super) r#continue: String,
}

/// A pod, a ReplicaSet, a Job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    /// Only of an error.
    code: u16,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct OwnerReference {
    api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    controller: bool,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct WatchEvent {
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) object: Object,
}

/// The server writes null for some empty lists.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

impl Object {
    /// The status code and the message of an error.
    pub(super) fn error(&self) -> (u16, &str) {
        (self.code, &self.message)
    }
}

impl Metadata {
    /// The uid in the path of the pod's cgroup.
    pub(super) fn cgroup_uid(&self) -> &str {
        self.annotations.get(STATIC_UID).filter(|uid| !uid.is_empty()).unwrap_or(&self.uid)
    }

    /// The object that manages this one.
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// The Deployment of a pod whose controller is this ReplicaSet, by their names.
    pub(super) fn deployment_of(&self, replica_set: &str) -> Option<PodWorkload> {
        let hash = self.labels.get(TEMPLATE).filter(|hash| !hash.is_empty())?;
        let name = replica_set.strip_suffix(hash.as_str())?.strip_suffix('-')?;
        Some(PodWorkload { kind: "Deployment".to_owned(), name: name.to_owned() })
    }
}

impl OwnerReference {
    pub(super) fn workload(&self) -> PodWorkload {
        PodWorkload { kind: self.kind.clone(), name: self.name.clone() }
    }

    /// The path of the resources of this kind, if a controller of theirs is the workload.
    pub(super) fn managed(&self) -> Option<(&'static str, &'static str)> {
        match (self.api_version.as_str(), self.kind.as_str()) {
            ("apps/v1", "ReplicaSet") => Some(("apps/v1", "replicasets")),
            ("batch/v1", "Job") => Some(("batch/v1", "jobs")),
            _ => None,
        }
    }
}
