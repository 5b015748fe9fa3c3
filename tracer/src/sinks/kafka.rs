//! Records into a topic of Kafka, a message each, by librdkafka: what all replicas have acknowledged is delivered, in order; what a
//! broker has twice it throws away (`enable.idempotence`). After a restart some may come twice: by `instance` and `seq` they are
//! known.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{FutureProducer, FutureRecord, Producer, future_producer::DeliveryFuture},
};
use tokio::time::sleep;

use super::{Batch, address::shown, worker::Trouble};

/// Messages under way at a time.
const WINDOW: usize = 1000;
/// How long librdkafka's own queue, should it be full, is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Where to, and as whom.
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
    /// librdkafka's own properties, which go before ours.
    pub properties: BTreeMap<String, String>,
}

/// The sink.
pub(super) struct KafkaSink {
    settings: KafkaSettings,
    producer: Option<FutureProducer>,
}

impl KafkaSink {
    pub(super) fn new(settings: KafkaSettings) -> Self {
        Self { settings, producer: None }
    }

    /// Delivers `lot`, and takes away what was.
    pub(super) async fn deliver(&mut self, lot: &mut Batch) -> Result<(), Trouble> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.connect().map_err(|error| self.trouble(&error))?,
        };
        while !lot.is_empty() {
            let (delivered, result) = self.produce(&producer, lot).await;
            lot.drop_first(delivered);
            if let Err(error) = result {
                // What is still under way there must not overtake what comes again.
                producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
                return Err(self.trouble(&error));
            }
        }
        self.producer = Some(producer);
        Ok(())
    }

    /// The first records, up to [`WINDOW`]: how many of them are acknowledged, one behind another, and what is wrong with the next.
    async fn produce(&self, producer: &FutureProducer, lot: &Batch) -> (usize, Result<(), KafkaError>) {
        let mut under_way: Vec<DeliveryFuture> = Vec::new();
        let mut result = Ok(());
        for (bytes, _) in lot.records().take(WINDOW) {
            match self.send(producer, bytes.trim_ascii_end()).await {
                Ok(acknowledgement) => under_way.push(acknowledgement),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let mut delivered = 0;
        for acknowledgement in under_way {
            match acknowledgement.await {
                Ok(Ok(_)) => delivered += 1,
                Ok(Err((error, _))) => return (delivered, Err(error)),
                Err(_) => return (delivered, Err(KafkaError::Canceled)),
            }
        }
        (delivered, result)
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
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            .set("message.timeout.ms", self.settings.timeout.as_millis().to_string());
        for (key, value) in &self.settings.properties {
            config.set(key, value);
        }
        config.create()
    }

    fn trouble(&self, error: &KafkaError) -> Trouble {
        use rdkafka::error::RDKafkaErrorCode::{InvalidMessageSize, MessageSizeTooLarge};
        let message = format!("{} at {}: {error}", self.settings.topic, shown(&self.settings.brokers));
        match error {
            KafkaError::MessageProduction(MessageSizeTooLarge | InvalidMessageSize) => {
                Trouble::Unwanted { message }
            }
            _ => Trouble::retry(message),
        }
    }
}
