//! What Kubernetes has at a remote address.

use serde::{Deserialize, Serialize};

use super::{PodWorkload, bounds};

/// The kind of object that has an address.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    Pod,
    /// The address of a service stands for its pods.
    Service,
}

impl PeerKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Pod, Self::Service];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Service => "service",
        }
    }
}

/// The pod or the service at the other end of a connection, as the API server says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ClusterPeer {
    pub kind: PeerKind,
    pub namespace: String,
    pub name: String,
    /// What manages the pod.
    pub workload: Option<PodWorkload>,
}

impl ClusterPeer {
    /// `None` if a text is longer than a record may have. The names of Kubernetes have at most 253 bytes.
    #[must_use]
    pub fn checked(self) -> Option<Self> {
        let workload = self.workload.iter().flat_map(|PodWorkload { kind, name }| [kind, name]);
        let are_short =
            [&self.namespace, &self.name].into_iter().chain(workload).all(|text| text.len() <= bounds::NAME);
        are_short.then_some(self)
    }
}
