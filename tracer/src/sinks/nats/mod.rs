//! A stream of NATS JetStream.

#[cfg(feature = "nats")]
mod publisher;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

#[cfg(feature = "nats")]
pub use self::publisher::NatsSettings;
use super::{
    config::{BuildContext, SinkConfig},
    delivery::SinkBuilder,
    encoding::FormatArgs,
    problem::ConfigError,
    transport::TlsFiles,
};

const WITHOUT: ConfigError = ConfigError::BuiltWithout { name: "NATS", feature: "nats" };
/// What a binary without the feature says.
pub(super) const LACKS: Option<ConfigError> = if cfg!(feature = "nats") { None } else { Some(WITHOUT) };

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct NatsArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// The servers: nats://host:port or tls://host:port, several with commas between them.
    #[arg(long, value_name = "URL", required = true)]
    url: Option<String>,
    /// The messages' subject; a stream must have it.
    #[arg(long, value_name = "SUBJECT", default_value = "sockstate")]
    subject: String,
    /// A file of credentials (JWT and seed).
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFiles,
}

impl SinkConfig for NatsArgs {
    #[cfg(feature = "nats")]
    fn builder(&self, context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Ok(Arc::new(NatsSettings {
            url: self.url.clone().ok_or(ConfigError::Incomplete)?,
            subject: self.subject.clone(),
            credentials: self.credentials.clone(),
            id: format!("{}/{}", context.stamp.host, context.name),
            tls: self.tls.clone(),
        }))
    }

    #[cfg(not(feature = "nats"))]
    fn builder(&self, _context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Err(WITHOUT)
    }

    fn format(&self) -> Option<&FormatArgs> {
        Some(&self.format)
    }

    fn secrets(&self) -> Vec<(&'static str, &Path)> {
        self.credentials.as_deref().map(|path| ("credentials", path)).into_iter().collect()
    }

    fn tls(&self) -> Option<&TlsFiles> {
        Some(&self.tls)
    }
}
