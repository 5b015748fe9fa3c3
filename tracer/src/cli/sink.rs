//! The keys of a sink in the configuration: clap's types here too, so that values, errors and documentation are those of flags.
//! A heading names the types of sinks that the keys below it are for.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    config::{parse_duration, parse_duration_or_zero, parse_size},
    sinks::Address,
};

/// Where a sink's records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SinkType {
    /// Standard output.
    Stdout,
    /// A file, rotated by size, by age, or by logrotate and SIGHUP.
    File,
    /// A TCP, TLS or unix stream, a record a line: Vector's socket source, Fluent Bit, Logstash.
    Socket,
    /// Syslog by RFC 5424, over /dev/log, UDP, TCP or TLS.
    Syslog,
    /// The journal, with fields.
    Journald,
    /// HTTP: ClickHouse, Elasticsearch, Loki, Splunk, VictoriaLogs, Vector.
    Http,
    /// OpenTelemetry logs over HTTP.
    Otlp,
    /// The tracer's numbers (docs/metrics.md) as OpenTelemetry metrics over HTTP, and no records.
    OtlpMetrics,
    /// NATS JetStream; only in a sockstate that was built with the feature `nats`.
    Nats,
    /// A topic of Kafka, by librdkafka; only in a sockstate that was built with the feature `kafka`.
    Kafka,
}

/// How a sink's records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SinkFormat {
    /// One JSON object a line (docs/events.md).
    #[default]
    Json,
    /// The Elastic Common Schema, one JSON object a line.
    Ecs,
    /// OpenTelemetry's log data model as JSON, one log record a line.
    Otlp,
    /// bcc tcpstates' header and columns; transitions only.
    Csv,
}

/// What an HTTP request looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TemplateName {
    /// A record a line: ClickHouse, Vector, VictoriaLogs.
    #[default]
    Ndjson,
    /// `_bulk` of Elasticsearch and OpenSearch.
    Elasticsearch,
    /// Loki's push API; `labels` are the stream's.
    Loki,
    /// Splunk's HTTP event collector.
    Splunk,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CompressionName {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
}

/// When the spool is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SyncName {
    /// When the kernel writes it: survives the end of sockstate, not that of the machine.
    #[default]
    Never,
    /// After each entry, of up to a megabyte.
    Always,
}

/// One sink's keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct SinkArgs {
    /// Where the records go.
    #[arg(long, value_enum, value_name = "TYPE", required = true)]
    pub r#type: SinkType,

    /// How they are written.
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        help_heading = "stdout, file, socket, http, nats, kafka"
    )]
    pub format: SinkFormat,
    /// In CSV, put ' in front of cells that a spreadsheet would take for a formula: =, +, -, @, tab.
    #[arg(long, help_heading = "stdout, file, socket, http, nats, kafka")]
    pub escape_formulas: bool,

    /// The file.
    #[arg(long, value_name = "FILE", help_heading = "file")]
    pub path: Option<PathBuf>,
    /// Another file when it would be larger than this.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "file")]
    pub rotate_size: Option<u64>,
    /// Another file when it is older than this.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "file")]
    pub rotate_time: Option<Duration>,
    /// Rotated files that are kept; without it, all.
    #[arg(long, value_name = "N", help_heading = "file")]
    pub keep: Option<usize>,
    /// Compress rotated files with zstd.
    #[arg(long, help_heading = "file")]
    pub zstd: bool,

    /// The collector: tcp://host:port, tls://host:port, unix:/path; for syslog udp://host:port, too.
    #[arg(long, value_name = "ADDRESS", help_heading = "socket, syslog")]
    pub address: Option<Address>,
    /// Facility of the messages, as a number (RFC 5424, 6.2.1): 3 is daemon.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..24), help_heading = "syslog")]
    pub facility: u8,
    /// journald's socket.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/systemd/journal/socket",
        help_heading = "journald"
    )]
    pub socket: PathBuf,

    /// The collector: http://host:port/path or https://host/path; for otlp, /v1/logs if there is no path, and /v1/metrics for
    /// otlp-metrics; for nats, nats://host:port or tls://host:port, and for kafka, host:port: several with commas between them.
    #[arg(long, value_name = "URL", help_heading = "http, otlp, otlp-metrics, nats, kafka")]
    pub url: Option<String>,
    /// What a request looks like.
    #[arg(long, value_enum, value_name = "TEMPLATE", default_value_t, help_heading = "http")]
    pub template: TemplateName,
    /// Send JSON instead of protobuf.
    #[arg(long, help_heading = "otlp, otlp-metrics")]
    pub json: bool,
    /// Speak gRPC instead of HTTP/1.1; only in a sockstate that was built with the feature `grpc`.
    #[arg(long, conflicts_with_all = ["json", "compression"], help_heading = "otlp, otlp-metrics")]
    pub grpc: bool,
    /// How often the numbers are sent.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration, help_heading = "otlp-metrics")]
    pub interval: Duration,
    /// A file with the value of the header Authorization, read at the start.
    #[arg(long, value_name = "FILE", help_heading = "http, otlp, otlp-metrics")]
    pub authorization_file: Option<PathBuf>,
    /// How requests are compressed.
    #[arg(long, value_enum, value_name = "HOW", default_value_t, help_heading = "http, otlp, otlp-metrics")]
    pub compression: CompressionName,
    /// How long an answer may take.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, help_heading = "http, otlp, otlp-metrics, kafka")]
    pub timeout: Duration,

    /// The messages' topic.
    #[arg(long, value_name = "TOPIC", default_value = "sockstate", help_heading = "kafka")]
    pub topic: String,
    /// The messages' subject; a stream must have it.
    #[arg(long, value_name = "SUBJECT", default_value = "sockstate", help_heading = "nats")]
    pub subject: String,
    /// A file of credentials (JWT and seed).
    #[arg(long, value_name = "FILE", help_heading = "nats")]
    pub credentials: Option<PathBuf>,

    /// Authorities to trust, instead of the system's (PEM).
    #[arg(long, value_name = "FILE", help_heading = "socket, syslog, http, otlp, otlp-metrics, nats")]
    pub tls_ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        help_heading = "socket, syslog, http, otlp, otlp-metrics, nats"
    )]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "socket, syslog, http, otlp, otlp-metrics, nats"
    )]
    pub tls_key: Option<PathBuf>,
    /// The name that the collector's certificate must have, instead of the address's.
    #[arg(long, value_name = "NAME", help_heading = "socket, syslog, http, otlp, otlp-metrics")]
    pub tls_name: Option<String>,

    /// Count transitions in windows of this length, by service, peer and states, instead of sending each.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub aggregate: Option<Duration>,
    /// Services, peers and states that a window tells apart; what is more is counted together (docs/events.md).
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "aggregate")]
    pub aggregate_keys: usize,
    /// Send the transitions of one of N connections only; what is stuck or lost is always said.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: u64,

    /// Memory for what waits; half of it used, the rest goes to the spool.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_size)]
    pub queue: u64,
    /// A directory for what does not fit into the queue, and for what is left at the end; each sink's is below it, by its name.
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// What the spool may hold.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size, requires = "spool")]
    pub spool_size: u64,
    /// When the spool is on the disk.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, requires = "spool")]
    pub spool_sync: SyncName,
    /// Records in one delivery, by size.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_size)]
    pub batch: u64,
    /// How long the first record of a delivery may wait for others [default: 1s for http and otlp, else 0].
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_zero)]
    pub batch_time: Option<Duration>,
    /// The longest pause between attempts; the first is 100 ms, each next twice as long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub retry: Duration,
}

