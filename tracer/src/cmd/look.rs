//! A look for the commands `stuck` and `sockets`, filtered, with the subject of each socket.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    rc::Rc,
};

use clap::ValueEnum;

use super::{Failure, exit};
use crate::{
    enrich::Enricher,
    filter::Filter,
    format, look,
    model::{Gap, Holder, Identify, OwnerKey, OwnerSource, SocketEntry, SocketInfo, SubjectKey},
    route::Router,
};

/// The format of `stuck` and `sockets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LookFormat {
    /// A table for people.
    Table,
    /// One JSON object per line (docs/stuck.md).
    Json,
}

/// Looks at the sockets that `filter` and `wanted` let through; `wanted` is called before holders are known. Writes messages about
/// what could not be seen.
///
/// # Errors
/// No namespace could be read.
pub(super) fn look(
    filter: &Filter,
    wanted: impl Fn(&SocketInfo) -> bool,
) -> Result<(Vec<SocketEntry>, look::Look), Failure> {
    let router = Router::new(filter.clone());
    let wanted = |socket: &SocketInfo| router.wants_socket(socket) && wanted(socket);
    let mut look = look::look(filter.place.netns, wanted, |_| {});
    if look.is_blind {
        let why: Vec<String> = look.gaps.iter().map(ToString::to_string).collect();
        let message = match (filter.place.netns, &why[..]) {
            (Some(netns), []) => format!("there is no network namespace {netns}"),
            (Some(netns), _) => {
                format!("cannot look at network namespace {netns}: {}", why.join("; "))
            }
            (None, _) => why.join("; "),
        };
        return Err(Failure { code: exit::KERNEL, message });
    }
    for gap in &look.gaps {
        message!("{gap}");
    }
    let mut enricher = Enricher::new(PathBuf::from("/"), false);
    let sockets = std::mem::take(&mut look.sockets)
        .into_iter()
        .filter(|report| router.wants_report(report))
        .map(|report| {
            let key = SubjectKey {
                owner: report.holders.first().map(owner),
                uid: report.socket.uid,
                netns: Some(report.socket.netns),
                cgroup: report.socket.cgroup,
            };
            SocketEntry { subject: enricher.identify(key), report }
        })
        .filter(|looked| router.wants_entry(looked))
        .collect();
    Ok((sockets, look))
}

/// Writes the gaps, after the sockets.
pub(super) fn show_gaps(as_table: bool, netns: Option<u32>, gaps: &[Gap], time: &str) -> io::Result<()> {
    match (gaps, as_table) {
        ([], _) => Ok(()),
        (_, true) => super::print([format::gaps_table(gaps, super::terminal_width())]),
        (_, false) => super::print([format::look_json(netns, gaps, time)]),
    }
}

/// Whether to write a table: by default on a terminal only.
pub(super) fn as_table(format: Option<LookFormat>) -> bool {
    format.map_or_else(|| io::stdout().is_terminal(), |format| format == LookFormat::Table)
}

fn owner(holder: &Holder) -> OwnerKey {
    OwnerKey { task: Rc::new(holder.process.task()), source: OwnerSource::Scan }
}
