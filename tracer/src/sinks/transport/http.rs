//! Records by HTTP/1.1 POST, many per request. Records are delivered when the collector has answered.

use std::{collections::BTreeMap, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
    },
    http::response,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::{
    Authority, Tls, TlsSettings,
    address::{self, shown},
    answer::Answer,
    template::Template,
};
use crate::sinks::delivery::{Batch, DeliveryError, OpenError, Pending, Sink, SinkBuilder};

/// Characters of an answer that a message quotes, at most.
const QUOTE: usize = 200;

/// The collector, and the form of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// `http://` or `https://`.
    pub url: String,
    /// What a request looks like.
    pub template: Template,
    /// Headers that are added to each request.
    pub headers: BTreeMap<String, String>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Requests are compressed with gzip.
    pub gzip: bool,
    /// For a URL with https.
    pub tls: TlsSettings,
}

impl SinkBuilder for HttpSettings {
    fn open(&self, _header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        let tls = self.is_encrypted().then(|| Tls::new(&self.tls)).transpose()?;
        Ok(Box::new(HttpSink::new(self.clone(), tls)?))
    }

    fn problems(&self) -> Vec<(&'static str, OpenError)> {
        let errors = self.errors().into_iter().map(|error| (error.key(), error.into()));
        let of_tls = if self.is_encrypted() { self.tls.problems() } else { Vec::new() };
        errors.chain(of_tls).collect()
    }
}

impl HttpSettings {
    /// The headers that are added to each request.
    pub(super) fn extra_headers(&self) -> Result<HeaderMap, HttpError> {
        let mut headers = HeaderMap::new();
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("sockstate/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.headers {
            let (name, value) = header(name, value)?;
            headers.insert(name, value);
        }
        Ok(headers)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// Everything that is wrong with the URL and the headers.
    fn errors(&self) -> Vec<HttpError> {
        let headers = self.headers.iter().filter_map(|(name, value)| header(name, value).err());
        split(&self.url).err().into_iter().chain(headers).collect()
    }
}

/// Parses a header. Its value may be a secret, so errors and debug output do not show it.
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HttpError> {
    let failed = |error: &dyn std::fmt::Display| HttpError::Header(name.to_owned(), error.to_string());
    let key = name.parse::<HeaderName>().map_err(|error| failed(&error))?;
    let mut value = value.parse::<HeaderValue>().map_err(|error| failed(&error))?;
    value.set_sensitive(true);
    Ok((key, value))
}

/// Settings that cannot be used.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    /// Not a URL with http or https.
    #[error("'{}' is no URL; write http://host:port/path or https://host/path", shown(.0))]
    Url(String),
    /// A URL with credentials: they belong into a file that only root can read.
    #[error(
        "'{}' has a user or a password; put `Basic` and the two in base64 into a file, and name that as 'authorization-file'",
        shown(.0)
    )]
    Credentials(String),
    /// Not a header.
    #[error("'{0}' cannot be a header: {1}")]
    Header(String, String),
}

impl HttpError {
    /// The key of a sink that it is about.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::Credentials(_) => "url",
            // The content of the file is the value of this header.
            Self::Header(name, _) if name == AUTHORIZATION => "authorization-file",
            Self::Header(..) => "headers",
        }
    }
}

/// The header whose value is in `authorization-file`.
pub(crate) const AUTHORIZATION: &str = "Authorization";

type Sender = SendRequest<Full<Bytes>>;

/// The sink.
struct HttpSink {
    name: String,
    authority: Authority,
    uri: Uri,
    headers: HeaderMap,
    settings: HttpSettings,
    tls: Option<Tls>,
    connection: Option<Sender>,
    /// Records that were sent since the last answer came.
    unanswered: usize,
}

