//! Where the sinks of a daemon run: in its own process, or in another one, as another user.

use std::{collections::BTreeMap, net::SocketAddr, os::unix::net::UnixStream, path::Path};

use anyhow::{Error, Result};

use super::{reread::Secrets, sinks};
use crate::{
    cli::DaemonKeys,
    files::DEFAULT_RUNTIME,
    metrics::Server,
    model::Start,
    settings::{Settings, Sink},
    sinks::{
        SinkSettings,
        process::{Identity, Place, Prepared, ProcessError, Request, SinkProcess},
    },
};

/// The process of the sinks; `None` if the sinks run in this process.
#[derive(Clone, Default)]
pub(super) struct SinkHost(pub(super) Option<SinkProcess>);

/// What starts a sink.
#[derive(Clone)]
pub(super) enum Starter {
    Here(SinkSettings),
    Apart(Place),
}

/// The sinks of a configuration, ready to start.
pub(super) struct PreparedSinks {
    /// What starts each sink, by name, or why it cannot start.
    pub(super) starters: BTreeMap<String, Result<Starter, String>>,
    pub(super) secrets: Secrets,
}

impl SinkHost {
    /// With the key `sinks-user`, starts a process.
    pub(super) fn start(keys: &DaemonKeys) -> Result<Self, ProcessError> {
        let Some(user) = keys.sinks_user.clone() else { return Ok(Self::default()) };
        let runtime = keys.runtime_dir.clone().unwrap_or_else(|| DEFAULT_RUNTIME.into());
        let mut name = runtime.into_os_string();
        name.push("-sinks");
        SinkProcess::start(Identity { user, runtime: name.into() }).map(|process| Self(Some(process)))
    }

    pub(super) fn end(&self) {
        self.0.iter().for_each(SinkProcess::end);
    }

    /// What keeps each sink from starting, by the sink's name: the keys and the messages.
    pub(super) fn problems(
        &self,
        path: &Path,
        text: &str,
        settings: Option<&Settings>,
    ) -> Result<BTreeMap<String, Vec<(String, String)>>, ProcessError> {
        if let Some(process) = &self.0 {
            let Prepared { sinks, .. } = process.prepare(request(path, text))?;
            return Ok(sinks.into_iter().map(|sink| (sink.name, sink.problems)).collect());
        }
        let sinks = settings.into_iter().flat_map(|settings| &settings.sinks);
        Ok(sinks.map(|sink| (sink.section.name.clone(), problems(sink))).collect())
    }

    /// Prepares to start the sinks of a configuration.
    pub(super) fn prepare(
        &self,
        path: &Path,
        text: &str,
        settings: &Settings,
        start: &Start,
    ) -> Result<PreparedSinks, ProcessError> {
        let Some(process) = &self.0 else {
            let stamp = sinks::stamp(settings, start);
            let starter = |sink: &Sink| sink.section.settings(&stamp).map(Starter::Here);
            let named = |sink: &Sink| (sink.section.name.clone(), starter(sink));
            return Ok(PreparedSinks {
                starters: settings.sinks.iter().map(named).collect(),
                secrets: Secrets::of(settings),
            });
        };
        let request = Request { host: start.host.clone(), instance: start.instance, ..request(path, text) };
        let Prepared { sinks, place } = process.prepare(request)?;
        let secrets = sinks.iter().map(|sink| (sink.name.clone(), sink.files_sum)).collect();
        let starters = sinks.into_iter().map(|sink| {
            let problem = sink.problems.into_iter().next();
            (
                sink.name,
                problem.map_or_else(|| Ok(Starter::Apart(place.clone())), |(_, message)| Err(message)),
            )
        });
        Ok(PreparedSinks { starters: starters.collect(), secrets: Secrets(secrets) })
    }

    /// Serves metrics at `address`.
    pub(super) fn serve_metrics(&self, address: SocketAddr) -> Result<Server> {
        let Some(process) = &self.0 else { return Ok(Server::start(address)?) };
        let (ours, theirs) = UnixStream::pair().map_err(Error::from)?;
        let (server, listener) = Server::apart(address, ours)?;
        process.pass_metrics(listener, theirs);
        Ok(server)
    }
}

fn request(path: &Path, text: &str) -> Request {
    Request { path: path.display().to_string(), text: text.to_owned(), ..Request::default() }
}

/// What keeps a sink of this process from starting.
pub(super) fn problems(sink: &Sink) -> Vec<(String, String)> {
    let problems = sink.section.system_problems().into_iter();
    problems.map(|problem| (problem.key.to_owned(), problem.message)).collect()
}
