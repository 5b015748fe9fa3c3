//! `sockstate run`.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;

use super::{
    Failure, exit,
    handover::Ground,
    print,
    session::{Host, Session},
    sinks, transitions, verify,
};
use crate::{
    cli::{DaemonArgs, SinkArgs},
    files,
    model::{Record, Start},
    pipeline::{GRACE, Outlet, Stream, Streams},
    settings::{self, Problems, Reading, Settings, SettingsError, Sink},
    sinks::Queue,
};

/// Runs it.
pub(super) fn run(args: &DaemonArgs) -> Result<ExitCode> {
    if args.example {
        std::io::stdout().lock().write_all(settings::example().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        return checked(&args.config, &verified(&args.config)?);
    }
    // A service manager may send a signal at once; certificates and the kernel's types take time to read.
    let host = Host::start()?;
    let settings = verified(&args.config)?;
    let filter = transitions(&settings.filter)?;
    let kernel = settings.kernel.clone();
    let stuck = settings.stuck.clone();
    let run = settings.keys.run.clone();
    let pin = settings.keys.pin.clone();
    let path = args.config.clone();
    let open = || {
        let open = Box::new(move |start: &Start, ground: Option<Ground>| {
            let streams = sinks::streams(&settings, start, ground.as_ref())?;
            // What the one before has left is said by now.
            let ground = ground.map(|ground| Ground { is_complete: true, waiting: 0, ..ground });
            let mut running = Running {
                secrets: Secrets::of(&settings),
                settings,
                start: start.clone(),
                ground,
                ending: Vec::new(),
            };
            let reload = move |streams: &mut Streams| running.reload(&path, streams);
            Ok((streams, Outlet::Sinks(Box::new(reload))))
        });
        Ok(Session { pin: pin.as_deref(), ..Session::new(filter, &run, &stuck, &kernel, open)? })
    };
    host.run(open, kernel.alongside)
}

/// The settings, if the file has no fault and the system refuses nothing in them.
fn verified(path: &Path) -> Result<Settings, Failure> {
    let Reading { settings, mut problems } = settings::read(path);
    // What is wrong by the text alone is wrong everywhere.
    let code = if problems.is_empty() { exit::FAILURE } else { exit::USAGE };
    problems.extend(settings.iter().flat_map(verify::problems));
    refuse(settings, problems, code)
}

/// The settings, if the file has no fault: sinks that cannot be started are dealt with one by one.
fn reread(path: &Path) -> Result<Settings, Failure> {
    let Reading { settings, mut problems } = settings::read(path);
    problems.extend(settings.iter().flat_map(verify::contradictions));
    refuse(settings, problems, exit::USAGE)
}

fn refuse(settings: Option<Settings>, problems: Vec<SettingsError>, code: u8) -> Result<Settings, Failure> {
    Problems::check(problems).map_err(|problems| Failure { code, message: problems.to_string() })?;
    settings.ok_or_else(|| Failure::usage("the configuration is empty"))
}

fn checked(path: &Path, settings: &Settings) -> Result<ExitCode> {
    for remark in verify::remarks(settings) {
        message!("{remark}");
    }
    let names: Vec<&str> = settings.sinks.iter().map(|sink| sink.name.as_str()).collect();
    print([format!("{}: right; into {}\n", path.display(), names.join(", "))])?;
    Ok(ExitCode::SUCCESS)
}

/// What the streams were made of.
struct Running {
    settings: Settings,
    secrets: Secrets,
    start: Start,
    ground: Option<Ground>,
    /// Sinks that are no longer wanted, and still deliver what they have.
    ending: Vec<(Sink, Queue)>,
}

impl Running {
    /// Sinks that are as they were go on, and open their files again; the others end, and their successors begin.
    fn reload(&mut self, path: &Path, streams: &mut Streams) {
        let settings = match reread(path) {
            Ok(settings) => settings,
            Err(error) => {
                message!("{error}; going on as before");
                return streams.list.iter().for_each(Stream::reopen);
            }
        };
        if !self.is_same_tracer(&settings) {
            message!("{}: what is above the sinks has changed: that takes a restart", path.display());
        }
        let same_labels = self.settings.labels == settings.labels;
        let secrets = Secrets::of(&settings);
        self.ending.retain(|(_, queue)| !queue.is_finished());
        let mut old: Vec<_> = self.settings.sinks.drain(..).zip(streams.list.drain(..)).collect();
        let mut kept = Settings { sinks: Vec::new(), ..settings.clone() };
        // Sinks that go on keep their files: the others' successors must not open one of these.
        let (mut wanted, mut successors) = (Vec::new(), Vec::new());
        for sink in &settings.sinks {
            let before =
                old.iter().position(|(known, _)| known.name == sink.name).map(|at| old.swap_remove(at));
            match before {
                Some((known, stream))
                    if known == *sink && same_labels && self.secrets.same(&secrets, &sink.name) =>
                {
                    stream.reopen();
                    wanted.push(Some((known, stream)));
                }
                before => {
                    successors.push((wanted.len(), sink, before));
                    wanted.push(None);
                }
            }
        }
        for (sink, stream) in &mut old {
            self.retire(sink, stream, streams);
        }
        for (at, sink, before) in successors {
            let renewed = self.renew(&settings, sink, before, streams);
            if let Some(place) = wanted.get_mut(at) {
                *place = renewed;
            }
        }
        for (sink, stream) in wanted.into_iter().flatten() {
            kept.sinks.push(sink);
            streams.list.push(stream);
        }
        (self.settings, self.secrets) = (kept, secrets);
    }

    /// Nothing more comes for `stream`; it delivers what it has.
    fn retire(&mut self, sink: &Sink, stream: &mut Stream, streams: &mut Streams) {
        stream.end(GRACE);
        if let Some(queue) = stream.queue() {
            self.ending.push((sink.clone(), queue.clone()));
            streams.retire(queue.clone());
        }
    }

    /// The stream of a sink of the new settings; the previous one where the new one does not start.
    fn renew(
        &mut self,
        settings: &Settings,
        sink: &Sink,
        before: Option<(Sink, Stream)>,
        streams: &mut Streams,
    ) -> Option<(Sink, Stream)> {
        let same_filter = before.as_ref().is_some_and(|(known, _)| known.filter == sink.filter);
        let ending = self.ending.iter().map(|(sink, queue)| (sink, queue));
        let previous = before.iter().filter_map(|(sink, stream)| Some((sink, stream.queue()?)));
        let after: Vec<Queue> = ending
            .chain(previous)
            .filter(|(other, _)| shares_files(other, sink))
            .map(|(_, queue)| queue.clone())
            .collect();
        let replaces = before.is_some();
        match sinks::stream(
            settings,
            sink,
            &self.start,
            self.ground.as_ref(),
            sinks::Before { after, replaces },
        ) {
            Ok(mut stream) => {
                if let Some((known, mut before)) = before {
                    self.retire(&known, &mut before, streams);
                    stream.follow(before, same_filter);
                }
                stream.record(&Record::Start(self.start.clone()));
                Some((sink.clone(), stream))
            }
            Err(error) => {
                let what = if before.is_some() { "going on as before" } else { "going on without it" };
                message!("{error:#}; {what}");
                before
            }
        }
    }

    fn is_same_tracer(&self, new: &Settings) -> bool {
        let old = &self.settings;
        old.keys == new.keys && old.filter == new.filter && old.stuck == new.stuck && old.kernel == new.kernel
    }
}

/// Whether two sinks would write to one file, or use one spool.
fn shares_files(one: &Sink, other: &Sink) -> bool {
    let spool = |sink: &Sink| sink.args.spool.as_ref().map(|path| path.join(&sink.name));
    let same = |one: Option<PathBuf>, other: Option<PathBuf>| one.is_some() && one == other;
    same(one.args.path.clone(), other.args.path.clone()) || same(spool(one), spool(other))
}

/// What the files hold that sinks read at their start, as sums: a certificate that was renewed takes a new sink.
#[derive(Default)]
struct Secrets(BTreeMap<String, u64>);

impl Secrets {
    fn of(settings: &Settings) -> Self {
        Self(settings.sinks.iter().map(|sink| (sink.name.clone(), sum(&sink.args))).collect())
    }

    fn same(&self, other: &Self, name: &str) -> bool {
        self.0.get(name) == other.0.get(name)
    }
}

fn sum(args: &SinkArgs) -> u64 {
    let mut hasher = DefaultHasher::new();
    let files = [&args.authorization_file, &args.tls_ca, &args.tls_cert, &args.tls_key, &args.credentials];
    for path in files.into_iter().flatten() {
        files::read(path, files::MOST_SETTINGS).ok().hash(&mut hasher);
    }
    hasher.finish()
}
