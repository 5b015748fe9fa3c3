//! What the system refuses in a configuration: `run --check` reports it, and `run` does not start. Nothing is changed, and nothing is
//! connected to.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{Failure, followed, sinks as streams};
use crate::{
    cli::{FilterArgs, SelectArgs, SinkFormat, SinkType, TemplateName},
    files::{self, Directory},
    format::{Stamp, convert::ecs_label},
    kernel,
    metrics::Server,
    settings::{Problems, Settings, SettingsError, Sink},
    sinks::{self, Address},
};

/// All that would keep `run` from starting.
pub(super) fn problems(settings: &Settings) -> Vec<SettingsError> {
    let places = &settings.places;
    let mut found = contradictions(settings);
    let mut note =
        |section: &str, key: &str, message: String| found.push(places.error(section, key, message));
    for (key, message) in of_filter(&settings.filter) {
        note("filter", key, message);
    }
    if let Some(Err(error)) = settings.keys.run.metrics.map(Server::verify) {
        note("", "metrics", error.to_string());
    }
    if let Some(Err(error)) = settings.keys.pin.as_deref().map(kernel::verify_pins) {
        note("", "pin", error.to_string());
    }
    if let Some(Err(error)) = settings.kernel.btf.as_deref().map(kernel::verify_btf) {
        note("kernel", "btf", error.to_string());
    }
    for sink in &settings.sinks {
        let section = section(sink);
        for (key, message) in sink.filter.iter().flat_map(of_filter) {
            note(&format!("{section}.filter"), key, message);
        }
        for problem in of_sink(sink) {
            note(&section, problem.key, problem.message);
        }
    }
    found
}

fn section(sink: &Sink) -> String {
    format!("sinks.{}", sink.name)
}

/// What names and paths of a filter can never lead to.
fn of_filter(args: &FilterArgs) -> Vec<(&'static str, String)> {
    let alone = [
        ("netns", SelectArgs { netns: args.select.netns.clone(), ..SelectArgs::default() }),
        ("cgroup", SelectArgs { cgroup: args.select.cgroup.clone(), ..SelectArgs::default() }),
    ];
    let problem = |(key, select)| Some((key, followed(&select).err()?.to_string()));
    alone.into_iter().filter_map(problem).collect()
}

/// The settings, if there are no problems with them.
pub(super) fn refuse(
    settings: Option<Settings>,
    problems: Vec<SettingsError>,
    code: u8,
) -> Result<Settings, Failure> {
    Problems::check(problems).map_err(|problems| Failure { code, message: problems.to_string() })?;
    settings.ok_or_else(|| Failure::usage("the configuration is empty"))
}

/// What the system refuses of one sink.
pub(super) fn of_sink(sink: &Sink) -> Vec<sinks::Problem> {
    let args = &sink.args;
    let secrets = [("authorization-file", &args.authorization_file), ("credentials", &args.credentials)];
    let unreadable: Vec<_> = secrets
        .into_iter()
        .filter_map(|(key, path)| {
            let error = streams::secret(sink, key, path.as_deref()?).err()?;
            Some(sinks::Problem { key, message: format!("{error:#}") })
        })
        .collect();
    // What it would be without the secret shows all else that is wrong.
    let mut sink = sink.clone();
    if !unreadable.is_empty() {
        (sink.args.authorization_file, sink.args.credentials) = (None, None);
    }
    let stamp = Stamp { host: "", instance: 0, labels: &BTreeMap::new() };
    let of_settings = streams::sink_settings(&sink, &stamp).map(|settings| sinks::verify(&settings));
    unreadable.into_iter().chain(of_settings.unwrap_or_default()).collect()
}

/// What cannot be true at once, whatever the system.
pub(super) fn contradictions(settings: &Settings) -> Vec<SettingsError> {
    let mut found = clashes(settings);
    let mut note = |name: &str, message: String| found.push(settings.places.error("labels", name, message));
    for name in settings.labels.keys().filter(|name| name.trim().is_empty()) {
        note(name, "a label needs a name".into());
    }
    for sink in &settings.sinks {
        for (name, message) in of_labels(sink, settings) {
            note(name, format!("sink {}: {message}", sink.name));
        }
    }
    found
}

