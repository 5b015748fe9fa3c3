//! Checks whether this system allows a configuration: `run --check` reports the problems, and `run` does not start
//! with them. The checks change nothing, and open no connection.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use super::{Failure, followed, lock};
use crate::{
    cli::{FilterArgs, SelectArgs},
    files::{self, Directory},
    filter::PlaceArgs,
    kernel,
    kubernetes::KubernetesArgs,
    settings::{Problems, Settings, SettingsError, Sink},
};

/// All problems that keep `run` from starting. `of_metrics` is that of the metrics' address; `of_sink` finds those of a
/// sink, each with its key.
pub(super) fn problems(
    settings: &Settings,
    of_metrics: Option<String>,
    of_sink: impl Fn(&Sink) -> Vec<(String, String)>,
) -> Vec<SettingsError> {
    let places = &settings.places;
    let mut found = contradictions(settings);
    let mut note =
        |section: &str, key: &str, message: String| found.push(places.error(section, key, message));
    for (key, message) in of_filter(&settings.filter) {
        note("filter", key, message);
    }
    if let Some(problem) = of_metrics {
        note("", "metrics", problem);
    }
    if let Some(Err(error)) = settings.keys.pin.as_deref().map(kernel::verify_pins) {
        note("", "pin", error.to_string());
    }
    if let Some(Err(error)) = settings.keys.runtime_dir.as_deref().map(files::can_make) {
        note("", "runtime-dir", error.to_string());
    }
    if let Err(error) = lock::verify(&settings.kernel) {
        note("kernel", "lock", error.to_string());
    }
    if let Some(Err(error)) = settings.kernel.btf.as_deref().map(kernel::verify_btf) {
        note("kernel", "btf", error.to_string());
    }
    if let Some(Err(error)) = settings.kubernetes.as_ref().map(KubernetesArgs::settings) {
        note("kubernetes", error.key(), error.to_string());
    }
    let sinks = settings.sinks.iter().map(|sink| (format!("{}.filter", section(sink)), sink.filter.as_ref()));
    let filters = [("filter".to_owned(), Some(&settings.filter))].into_iter().chain(sinks);
    for (place, filter) in filters {
        let is_by_workload = filter.is_some_and(|filter| !filter.select.workloads.workload.is_empty());
        if is_by_workload && settings.kubernetes.is_none() {
            note(
                &place,
                "workload",
                "only the API server knows the workload of a pod: add [kubernetes]".to_owned(),
            );
        }
    }
    for sink in &settings.sinks {
        let section = section(sink);
        for (key, message) in sink.filter.iter().flat_map(of_filter) {
            note(&format!("{section}.filter"), key, message);
        }
        for (key, message) in of_sink(sink) {
            note(&section, &key, message);
        }
    }
    found
}

fn section(sink: &Sink) -> String {
    format!("sinks.{}", sink.section.name)
}

/// Problems with names and paths of a filter that can never exist.
fn of_filter(args: &FilterArgs) -> Vec<(&'static str, String)> {
    let alone = [
        ("netns", PlaceArgs { netns: args.select.place.netns.clone(), cgroup: None }),
        ("cgroup", PlaceArgs { netns: None, cgroup: args.select.place.cgroup.clone() }),
    ];
    let problem = |(key, place)| {
        let select = SelectArgs { place, ..SelectArgs::default() };
        Some((key, followed(&select).err()?.to_string()))
    };
    alone.into_iter().filter_map(problem).collect()
}

/// The settings, if there are no problems.
pub(super) fn settings_or_failure(
    settings: Option<Settings>,
    problems: Vec<SettingsError>,
    code: u8,
) -> Result<Settings, Failure> {
    Problems::check(problems).map_err(|problems| Failure { code, message: problems.to_string() })?;
    settings.ok_or_else(|| Failure::usage("the configuration is empty"))
}

/// Contradictions between settings. Paths are compared as this system resolves them.
pub(super) fn contradictions(settings: &Settings) -> Vec<SettingsError> {
    let mut found = clashes(settings);
    let keys = &settings.keys;
    if keys.sinks_user.is_some() && keys.sinks_socket.is_some() {
        let message = "the service manager has chosen the user of the process at `sinks-socket`: remove one of the two keys";
        found.push(settings.places.error("", "sinks-user", message));
    }
    let mut note = |name: &str, message: String| found.push(settings.places.error("labels", name, message));
    for name in settings.labels.keys().filter(|name| name.trim().is_empty()) {
        note(name, "a label needs a name".into());
    }
    for sink in &settings.sinks {
        for (name, message) in of_labels(sink, settings) {
            note(name, format!("sink {}: {message}", sink.section.name));
        }
    }
    found
}

/// Labels for which the sink's collector would refuse every record.
fn of_labels<'a>(sink: &Sink, settings: &'a Settings) -> Vec<(&'a str, String)> {
    let labels = &settings.labels;
    let problem = |name: &'a String| Some((name.as_str(), sink.section.config.label_problem(name, labels)?));
    labels.keys().filter_map(problem).collect()
}

/// Sinks with the same file or the same spool: their lines would mix, and each would rotate the other's file.
fn clashes(settings: &Settings) -> Vec<SettingsError> {
    let mut found = Vec::new();
    for (at, sink) in settings.sinks.iter().enumerate() {
        for (key, place) in [("path", output as fn(&Sink) -> Option<SinkPath>), ("spool", spool)] {
            let same = |other: &&Sink| {
                place(sink).is_some_and(|own| place(other).is_some_and(|other| own.is(&other)))
            };
            let Some(other) = settings.sinks.iter().take(at).find(same) else { continue };
            let what = if key == "path" { "write to the same file" } else { "have the same spool" };
            let message =
                format!("sinks {} and {} {what}: give each its own", other.section.name, sink.section.name);
            found.push(settings.places.error(&section(sink), key, message));
        }
    }
    found
}

/// A file or directory that a sink writes to: its path without symbolic links, and the device and inode of an
/// existing one.
struct SinkPath {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SinkPath {
    fn is(&self, other: &Self) -> bool {
        self.path == other.path || (self.identity.is_some() && self.identity == other.identity)
    }

    fn at(path: PathBuf) -> Self {
        let identity = fs::metadata(&path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        Self { path, identity }
    }
}

fn output(sink: &Sink) -> Option<SinkPath> {
    let path = sink.section.config.output()?;
    let resolved = match Directory::of(path) {
        Ok((directory, name)) if !files::is_inherited(path) => directory.join(&name),
        _ => path.to_owned(),
    };
    Some(SinkPath::at(resolved))
}

fn spool(sink: &Sink) -> Option<SinkPath> {
    let path = sink.section.spool_path()?;
    Some(SinkPath::at(fs::canonicalize(&path).unwrap_or(path)))
}

/// Warnings about sinks that cannot deliver yet; `run` starts nevertheless.
pub(super) fn warnings(settings: &Settings) -> Vec<SettingsError> {
    let warning = |sink: &Sink| {
        let problem = sink.section.config.warning()?;
        let message = format!("sink {}: {}; its records wait until then", sink.section.name, problem.message);
        Some(settings.places.error(&section(sink), problem.key, message))
    };
    settings.sinks.iter().filter_map(warning).collect()
}
