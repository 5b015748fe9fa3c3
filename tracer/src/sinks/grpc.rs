//! Requests by gRPC, many records in each: OTLP's other transport. One that the collector has answered for is delivered.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Uri,
    body::Bytes,
    client::conn::http2::{self, SendRequest},
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::{
    Authority, Batch, HttpSettings, Tls,
    address::{self, shown},
    http::{HttpError, split},
    worker::Trouble,
};

/// The most of an answer that is read.
const ANSWER: usize = 4 << 20;
/// In front of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// gRPC's codes after which a collector may take it later, by OTLP's specification, and those of credentials and routes that are
/// out of order for a while: CANCELLED, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE,
/// UNIMPLEMENTED, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED.
const PASSES: [&str; 10] = ["1", "4", "7", "8", "10", "11", "12", "14", "15", "16"];

/// The sink.
pub(super) struct GrpcSink {
    authority: Authority,
    uri: Uri,
    headers: HeaderMap,
    settings: HttpSettings,
    tls: Option<Tls>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl GrpcSink {
    /// `tls` where the URL says https.
    pub(super) fn new(settings: HttpSettings, tls: Option<Tls>) -> Result<Self, HttpError> {
        let (authority, _) = split(&settings.url)?;
        let uri = settings.url.parse().map_err(|_| HttpError::Url(settings.url.clone()))?;
        let mut headers = settings.extra_headers()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(Self { authority, uri, headers, settings, tls, connection: None })
    }

    /// Delivers `lot`, and takes away what was.
    pub(super) async fn deliver(&mut self, lot: &mut Batch) -> Result<(), Trouble> {
        let name = shown(&self.settings.url);
        let (head, answer) = match timeout(self.settings.timeout, self.call(lot)).await {
            Ok(Ok(result)) => result,
            Ok(Err(trouble)) => {
                self.connection = None;
                return Err(Trouble::retry(format!("{name}: {trouble}")));
            }
            Err(_) => {
                self.connection = None;
                return Err(Trouble::retry(format!("{name}: no answer")));
            }
        };
        let text = |key: &str| head.get(key).and_then(|it| it.to_str().ok());
        match text("grpc-status") {
            Some("0") => {
                self.settings.template.answered(lot, Some(answer.get(PREFIX..).unwrap_or_default()), &name)
            }
            Some(code) => {
                let message =
                    format!("{name}: gRPC status {code}: {}", text("grpc-message").unwrap_or_default());
                if is_too_large(code, text("grpc-message").unwrap_or_default()) {
                    Err(Trouble::Unwanted { message })
                } else if PASSES.contains(&code) {
                    Err(Trouble::retry(message))
                } else {
                    Err(Trouble::Refused { message })
                }
            }
            None => Err(Trouble::retry(format!("{name}: this is not gRPC's answer"))),
        }
    }

    /// The answer's headers and trailers together, and its body.
    async fn call(&mut self, lot: &Batch) -> Result<(HeaderMap, Bytes), Trouble> {
        let message = self.settings.template.body(lot);
        let length = u32::try_from(message.len()).map_err(Trouble::retry)?;
        let mut body = Vec::with_capacity(PREFIX + message.len());
        body.push(0);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&message);
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.ready().await.map_err(Trouble::retry)?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let response = connection.send_request(request).await.map_err(Trouble::retry)?;
        let (head, body) = response.into_parts();
        let answer = Limited::new(body, ANSWER).collect().await.map_err(Trouble::retry)?;
        self.connection = Some(connection);
        let mut headers = head.headers;
        headers.extend(answer.trailers().cloned().unwrap_or_default());
        Ok((headers, answer.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        /// Whoever goes away without a word is missed after two of these.
        const PING: Duration = Duration::from_secs(20);
        let stream = address::connect(&self.authority, self.tls.as_ref()).await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(hyper_util::rt::TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Trouble::retry)?;
        // It ends with the sender, or with the collector.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// INVALID_ARGUMENT and OUT_OF_RANGE, and RESOURCE_EXHAUSTED where a limit on sizes is meant, and not one on rates.
fn is_too_large(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    matches!(code, "3" | "11")
        || code == "8"
            && ["larger", "too large", "max size", "exceed"].iter().any(|word| message.contains(word))
}
