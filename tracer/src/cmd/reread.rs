//! Reads the configuration again while the sinks run, in a thread, because a disk or a server may not answer.

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

use super::{
    Failure, exit,
    secrets::Secrets,
    sink_host::{self, PreparedSinks, SinkHost, Starter},
    verify,
};
use crate::{
    model::Start,
    settings::{self, Reading, Settings},
};

/// After this time a message reports that the configuration is not read yet.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Limit of threads that wait for the system.
const MAX_THREADS: usize = 4;

/// A configuration that was read again.
pub(super) struct Reread {
    pub(super) settings: Settings,
    pub(super) secrets: Secrets,
    /// What starts each sink, by name, or why the sink cannot start.
    pub(super) sinks: BTreeMap<String, Result<Starter, String>>,
}

/// Starts threads that read the configuration.
pub(super) struct Reader {
    path: PathBuf,
    start: Start,
    host: SinkHost,
    under_way: Option<UnderWay>,
    /// Another read was requested during the current one.
    again: bool,
    /// Each thread holds a clone, so the strong count tells how many run.
    threads: Arc<()>,
}

struct UnderWay {
    result: oneshot::Receiver<Result<Reread, Failure>>,
    late_at: Instant,
    is_late: bool,
}

/// The progress of a read.
pub(super) enum News {
    Read(Box<Result<Reread, Failure>>),
    /// The configuration is not read yet; the user should know.
    Late,
    /// The thread could not start, or has failed.
    Refused(io::Error),
}

impl Reader {
    pub(super) fn new(path: PathBuf, start: Start, host: SinkHost) -> Self {
        Self { path, start, host, under_way: None, again: false, threads: Arc::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_reading(&self) -> bool {
        self.under_way.is_some()
    }

    /// Starts a read. If one is running, another one follows; if that one is late, another one starts beside it.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if self.under_way.as_ref().is_some_and(|reading| !reading.is_late) {
            self.again = true;
            return Ok(());
        }
        if Arc::strong_count(&self.threads) > MAX_THREADS {
            let path = self.path.display();
            let message =
                format!("cannot read {path} again: {MAX_THREADS} threads wait for the system to answer");
            return Err(io::Error::other(message));
        }
        let (sender, result) = oneshot::channel();
        let (path, start, alive) = (self.path.clone(), self.start.clone(), Arc::clone(&self.threads));
        let host = self.host.clone();
        let work = move || {
            // A later thread may have finished first.
            drop(sender.send(reread(&path, &start, &host)));
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

    /// Waits for news. Safe to cancel.
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

    /// Whether another read was requested during the last one.
    pub(super) fn take_again(&mut self) -> bool {
        !self.is_reading() && std::mem::take(&mut self.again)
    }
}

/// Reads the settings. An error in the file refuses all of it; a sink that cannot start affects only that sink.
fn reread(path: &Path, start: &Start, host: &SinkHost) -> Result<Reread, Failure> {
    let Reading { settings, mut problems, text } = settings::read(path);
    problems.extend(settings.iter().flat_map(verify::contradictions));
    let settings = verify::settings_or_failure(settings, problems, exit::USAGE)?;
    let prepared = host.prepare(path, &text, &settings, start, false);
    let prepared = prepared
        .map_err(|error| Failure { code: exit::FAILURE, message: format!("{}: {error}", path.display()) })?;
    let PreparedSinks { mut starters, secrets } = prepared;
    if host.process.is_none() {
        for sink in &settings.sinks {
            if let Some((_, message)) = sink_host::problems(sink).into_iter().next() {
                starters.insert(sink.section.name.clone(), Err(message));
            }
        }
    }
    Ok(Reread { secrets, sinks: starters, settings })
}