impl SinkArgs {
    /// What is missing, or does not go together; `has` says whether a key is there, if only with a value that is wrong.
    #[must_use]
    pub fn problems(&self, has: impl Fn(&str) -> bool) -> Vec<String> {
        let mut problems = Vec::new();
        let needed = match self.r#type {
            SinkType::File => Some("path"),
            SinkType::Socket | SinkType::Syslog => Some("address"),
            SinkType::Http | SinkType::Otlp | SinkType::OtlpMetrics | SinkType::Nats | SinkType::Kafka => {
                Some("url")
            }
            SinkType::Stdout | SinkType::Journald => None,
        };
        problems.extend(needed.filter(|key| !has(key)).map(|key| format!("'{key}' is missing")));
        if self.r#type == SinkType::Socket && matches!(self.address, Some(Address::Udp(_))) {
            problems.push("'address' must be tcp, tls or unix; datagrams are syslog's".into());
        }
        let lacks = |name: &str, feature: &str| {
            format!(
                "this sockstate was built without {name}: cargo install --path tracer --features {feature}"
            )
        };
        if self.r#type == SinkType::Nats && cfg!(not(feature = "nats")) {
            problems.push(lacks("NATS", "nats"));
        }
        if self.r#type == SinkType::Kafka && cfg!(not(feature = "kafka")) {
            problems.push(lacks("Kafka", "kafka"));
        }
        if self.grpc && cfg!(not(feature = "grpc")) {
            problems.push(lacks("gRPC", "grpc"));
        }
        let is_reduced = self.aggregate.is_some() || self.sample > 1;
        if self.r#type == SinkType::OtlpMetrics && is_reduced {
            problems.push("'aggregate' and 'sample' are for records, and these are numbers".into());
        }
        if self.escape_formulas && self.format != SinkFormat::Csv {
            problems.push("'escape-formulas' is for the format \"csv\"".into());
        }
        if self.format == SinkFormat::Csv {
            if self.aggregate.is_some() {
                problems.push("'aggregate' goes with no csv, which has transitions only".into());
            }
            if matches!(self.template, TemplateName::Elasticsearch | TemplateName::Splunk) {
                problems.push(
                    "Elasticsearch and Splunk take JSON only: format \"csv\" goes with the other templates"
                        .into(),
                );
            }
        }
        problems
    }
}
