//! The parts of the API server's objects that are read: the metadata, and the addresses of pods and services.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::model::PodWorkload;

/// The controller of a static pod is its node.
pub(super) const NODE: &str = "Node";
pub(super) const REPLICA_SETS: &str = "replicasets";
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

/// A pod, a service, a ReplicaSet, a Job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
    #[serde(deserialize_with = "status_or_default")]
    status: Status,
    /// Only of an error.
    code: u16,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    /// The pod has the addresses of its node.
    host_network: bool,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "or_default")]
    external_ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pod_ips: Vec<Address>,
    load_balancer: LoadBalancer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    #[serde(deserialize_with = "or_default")]
    ingress: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    ip: String,
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
    annotations: Annotations,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<OwnerReference>,
}

/// The annotations of one object may have 256 KiB: the others are not kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    /// The metadata of a static pod has the uid that its cgroup has.
    #[serde(rename = "kubernetes.io/config.hash")]
    static_uid: String,
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

/// An error is an object, too, and has a text as its status.
fn status_or_default<'de, D: Deserializer<'de>>(value: D) -> Result<Status, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Status(Box<Status>),
        Other(IgnoredAny),
    }
    Ok(match Any::deserialize(value)? {
        Any::Status(status) => *status,
        Any::Other(_) => Status::default(),
    })
}

/// The addresses in these texts. A service without an address has `None` as a text.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = texts.into_iter().filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

impl Object {
    /// The addresses of a pod. One that has ended has none, because another pod may have its address; one in the network of
    /// its node has none of its own.
    pub(super) fn pod_addresses(&self) -> Vec<IpAddr> {
        let Self { spec, status, .. } = self;
        if spec.host_network || ["Succeeded", "Failed"].contains(&status.phase.as_str()) {
            return Vec::new();
        }
        addresses(status.pod_ips.iter().map(|address| &address.ip).chain([&status.pod_ip]))
    }

    /// The addresses by which a service is reached, in the cluster and from outside.
    pub(super) fn service_addresses(&self) -> Vec<IpAddr> {
        let Self { spec, status, .. } = self;
        let balanced = status.load_balancer.ingress.iter().map(|address| &address.ip);
        addresses(spec.cluster_ips.iter().chain([&spec.cluster_ip]).chain(&spec.external_ips).chain(balanced))
    }

    /// The status code and the message of an error.
    pub(super) fn error(&self) -> (u16, &str) {
        (self.code, &self.message)
    }
}

impl Metadata {
    /// The uid in the path of the pod's cgroup.
    pub(super) fn cgroup_uid(&self) -> &str {
        let static_uid = &self.annotations.static_uid;
        if static_uid.is_empty() { &self.uid } else { static_uid }
    }

    /// The object that manages this one.
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// What manages the pod, as far as its own metadata shows it.
    pub(super) fn workload(&self) -> Option<PodWorkload> {
        let controller = self.controller().filter(|controller| controller.kind != NODE)?;
        let deployment = match controller.managed() {
            Some((_, REPLICA_SETS)) => self.deployment_of(&controller.name),
            _ => None,
        };
        deployment.or_else(|| Some(controller.workload()))
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
            ("apps/v1", "ReplicaSet") => Some(("apps/v1", REPLICA_SETS)),
            ("batch/v1", "Job") => Some(("batch/v1", "jobs")),
            _ => None,
        }
    }
}
