//! Why a socket is stuck and what to do: from what a look at it found, never from a guess (docs/stuck.md).

mod advice;
mod commands;
mod ending;
mod inherited;
mod reason;
#[cfg(test)]
mod tests;
mod why;

use std::path::Path;

pub use inherited::is_suspect;
pub use reason::reason;

use crate::model::{Diagnosis, Listener, Process, SocketReport};
use commands::commands;

/// Explains a socket. `netns` leads to its network namespace where that is not the user's own.
#[must_use]
pub fn diagnose(found: &SocketReport, netns: Option<&Path>) -> Diagnosis {
    let reason = reason(found);
    let (commands, more_commands) = commands(found, netns);
    Diagnosis {
        reason,
        why: why::why(found, reason),
        advice: advice::advice(found, reason) + ending::privilege(found),
        commands,
        more_commands,
        cannot_destroy: ending::cannot_destroy(found),
    }
}

/// The most processes that a sentence names.
const MOST_NAMES: usize = 3;

fn name(process: &Process) -> String {
    format!("{} ({})", process.comm, process.pid)
}

/// Each process once, as a part of a sentence; `None` for no process.
pub fn names<'a>(processes: impl IntoIterator<Item = &'a std::sync::Arc<Process>>) -> Option<String> {
    let mut all: Vec<&Process> = processes.into_iter().map(|process| &**process).collect();
    all.sort_by_key(|process| process.pid);
    all.dedup_by_key(|process| process.pid);
    let shown: Vec<String> = all.iter().take(MOST_NAMES).map(|process| name(process)).collect();
    match all.len().saturating_sub(MOST_NAMES) {
        _ if all.is_empty() => None,
        0 => Some(shown.join(" or ")),
        more => Some(format!("{} or {more} more", shown.join(", "))),
    }
}

/// How full a listener's queue is.
fn queue(listener: &Listener) -> String {
    // The kernel takes one more than the limit.
    format!("{} of at most {}", listener.queued, u64::from(listener.backlog) + 1)
}

/// The queues of listeners. If there are several listeners, with their processes.
fn queues(listeners: &[Listener]) -> String {
    let named = |listener: &Listener| {
        let whose = names(listener.holders.iter()).unwrap_or_else(|| "a process that is not known".into());
        format!("{} at {whose}", queue(listener))
    };
    match listeners {
        [one] => queue(one),
        several => several.iter().take(MOST_NAMES).map(named).collect::<Vec<_>>().join(", "),
    }
}
