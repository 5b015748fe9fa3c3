//! From the configuration's sinks to streams that are written to them.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Failure, awaited, handover::Ground, transitions};
use crate::{
    cli::{CompressionName, SinkArgs, SinkFormat, SinkType, SyncName, TemplateName},
    files,
    format::{Csv, EscapedCsv, Format, Json, Stamp, convert},
    model::{LostPlace, Start},
    pipeline::{Stream, Tell},
    route::Router,
    settings::{Settings, Sink},
    sinks::{
        self, Address, Convert, Envelope, FileSettings, Framing, HttpSettings, Inherited, Pace, Queue,
        Running, SinkSettings, SpoolSettings, TargetSettings, Template, TlsSettings,
    },
};

/// gRPC's paths (opentelemetry/proto/collector).
const LOGS_SERVICE: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const METRICS_SERVICE: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A stream for each sink.
pub(super) fn streams(settings: &Settings, start: &Start, ground: Option<&Ground>) -> Result<Vec<Stream>> {
    let begin = |sink: &Sink| {
        let started = sink_settings(sink, &stamp(settings, start))?;
        stream(settings, sink, &started, start, ground, None)
    };
    settings.sinks.iter().map(begin).collect()
}

/// What was there before a sink of a changed configuration.
pub(super) struct Before {
    pub(super) running: Running,
    /// It goes on with the numbers of a stream that still runs.
    pub(super) replaces: bool,
}

/// Starts the sink. Unless it replaces one, it goes on with the numbers of the last sink of that name.
pub(super) fn stream(
    settings: &Settings,
    sink: &Sink,
    started: &SinkSettings,
    start: &Start,
    ground: Option<&Ground>,
    before: Option<Before>,
) -> Result<Stream> {
    let filter = sink.filter.as_ref().map(transitions).transpose()?;
    for what in filter.iter().flat_map(awaited) {
        message!("sink {}: {what}", sink.name);
    }
    // Numbers that are lost are in the next ones.
    let has_records = sink.args.r#type != SinkType::OtlpMetrics;
    let slot = ground.filter(|_| has_records).and_then(|ground| ground.ledger.slot(&sink.name));
    let replaces = before.as_ref().is_some_and(|before| before.replaces);
    let running = before.map(|before| before.running);
    let queue = open(sink, started, start, Inherited { running, slot })?;
    let format: Box<dyn Format> = match sink.args.format {
        SinkFormat::Csv if sink.args.escape_formulas => Box::new(EscapedCsv),
        SinkFormat::Csv if takes_lines(&sink.args) => Box::new(Csv),
        _ => Box::new(Json::stamped(&stamp(settings, start))),
    };
    let begun = queue.slot().filter(|_| !replaces).zip(ground).map(|(slot, ground)| {
        let place = if ground.is_complete { LostPlace::Sink } else { LostPlace::Crash };
        (slot.begin(start.instance, ground.waiting), place)
    });
    let mut stream = Stream::to_sink(format, filter.map(Router::new), queue).sampled(sink.args.sample);
    if let Some((begun, place)) = begun {
        stream.resume(begun, place);
    }
    if sink.args.r#type == SinkType::OtlpMetrics {
        return Ok(stream.reporting(sink.args.interval, tell(settings, sink, start)));
    }
    Ok(match sink.args.aggregate {
        Some(window) => stream.aggregated(window, sink.args.aggregate_keys),
        None => stream,
    })
}

/// How its numbers are written.
fn tell(settings: &Settings, sink: &Sink, start: &Start) -> Tell {
    let resource = convert::otlp_resource(&stamp(settings, start));
    if sink.args.json {
        Box::new(move |numbers, time_ns, out| numbers.otlp_json(&resource, time_ns, out))
    } else {
        Box::new(move |numbers, time_ns, out| numbers.otlp_protobuf(&resource, time_ns, out))
    }
}

fn stamp<'a>(settings: &'a Settings, start: &'a Start) -> Stamp<'a> {
    Stamp { host: &start.host, instance: start.instance, labels: &settings.labels }
}

fn open(sink: &Sink, started: &SinkSettings, start: &Start, inherited: Inherited) -> Result<Queue> {
    let mut header = Vec::new();
    if sink.args.format == SinkFormat::Csv {
        Csv.header(&mut header);
    }
    let queue = sinks::start(started, header, converter(&sink.args, &start.host), inherited);
    queue.map_err(|error| Failure { code: super::exit::FAILURE, message: error.to_string() }.into())
}

/// What the sink is started with.
pub(super) fn sink_settings(sink: &Sink, stamp: &Stamp<'_>) -> Result<SinkSettings> {
    let args = &sink.args;
    Ok(SinkSettings {
        name: sink.name.clone(),
        target: target(sink, stamp)?,
        queue_bytes: args.queue as usize,
        spool: args.spool.as_ref().map(|path| SpoolSettings {
            path: path.join(&sink.name),
            max_bytes: args.spool_size,
            sync: args.spool_sync == SyncName::Always,
        }),
        pace: Pace {
            batch_bytes: args.batch as usize,
            batch_time: args.batch_time.unwrap_or(match args.r#type {
                SinkType::Http | SinkType::Otlp => std::time::Duration::from_secs(1),
                _ => std::time::Duration::ZERO,
            }),
            retry_max: args.retry,
        },
    })
}

