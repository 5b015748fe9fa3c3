//! Tables, which the page's script sorts and filters.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write};

use super::{ROWS, escape, is_closed, owner_name, stuck_until_ns};
use crate::{
    display::{duration, endpoint, palette},
    model::{Cause, Role, State},
    story::{ConnHistory, Story},
};

/// A cell: its HTML, and the number that it is sorted by.
struct Cell(String, Option<u64>);

fn text(text: impl AsRef<str>) -> Cell {
    Cell(escape(text.as_ref()), None)
}

fn count(count: u64) -> Cell {
    Cell(count.to_string(), Some(count))
}

fn time(ns: u64) -> Cell {
    Cell(duration(ns), Some(ns))
}

fn state(state: State) -> Cell {
    let shade = palette::of(state).shade.name;
    let name = state.name();
    Cell(
        format!(
            "<span class=\"state\"><i class=\"swatch\" style=\"background:var(--{shade})\"></i>{name}</span>"
        ),
        None,
    )
}

/// Writes the first [`ROWS`] rows, each cell with the title of its column for narrow screens.
fn table(columns: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut out = String::from("<table><thead><tr>");
    for (at, column) in columns.iter().enumerate() {
        let is_number = rows.first().and_then(|row| row.get(at)).is_some_and(|cell| cell.1.is_some());
        let class = if is_number { " class=\"n\"" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(out, "<th{class}>{column}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    let left_out = rows.len().saturating_sub(ROWS);
    for row in rows.into_iter().take(ROWS) {
        out.push_str("<tr>");
        for (column, Cell(html, number)) in columns.iter().zip(row) {
            let number =
                number.map_or_else(String::new, |number| format!(" class=\"n\" data-v=\"{number}\""));
            let _ = write!(out, "<td{number} data-name=\"{column}\"><span>{html}</span></td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
    if left_out > 0 {
        let _ = writeln!(out, "<p class=\"dim\">and {left_out} more rows</p>");
    }
    out
}

/// Connections of one process that were stuck in one state.
struct Leak {
    state: State,
    count: u64,
    at_end: u64,
    longest_ns: u64,
    why: Option<(String, String)>,
}

/// Stuck connections by process and state.
pub(super) fn leaks(story: &Story) -> String {
    let mut leaks: BTreeMap<(String, &str), Leak> = BTreeMap::new();
    for (history, stuck) in
        story.histories.values().filter_map(|history| Some((history, history.stuck.as_ref()?)))
    {
        let leak = leaks.entry((owner_name(history), stuck.state.name())).or_insert(Leak {
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
        return "<p>Nothing was stuck.</p>\n".into();
    }
    let mut rows: Vec<_> = leaks.into_iter().collect();
    rows.sort_by_key(|(_, leak)| Reverse((leak.at_end, leak.count)));
    let rows = rows.into_iter().map(|((who, _), leak)| {
        let (why, advice) = leak.why.unwrap_or_default();
        vec![
            text(who),
            state(leak.state),
            count(leak.count),
            count(leak.at_end),
            time(leak.longest_ns),
            Cell(format!("{}<br><span class=\"dim\">{}</span>", escape(&why), escape(&advice)), None),
        ]
    });
    let columns = ["process", "state", "were stuck", "at the end", "longest", "why, and what to do"];
    table(&columns, rows.collect())
}

/// Connections by process and service.
pub(super) fn talkers(story: &Story) -> String {
    let mut all: BTreeMap<(String, String), (u64, u64, u64)> = BTreeMap::new();
    // The role of a connection that is older than the recording may be unknown.
    let is_known = |history: &&ConnHistory| {
        history.tuple.remote_port != 0 && (history.role.is_some() || !history.steps.is_empty())
    };
    for history in story.histories.values().filter(is_known) {
        let tuple = &history.tuple;
        let what = match history.role {
            Some(Role::Client) => format!("connects to {}", endpoint(tuple.remote, tuple.remote_port)),
            _ => format!("serves {} on port {}", tuple.remote.canonical(), tuple.local_port),
        };
        let is_reset = |cause| matches!(cause, Some(Cause::ResetReceived | Cause::ResetSent));
        let row = all.entry((owner_name(history), what)).or_default();
        row.0 += 1;
        row.1 += u64::from(history.steps.iter().any(|step| is_reset(step.cause)));
        row.2 += history.steps.len() as u64;
    }
    let mut rows: Vec<_> = all.into_iter().collect();
    rows.sort_by_key(|(_, counts)| Reverse(counts.0));
    let rows = rows.into_iter().map(|((who, what), (connections, resets, transitions))| {
        vec![text(who), text(what), count(connections), count(resets), count(transitions)]
    });
    table(&["process", "what it does", "connections", "reset", "transitions"], rows.collect())
}

/// Counts and times of the transitions.
pub(super) fn transitions(story: &Story) -> String {
    let rank = |name: &str| palette::ORDER.iter().position(|state| state.name() == name);
    let mut edges: Vec<_> = story.edges.iter().collect();
    edges.sort_by_key(|((from, to), _)| (rank(from), rank(to)));
    let optional = |ns: Option<u64>| ns.map_or_else(|| Cell("-".to_owned(), Some(0)), time);
    let rows = edges.into_iter().map(|((from, to), stats)| {
        let longest_ns = (stats.times.count() > 0).then(|| stats.times.longest_ns());
        vec![
            text(from),
            text(to),
            count(stats.count),
            optional(stats.times.median_ns()),
            optional(longest_ns),
        ]
    });
    let columns = ["from", "to", "transitions", "median time before", "longest time before"];
    table(&columns, rows.collect())
}

/// The slowest closes, from the first FIN to TIME_WAIT or CLOSE.
pub(super) fn slowest(story: &Story) -> String {
    let mut closes: Vec<(u64, &ConnHistory)> = story
        .histories
        .values()
        .filter_map(|history| {
            let begin =
                history.steps.iter().find(|step| matches!(step.to, State::FinWait1 | State::CloseWait))?;
            let end = history.steps.iter().find(|step| step.time_ns > begin.time_ns && is_closed(step.to));
            let end_ns = end.map_or(story.end_ns, |step| step.time_ns);
            Some((u64::try_from(end_ns.saturating_sub(begin.time_ns)).ok()?, history))
        })
        .collect();
    if closes.is_empty() {
        return "<p>No connection was closed.</p>\n".into();
    }
    closes.sort_by_key(|(ns, history)| (Reverse(*ns), history.conn));
    let rows = closes.into_iter().map(|(ns, history)| {
        let (local, remote) = (&history.tuple.local, &history.tuple.remote);
        vec![
            time(ns),
            text(owner_name(history)),
            text(endpoint(*local, history.tuple.local_port)),
            text(endpoint(*remote, history.tuple.remote_port)),
            text(closing_path(history, story)),
            now(history),
            Cell(format!("<code>{}</code>", history.conn), None),
        ]
    });
    let columns = ["took", "process", "local", "remote", "where the time went", "at the end", "connection"];
    table(&columns, rows.collect())
}

/// The states of the close with their times.
fn closing_path(history: &ConnHistory, story: &Story) -> String {
    let closing = history
        .steps
        .iter()
        .skip_while(|step| !matches!(step.to, State::FinWait1 | State::CloseWait))
        .skip(1)
        .filter(|step| !is_closed(step.from));
    let mut path: Vec<String> = closing
        .filter_map(|step| Some(format!("{} {}", step.from.name(), duration(step.in_state?.ns))))
        .collect();
    if !is_closed(history.state) {
        let since_ns = u64::try_from(story.end_ns.saturating_sub(history.since_ns)).unwrap_or(0);
        path.push(format!("{} {} so far", history.state.name(), duration(since_ns)));
    }
    path.join(", ")
}

/// Where the connection is at the end of the recording.
fn now(history: &ConnHistory) -> Cell {
    if history.is_over() {
        let cause = history.steps.last().and_then(|step| step.cause).map(Cause::name);
        return text(cause.map_or_else(|| "closed".to_owned(), |cause| format!("closed: {cause}")));
    }
    let stuck = if history.is_stuck { " <b class=\"stuck\">stuck</b>" } else { "" };
    Cell(state(history.state).0 + stuck, None)
}
