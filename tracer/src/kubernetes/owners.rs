//! What manages a pod. A pod names its ReplicaSet or its Job; the Deployment or the CronJob is the owner of that.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    client::{ApiError, Client, Parts},
    objects::{Metadata, NODE, Object, REPLICA_SETS},
};
use crate::model::PodWorkload;

/// Limit of owners that are kept; with more, all are forgotten.
const MOST: usize = 4096;
/// After a refusal, the owner is not asked for again for this time.
const AGAIN: Duration = Duration::from_secs(600);

/// The owners of ReplicaSets and Jobs that were asked for.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By resource, namespace and name; `None` for an object without an owner.
    known: HashMap<(&'static str, String, String), Option<PodWorkload>>,
    /// When to ask for objects of a resource again.
    refused: HashMap<&'static str, Instant>,
}

impl Owners {
    /// What manages a pod. Without permission to read the owner's owner, the labels of the pod show a Deployment.
    ///
    /// # Errors
    /// The server does not answer now: the answer would be another one later.
    pub(super) async fn workload(
        &mut self,
        pod: &Metadata,
        client: &mut Client,
    ) -> Result<Option<PodWorkload>, ApiError> {
        let Some(controller) = pod.controller().filter(|controller| controller.kind != NODE) else {
            return Ok(None);
        };
        let direct = controller.workload();
        let Some((group, resource)) = controller.managed() else { return Ok(Some(direct)) };
        let owner = self.owner(group, resource, &pod.namespace, &direct.name, client).await?;
        Ok(Some(match owner {
            Some(Some(owner)) => owner,
            Some(None) => direct,
            None if resource == REPLICA_SETS => pod.deployment_of(&direct.name).unwrap_or(direct),
            None => direct,
        }))
    }

    /// The owner of an object; `None` if sockstate cannot know it.
    async fn owner(
        &mut self,
        group: &'static str,
        resource: &'static str,
        namespace: &str,
        name: &str,
        client: &mut Client,
    ) -> Result<Option<Option<PodWorkload>>, ApiError> {
        let key = (resource, namespace.to_owned(), name.to_owned());
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(known.clone()));
        }
        if self.refused.get(resource).is_some_and(|again| Instant::now() < *again)
            || !is_name(namespace)
            || !is_name(name)
        {
            return Ok(None);
        }
        let path = format!("/apis/{group}/namespaces/{namespace}/{resource}/{name}");
        match client.object::<Object>(&path, Parts::Metadata).await {
            Ok(object) => {
                let owner = object.metadata.controller().map(|owner| owner.workload());
                if self.known.len() >= MOST {
                    self.known.clear();
                }
                self.known.insert(key, owner.clone());
                Ok(Some(owner))
            }
            Err(ApiError::Status { code: 404, .. }) => Ok(None),
            Err(error) if error.is_refusal() => {
                self.refused.insert(resource, Instant::now() + AGAIN);
                message!(info: "cannot read the owners of {resource}: {error}; see docs/kubernetes.md");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the text is a part of a path as it is.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(is_part)
}