/// Labels that the sink's collector would refuse, with every record that has them.
fn of_labels<'a>(sink: &Sink, settings: &'a Settings) -> Vec<(&'a str, String)> {
    let args = &sink.args;
    let names = || settings.labels.keys().map(String::as_str);
    let is_elasticsearch = args.r#type == SinkType::Http && args.template == TemplateName::Elasticsearch;
    let problem = |name: &'a str| {
        if args.format == SinkFormat::Ecs {
            let other = names()
                .take_while(|other| *other != name)
                .find(|other| ecs_label(other) == ecs_label(name))?;
            return Some(format!("the labels '{other}' and '{name}' are both '{}' in ECS", ecs_label(name)));
        }
        if !is_elasticsearch {
            return None;
        }
        if name.split('.').any(|part| part.trim().is_empty()) {
            return Some(format!(
                "Elasticsearch takes no '{name}' as a name, for there is nothing beside a dot"
            ));
        }
        let inner =
            names().find(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))?;
        Some(format!(
            "Elasticsearch takes dots for levels, so that '{name}' would be a text and, by '{inner}', an object: rename one, or set \
             format = \"ecs\", which has underscores instead of dots"
        ))
    };
    names().filter_map(|name| Some((name, problem(name)?))).collect()
}

/// Sinks that would write to one file, or use one spool: their records would be mixed within a line, and each would rotate the other's
/// file.
fn clashes(settings: &Settings) -> Vec<SettingsError> {
    let mut found = Vec::new();
    for (at, sink) in settings.sinks.iter().enumerate() {
        for (key, place) in [("path", output as fn(&Sink) -> Option<Place>), ("spool", spool)] {
            let same = |other: &&Sink| {
                place(sink).is_some_and(|own| place(other).is_some_and(|other| own.is(&other)))
            };
            let Some(other) = settings.sinks.iter().take(at).find(same) else { continue };
            let what = if key == "path" { "write to the same file" } else { "have the same spool" };
            let message = format!("sinks {} and {} {what}: give each its own", other.name, sink.name);
            found.push(settings.places.error(&section(sink), key, message));
        }
    }
    found
}

/// What is written to: by its path without symbolic links, and by what is there now.
struct Place {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Place {
    fn is(&self, other: &Self) -> bool {
        self.path == other.path || (self.identity.is_some() && self.identity == other.identity)
    }

    fn at(path: PathBuf) -> Self {
        let identity = fs::metadata(&path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        Self { path, identity }
    }
}

fn output(sink: &Sink) -> Option<Place> {
    let path = match sink.args.r#type {
        SinkType::Stdout => Path::new("/dev/stdout"),
        SinkType::File => sink.args.path.as_deref()?,
        _ => return None,
    };
    let is_device = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device());
    if is_device && sink.args.r#type == SinkType::File {
        // Nobody reads /dev/null.
        return None;
    }
    let resolved = match Directory::of(path) {
        Ok((directory, name)) if !files::is_inherited(path) => directory.join(&name),
        _ => path.to_owned(),
    };
    Some(Place::at(resolved))
}

fn spool(sink: &Sink) -> Option<Place> {
    let path = sink.args.spool.as_ref()?.join(&sink.name);
    Some(Place::at(fs::canonicalize(&path).unwrap_or(path)))
}

/// What keeps `run` from nothing, and a sink from delivering now.
pub(super) fn remarks(settings: &Settings) -> Vec<SettingsError> {
    let remark = |sink: &Sink| {
        let (key, message) = of_receiver(sink)?;
        let message = format!("sink {}: {message}; its records wait until then", sink.name);
        Some(settings.places.error(&section(sink), key, message))
    };
    settings.sinks.iter().filter_map(remark).collect()
}

fn of_receiver(sink: &Sink) -> Option<(&'static str, String)> {
    let args = &sink.args;
    let socket = match (args.r#type, &args.address) {
        (SinkType::Journald, _) => Some(("socket", &args.socket)),
        (SinkType::Socket | SinkType::Syslog, Some(Address::Unix(path))) => Some(("address", path)),
        _ => None,
    };
    if let Some((key, path)) = socket.filter(|(_, path)| !path.exists()) {
        let parent = path.parent().filter(|parent| !parent.exists()).unwrap_or(path);
        return Some((key, format!("{} does not exist yet", parent.display())));
    }
    let pipe = args.path.as_deref().filter(|_| args.r#type == SinkType::File)?;
    let metadata = fs::metadata(pipe).ok().filter(|metadata| metadata.file_type().is_fifo())?;
    let is_read = has_reader((metadata.dev(), metadata.ino()));
    (!is_read).then(|| ("path", format!("no process that can be seen reads the pipe {}", pipe.display())))
}

/// Whether a process has the pipe open for reading. It is not opened to find out: its reader would see that end.
fn has_reader(pipe: (u64, u64)) -> bool {
    let reads = |descriptor: &Path| {
        let is_it = fs::metadata(descriptor).is_ok_and(|file| (file.dev(), file.ino()) == pipe);
        // Only a reader's link has the right to read.
        is_it && fs::symlink_metadata(descriptor).is_ok_and(|link| link.mode() & 0o400 != 0)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let descriptors = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok());
    descriptors.flatten().flatten().any(|descriptor| reads(&descriptor.path()))
}
