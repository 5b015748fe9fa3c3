//! The sockets that processes hold, in all network namespaces, as the kernel lists them to a program of ours. It needs no
//! network namespace entered, and no descriptor duplicated: a duplicate would delay the FIN of a close.

use super::{
    sight,
    snapshot::{self, Found},
};
use crate::{kernel, model::Event};

/// Lists them.
///
/// # Errors
/// Why the kernel does not.
pub fn held() -> Result<Vec<Event>, String> {
    if !sight::is_in_first_pid_namespace() {
        return Err("the kernel lists only the sockets of this pid namespace: run in the host's".into());
    }
    let mut loaded = kernel::for_walks().map_err(|error| error.to_string())?;
    let (mut found, mut events) = (Found::default(), Vec::new());
    snapshot::held(&mut loaded, &mut found, &mut |event| events.push(event));
    match found.problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(events),
    }
}
