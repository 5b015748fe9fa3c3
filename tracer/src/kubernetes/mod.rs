//! Asks the API server of Kubernetes about the pods of this node: what manages them, and their labels; and, if the
//! configuration says so, about the pods and the services that connections reach. A thread without capabilities lists and
//! watches them. While the API server does not answer, everything else goes on.

mod back_off;
mod client;
mod first_answers;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lines;
mod node_pods;
mod objects;
mod owners;
mod peers;
mod settings;
mod watch;

use std::{io, thread};

pub use settings::{KubernetesArgs, KubernetesError, KubernetesSettings, node_name};

use crate::{capabilities, enrich::KnownCluster, model::PeerKind};
use first_answers::FirstAnswers;
use node_pods::NodePods;
use peers::Peers;
use watch::Watcher;

/// Starts the thread that asks the API server. It writes what it learns to `cluster`, and calls `asked` when all objects are
/// known, or when the first attempt has failed.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn watch_cluster(
    settings: KubernetesSettings,
    cluster: KnownCluster,
    asked: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        if let Err(error) = capabilities::give_up_all() {
            return message!(
                "the thread that asks the API server does not start: it cannot drop its capabilities: {error}"
            );
        }
        runtime.block_on(watch(&settings, cluster, Box::new(asked)));
    };
    thread::Builder::new().name("kubernetes".into()).spawn(work).map(drop)
}

/// Watches for ever.
async fn watch(settings: &KubernetesSettings, cluster: KnownCluster, asked: Box<dyn FnOnce() + Send>) {
    let KnownCluster { pods, peers } = cluster;
    let watchers = if settings.peers { 1 + PeerKind::ALL.len() } else { 1 };
    let first_answers = FirstAnswers::new(watchers, asked);
    let query = NodePods::query(&settings.node);
    let node = Watcher::new(settings, query, NodePods::new(settings, pods), &first_answers).run();
    if !settings.peers {
        return node.await;
    }
    let of_kind = |kind| {
        Watcher::new(settings, Peers::query(kind), Peers::new(kind, peers.clone()), &first_answers).run()
    };
    tokio::join!(node, of_kind(PeerKind::Pod), of_kind(PeerKind::Service));
}
