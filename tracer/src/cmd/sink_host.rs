//! Where the sinks of a daemon run: in its own process, or in another one, as another user.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Error, Result, bail};

use super::{secrets::Secrets, session::Asked, sink_reach::reach};
use crate::{
    enrich::KnownCluster,
    files::DEFAULT_RUNTIME,
    format::Stamp,
    kubernetes::{KubernetesArgs, watch_cluster},
    metrics::{self, Server},
    model::Start,
    settings::{Settings, Sink},
    sinks::{
        SinkSettings,
        process::{
            ClusterNews, ClusterRequest, Identity, Place, Prepared, ProcessError, Request, SinkProcess,
            restrict_tracer,
        },
    },
};

/// The process of the sinks; `None` if the sinks run in this process.
#[derive(Clone, Default)]
pub(super) struct SinkHost {
    pub(super) process: Option<SinkProcess>,
}

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
    /// With the key `sinks-user` or `sinks-socket`, starts a process.
    pub(super) fn start(settings: &Settings) -> Result<Self, ProcessError> {
        let keys = &settings.keys;
        let (user, socket) = (keys.sinks_user.clone(), keys.sinks_socket.as_deref());
        if user.is_none() && socket.is_none() {
            return Ok(Self::default());
        }
        let runtime = keys.runtime_dir.clone().unwrap_or_else(|| DEFAULT_RUNTIME.into());
        let mut name = runtime.into_os_string();
        name.push("-sinks");
        let metrics = keys.run.metrics;
        let identity = Identity { user, runtime: name.into(), reach: reach(settings), metrics };
        let process = match socket {
            Some(path) => SinkProcess::connect(path, Identity { user: None, ..identity }),
            None => SinkProcess::start(identity),
        };
        Ok(Self { process: Some(process?) })
    }

    /// This process does no more what only the other one needs.
    pub(super) fn restrict_this_process(&self) {
        if self.process.is_some()
            && let Err(error) = restrict_tracer()
        {
            message!("{error}: the tracer's process goes on without restrictions");
        }
    }

    pub(super) fn end(&self) {
        self.process.iter().for_each(SinkProcess::end);
    }

    /// What keeps each sink from starting, by the sink's name: the keys and the messages.
    pub(super) fn problems(
        &self,
        path: &Path,
        text: &str,
        settings: Option<&Settings>,
    ) -> Result<BTreeMap<String, Vec<(String, String)>>, ProcessError> {
        if let Some(process) = &self.process {
            let Prepared { sinks, .. } = process.prepare(request(path, text))?;
            return Ok(sinks.into_iter().map(|sink| (sink.name, sink.problems)).collect());
        }
        let sinks = settings.into_iter().flat_map(|settings| &settings.sinks);
        Ok(sinks.map(|sink| (sink.section.name.clone(), problems(sink))).collect())
    }

    /// What keeps the metrics from being served.
    pub(super) fn metrics_problem(&self, address: SocketAddr) -> Option<String> {
        let Some(process) = &self.process else {
            return Server::verify(address).err().map(|error| error.to_string());
        };
        let problem = process.port_problem().filter(|problem| !problem.is_in_use);
        problem.map(|problem| problem.message.clone())
    }

    /// Prepares to start the sinks of a configuration; `is_checked` if [`SinkHost::problems`] has found none just now.
    pub(super) fn prepare(
        &self,
        path: &Path,
        text: &str,
        settings: &Settings,
        start: &Start,
        is_checked: bool,
    ) -> Result<PreparedSinks, ProcessError> {
        let Some(process) = &self.process else {
            let stamp = stamp(settings, start);
            let starter = |sink: &Sink| sink.section.settings(&stamp).map(Starter::Here);
            let named = |sink: &Sink| (sink.section.name.clone(), starter(sink));
            return Ok(PreparedSinks {
                starters: settings.sinks.iter().map(named).collect(),
                secrets: Secrets::of(settings),
            });
        };
        let host = start.host.clone();
        let request = Request { host, instance: start.instance, is_checked, ..request(path, text) };
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

    /// Asks the API server, in the process that has the network.
    pub(super) fn watch_cluster(
        &self,
        args: &KubernetesArgs,
        cluster: KnownCluster,
        asked: Asked,
    ) -> Result<()> {
        let Some(process) = &self.process else {
            return watch_cluster(args.settings()?, cluster, asked)
                .context("cannot start the thread that asks the API server");
        };
        let KubernetesArgs { labels, peers, node, server, token_file, ca } = args.resolved();
        let KnownCluster { pods, peers: known_peers } = cluster;
        let asked = Mutex::new(Some(asked));
        process.ask_cluster(ClusterRequest { node, server, token_file, ca, labels, peers }, move |news| {
            match news {
                ClusterNews::Pod { uid, facts } => pods.set(&uid, facts.bounded()),
                ClusterNews::PodGone { uid } => pods.remove(&uid),
                ClusterNews::Peer { address, uid, peer } => {
                    peer.checked().into_iter().for_each(|peer| known_peers.set(address, &uid, peer));
                }
                ClusterNews::PeerGone { address, uid } => known_peers.end(address, &uid),
                ClusterNews::Asked => {
                    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
                    asked.into_iter().for_each(|asked| asked());
                }
            }
        });
        Ok(())
    }

    /// Serves metrics at `address`.
    pub(super) fn serve_metrics(&self, address: SocketAddr) -> Result<Server> {
        let Some(process) = &self.process else { return Ok(Server::start(address)?) };
        if let Some(problem) = process.port_problem() {
            bail!("{}", problem.message);
        }
        let (ours, theirs) = UnixStream::pair().map_err(Error::from)?;
        let server = metrics::ask_apart(ours)?;
        process.pass_metrics(theirs);
        Ok(server)
    }
}

/// What the sinks put into each record.
pub(super) fn stamp<'a>(settings: &'a Settings, start: &'a Start) -> Stamp<'a> {
    Stamp { host: &start.host, instance: start.instance, labels: &settings.labels }
}

fn request(path: &Path, text: &str) -> Request {
    Request { path: path.display().to_string(), text: text.to_owned(), ..Request::default() }
}

/// What keeps a sink of this process from starting.
pub(super) fn problems(sink: &Sink) -> Vec<(String, String)> {
    let problems = sink.section.system_problems().into_iter();
    problems.map(|problem| (problem.key.to_owned(), problem.message)).collect()
}
