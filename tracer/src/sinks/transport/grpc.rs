//! Calls by gRPC, OTLP's other transport, with many records each. Records are delivered when the collector has
//! answered.

use std::time::Duration;

use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http2::{self, SendRequest},
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout_at};

use super::{
    Authority, HttpSettings, Tls,
    address::{self, shown},
    answer::Answer,
    http::{HttpError, split},
};
use crate::sinks::delivery::{Batch, DeliveryError, OpenError, Pending, Sink, SinkBuilder};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Status codes after which the call is tried again: those that OTLP's specification names, and those of wrong
/// credentials and routes, which may be repaired: CANCELLED, DEADLINE_EXCEEDED, PERMISSION_DENIED,
/// RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED.
const PASSES: [&str; 10] = ["1", "4", "7", "8", "10", "11", "12", "14", "15", "16"];

/// The settings of calls by gRPC; the URL's path is the method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcSettings(pub HttpSettings);

impl SinkBuilder for GrpcSettings {
    fn open(&self, _header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        let Self(settings) = self;
        let tls = settings.is_encrypted().then(|| Tls::for_http2(&settings.tls)).transpose()?;
        Ok(Box::new(GrpcSink::new(settings.clone(), tls)?))
    }

    fn problems(&self) -> Vec<(&'static str, OpenError)> {
        self.0.problems()
    }
}

/// The sink.
struct GrpcSink {
    authority: Authority,
    uri: Uri,
    headers: HeaderMap,
    settings: HttpSettings,
    tls: Option<Tls>,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Records that were sent since the last status came.
    unanswered: usize,
}

impl GrpcSink {
    /// `tls` is needed for a URL with https.
    fn new(settings: HttpSettings, tls: Option<Tls>) -> Result<Self, HttpError> {
        let (authority, _) = split(&settings.url)?;
        let uri = settings.url.parse().map_err(|_| HttpError::Url(settings.url.clone()))?;
        let mut headers = settings.extra_headers()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(Self { authority, uri, headers, settings, tls, connection: None, unanswered: 0 })
    }

    /// Delivers the records, and removes those that are delivered.
    async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        let name = shown(&self.settings.url);
        let deadline = Instant::now() + self.settings.timeout;
        let call = timeout_at(deadline, self.call(batch, deadline)).await;
        let (http_status, head, answer) = call
            .unwrap_or_else(|_| Err(DeliveryError::retry("no answer")))
            .map_err(|error| DeliveryError::retry(format!("{name}: {error}")))?;
        let text = |key: &str| head.get(key).and_then(|value| value.to_str().ok());
        if text("grpc-status").is_some() || http_status != StatusCode::OK {
            self.unanswered = 0;
        }
        match text("grpc-status") {
            Some("0") => {
                let message = answer.bytes.get(PREFIX..).unwrap_or_default();
                self.settings.template.answered(batch, message, answer.is_whole, &name)
            }
            Some(code) => {
                let message =
                    format!("{name}: gRPC status {code}: {}", text("grpc-message").unwrap_or_default());
                if is_too_large(code, text("grpc-message").unwrap_or_default()) {
                    Err(DeliveryError::OneRefused { message })
                } else if PASSES.contains(&code) {
                    Err(DeliveryError::retry(message))
                } else {
                    Err(DeliveryError::Refused { message })
                }
            }
            // A proxy before the collector may have its own limit.
            None if http_status == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(DeliveryError::OneRefused { message: format!("{name}: {http_status}") })
            }
            None => {
                Err(DeliveryError::retry(format!("{name}: the answer is not one of gRPC: {http_status}")))
            }
        }
    }

    /// Returns the answer's HTTP status, its headers and trailers, and its body.
    async fn call(
        &mut self,
        batch: &Batch,
        deadline: Instant,
    ) -> Result<(StatusCode, HeaderMap, Answer), DeliveryError> {
        let message = self.settings.template.body(batch);
        let length = u32::try_from(message.len()).map_err(DeliveryError::retry)?;
        let mut body = Vec::with_capacity(PREFIX + message.len());
        body.push(0);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&message);
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.ready().await.map_err(DeliveryError::retry)?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        self.unanswered = self.unanswered.max(batch.len());
        let response = connection.send_request(request).await.map_err(DeliveryError::retry)?;
        let (head, body) = response.into_parts();
        let mut answer = Answer::read_to_trailers(body, deadline).await;
        self.connection = Some(connection).filter(|_| answer.has_ended);
        let mut headers = head.headers;
        headers.extend(std::mem::take(&mut answer.trailers));
        Ok((head.status, headers, answer))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, DeliveryError> {
        /// The interval of pings, and the timeout of each: a collector that has vanished is noticed after two of them.
        const PING: Duration = Duration::from_secs(20);
        let stream = address::connect(&self.authority, self.tls.as_ref()).await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(hyper_util::rt::TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(DeliveryError::retry)?;
        // The task ends when the sender is dropped or the collector closes the connection.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

impl Sink for GrpcSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(self.send_batch(batch))
    }

    fn unanswered(&self) -> usize {
        self.unanswered
    }
}

/// Texts of servers that refuse a message because of its size, with RESOURCE_EXHAUSTED or (tonic) OUT_OF_RANGE. The
/// texts are needed because limits of rates and quotas have the same codes. From grpc-go and gRPC's core, tonic,
/// grpc-java, grpc-dotnet.
const TOO_LARGE: [&str; 4] = [
    "larger than max",
    "length too large",
    "exceeds maximum size",
    "exceeds the maximum configured message size",
];

/// Whether fewer records may be accepted: the message is too large, or one of them may be the reason of
/// INVALID_ARGUMENT (3).
fn is_too_large(code: &str, message: &str) -> bool {
    let message = message.replace("%20", " ").to_ascii_lowercase();
    code == "3" || matches!(code, "8" | "11") && TOO_LARGE.iter().any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_on_rates_are_not_limits_on_sizes() {
        for (code, message, expected) in [
            ("3", "no such field", true),
            ("8", "grpc: received message larger than max (5242880 vs. 4194304)", true),
            ("8", "grpc: received message after decompression larger than max (9 vs. 4)", true),
            ("8", "gRPC message exceeds maximum size 4194304: 5242880", true),
            ("8", "Received message exceeds the maximum configured message size.", true),
            ("11", "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes", true),
            ("11", "Error,%20decoded%20message%20length%20too%20large", true),
            ("8", "rate limit exceeded", false),
            ("8", "quota exceeded: more than the maximum of 100 requests", false),
            ("8", "", false),
            ("11", "offset out of range", false),
            ("14", "grpc: received message larger than max (5 vs. 4)", false),
        ] {
            assert_eq!(is_too_large(code, message), expected, "{code} {message}");
        }
    }
}
