//! `sockstate run`.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::Result;

use super::{
    Failure, exit,
    handover::Ground,
    session::{self, Session},
    sinks, transitions,
};
use crate::{
    cli::DaemonArgs,
    model::{Notice, Start},
    pipeline::{GRACE, Outlet, Stream, Streams},
    settings::{self, Settings, Sink},
};

/// Runs it.
pub(super) fn run(args: &DaemonArgs) -> Result<ExitCode> {
    if args.example {
        std::io::stdout().lock().write_all(settings::example().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = load(&args.config)?;
    let filter = transitions(&settings.filter)?;
    if args.check {
        let names: Vec<&str> = settings.sinks.iter().map(|sink| sink.name.as_str()).collect();
        println!("{}: right; into {}", args.config.display(), names.join(", "));
        return Ok(ExitCode::SUCCESS);
    }
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
            let mut running = Running { settings, start: start.clone(), ground };
            let reload = move |streams: &mut Streams| running.reload(&path, streams);
            Ok((streams, Outlet::Sinks(Box::new(reload))))
        });
        Ok(Session { pin: pin.as_deref(), ..Session::new(filter, &run, &stuck, &kernel, open)? })
    };
    session::run(open, kernel.alongside)
}

fn load(path: &Path) -> Result<Settings, Failure> {
    settings::load(path).map_err(|error| Failure { code: exit::USAGE, message: error.to_string() })
}

/// What the streams were made of.
struct Running {
    settings: Settings,
    start: Start,
    ground: Option<Ground>,
}

impl Running {
    /// Sinks that are as they were go on, and open their files again; the others end, and begin anew.
    fn reload(&mut self, path: &Path, streams: &mut Streams) {
        let settings = match load(path) {
            Ok(settings) => settings,
            Err(error) => {
                eprintln!("sockstate: {error}; going on as before");
                return streams.list.iter().for_each(Stream::reopen);
            }
        };
        if !self.is_same_tracer(&settings) {
            eprintln!(
                "sockstate: {}: what is above the sinks has changed: that takes a restart",
                path.display()
            );
        }
        let same_labels = self.settings.labels == settings.labels;
        let mut old: Vec<_> = self.settings.sinks.drain(..).zip(streams.list.drain(..)).collect();
        let mut kept = Settings { sinks: Vec::new(), ..settings.clone() };
        for sink in &settings.sinks {
            let at = old.iter().position(|(known, _)| known.name == sink.name);
            let before = at.map(|at| old.swap_remove(at));
            if let Some((sink, stream)) = self.renew(&settings, sink, before, same_labels) {
                kept.sinks.push(sink);
                streams.list.push(stream);
            }
        }
        for (_, mut stream) in old {
            stream.end(GRACE);
        }
        self.settings = kept;
    }

    /// The stream of a sink of the new settings; the one from before where the new one does not start.
    fn renew(
        &self,
        settings: &Settings,
        sink: &Sink,
        before: Option<(Sink, Stream)>,
        same_labels: bool,
    ) -> Option<(Sink, Stream)> {
        if let Some((_, stream)) = before.as_ref().filter(|(known, _)| known == sink && same_labels) {
            stream.reopen();
            return before;
        }
        let same_filter = before.as_ref().is_some_and(|(known, _)| known.filter == sink.filter);
        let after = before.as_ref().and_then(|(_, stream)| stream.queue());
        match sinks::stream(settings, sink, &self.start, self.ground.as_ref(), after) {
            Ok(mut stream) => {
                if let Some((_, mut before)) = before {
                    before.end(GRACE);
                    stream.follow(before, same_filter);
                }
                stream.notice(&Notice::Start(self.start.clone()));
                Some((sink.clone(), stream))
            }
            Err(error) => {
                let what = if before.is_some() { "going on as before" } else { "going on without it" };
                eprintln!("sockstate: {error:#}; {what}");
                before
            }
        }
    }

    fn is_same_tracer(&self, new: &Settings) -> bool {
        let old = &self.settings;
        old.keys == new.keys && old.filter == new.filter && old.stuck == new.stuck && old.kernel == new.kernel
    }
}
