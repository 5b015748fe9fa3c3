//! A configuration that is read again while its sinks run, by a thread: a disk or a server that does not answer may keep it waiting.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{Failure, exit, verify};
use crate::{
    format::Stamp,
    model::Start,
    settings::{self, Reading, Settings, Sink},
    sinks::SinkSettings,
};

/// How long it is waited for without a word.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Threads that may wait for a system that does not answer.
const MOST_THREADS: usize = 4;

/// What a thread has read.
pub(super) struct Reread {
    pub(super) settings: Settings,
    pub(super) secrets: Secrets,
    /// What sinks are started with, or why they cannot be, by name.
    pub(super) sinks: BTreeMap<String, Result<SinkSettings, String>>,
}

/// Reads it when asked.
pub(super) struct Reader {
    path: PathBuf,
    start: Start,
    under_way: Option<UnderWay>,
    /// It was asked for while it was read.
    again: bool,
    /// Each thread has a clone.
    threads: Arc<()>,
}

struct UnderWay {
    result: oneshot::Receiver<Result<Reread, Failure>>,
    late_at: Instant,
    is_late: bool,
}

/// What has come of it.
pub(super) enum News {
    Read(Box<Result<Reread, Failure>>),
    /// It is not read yet, and no longer waited for in silence.
    Late,
    /// It is not being read.
    Refused(io::Error),
}

impl Reader {
    pub(super) fn new(path: PathBuf, start: Start) -> Self {
        Self { path, start, under_way: None, again: false, threads: Arc::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_reading(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins; if it is being read, that is done once more afterwards, or beside a thread that waits too long.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if self.under_way.as_ref().is_some_and(|reading| !reading.is_late) {
            self.again = true;
            return Ok(());
        }
        if Arc::strong_count(&self.threads) > MOST_THREADS {
            let path = self.path.display();
            let message =
                format!("cannot read {path} again: {MOST_THREADS} threads wait for the system to answer");
            return Err(io::Error::other(message));
        }
        let (sender, result) = oneshot::channel();
        let (path, start, alive) = (self.path.clone(), self.start.clone(), Arc::clone(&self.threads));
        let work = move || {
            // A later thread may have been quicker.
            drop(sender.send(reread(&path, &start)));
            drop(alive);
        };
        let started = thread::Builder::new().name("reload".into()).spawn(work);
        started.map_err(|error| {
            let path = self.path.display();
            io::Error::new(error.kind(), format!("cannot start a thread to read {path} again: {error}"))
        })?;
        self.under_way = Some(UnderWay { result, late_at: Instant::now() + PATIENCE, is_late: false });
        Ok(())
    }

    /// Waits for news; none is lost when this is cancelled.
    pub(super) async fn news(&mut self) -> News {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let UnderWay { result, late_at, is_late } = under_way;
        let result = tokio::select! {
            biased;
            result = result => result,
            () = sleep_until(*late_at), if !*is_late => {
                *is_late = true;
                return News::Late;
            }
        };
        self.under_way = None;
        match result {
            Ok(result) => News::Read(Box::new(result)),
            Err(error) => News::Refused(io::Error::other(error)),
        }
    }

    /// Whether it was asked for meanwhile.
    pub(super) fn take_again(&mut self) -> bool {
        !self.is_reading() && std::mem::take(&mut self.again)
    }
}

/// The settings, if the file has no fault: sinks that cannot be started are dealt with one by one.
fn reread(path: &Path, start: &Start) -> Result<Reread, Failure> {
    let Reading { settings, mut problems } = settings::read(path);
    problems.extend(settings.iter().flat_map(verify::contradictions));
    let settings = verify::refuse(settings, problems, exit::USAGE)?;
    let secrets = Secrets::of(&settings);
    let stamp = Stamp { host: &start.host, instance: start.instance, labels: &settings.labels };
    let of_sink = |sink: &Sink| match sink.section.system_problems().into_iter().next() {
        Some(problem) => Err(problem.message),
        None => sink.section.settings(&stamp),
    };
    let sinks = settings.sinks.iter().map(|sink| (sink.section.name.clone(), of_sink(sink))).collect();
    Ok(Reread { secrets, sinks, settings })
}

/// What the files hold that sinks read at their start, as sums: a certificate that was renewed takes a new sink.
#[derive(Default)]
pub(super) struct Secrets(BTreeMap<String, u64>);

impl Secrets {
    pub(super) fn of(settings: &Settings) -> Self {
        Self(
            settings.sinks.iter().map(|sink| (sink.section.name.clone(), sink.section.files_sum())).collect(),
        )
    }

    pub(super) fn same(&self, other: &Self, name: &str) -> bool {
        self.0.get(name) == other.0.get(name)
    }
}
