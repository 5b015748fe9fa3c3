//! A Kafka topic.

#[cfg(feature = "kafka")]
mod producer;

use std::{sync::Arc, time::Duration};

use clap::Args;

#[cfg(feature = "kafka")]
pub use self::producer::KafkaSettings;
use super::{
    config::{BuildContext, SinkConfig},
    delivery::SinkBuilder,
    encoding::FormatArgs,
    kind::Table,
    problem::ConfigError,
};
use crate::values::parse_duration;

/// The table of librdkafka's properties.
pub(super) const PROPERTIES: Table = Table {
    name: "properties",
    about: "librdkafka's properties",
    example: "\"security.protocol\" = \"ssl\"",
};

const WITHOUT: ConfigError = ConfigError::BuiltWithout { name: "Kafka", feature: "kafka" };
/// What a binary without the feature says.
pub(super) const LACKS: Option<ConfigError> = if cfg!(feature = "kafka") { None } else { Some(WITHOUT) };

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct KafkaArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// The brokers: host:port, several with commas between them.
    #[arg(long, value_name = "URL", required = true)]
    url: Option<String>,
    /// How long an answer may take.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// The messages' topic.
    #[arg(long, value_name = "TOPIC", default_value = "sockstate")]
    topic: String,
}

impl SinkConfig for KafkaArgs {
    #[cfg(feature = "kafka")]
    fn builder(&self, context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Ok(Arc::new(KafkaSettings {
            brokers: self.url.clone().ok_or(ConfigError::Incomplete)?,
            topic: self.topic.clone(),
            key: context.stamp.host.to_owned(),
            timeout: self.timeout,
            properties: context.table(PROPERTIES.name),
        }))
    }

    #[cfg(not(feature = "kafka"))]
    fn builder(&self, _context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Err(WITHOUT)
    }

    fn format(&self) -> Option<&FormatArgs> {
        Some(&self.format)
    }
}
