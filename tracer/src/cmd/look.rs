//! A look by a command: filtered, and with where each socket runs.

use std::{io::IsTerminal, path::PathBuf, rc::Rc};

use super::{Failure, exit};
use crate::{
    cli::LookFormat,
    enrich::Enricher,
    look,
    model::{Filter, Holder, Identify, Looked, OwnerKey, OwnerSource, SocketInfo, SubjectKey, Task},
    route::Router,
};

/// Looks at the sockets that `filter` and `wanted` let through; the latter is asked before anything is known of holders.
/// What could not be seen is said on standard error.
///
/// # Errors
/// Nothing could be seen.
pub(super) fn look(
    filter: &Filter,
    wanted: impl Fn(&SocketInfo) -> bool,
) -> Result<(Vec<Looked>, look::Look), Failure> {
    let mut look = look::look(filter.netns, wanted, |_| {});
    if look.is_blind {
        let message = look.problems.pop().unwrap_or_else(|| "there is no such network namespace".into());
        return Err(Failure { code: exit::KERNEL, message });
    }
    for problem in &look.problems {
        eprintln!("sockstate: {problem}");
    }
    let router = Router::new(filter.clone());
    let mut enricher = Enricher::new(PathBuf::from("/"), false);
    let sockets = std::mem::take(&mut look.sockets)
        .into_iter()
        .filter(|it| router.wants_examined(it))
        .map(|it| {
            let key = SubjectKey {
                owner: it.holders.first().map(owner),
                uid: it.socket.uid,
                netns: Some(it.socket.netns),
                cgroup: it.socket.cgroup,
            };
            Looked { subject: enricher.identify(key), it }
        })
        .filter(|looked| router.wants_looked(looked))
        .collect();
    Ok((sockets, look))
}

/// Tables are for people, JSON is for machines.
pub(super) fn as_table(format: Option<LookFormat>) -> bool {
    format.map_or_else(|| std::io::stdout().is_terminal(), |it| it == LookFormat::Table)
}

fn owner(holder: &Holder) -> OwnerKey {
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().zip(holder.process.comm.bytes()) {
        *to = from;
    }
    let task = Task { pid: holder.process.pid, exec_id: 0, start_ns: 0, comm };
    OwnerKey { task: Rc::new(task), source: OwnerSource::Scan }
}
