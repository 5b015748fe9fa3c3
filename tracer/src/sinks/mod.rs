//! Delivers finished bytes: to the output of `trace`, and to the sinks of `run`, each with its own queue and thread.
//!
//! Each type of sink has a module with its configuration keys and its [`SinkBuilder`], and an entry in [`SINKS`].
//! `delivery` has what all sinks share: queue, spool, worker; `transport` has what several types send by.

mod common;
mod config;
mod delivery;
mod encoding;
mod file;
mod http;
mod journald;
mod kafka;
mod kind;
mod nats;
mod otlp;
mod otlp_metrics;
mod problem;
pub mod process;
mod section;
mod socket;
mod stdout;
mod syslog;
mod transport;

pub use common::CommonArgs;
pub use config::{BuildContext, Metrics, SameAs, Secrets, SectionCheck, SinkConfig, Tables};
pub use delivery::{
    Batch, BatchSettings, Convert, DeliveryError, Frame, Inherited, OpenError, Pending, Queue, Read, Running,
    Sink, SinkBuilder, SinkError, SinkSettings, Spool, SpoolError, SpoolSettings, Status, since_ns,
    sink_lost, start,
};
pub use encoding::FormatArgs;
pub use file::FileSettings;
#[cfg(feature = "kafka")]
pub use kafka::KafkaSettings;
pub use kind::{Kind, Table};
#[cfg(feature = "nats")]
pub use nats::NatsSettings;
pub use problem::{ConfigError, Problem};
pub use section::SinkSection;
#[cfg(feature = "grpc")]
pub use transport::GrpcSettings;
pub use transport::{
    Address, Authority, DatagramSettings, Envelope, Framing, HttpSettings, Output, OutputError,
    ParseAddressError, StreamSettings, Template, TlsError, TlsFiles, TlsSettings,
};
pub(crate) use transport::{Tls, connect};

/// Every type of sink.
pub static SINKS: &[Kind] = &[
    Kind::of::<stdout::StdoutArgs>("stdout", "Standard output"),
    Kind::of::<file::FileArgs>("file", "A file, rotated by size, by age, or by logrotate and SIGHUP"),
    Kind::of::<socket::SocketArgs>(
        "socket",
        "A TCP, TLS or unix stream, one record per line: Vector's socket source, Fluent Bit, Logstash",
    ),
    Kind::of::<syslog::SyslogArgs>("syslog", "Syslog by RFC 5424, over /dev/log, UDP, TCP or TLS"),
    Kind::of::<journald::JournaldArgs>("journald", "The journal, with fields"),
    Kind::of::<http::HttpArgs>("http", "HTTP: ClickHouse, Elasticsearch, Loki, Splunk, VictoriaLogs, Vector")
        .with_tables(&[http::HEADERS, http::LABELS]),
    Kind::of::<otlp::OtlpArgs>("otlp", "OpenTelemetry logs over HTTP").with_tables(&[http::HEADERS]),
    Kind::of::<otlp_metrics::OtlpMetricsArgs>(
        "otlp-metrics",
        "The tracer's metrics (docs/metrics.md) as OpenTelemetry metrics over HTTP, and no records",
    )
    .with_tables(&[http::HEADERS]),
    Kind::of::<nats::NatsArgs>(
        "nats",
        "NATS JetStream; only in a sockstate that was built with the feature `nats`",
    )
    .lacking(nats::LACKS),
    Kind::of::<kafka::KafkaArgs>(
        "kafka",
        "A Kafka topic, by librdkafka; only in a sockstate that was built with the feature `kafka`",
    )
    .with_tables(&[kafka::PROPERTIES])
    .lacking(kafka::LACKS),
];

/// The type of sink that the key `type` names, in any case.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    SINKS.iter().find(|kind| kind.name.eq_ignore_ascii_case(name))
}
