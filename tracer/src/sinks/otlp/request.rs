//! The keys of OTLP's requests, for logs and metrics.

use std::sync::Arc;

use clap::Args;

use crate::sinks::config::BuildContext;
use crate::sinks::delivery::SinkBuilder;
use crate::sinks::http::RequestArgs;
use crate::sinks::problem::{ConfigError, Problem};
use crate::sinks::transport::Template;

const LACKS_GRPC: Option<ConfigError> = if cfg!(feature = "grpc") {
    None
} else {
    Some(ConfigError::BuiltWithout { name: "gRPC", feature: "grpc" })
};

/// The encoding and the transport of OTLP.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct OtlpRequestArgs {
    /// Send JSON instead of protobuf.
    #[arg(long)]
    pub(crate) json: bool,
    /// Use gRPC instead of HTTP/1.1; only in a sockstate that was built with the feature `grpc`.
    #[arg(long, conflicts_with_all = ["json", "compression"])]
    grpc: bool,
    #[command(flatten)]
    pub(crate) http: RequestArgs,
}

/// The path for a URL without one.
pub(crate) struct DefaultPaths {
    pub(crate) http: &'static str,
    /// By opentelemetry/proto/collector.
    pub(crate) grpc: &'static str,
}

impl OtlpRequestArgs {
    pub(crate) fn builder(
        &self,
        context: &BuildContext<'_>,
        template: Template,
        paths: &DefaultPaths,
    ) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        let mut http = self.http.settings(context, template)?;
        let path = http.url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        if path.is_none_or(|(_, path)| path.is_empty()) {
            let path = if self.grpc { paths.grpc } else { paths.http };
            http.url = format!("{}{path}", http.url.trim_end_matches('/'));
        }
        if self.grpc {
            #[cfg(feature = "grpc")]
            return Ok(Arc::new(crate::sinks::transport::GrpcSettings(http)));
        }
        Ok(Arc::new(http))
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        LACKS_GRPC.filter(|_| self.grpc).map(Problem::of_section).into_iter().collect()
    }
}
