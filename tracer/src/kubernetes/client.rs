//! Requests to the API server.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::time::timeout;

use super::settings::KubernetesSettings;
use crate::{
    files,
    sinks::{Tls, connect},
};

/// How long the API server may take to begin an answer, and to send all of it.
const ANSWER: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(120);
/// Limit of an answer that is kept in memory. A page has up to 500 pods, with some kilobytes of metadata each.
const MOST_BYTES: usize = 32 << 20;
const MOST_TOKEN: u64 = 64 << 10;
/// Characters of an error's message that sockstate quotes.
const QUOTE: usize = 200;

/// What is asked for of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// The metadata; the whole object from a server that cannot leave the rest out.
    Metadata,
    All,
}

impl Parts {
    /// The header `Accept` for one object.
    fn of_object(self) -> &'static str {
        match self {
            Self::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
            Self::All => "application/json",
        }
    }

    /// The header `Accept` for a list.
    fn of_list(self) -> &'static str {
        match self {
            Self::Metadata => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            }
            Self::All => "application/json",
        }
    }
}

/// Why a request failed.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    /// No answer, or a broken one.
    #[error("{0}")]
    Broken(String),
    /// The answer is an error.
    #[error("the API server answers {code}: {message}{}", advice(*code))]
    Status { code: u16, message: String, after: Option<Duration> },
    /// The answer has more bytes than sockstate takes.
    #[error("the API server answers with more than {} MiB", MOST_BYTES >> 20)]
    TooLarge,
}

fn advice(code: u16) -> &'static str {
    match code {
        401 => " (the token of the service account is not valid)",
        403 => " (the service account has no permission for this)",
        _ => "",
    }
}

impl ApiError {
    fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }

    /// The version of the objects that the request names exists no longer.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Status { code: 410, .. })
    }

    /// Whether another version may help: the server refuses the request, and the credentials are not the reason.
    pub(super) fn is_about_version(&self) -> bool {
        matches!(self, Self::Status { code: 400..=499, .. })
            && !matches!(self, Self::Status { code: 401 | 403 | 429, .. })
    }

    /// Whether the same request will be refused again.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { code: 400..=499, .. })
            && !matches!(self, Self::Status { code: 401 | 429, .. })
    }

    /// How long the API server wants to be left alone.
    pub(super) fn after(&self) -> Option<Duration> {
        match self {
            Self::Status { after, .. } => *after,
            _ => None,
        }
    }
}

type Sender = SendRequest<Empty<Bytes>>;

/// A connection for one request at a time. It is opened again when the server has closed it.
#[derive(Debug)]
pub(super) struct Client {
    settings: KubernetesSettings,
    connection: Option<Sender>,
}

impl Client {
    pub(super) fn new(settings: KubernetesSettings) -> Self {
        Self { settings, connection: None }
    }

    /// An object, as much of it as `T` has.
    pub(super) async fn object<T: DeserializeOwned>(
        &mut self,
        path: &str,
        parts: Parts,
    ) -> Result<T, ApiError> {
        self.get(path, parts.of_object()).await
    }

    /// A page of a list.
    pub(super) async fn list<T: DeserializeOwned>(
        &mut self,
        path: &str,
        parts: Parts,
    ) -> Result<T, ApiError> {
        self.get(path, parts.of_list()).await
    }

    /// Begins a watch: an answer without an end, which has a connection of its own.
    pub(super) async fn watch(&self, path: &str, parts: Parts) -> Result<Incoming, ApiError> {
        let mut alone = Self::new(self.settings.clone());
        let response = alone.request(path, parts.of_object()).await?;
        if response.status() != StatusCode::OK {
            return Err(failure(response).await);
        }
        // The task of the connection goes on until the body is dropped.
        Ok(response.into_body())
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str, accept: &'static str) -> Result<T, ApiError> {
        let response = self.request(path, accept).await?;
        if response.status() != StatusCode::OK {
            return Err(failure(response).await);
        }
        let body = timeout(WHOLE, body(response.into_body(), MOST_BYTES));
        let bytes =
            body.await.map_err(|_| ApiError::broken("the answer of the API server does not end"))??;
        serde_json::from_slice(&bytes).map_err(|error| {
            ApiError::Broken(format!(
                "the answer of the API server is not what Kubernetes documents: {error}"
            ))
        })
    }

    async fn request(&mut self, path: &str, accept: &'static str) -> Result<Response<Incoming>, ApiError> {
        let answer = timeout(ANSWER, self.send(path, accept));
        answer.await.map_err(|_| ApiError::broken("the API server does not answer"))?
    }

    async fn send(&mut self, path: &str, accept: &'static str) -> Result<Response<Incoming>, ApiError> {
        // The server may close an idle connection just when it is used again: then a new one is tried at once.
        for is_last in [self.connection.is_none(), true] {
            let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = path.parse().map_err(ApiError::broken)?;
            *request.headers_mut() = self.headers(accept)?;
            let sent = match connection.ready().await {
                Ok(()) => connection.send_request(request).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(response) => {
                    self.connection = Some(connection);
                    return Ok(response);
                }
                Err(error) if is_last => return Err(ApiError::broken(error)),
                Err(_) => {}
            }
        }
        Err(ApiError::broken("the API server closes each connection without an answer"))
    }

    fn headers(&self, accept: &'static str) -> Result<HeaderMap, ApiError> {
        let mut headers = HeaderMap::new();
        let host = self.settings.server.to_string();
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(ApiError::broken)?);
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("sockstate/", env!("CARGO_PKG_VERSION"))));
        if self.settings.is_encrypted {
            headers.insert(AUTHORIZATION, self.authorization()?);
        }
        Ok(headers)
    }

    /// The kubelet replaces the token before it expires, so it is read for each request.
    fn authorization(&self) -> Result<HeaderValue, ApiError> {
        let path = &self.settings.token_file;
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::Broken(format!("cannot read the token in {}: {error}", path.display()))
        };
        let token = files::read_text(path, MOST_TOKEN).map_err(|error| failed(&error))?;
        // The error would quote the token.
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| failed(&"it is no token"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn connect(&self) -> Result<Sender, ApiError> {
        let settings = &self.settings;
        // The file with the authorities may change, too.
        let tls = settings.is_encrypted.then(|| Tls::new(&settings.tls)).transpose();
        let tls = tls.map_err(ApiError::broken)?;
        let stream = connect(&settings.server, tls.as_ref()).await.map_err(ApiError::broken)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ApiError::broken)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// All bytes of an answer.
async fn body(mut body: Incoming, most: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ApiError::broken)?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(ApiError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The error that an answer is.
async fn failure(response: Response<Incoming>) -> ApiError {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        message: String,
    }
    let (head, incoming) = response.into_parts();
    let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let text = timeout(ANSWER, body(incoming, MOST_TOKEN as usize)).await;
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    let Status { message } = serde_json::from_slice(&text).unwrap_or_default();
    let message = if message.is_empty() { head.status.to_string() } else { message };
    let message = message.chars().take(QUOTE).collect();
    ApiError::Status { code: head.status.as_u16(), message, after: after.map(Duration::from_secs) }
}