impl HttpSink {
    /// `tls` is needed for a URL with https.
    fn new(settings: HttpSettings, tls: Option<Tls>) -> Result<Self, HttpError> {
        let (authority, uri) = split(&settings.url)?;
        let uri = match settings.template.query() {
            Some((key, value)) => {
                with_parameter(&uri, key, value).parse().map_err(|_| HttpError::Url(settings.url.clone()))?
            }
            None => uri,
        };
        let mut headers = settings.extra_headers()?;
        let host = HeaderValue::from_str(&authority.to_string());
        headers.insert(HOST, host.map_err(|_| HttpError::Url(settings.url.clone()))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(settings.template.content_type()));
        if settings.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            name: shown(&settings.url),
            authority,
            uri,
            headers,
            settings,
            tls,
            connection: None,
            unanswered: 0,
        })
    }

    /// Delivers the records, and removes those that are delivered.
    async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        let deadline = Instant::now() + self.settings.timeout;
        let response = timeout_at(deadline, self.post(batch)).await;
        let (connection, response) = response
            .unwrap_or_else(|_| Err(DeliveryError::retry("no answer")))
            .map_err(|error| self.explain(error))?;
        self.unanswered = 0;
        // The status alone is an answer, even if the body does not come.
        let (response::Parts { status, headers, .. }, body) = response.into_parts();
        let answer = Answer::read(body, deadline).await;
        self.connection = Some(connection).filter(|_| answer.has_ended);
        if status.is_success() {
            return self.settings.template.answered(batch, &answer.bytes, answer.is_whole, &self.name);
        }
        let quoted = String::from_utf8_lossy(&answer.bytes);
        let quoted: String = quoted.chars().filter(|c| !c.is_control()).take(QUOTE).collect();
        let message = format!("{}: {status}: {quoted}", self.name);
        // The collector may accept the request later: it is overloaded or restarting, or its credentials or routes
        // are wrong.
        let passes = status.is_server_error()
            || status.is_redirection()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::REQUEST_TIMEOUT
                    | StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::NOT_FOUND
                    | StatusCode::PAYMENT_REQUIRED
                    | StatusCode::PROXY_AUTHENTICATION_REQUIRED
                    | StatusCode::CONFLICT
                    | StatusCode::MISDIRECTED_REQUEST
                    | StatusCode::LOCKED
                    | StatusCode::TOO_EARLY
            )
            || status.is_informational();
        // One record may be the reason.
        let is_unwanted = matches!(
            status,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
        );
        if is_unwanted {
            Err(DeliveryError::OneRefused { message })
        } else if passes {
            Err(DeliveryError::Retry { message, after: retry_after(&headers) })
        } else {
            Err(DeliveryError::Refused { message })
        }
    }

    /// Sends the records. Returns the answer, whose body is not read yet, and the connection.
    async fn post(&mut self, batch: &Batch) -> Result<(Sender, Response<Incoming>), DeliveryError> {
        let body = self.settings.template.body(batch);
        let body = if self.settings.gzip { gzip(&body)? } else { body };
        // The collector may close an idle connection just when it is used again: then a new one is tried at once.
        for is_last in [self.connection.is_none(), true] {
            let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut request = Request::new(Full::new(Bytes::from(body.clone())));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.uri.clone();
            *request.headers_mut() = self.headers.clone();
            connection.ready().await.map_err(DeliveryError::retry)?;
            self.unanswered = self.unanswered.max(batch.len());
            match connection.send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(error) if is_last => return Err(DeliveryError::retry(error)),
                Err(_) => {}
            }
        }
        Err(DeliveryError::retry("the collector closes each connection without an answer"))
    }

    async fn connect(&self) -> Result<Sender, DeliveryError> {
        let stream = address::connect(&self.authority, self.tls.as_ref()).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(DeliveryError::retry)?;
        // The task ends when the sender is dropped or the collector closes the connection.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn explain(&self, error: DeliveryError) -> DeliveryError {
        match error {
            DeliveryError::Retry { message, after } => {
                DeliveryError::Retry { message: format!("{}: {message}", self.name), after }
            }
            other => other,
        }
    }
}

impl Sink for HttpSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(self.send_batch(batch))
    }

    fn unanswered(&self) -> usize {
        self.unanswered
    }
}

/// `path` with one more parameter, unless it has a parameter of that name.
fn with_parameter(path: &Uri, key: &str, value: &str) -> String {
    let mut names = path.query().into_iter().flat_map(|query| query.split('&'));
    if names.any(|parameter| parameter.split('=').next() == Some(key)) {
        return path.to_string();
    }
    let separator = if path.query().is_some() { '&' } else { '?' };
    format!("{path}{separator}{key}={value}")
}

/// The seconds of Retry-After; a date there is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn gzip(body: &[u8]) -> Result<Vec<u8>, DeliveryError> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).map_err(DeliveryError::retry)
}

/// The host and port of a URL, and its path.
pub(super) fn split(url: &str) -> Result<(Authority, Uri), HttpError> {
    let wrong = || HttpError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(wrong()),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(HttpError::Credentials(url.to_owned()));
    }
    let authority = uri
        .authority()
        .and_then(|authority| Authority::parse(authority.as_str(), Some(port)))
        .ok_or_else(wrong)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((authority, path.parse().map_err(|_| wrong())?))
}
