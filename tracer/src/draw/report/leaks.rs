//! Tables of the connections that were stuck: by process, and by container and namespace where they are known.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    escape, owner_name, place, stuck_until_ns,
    tables::{Cell, count, html, state, table, text, time},
};
use crate::{
    model::{PodWorkload, State, Subject},
    story::{ConnHistory, Story},
};

/// Connections with the same key that were stuck in one state.
struct Leak {
    state: State,
    count: u64,
    at_end: u64,
    longest_ns: u64,
    why: Option<(String, String)>,
}

pub(super) fn leaks(story: &Story) -> String {
    let by_process = leaks_by(story, &["process"], |history| Some([owner_name(history)]));
    if by_process.is_empty() {
        return "<p>Nothing was stuck.</p>\n".into();
    }
    let columns = ["namespace", "pod", "container"];
    let by_place = leaks_by(story, &columns, |history| place(&history.subject));
    let by_namespace =
        leaks_by(story, &["namespace"], |history| Some([history.subject.pod.as_ref()?.namespace.clone()?]));
    let columns = ["namespace", "kind", "workload"];
    let by_workload = leaks_by(story, &columns, |history| workload(&history.subject));
    let mut out = by_process;
    for (title, table) in
        [("By container", by_place), ("By workload", by_workload), ("By namespace", by_namespace)]
    {
        if !table.is_empty() {
            out.push_str(&format!("<h3>{title}</h3>\n{table}"));
        }
    }
    out
}

/// The namespace, and the kind and the name of the workload; `None` if it is not known.
fn workload(subject: &Subject) -> Option<[String; 3]> {
    let pod = subject.pod.as_ref()?;
    let PodWorkload { kind, name } = pod.workload.clone()?;
    Some([pod.namespace.clone().unwrap_or_else(|| "-".to_owned()), kind, name])
}

/// The table of the stuck connections that have a key, by this key and the state; empty if none has. `columns` are the titles of
/// the key's parts.
fn leaks_by<const N: usize>(
    story: &Story,
    columns: &[&str; N],
    key: impl Fn(&ConnHistory) -> Option<[String; N]>,
) -> String {
    let mut leaks: BTreeMap<([String; N], &str), Leak> = BTreeMap::new();
    for (history, stuck) in
        story.histories.values().filter_map(|history| Some((history, history.stuck.as_ref()?)))
    {
        let Some(key) = key(history) else { continue };
        let leak = leaks.entry((key, stuck.state.name())).or_insert(Leak {
            state: stuck.state,
            count: 0,
            at_end: 0,
            longest_ns: 0,
            why: None,
        });
        let until_ns = stuck_until_ns(history, stuck.time_ns, story);
        let since_ns = u64::try_from(until_ns.saturating_sub(stuck.time_ns)).unwrap_or(0);
        leak.count += 1;
        leak.at_end += u64::from(history.is_stuck);
        leak.longest_ns = leak.longest_ns.max(stuck.age.ns.saturating_add(since_ns));
        let found = stuck.found.as_ref().map(|found| (found.1.why.clone(), found.1.advice.clone()));
        leak.why = leak.why.take().or(found);
    }
    if leaks.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = leaks.into_iter().collect();
    rows.sort_by_key(|(_, leak)| Reverse((leak.at_end, leak.count)));
    let rows = rows.into_iter().map(|((key, _), leak)| {
        let (why, advice) = leak.why.unwrap_or_default();
        let why = format!("{}<br><span class=\"dim\">{}</span>", escape(&why), escape(&advice));
        let mut row: Vec<Cell> = key.iter().map(text).collect();
        row.extend([
            state(leak.state),
            count(leak.count),
            count(leak.at_end),
            time(leak.longest_ns),
            html(why),
        ]);
        row
    });
    let columns = [columns, &["state", "were stuck", "at the end", "longest", "why, and what to do"][..]];
    table(&columns.concat(), rows.collect())
}
