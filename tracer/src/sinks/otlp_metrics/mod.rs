//! The tracer's metrics as OpenTelemetry metrics, by HTTP or gRPC. It gets no records.

use std::{path::Path, sync::Arc, time::Duration};

use clap::Args;

use super::{
    config::{BuildContext, Metrics, SectionCheck, SinkConfig},
    delivery::SinkBuilder,
    otlp::{DefaultPaths, OtlpRequestArgs},
    problem::{ConfigError, Problem},
    transport::{Template, TlsFiles},
};
use crate::values::parse_duration;

const PATHS: DefaultPaths = DefaultPaths {
    http: "/v1/metrics",
    grpc: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
};

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct OtlpMetricsArgs {
    #[command(flatten)]
    request: OtlpRequestArgs,
    /// How often the metrics are sent.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    interval: Duration,
}

impl SinkConfig for OtlpMetricsArgs {
    fn builder(&self, context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        let json = self.request.json;
        let template = if json { Template::OtlpMetricsJson } else { Template::OtlpMetricsProtobuf };
        self.request.builder(context, template, &PATHS)
    }

    fn problems(&self, _section: &SectionCheck<'_>) -> Vec<Problem> {
        self.request.problems()
    }

    fn metrics(&self) -> Option<Metrics> {
        Some(Metrics { interval: self.interval, json: self.request.json })
    }

    fn secrets(&self) -> Vec<(&'static str, &Path)> {
        self.request.http.secrets()
    }

    fn tls(&self) -> Option<&TlsFiles> {
        Some(self.request.http.tls())
    }
}
