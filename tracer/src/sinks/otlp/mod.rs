//! OpenTelemetry logs, by HTTP or gRPC.

mod request;

use std::{path::Path, sync::Arc, time::Duration};

use clap::Args;

pub(super) use self::request::{DefaultPaths, OtlpRequestArgs};
use super::{
    config::{BuildContext, SectionCheck, SinkConfig},
    delivery::{Convert, SinkBuilder},
    problem::{ConfigError, Problem},
    transport::{Envelope, Template, TlsFiles},
};
use crate::format::convert;

const PATHS: DefaultPaths =
    DefaultPaths { http: "/v1/logs", grpc: "/opentelemetry.proto.collector.logs.v1.LogsService/Export" };

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct OtlpArgs {
    #[command(flatten)]
    request: OtlpRequestArgs,
}

impl SinkConfig for OtlpArgs {
    fn builder(&self, context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        let envelope = |(before, behind)| Envelope { before, behind };
        let template = if self.request.json {
            Template::OtlpJson(envelope(convert::otlp_json_envelope(context.stamp)))
        } else {
            Template::OtlpProtobuf(envelope(convert::otlp_protobuf_envelope(context.stamp)))
        };
        self.request.builder(context, template, &PATHS)
    }

    fn problems(&self, _section: &SectionCheck<'_>) -> Vec<Problem> {
        self.request.problems()
    }

    fn converter(&self, _host: &str) -> Option<Convert> {
        Some(if self.request.json { Box::new(convert::otlp_json) } else { Box::new(convert::otlp_protobuf) })
    }

    fn batch_time(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn secrets(&self) -> Vec<(&'static str, &Path)> {
        self.request.http.secrets()
    }

    fn tls(&self) -> Option<&TlsFiles> {
        Some(self.request.http.tls())
    }
}
