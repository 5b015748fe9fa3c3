//! The pods of this node: what manages them, and their labels.

use std::collections::HashMap;

use super::{
    client::{ApiError, Client, Parts},
    objects::{Metadata, Object},
    owners::Owners,
    settings::KubernetesSettings,
    watch::{Objects, Query},
};
use crate::{
    enrich::{KnownPods, MOST_PODS},
    model::PodFacts,
};

/// Pods of one page. Their metadata has some kilobytes each.
const PAGE: usize = 500;

pub(super) struct NodePods {
    client: Client,
    owners: Owners,
    pods: KnownPods,
    /// The labels that records have.
    labels: Vec<String>,
}

impl NodePods {
    pub(super) fn new(settings: &KubernetesSettings, pods: KnownPods) -> Self {
        let client = Client::new(settings.clone());
        Self { client, owners: Owners::default(), pods, labels: settings.labels.clone() }
    }

    pub(super) fn query(node: &str) -> Query {
        Query {
            path: "/api/v1/pods",
            selector: Some(format!("fieldSelector=spec.nodeName%3D{node}")),
            parts: Parts::Metadata,
            page: PAGE,
            most: MOST_PODS,
            name: format!("the pods of {node}"),
        }
    }

    async fn facts(&mut self, pod: &Metadata) -> Result<PodFacts, ApiError> {
        let workload = self.owners.workload(pod, &mut self.client).await?;
        let wanted = pod.labels.iter().filter(|(name, _)| is_allowed(&self.labels, name));
        let labels = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
        let (name, namespace) = (pod.name.clone(), pod.namespace.clone());
        Ok(PodFacts { name, namespace, workload, labels }.bounded())
    }
}

impl Objects for NodePods {
    async fn replace(&mut self, objects: Vec<Object>) -> Result<(), ApiError> {
        let mut found = HashMap::with_capacity(objects.len());
        for Object { metadata, .. } in &objects {
            let facts = self.facts(metadata).await?;
            found.insert(metadata.cgroup_uid().to_owned(), facts);
        }
        self.pods.replace(found);
        Ok(())
    }

    async fn set(&mut self, object: &Object) -> Result<(), ApiError> {
        let uid = object.metadata.cgroup_uid();
        if self.pods.find(uid).is_some() || self.pods.count() < MOST_PODS {
            let facts = self.facts(&object.metadata).await?;
            self.pods.set(uid, facts);
        }
        Ok(())
    }

    fn remove(&mut self, object: &Object) {
        self.pods.remove(object.metadata.cgroup_uid());
    }
}

/// Whether records have the label.
fn is_allowed(allowed: &[String], label: &str) -> bool {
    allowed.iter().any(|allowed| match allowed.strip_suffix('*') {
        Some(beginning) => label.starts_with(beginning),
        None => label == allowed,
    })
}
