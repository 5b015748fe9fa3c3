//! Records to a Kafka topic, one message per record, by librdkafka. A record is delivered, in order, when all
//! replicas have acknowledged its message; brokers discard duplicates (`enable.idempotence`). After a restart some
//! records may come twice, with equal `instance` and `seq`.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{FutureProducer, FutureRecord, Producer, future_producer::DeliveryFuture},
};
use tokio::time::sleep;

use crate::sinks::delivery::{Batch, Delivered, DeliveryError, OpenError, Pending, Sink, SinkBuilder};
use crate::sinks::transport::shown;

/// Messages that wait for their acknowledgement at a time.
const WINDOW: usize = 1000;
/// The pause when librdkafka's own queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The brokers, the topic and the properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, several with commas between them.
    pub brokers: String,
    /// The messages' topic.
    pub topic: String,
    /// The messages' key: one key's messages are in one partition, in order.
    pub key: String,
    /// How long an acknowledgement may take.
    pub timeout: Duration,
    /// librdkafka's properties from the configuration, which override those that the sink sets.
    pub properties: BTreeMap<String, String>,
}

impl SinkBuilder for KafkaSettings {
    fn open(&self, _header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(KafkaSink::new(self.clone())))
    }
}

/// The sink.
struct KafkaSink {
    settings: KafkaSettings,
    producer: Option<FutureProducer>,
    /// Messages that librdkafka has and that are not acknowledged.
    unanswered: usize,
}

/// Why a message was not accepted.
struct Failure {
    error: KafkaError,
    /// The error is about this message only. A broker refuses all messages of a request.
    is_single: bool,
}

impl KafkaSink {
    fn new(settings: KafkaSettings) -> Self {
        Self { settings, producer: None, unanswered: 0 }
    }

    /// Delivers the records, and removes those that are delivered.
    async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.connect().map_err(|error| DeliveryError::retry(self.message(&error)))?,
        };
        while !batch.is_empty() {
            if let Err(failure) = self.produce(&producer, Delivered::none_of(batch)).await {
                let error = self.refused(&failure);
                if matches!(error, DeliveryError::TooLarge { .. }) {
                    self.producer = Some(producer);
                } else {
                    // Messages that librdkafka still has must not arrive before those that are sent again.
                    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
                }
                return Err(error);
            }
        }
        self.producer = Some(producer);
        Ok(())
    }

    /// Sends the first records, up to [`WINDOW`], and removes those that are acknowledged. The error is that of the
    /// next record.
    async fn produce(&mut self, producer: &FutureProducer, mut batch: Delivered<'_>) -> Result<(), Failure> {
        let mut under_way: Vec<DeliveryFuture> = Vec::new();
        let mut result = Ok(());
        for (bytes, _) in batch.batch.records().take(WINDOW) {
            match self.send(producer, bytes.trim_ascii_end()).await {
                Ok(acknowledgement) => under_way.push(acknowledgement),
                Err(error) => {
                    result = Err(Failure { error, is_single: true });
                    break;
                }
            }
            self.unanswered = self.unanswered.max(under_way.len());
        }
        let is_single = under_way.len() == 1;
        for acknowledgement in under_way {
            match acknowledgement.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => return Err(Failure { error, is_single }),
                Err(_) => return Err(Failure { error: KafkaError::Canceled, is_single }),
            }
            batch.count += 1;
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        result
    }

    async fn send(&self, producer: &FutureProducer, payload: &[u8]) -> Result<DeliveryFuture, KafkaError> {
        let mut record = FutureRecord::to(&self.settings.topic).key(&self.settings.key).payload(payload);
        loop {
            match producer.send_result(record) {
                Ok(acknowledgement) => return Ok(acknowledgement),
                Err((KafkaError::MessageProduction(rdkafka::error::RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    sleep(FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn connect(&self) -> Result<FutureProducer, KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.settings.brokers)
            .set("client.id", "sockstate")
            .set("enable.idempotence", "true")
            // Part of librdkafka itself, and known to every broker.
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("message.timeout.ms", self.settings.timeout.as_millis().to_string());
        for (key, value) in &self.settings.properties {
            config.set(key, value);
        }
        config.create()
    }

    fn refused(&self, failure: &Failure) -> DeliveryError {
        use rdkafka::error::RDKafkaErrorCode::{InvalidMessageSize, MessageSizeTooLarge};
        let message = self.message(&failure.error);
        match failure.error {
            KafkaError::MessageProduction(MessageSizeTooLarge | InvalidMessageSize) if failure.is_single => {
                DeliveryError::TooLarge { message }
            }
            KafkaError::MessageProduction(MessageSizeTooLarge | InvalidMessageSize) => {
                DeliveryError::OneRefused { message }
            }
            _ => DeliveryError::retry(message),
        }
    }

    fn message(&self, error: &KafkaError) -> String {
        format!("{} at {}: {error}", self.settings.topic, shown(&self.settings.brokers))
    }
}

impl Sink for KafkaSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(self.send_batch(batch))
    }

    fn unanswered(&self) -> usize {
        self.unanswered
    }
}
