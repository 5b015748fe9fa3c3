//! Records to a stream of NATS JetStream, one message per record. A record is delivered when the server has
//! acknowledged its message; the server recognizes duplicates by the message's id.

use std::{path::PathBuf, time::Duration};

use async_nats::{
    ConnectOptions,
    jetstream::{self, context::PublishAckFuture, message::PublishMessage},
};

use crate::sinks::delivery::{Batch, Delivered, DeliveryError, OpenError, Pending, Sink, SinkBuilder};
use crate::sinks::transport::{TlsFiles, TlsSettings, shown};

/// How long a connection or an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages that wait for their acknowledgement at a time.
const WINDOW: usize = 256;

/// The server, the subject and the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSettings {
    /// `nats://host:port`, `tls://host:port`; several with commas between them.
    pub url: String,
    /// The messages' subject, which a stream must have.
    pub subject: String,
    /// A file of credentials (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// Identifies the messages of this sink. With the record's number and time it is the message's id; the time is
    /// needed because records of the spool may be of an earlier instance.
    pub id: String,
    /// The files for TLS.
    pub tls: TlsFiles,
}

impl SinkBuilder for NatsSettings {
    fn open(&self, _header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(NatsSink::new(self.clone())))
    }

    fn problems(&self) -> Vec<(&'static str, OpenError)> {
        let is_used = self.url.contains("tls://") || self.tls != TlsFiles::default();
        if !is_used {
            return Vec::new();
        }
        TlsSettings { files: self.tls.clone(), name: None }.problems()
    }
}

/// The sink.
struct NatsSink {
    settings: NatsSettings,
    stream: Option<jetstream::Context>,
    /// Bytes of the largest message that the server accepts.
    max_payload: usize,
    /// Messages that are sent and not acknowledged.
    unanswered: usize,
}

/// Bytes of a message's headers, at most.
const HEADERS: usize = 1024;

impl NatsSink {
    fn new(settings: NatsSettings) -> Self {
        Self { settings, stream: None, max_payload: usize::MAX, unanswered: 0 }
    }

    /// Delivers the records, and removes those that are delivered.
    async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        while !batch.is_empty() {
            let result = self.publish(&stream, Delivered::none_of(batch)).await;
            let is_too_large =
                batch.records().next().is_some_and(|(bytes, _)| bytes.len() + HEADERS > self.max_payload);
            if is_too_large {
                self.stream = Some(stream);
                let message = format!("{}: larger than max_payload", shown(&self.settings.url));
                return Err(DeliveryError::TooLarge { message });
            }
            if let Err(message) = result {
                // The next attempt begins with a new connection.
                return Err(DeliveryError::retry(format!("{}: {message}", shown(&self.settings.url))));
            }
        }
        self.stream = Some(stream);
        Ok(())
    }

    /// Sends the first records, up to [`WINDOW`], and removes those that are acknowledged. The error is that of the
    /// next record.
    async fn publish(&mut self, stream: &jetstream::Context, mut batch: Delivered<'_>) -> Result<(), String> {
        let mut under_way: Vec<PublishAckFuture> = Vec::new();
        let mut result = Ok(());
        let most = self.max_payload;
        let fits = |bytes: &[u8]| bytes.len() + HEADERS <= most;
        for (bytes, frame) in batch.batch.records().take(WINDOW).take_while(|(bytes, _)| fits(bytes)) {
            let id = format!("{}/{}/{}", self.settings.id, frame.seq, frame.time_ns);
            let payload = bytes.trim_ascii_end().to_vec().into();
            let message = PublishMessage::build().payload(payload).message_id(id);
            self.unanswered = self.unanswered.max(under_way.len() + 1);
            match stream.send_publish(self.settings.subject.clone(), message).await {
                Ok(acknowledgement) => under_way.push(acknowledgement),
                Err(error) => {
                    result = Err(error.to_string());
                    break;
                }
            }
        }
        for acknowledgement in under_way {
            if let Err(error) = acknowledgement.await {
                let subject = &self.settings.subject;
                return Err(format!("{error}; is there a stream with the subject {subject}?"));
            }
            batch.count += 1;
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        result
    }

    async fn connect(&mut self) -> Result<jetstream::Context, DeliveryError> {
        let failed = |error: &dyn std::fmt::Display| {
            DeliveryError::retry(format!("cannot connect to {}: {error}", shown(&self.settings.url)))
        };
        let mut options = ConnectOptions::new().name("sockstate").connection_timeout(PATIENCE);
        if let Some(path) = &self.settings.tls.ca {
            options = options.add_root_certificates(path.clone());
        }
        if let (Some(cert), Some(key)) = (&self.settings.tls.cert, &self.settings.tls.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        if let Some(path) = &self.settings.credentials {
            options = options.credentials_file(path).await.map_err(|error| failed(&error))?;
        }
        let client = options.connect(&self.settings.url).await.map_err(|error| failed(&error))?;
        self.max_payload = client.server_info().max_payload;
        let mut stream = jetstream::new(client);
        stream.set_timeout(PATIENCE);
        Ok(stream)
    }
}

impl Sink for NatsSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(self.send_batch(batch))
    }

    fn unanswered(&self) -> usize {
        self.unanswered
    }
}
