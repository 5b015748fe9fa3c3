//! From the configuration's sinks to streams that are written to them.

use anyhow::{Context, Error, Result};

use super::{
    Failure, awaited, daemon_filter,
    sink_host::{PreparedSinks, SinkHost, Starter, stamp},
};
use crate::{
    format::{Format, Json, Stamp, convert},
    model::{LostPlace, RecordKind, RecordKinds, Start},
    pipeline::{MetricsStream, RecordStream, Stream, WriteNumbers},
    restart::Resume,
    route::Router,
    settings::{Settings, Sink},
    sinks::{self, Inherited, Queue, Running, SinkError, SinkSection, SinkSettings},
};

/// Whether a sink names this kind among its records.
pub(super) fn want(settings: &Settings, kind: RecordKind) -> bool {
    settings.sinks.iter().any(|sink| sink.section.common.records.contains(&kind))
}

/// A stream for each sink.
pub(super) fn streams(
    settings: &Settings,
    prepared: &PreparedSinks,
    start: &Start,
    resume: Option<&Resume>,
    host: &SinkHost,
) -> Result<Vec<Stream>> {
    if let (Some(process), Some(resume)) = (&host.process, resume) {
        process.pass_ledger(&resume.ledger).context("cannot pass on the ledger")?;
    }
    let begin = |sink: &Sink| {
        let starter = prepared.starters.get(&sink.section.name).cloned();
        let starter = starter.unwrap_or_else(|| Err("it was not prepared".to_owned()));
        stream(settings, sink, &starter.map_err(Error::msg)?, start, resume, None)
    };
    settings.sinks.iter().map(begin).collect()
}

/// The predecessor of a sink in a changed configuration.
pub(super) struct Before {
    pub(super) running: Running,
    /// The sink continues the numbers of a stream that still runs.
    pub(super) replaces: bool,
}

/// Starts the sink. Unless it replaces one, it goes on with the numbers of the last sink of that name.
pub(super) fn stream(
    settings: &Settings,
    sink: &Sink,
    starter: &Starter,
    start: &Start,
    resume: Option<&Resume>,
    before: Option<Before>,
) -> Result<Stream> {
    let section = &sink.section;
    let filter = sink.filter.as_ref().map(daemon_filter).transpose()?;
    for what in filter.iter().flat_map(awaited) {
        message!(info: "sink {}: {what}", section.name);
    }
    let metrics = section.config.metrics();
    // Later metrics include those that were lost.
    let progress = resume.filter(|_| metrics.is_none()).and_then(|resume| resume.ledger.sink(&section.name));
    let replaces = before.as_ref().is_some_and(|before| before.replaces);
    let running = before.map(|before| before.running);
    let failed = |message: String| Failure { code: super::exit::FAILURE, message };
    let queue = match starter {
        Starter::Here(started) => {
            let inherited = Inherited::here(running, progress);
            open(section, started, &stamp(settings, start), inherited)
                .map_err(|error| failed(error.to_string()))?
        }
        Starter::Apart(place) => place
            .open(&section.name, section.common.queue as usize, progress, running.as_ref())
            .map_err(|error| failed(error.to_string()))?,
    };
    if let Some(metrics) = metrics {
        let write = write_numbers(metrics.json, &stamp(settings, start));
        return Ok(Stream::Metrics(MetricsStream::new(metrics.interval, write, queue)));
    }
    let point = queue.progress().filter(|_| !replaces).zip(resume).map(|(progress, resume)| {
        let place = if resume.is_complete { LostPlace::Sink } else { LostPlace::Crash };
        (progress.resume(start.instance, resume.waiting), place)
    });
    let common = &section.common;
    let format = format(section, &stamp(settings, start));
    let stream = RecordStream::to_sink(format, filter.map(Router::new), queue);
    let mut stream =
        stream.only(RecordKinds::of(&common.records)).with_interims(common.interim).sampled(common.sample);
    if let Some((point, place)) = point {
        stream.resume(point, place);
    }
    Ok(Stream::Records(match common.aggregate {
        Some(window) => stream.aggregated(window, common.aggregate_keys),
        None => stream,
    }))
}

/// Opens the sink in this process.
pub(super) fn open(
    section: &SinkSection,
    started: &SinkSettings,
    stamp: &Stamp<'_>,
    inherited: Inherited,
) -> Result<Queue, SinkError> {
    let mut header = Vec::new();
    format(section, stamp).header(&mut header);
    sinks::start(started, header, section.config.converter(stamp.host), inherited)
}

fn format(section: &SinkSection, stamp: &Stamp<'_>) -> Box<dyn Format> {
    let common = &section.common;
    match section.config.format() {
        Some(keys) => keys.make(RecordKinds::of(&common.records), common.sample, stamp),
        None => Box::new(Json::stamped(stamp).sampled(common.sample)),
    }
}

/// How the metrics of a sink are written.
fn write_numbers(json: bool, stamp: &Stamp<'_>) -> WriteNumbers {
    let resource = convert::otlp_resource(stamp);
    if json {
        Box::new(move |numbers, time_ns, out| numbers.otlp_json(&resource, time_ns, out))
    } else {
        Box::new(move |numbers, time_ns, out| numbers.otlp_protobuf(&resource, time_ns, out))
    }
}
