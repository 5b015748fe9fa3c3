//! The groups of `stuck --group-by`.

use std::{cmp::Reverse, collections::BTreeMap};

use clap::ValueEnum;

use crate::{
    format::{self, Group},
    model::{PodWorkload, Process, Reason, SocketEntry, SocketReport, State, Workload},
    source::Openings,
    track,
};

/// The groups in which stuck sockets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    /// The processes that hold the sockets.
    Process,
    /// The local port, where a process that listens there is known.
    Listener,
    /// The peer's address.
    Peer,
    /// The container, or the systemd unit where there is none.
    Container,
    /// The Kubernetes pod.
    Pod,
    /// The Kubernetes namespace.
    Namespace,
    /// What manages the Kubernetes pod, from a recording of a daemon with [kubernetes] (--from).
    Workload,
    /// The call path that opened the sockets, from the output of a hunt (--hunt).
    Stack,
}

pub(super) fn groups<'a>(
    by: GroupBy,
    stuck: impl IntoIterator<Item = &'a SocketEntry>,
    openings: Option<&Openings>,
    reason: impl Fn(&SocketReport) -> Reason,
) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for looked in stuck {
        let report = &looked.report;
        let reason = reason(report);
        for key in keys(by, looked, openings, reason) {
            let group = groups.entry(key.clone()).or_insert_with(|| Group { key, ..Group::default() });
            group.count += 1;
            group.oldest_ns = group.oldest_ns.max(report.no_progress_ns());
            group.unread_bytes += u64::from(report.socket.unread_bytes());
            *group.states.entry(report.socket.state.name()).or_default() += 1;
            *group.reasons.entry(reason.name()).or_default() += 1;
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.count));
    groups
}

/// The groups of a socket; several if several processes hold it.
fn keys(by: GroupBy, looked: &SocketEntry, openings: Option<&Openings>, reason: Reason) -> Vec<String> {
    let report = &looked.report;
    let tuple = report.socket.tuple;
    match by {
        GroupBy::Process => {
            let mut keys: Vec<String> = report.holders.iter().map(|holder| name(&holder.process)).collect();
            keys.dedup();
            if keys.is_empty() {
                keys.push(held_by_nobody(report, reason));
            }
            keys
        }
        GroupBy::Listener => vec![match report.listening().next() {
            Some(_) => format!("port {}", tuple.local_port),
            None => "none".into(),
        }],
        GroupBy::Peer => vec![tuple.remote.canonical().to_string()],
        GroupBy::Stack => {
            let found = openings.and_then(|openings| openings.find(report.socket.netns, &tuple));
            vec![match found {
                Some(Ok(stack)) => format!("{} at {}", stack.by.name(), format::opened_at(stack)),
                Some(Err(why)) => why.text().to_owned(),
                None => "not reported by the hunt".to_owned(),
            }]
        }
        GroupBy::Container => of_workloads(looked, container),
        GroupBy::Pod => of_workloads(looked, |workload| workload.pod.map(ToString::to_string)),
        GroupBy::Namespace => {
            of_workloads(looked, |workload| workload.pod.and_then(|pod| pod.namespace.clone()))
        }
        GroupBy::Workload => of_workloads(looked, manager),
    }
}

/// A key for each workload in which holders of the socket run.
fn of_workloads(looked: &SocketEntry, key: impl Fn(Workload<'_>) -> Option<String>) -> Vec<String> {
    let keys = looked.workloads().into_iter().map(key);
    let mut keys: Vec<String> = keys.map(|key| key.unwrap_or_else(|| "none".into())).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Containers of different pods may have the same name.
fn container(workload: Workload<'_>) -> Option<String> {
    let name = workload.container.map(|container| match (workload.pod, &container.name) {
        (Some(pod), Some(name)) => format!("{pod}/{name}"),
        _ => container.shown_name().to_owned(),
    });
    name.or_else(|| workload.unit.map(str::to_owned))
}

/// The workload that manages the pod, with its namespace.
fn manager(workload: Workload<'_>) -> Option<String> {
    let pod = workload.pod?;
    let PodWorkload { kind, name } = pod.workload.as_ref()?;
    let namespace = pod.namespace.as_deref().unwrap_or("-");
    Some(format!("{namespace}/{}/{name}", kind.to_ascii_lowercase()))
}

fn name(process: &Process) -> String {
    format!("{} ({})", process.comm, process.pid)
}

/// The group of a socket without a known holder.
fn held_by_nobody(report: &SocketReport, reason: Reason) -> String {
    let has_file = report.socket.inode != 0;
    match (report.socket.state, reason) {
        _ if report.of_kernel => "kernel".into(),
        (_, Reason::InFlight) => "in flight".into(),
        (_, Reason::HolderHidden) => "hidden".into(),
        _ if has_file && report.hidden_holders => "hidden".into(),
        (State::CloseWait, Reason::Unknown) => "unknown".into(),
        _ if has_file => "unknown".into(),
        (State::CloseWait | State::Established | State::NewSynRecv | State::SynRecv, _) => {
            let listening = track::names(report.listening());
            listening.map_or_else(|| "nobody".into(), |names| format!("never accepted by {names}"))
        }
        _ => "nobody".into(),
    }
}
