//! Records by HTTP/1.1 POST, many in a request. One that the collector has answered for is delivered.

use std::{collections::BTreeMap, time::Duration};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
    },
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::timeout;

use super::{Authority, Batch, Tls, address, template::Template, worker::Trouble};

/// The most of an answer that is read.
const ANSWER: usize = 4 << 20;
/// The most of an answer that a message quotes.
const QUOTE: usize = 200;

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// `http://` or `https://`.
    pub url: String,
    /// What a request looks like.
    pub template: Template,
    /// Added to each request.
    pub headers: BTreeMap<String, String>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Requests are compressed with gzip.
    pub gzip: bool,
}

impl HttpSettings {
    /// What is added to each request.
    pub(super) fn extra_headers(&self) -> Result<HeaderMap, HttpError> {
        let mut headers = HeaderMap::new();
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("sockstate/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.headers {
            let failed = |error: &dyn std::fmt::Display| HttpError::Header(name.clone(), error.to_string());
            let key = name.parse::<HeaderName>().map_err(|error| failed(&error))?;
            headers.insert(key, value.parse().map_err(|error| failed(&error))?);
        }
        Ok(headers)
    }
}

/// Settings that cannot be.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    /// Not a URL of ours.
    #[error("'{}' is no URL; write http://host:port/path or https://host/path", shown(.0))]
    Url(String),
    /// Not a header.
    #[error("'{0}' cannot be a header: {1}")]
    Header(String, String),
}

/// The sink.
pub(super) struct HttpSink {
    name: String,
    authority: Authority,
    uri: Uri,
    headers: HeaderMap,
    settings: HttpSettings,
    tls: Option<Tls>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl HttpSink {
    /// `tls` where the URL says https.
    pub(super) fn new(settings: HttpSettings, tls: Option<Tls>) -> Result<Self, HttpError> {
        let (authority, uri) = split(&settings.url)?;
        let mut headers = settings.extra_headers()?;
        let host = HeaderValue::from_str(&authority.to_string());
        headers.insert(HOST, host.map_err(|_| HttpError::Url(settings.url.clone()))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(settings.template.content_type()));
        if settings.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self { name: shown(&settings.url), authority, uri, headers, settings, tls, connection: None })
    }

    /// Delivers `lot`, and takes away what was.
    pub(super) async fn deliver(&mut self, lot: &mut Batch) -> Result<(), Trouble> {
        let (status, headers, answer) = match timeout(self.settings.timeout, self.post(lot)).await {
            Ok(result) => result.map_err(|trouble| self.explain(trouble))?,
            Err(_) => {
                self.connection = None;
                return Err(Trouble::retry(format!("{}: no answer", self.name)));
            }
        };
        if status.is_success() {
            return self.settings.template.answered(lot, answer.as_deref(), &self.name);
        }
        let quoted = String::from_utf8_lossy(answer.as_deref().unwrap_or_default());
        let quoted: String = quoted.chars().filter(|c| !c.is_control()).take(QUOTE).collect();
        let message = format!("{}: {status}: {quoted}", self.name);
        // Whoever is overloaded, restarting, or has lost our credentials for a while will take it later.
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
            Err(Trouble::Unwanted { message })
        } else if passes {
            Err(Trouble::Retry { message, after: retry_after(&headers) })
        } else {
            Err(Trouble::Refused { message })
        }
    }

    /// The answer's body is missing where it is too long.
    async fn post(&mut self, lot: &Batch) -> Result<(StatusCode, HeaderMap, Option<Bytes>), Trouble> {
        let body = self.settings.template.body(lot);
        let body = if self.settings.gzip { gzip(&body)? } else { body };
        // A connection that was kept may have been closed at the same moment: that is worth another one at once.
        for is_last in [self.connection.is_none(), true] {
            let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut request = Request::new(Full::new(Bytes::from(body.clone())));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.uri.clone();
            *request.headers_mut() = self.headers.clone();
            connection.ready().await.map_err(Trouble::retry)?;
            match connection.send_request(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let answer = match Limited::new(body, ANSWER).collect().await {
                        Ok(answer) => {
                            self.connection = Some(connection);
                            Some(answer.to_bytes())
                        }
                        // The status says enough; the connection is of no use any more.
                        Err(error) if error.is::<LengthLimitError>() => None,
                        Err(error) => return Err(Trouble::retry(error)),
                    };
                    return Ok((head.status, head.headers, answer));
                }
                Err(error) if is_last => return Err(Trouble::retry(error)),
                Err(_) => {}
            }
        }
        Err(Trouble::retry("no connection lasts"))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        let stream = address::connect(&self.authority, self.tls.as_ref()).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Trouble::retry)?;
        // It ends with the sender, or with the collector.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn explain(&self, trouble: Trouble) -> Trouble {
        match trouble {
            Trouble::Retry { message, after } => {
                Trouble::Retry { message: format!("{}: {message}", self.name), after }
            }
            other => other,
        }
    }
}

/// In seconds; a date is not waited for.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn gzip(body: &[u8]) -> Result<Vec<u8>, Trouble> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).map_err(Trouble::retry)
}

/// A URL for messages: without a password, and without a query, which may hold a token.
pub(super) fn shown(url: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?..."));
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("...@{host}"));
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("{scheme}{host}{path}{query}")
}

/// Who to connect to, and what to ask for.
pub(super) fn split(url: &str) -> Result<(Authority, Uri), HttpError> {
    let wrong = || HttpError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(wrong()),
    };
    let authority =
        uri.authority().and_then(|it| Authority::parse(it.as_str(), Some(port))).ok_or_else(wrong)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((authority, path.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_show_no_secrets_of_a_url() {
        for (url, expected) in [
            ("http://host:80/path", "http://host:80/path"),
            ("https://user:secret@host/a@b?token=secret", "https://...@host/a@b?..."),
            ("http://se@cret@host", "http://...@host"),
            ("user:secret@host", "...@host"),
            ("nats://secret@host:4222,nats://host", "nats://...@host:4222,nats://host"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
