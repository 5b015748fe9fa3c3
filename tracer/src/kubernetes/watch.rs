//! Lists and watches the pods of the node. https://kubernetes.io/docs/reference/using-api/api-concepts/ describes how:
//! a list has a version, a watch continues from it, and bookmarks advance it. If the server has forgotten the version, the
//! list is read again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::{
    back_off::{BackOff, random},
    client::{ApiError, Client},
    lines::{Line, Lines},
    objects::{List, Metadata, Object, WatchEvent},
    owners::Owners,
    settings::KubernetesSettings,
};
use crate::{
    enrich::{KnownPods, MOST_PODS},
    model::PodFacts,
};

/// Pods of one page of a list.
const PAGE: usize = 500;
/// A pod has at most 1.5 MiB in the store of the API server.
const MOST_LINE: usize = 4 << 20;
/// The server ends a watch after this time, and up to twice this time.
const WATCH: Duration = Duration::from_secs(300);
/// A server sends a bookmark about each minute. After this time without any line, the connection may be dead.
const IDLE: Duration = Duration::from_secs(150);
/// A watch that ends sooner counts as a failure, so that a server which ends each one is not asked all the time.
const SHORT: Duration = Duration::from_secs(5);

type Asked = Box<dyn FnOnce() + Send>;

pub(super) struct Watcher {
    client: Client,
    owners: Owners,
    pods: KnownPods,
    settings: KubernetesSettings,
    /// The version to watch from; without one, the list comes first.
    version: Option<String>,
    /// The server no longer has the version, so the list must be newer than what its cache may have.
    is_expired: bool,
    back_off: BackOff,
    /// Is called when the first attempt is over.
    asked: Option<Asked>,
    /// The last failure that was reported.
    reported: Option<String>,
}

impl Watcher {
    pub(super) fn new(settings: KubernetesSettings, pods: KnownPods, asked: Asked) -> Self {
        Self {
            client: Client::new(settings.clone()),
            owners: Owners::default(),
            pods,
            settings,
            version: None,
            is_expired: false,
            back_off: BackOff::default(),
            asked: Some(asked),
            reported: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let began = Instant::now();
            let result = self.list_and_watch().await;
            self.first_is_over();
            let error = match result {
                Ok(()) if began.elapsed() >= SHORT => continue,
                Ok(()) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = &error {
                self.report(error);
            }
            if error.as_ref().is_some_and(ApiError::is_about_version) {
                (self.version, self.is_expired) = (None, true);
            }
            let wait = self.back_off.wait(error.as_ref().and_then(ApiError::after));
            sleep(wait).await;
        }
    }

    fn first_is_over(&mut self) {
        if let Some(asked) = self.asked.take() {
            asked();
        }
    }

    /// Reports a failure once, until something has worked again.
    fn report(&mut self, error: &ApiError) {
        // A server forgets versions after some minutes.
        if error.is_gone() {
            return;
        }
        let text = error.to_string();
        if self.reported.as_ref() != Some(&text) {
            message!(
                "cannot read the pods of {} from the API server: {text}; trying again",
                self.settings.node
            );
            self.reported = Some(text);
        }
    }

    fn works(&mut self) {
        self.back_off.reset();
        if self.reported.take().is_some() {
            message!(info: "the API server shows the pods of {} again", self.settings.node);
        }
    }

    async fn list_and_watch(&mut self) -> Result<(), ApiError> {
        let version = match self.version.clone() {
            Some(version) => version,
            None => self.list().await?,
        };
        self.watch(version).await
    }

    /// Replaces all pods. Returns the version of the list.
    async fn list(&mut self) -> Result<String, ApiError> {
        // The cache of any API server is good enough, unless it was too old.
        let from = if self.is_expired { "" } else { "&resourceVersion=0" };
        let selector = self.selector();
        let mut next = String::new();
        let mut pods: Vec<Object> = Vec::new();
        let version = loop {
            let path = if next.is_empty() {
                format!("/api/v1/pods?{selector}&limit={PAGE}{from}")
            } else {
                format!("/api/v1/pods?{selector}&limit={PAGE}&continue={}", escaped(&next))
            };
            let page: List = self.client.list(&path).await?;
            pods.extend(page.items);
            pods.truncate(MOST_PODS);
            next = page.metadata.r#continue;
            if next.is_empty() || pods.len() == MOST_PODS {
                break page.metadata.resource_version;
            }
        };
        let mut found = HashMap::with_capacity(pods.len());
        for Object { metadata, .. } in &pods {
            let facts = self.facts(metadata).await?;
            found.insert(metadata.cgroup_uid().to_owned(), facts);
        }
        self.pods.replace(found);
        self.version = Some(version.clone());
        self.is_expired = false;
        self.first_is_over();
        self.works();
        Ok(version)
    }

    /// Follows the changes until the server ends the watch.
    async fn watch(&mut self, version: String) -> Result<(), ApiError> {
        let limit = WATCH + WATCH.mul_f64(random());
        let path = format!(
            "/api/v1/pods?{}&watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            self.selector(),
            limit.as_secs(),
            escaped(&version)
        );
        let mut body = self.client.watch(&path).await?;
        let mut lines = Lines::new(MOST_LINE);
        loop {
            let Ok(Some(frame)) = timeout(IDLE, body.frame()).await else { return Ok(()) };
            let frame = frame.map_err(|error| ApiError::Broken(format!("a watch ended: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            for line in lines.add(&piece) {
                match line {
                    Line::Complete(line) => self.event(&line).await?,
                    Line::TooLong => message!("a pod has more than {} MiB and is left out", MOST_LINE >> 20),
                }
            }
        }
    }

    async fn event(&mut self, line: &[u8]) -> Result<(), ApiError> {
        if line.is_empty() {
            return Ok(());
        }
        let event: WatchEvent = serde_json::from_slice(line)
            .map_err(|error| ApiError::Broken(format!("a line of a watch is not one: {error}")))?;
        let metadata = &event.object.metadata;
        match event.r#type.as_str() {
            "ADDED" | "MODIFIED" => {
                let uid = metadata.cgroup_uid();
                if self.pods.find(uid).is_some() || self.pods.count() < MOST_PODS {
                    let facts = self.facts(metadata).await?;
                    self.pods.set(uid, facts);
                }
            }
            "DELETED" => self.pods.remove(metadata.cgroup_uid()),
            "ERROR" => {
                let (code, message) = event.object.error();
                return Err(ApiError::Status { code, message: message.to_owned(), after: None });
            }
            _ => {}
        }
        if !metadata.resource_version.is_empty() {
            self.version = Some(metadata.resource_version.clone());
        }
        self.works();
        Ok(())
    }

    async fn facts(&mut self, pod: &Metadata) -> Result<PodFacts, ApiError> {
        let workload = self.owners.workload(pod, &mut self.client).await?;
        let allowed = &self.settings.labels;
        let wanted = pod.labels.iter().filter(|(name, _)| is_allowed(allowed, name));
        let labels = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
        let (name, namespace) = (pod.name.clone(), pod.namespace.clone());
        Ok(PodFacts { name, namespace, workload, labels }.bounded())
    }

    fn selector(&self) -> String {
        format!("fieldSelector=spec.nodeName%3D{}", self.settings.node)
    }
}

/// Whether records have the label.
fn is_allowed(allowed: &[String], label: &str) -> bool {
    allowed.iter().any(|allowed| match allowed.strip_suffix('*') {
        Some(beginning) => label.starts_with(beginning),
        None => label == allowed,
    })
}

/// A text as a part of a query.
fn escaped(text: &str) -> String {
    let mut query = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
    query
}