/// Whether its records can be in any format.
fn takes_lines(args: &SinkArgs) -> bool {
    !matches!(args.r#type, SinkType::Syslog | SinkType::Journald | SinkType::Otlp | SinkType::OtlpMetrics)
}

/// Done in the sink's thread: the one that reads records writes our JSON, and nothing slower.
fn converter(args: &SinkArgs, host: &str) -> Option<Convert> {
    let format: Option<Convert> = match args.format {
        SinkFormat::Ecs => Some(Box::new(convert::ecs)),
        SinkFormat::Otlp => Some(Box::new(convert::otlp_json)),
        SinkFormat::Json | SinkFormat::Csv => None,
    };
    match args.r#type {
        SinkType::Syslog => {
            let header = convert::Syslog::new(args.facility, host, std::process::id());
            Some(Box::new(move |line, out| header.convert(line, out)))
        }
        SinkType::Journald => Some(Box::new(convert::journal)),
        SinkType::Otlp if args.json => Some(Box::new(convert::otlp_json)),
        SinkType::Otlp => Some(Box::new(convert::otlp_protobuf)),
        // Its bytes are made where the numbers are.
        SinkType::OtlpMetrics => None,
        SinkType::Stdout
        | SinkType::File
        | SinkType::Socket
        | SinkType::Http
        | SinkType::Nats
        | SinkType::Kafka => format,
    }
}

fn target(sink: &Sink, stamp: &Stamp<'_>) -> Result<TargetSettings> {
    let args = &sink.args;
    let address = || args.address.clone().context("the address is missing");
    Ok(match args.r#type {
        SinkType::Stdout => TargetSettings::Stdout,
        SinkType::File => TargetSettings::File(FileSettings {
            path: args.path.clone().context("the path is missing")?,
            rotate_bytes: args.rotate_size,
            rotate_every: args.rotate_time,
            keep: args.keep,
            zstd: args.zstd,
        }),
        SinkType::Socket => TargetSettings::Stream(address()?, tls(args), Framing::Lines),
        SinkType::Syslog => match address()? {
            address @ (Address::Udp(_) | Address::Unix(_)) => TargetSettings::Datagram(address),
            address => TargetSettings::Stream(address, tls(args), Framing::Octets),
        },
        SinkType::Journald => TargetSettings::Journald(args.socket.clone()),
        #[cfg(feature = "nats")]
        SinkType::Nats => {
            let id = format!("{}/{}", stamp.host, sink.name);
            let (url, credentials) =
                (args.url.clone().context("the url is missing")?, args.credentials.clone());
            TargetSettings::Nats(
                sinks::NatsSettings { url, subject: args.subject.clone(), credentials, id },
                tls(args),
            )
        }
        #[cfg(not(feature = "nats"))]
        SinkType::Nats => anyhow::bail!("built without NATS"),
        #[cfg(feature = "kafka")]
        SinkType::Kafka => TargetSettings::Kafka(sinks::KafkaSettings {
            brokers: args.url.clone().context("the url is missing")?,
            topic: args.topic.clone(),
            key: stamp.host.to_owned(),
            timeout: args.timeout,
            properties: sink.properties.clone(),
        }),
        #[cfg(not(feature = "kafka"))]
        SinkType::Kafka => anyhow::bail!("built without Kafka"),
        SinkType::Http => TargetSettings::Http(
            http(
                sink,
                match args.template {
                    TemplateName::Ndjson => Template::Ndjson,
                    TemplateName::Elasticsearch => Template::Elasticsearch,
                    TemplateName::Loki => Template::Loki(sink.labels.clone()),
                    TemplateName::Splunk => Template::Splunk,
                },
            )?,
            tls(args),
        ),
        SinkType::Otlp => {
            let template = if args.json {
                Template::OtlpJson(envelope(convert::otlp_json_envelope(stamp)))
            } else {
                Template::OtlpProtobuf(envelope(convert::otlp_protobuf_envelope(stamp)))
            };
            otlp(sink, template, ["/v1/logs", LOGS_SERVICE])?
        }
        SinkType::OtlpMetrics => {
            let template = if args.json { Template::OtlpMetricsJson } else { Template::OtlpMetricsProtobuf };
            otlp(sink, template, ["/v1/metrics", METRICS_SERVICE])?
        }
    })
}

/// To one of `paths` if the URL has none: the first is HTTP's, the second gRPC's.
fn otlp(sink: &Sink, template: Template, paths: [&str; 2]) -> Result<TargetSettings> {
    let mut http = http(sink, template)?;
    let path = http.url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    if path.is_none_or(|(_, path)| path.is_empty()) {
        http.url = format!("{}{}", http.url.trim_end_matches('/'), paths[usize::from(sink.args.grpc)]);
    }
    #[cfg(feature = "grpc")]
    if sink.args.grpc {
        return Ok(TargetSettings::Grpc(http, tls(&sink.args)));
    }
    Ok(TargetSettings::Http(http, tls(&sink.args)))
}

fn envelope((before, behind): (Vec<u8>, Vec<u8>)) -> Envelope {
    Envelope { before, behind }
}

fn tls(args: &SinkArgs) -> TlsSettings {
    TlsSettings {
        ca: args.tls_ca.clone(),
        cert: args.tls_cert.clone(),
        key: args.tls_key.clone(),
        name: args.tls_name.clone(),
    }
}

fn http(sink: &Sink, template: Template) -> Result<HttpSettings> {
    let args = &sink.args;
    let mut headers = sink.headers.clone();
    if let Some(path) = &args.authorization_file {
        headers
            .insert(sinks::AUTHORIZATION.into(), secret(sink, "authorization-file", path)?.trim().to_owned());
    }
    Ok(HttpSettings {
        url: args.url.clone().context("the url is missing")?,
        template,
        headers,
        timeout: args.timeout,
        gzip: args.compression == CompressionName::Gzip,
    })
}

/// The content of the file that `key` names.
pub(super) fn secret(sink: &Sink, key: &str, path: &Path) -> Result<String> {
    let text = files::read_text(path, files::MOST_SETTINGS);
    text.with_context(|| format!("sink {}: cannot read {}", sink.name, files::shown(key, path)))
}
