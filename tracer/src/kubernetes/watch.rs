//! Lists and watches objects. https://kubernetes.io/docs/reference/using-api/api-concepts/ describes how: a list has a
//! version, a watch continues from it, and bookmarks advance it. If the server has forgotten the version, the list is read
//! again.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::{
    back_off::{BackOff, random},
    client::{ApiError, Client, Parts},
    first_answers::FirstAnswers,
    lines::{Line, Lines},
    objects::{List, Object, WatchEvent},
    settings::KubernetesSettings,
};

/// An object has at most 1.5 MiB in the store of the API server.
const MOST_LINE: usize = 4 << 20;
/// The server ends a watch after this time, and up to twice this time.
const WATCH: Duration = Duration::from_secs(300);
/// A server sends a bookmark about each minute. After this time without any line, the connection may be dead.
const IDLE: Duration = Duration::from_secs(150);
/// A watch that ends sooner counts as a failure, so that a server which ends each one is not asked all the time.
const SHORT: Duration = Duration::from_secs(5);

/// What a watcher asks for.
pub(super) struct Query {
    /// The path of the resource.
    pub(super) path: &'static str,
    /// The part of the query that selects objects.
    pub(super) selector: Option<String>,
    pub(super) parts: Parts,
    /// Objects of one page of a list.
    pub(super) page: usize,
    /// Limit of objects.
    pub(super) most: usize,
    /// What is read, for messages.
    pub(super) name: String,
}

/// Gets the objects.
pub(super) trait Objects {
    /// These are all objects now.
    ///
    /// # Errors
    /// The server does not answer a further question about them.
    async fn replace(&mut self, objects: Vec<Object>) -> Result<(), ApiError>;

    /// An object is new, or has changed.
    ///
    /// # Errors
    /// The server does not answer a further question about it.
    async fn set(&mut self, object: &Object) -> Result<(), ApiError>;

    fn remove(&mut self, object: &Object);
}

pub(super) struct Watcher<'a, T> {
    client: Client,
    query: Query,
    objects: T,
    /// The version to watch from; without one, the list comes first.
    version: Option<String>,
    /// The server no longer has the version, so the list must be newer than what its cache may have.
    is_expired: bool,
    back_off: BackOff,
    first_answers: &'a FirstAnswers,
    has_answer: bool,
    /// The last failure that was reported.
    reported: Option<String>,
}

impl<'a, T: Objects> Watcher<'a, T> {
    pub(super) fn new(
        settings: &KubernetesSettings,
        query: Query,
        objects: T,
        first_answers: &'a FirstAnswers,
    ) -> Self {
        Self {
            client: Client::new(settings.clone()),
            query,
            objects,
            version: None,
            is_expired: false,
            back_off: BackOff::default(),
            first_answers,
            has_answer: false,
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
        if !std::mem::replace(&mut self.has_answer, true) {
            self.first_answers.one_more();
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
            message!("cannot read {} from the API server: {text}; trying again", self.query.name);
            self.reported = Some(text);
        }
    }

    fn works(&mut self) {
        self.back_off.reset();
        if self.reported.take().is_some() {
            message!(info: "the API server shows {} again", self.query.name);
        }
    }

    async fn list_and_watch(&mut self) -> Result<(), ApiError> {
        let version = match self.version.clone() {
            Some(version) => version,
            None => self.list().await?,
        };
        self.watch(version).await
    }

    /// Replaces all objects. Returns the version of the list.
    async fn list(&mut self) -> Result<String, ApiError> {
        // The cache of any API server is good enough, unless it was too old.
        let from = if self.is_expired { "" } else { "&resourceVersion=0" };
        let Query { parts, page, most, .. } = self.query;
        let mut next = String::new();
        let mut objects: Vec<Object> = Vec::new();
        let version = loop {
            let rest = if next.is_empty() {
                format!("limit={page}{from}")
            } else {
                format!("limit={page}&continue={}", escaped(&next))
            };
            let list: List = self.client.list(&self.path(&rest), parts).await?;
            objects.extend(list.items);
            objects.truncate(most);
            next = list.metadata.r#continue;
            if next.is_empty() || objects.len() == most {
                break list.metadata.resource_version;
            }
        };
        self.objects.replace(objects).await?;
        self.version = Some(version.clone());
        self.is_expired = false;
        self.first_is_over();
        self.works();
        Ok(version)
    }

    /// Follows the changes until the server ends the watch.
    async fn watch(&mut self, version: String) -> Result<(), ApiError> {
        let limit = WATCH + WATCH.mul_f64(random());
        let rest = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            limit.as_secs(),
            escaped(&version)
        );
        let mut body = self.client.watch(&self.path(&rest), self.query.parts).await?;
        let mut lines = Lines::new(MOST_LINE);
        loop {
            let Ok(Some(frame)) = timeout(IDLE, body.frame()).await else { return Ok(()) };
            let frame = frame.map_err(|error| ApiError::Broken(format!("a watch ended: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            for line in lines.add(&piece) {
                match line {
                    Line::Complete(line) => self.event(&line).await?,
                    Line::TooLong => {
                        message!("an object has more than {} MiB and is left out", MOST_LINE >> 20);
                    }
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
        match event.r#type.as_str() {
            "ADDED" | "MODIFIED" => self.objects.set(&event.object).await?,
            "DELETED" => self.objects.remove(&event.object),
            "ERROR" => {
                let (code, message) = event.object.error();
                return Err(ApiError::Status { code, message: message.to_owned(), after: None });
            }
            _ => {}
        }
        let version = event.object.metadata.resource_version;
        if !version.is_empty() {
            self.version = Some(version);
        }
        self.works();
        Ok(())
    }

    fn path(&self, rest: &str) -> String {
        let Query { path, selector, .. } = &self.query;
        match selector {
            Some(selector) => format!("{path}?{selector}&{rest}"),
            None => format!("{path}?{rest}"),
        }
    }
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
