//! Asks the API server of Kubernetes about the pods of this node: what manages them, and their labels. A thread without
//! capabilities lists and watches them. While the API server does not answer, everything else goes on.

mod back_off;
mod client;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lines;
mod objects;
mod owners;
mod settings;
mod watch;

use std::{
    io,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

pub use settings::{KubernetesArgs, KubernetesError, KubernetesSettings, node_name};

use crate::{capabilities, enrich::KnownPods};
use watch::Watcher;

/// The thread that asks the API server.
#[derive(Debug)]
pub struct PodWatch {
    first: Receiver<()>,
}

impl PodWatch {
    /// Starts the thread, which writes what it learns to `pods`.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(settings: KubernetesSettings, pods: KnownPods) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (done, first) = sync_channel(1);
        let work = move || {
            if let Err(error) = capabilities::give_up_all() {
                return message!(
                    "the thread that asks the API server does not start: it cannot drop its capabilities: {error}"
                );
            }
            runtime.block_on(Watcher::new(settings, pods, done).run());
        };
        thread::Builder::new().name("kubernetes".into()).spawn(work)?;
        Ok(Self { first })
    }

    /// Waits until the pods of this node are known, or the first attempt has failed, but not longer than `most`.
    pub fn wait(&self, most: Duration) {
        let _ = self.first.recv_timeout(most);
    }
}
