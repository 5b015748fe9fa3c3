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

use std::{io, thread};

pub use settings::{KubernetesArgs, KubernetesError, KubernetesSettings, node_name};

use crate::{capabilities, enrich::KnownPods};
use watch::Watcher;

/// Starts the thread that asks the API server. It writes what it learns to `pods`, and calls `asked` when the pods of this node
/// are known, or when the first attempt has failed.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn watch_pods(
    settings: KubernetesSettings,
    pods: KnownPods,
    asked: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        if let Err(error) = capabilities::give_up_all() {
            return message!(
                "the thread that asks the API server does not start: it cannot drop its capabilities: {error}"
            );
        }
        runtime.block_on(Watcher::new(settings, pods, Box::new(asked)).run());
    };
    thread::Builder::new().name("kubernetes".into()).spawn(work).map(drop)
}
