//! The sockets that processes hold, in all network namespaces, from the iterator `task_file`. It enters no network namespace,
//! and duplicates no descriptor: a duplicate would delay the FIN of a close.

use super::{
    snapshot::{self, WalkResult},
    visibility,
};
use crate::{kernel, model::Event};

/// Lists the sockets that processes hold.
///
/// # Errors
/// Why the kernel cannot list them.
pub fn held_sockets() -> Result<Vec<Event>, String> {
    if !visibility::is_in_first_pid_namespace() {
        return Err("the kernel lists only the sockets of this pid namespace: run in the host's".into());
    }
    let mut loaded = kernel::for_iterators().map_err(|error| error.to_string())?;
    let (mut found, mut events) = (WalkResult::default(), Vec::new());
    snapshot::held(&mut loaded, &mut found, &mut |event| events.push(event));
    match found.problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(events),
    }
}
