//! Tables, which the page's script sorts and filters.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write};

use super::{ROWS, escape, is_closed, owner_name, place};
use crate::{
    display::{duration, endpoint, number, palette},
    model::{Cause, Role, State},
    story::{ConnHistory, Story},
};

/// A cell: its HTML, and the number that it is sorted by.
pub(super) struct Cell(String, Option<u64>);

pub(super) fn text(text: impl AsRef<str>) -> Cell {
    html(escape(text.as_ref()))
}

pub(super) fn html(html: String) -> Cell {
    Cell(html, None)
}

pub(super) fn count(count: u64) -> Cell {
    Cell(count.to_string(), Some(count))
}

pub(super) fn time(ns: u64) -> Cell {
    Cell(duration(ns), Some(ns))
}

/// A number of bytes or segments, as people read it; its title is exact.
pub(super) fn amount(count: u64) -> Cell {
    Cell(format!("<span title=\"{count}\">{}</span>", number(count)), Some(count))
}

/// The share of a number in another one.
pub(super) fn share(part: u64, whole: u64) -> Cell {
    let ratio = part as f64 / whole.max(1) as f64;
    Cell(percent(ratio), Some((ratio * 1e9) as u64))
}

/// A ratio, with two decimals below one percent.
pub(super) fn percent(ratio: f64) -> String {
    if ratio < 0.01 { format!("{:.2} %", ratio * 100.0) } else { format!("{:.1} %", ratio * 100.0) }
}

pub(super) fn state(state: State) -> Cell {
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
pub(super) fn table(columns: &[&str], rows: Vec<Vec<Cell>>) -> String {
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

/// How many connections, how many of them had a reset, and how many transitions.
type Counts = (u64, u64, u64);

/// Connections by process and service, and by container where one is known.
pub(super) fn talkers(story: &Story) -> String {
    let columns = ["process", "what it does", "connections", "reset", "transitions"];
    let mut out = traffic(story, &columns, |history| Some(service(history)));
    if out.is_empty() {
        return "<p>No connection was seen.</p>\n".into();
    }
    let columns = ["namespace", "pod", "container", "connections", "reset", "transitions"];
    let by_place = traffic(story, &columns, |history| place(&history.subject));
    if !by_place.is_empty() {
        out.push_str("<h3>By container</h3>\n");
        out.push_str(&by_place);
    }
    out
}

/// The process of a connection, and what it does with which peer.
pub(super) fn service(history: &ConnHistory) -> [String; 2] {
    let tuple = &history.tuple;
    let what = match history.role {
        Some(Role::Client) => format!("connects to {}", endpoint(tuple.remote, tuple.remote_port)),
        _ => format!("serves {} on port {}", tuple.remote.canonical(), tuple.local_port),
    };
    [owner_name(history), what]
}

/// The table of the connections that have a key, by this key; empty if none has.
fn traffic<const N: usize>(
    story: &Story,
    columns: &[&str],
    key: impl Fn(&ConnHistory) -> Option<[String; N]>,
) -> String {
    let mut all: BTreeMap<[String; N], Counts> = BTreeMap::new();
    // The role of a connection that is older than the recording may be unknown.
    let is_known = |history: &&ConnHistory| {
        history.tuple.remote_port != 0 && (history.role.is_some() || !history.steps.is_empty())
    };
    for history in story.histories.values().filter(is_known) {
        let Some(key) = key(history) else { continue };
        let is_reset = |cause| matches!(cause, Some(Cause::ResetReceived | Cause::ResetSent));
        let row = all.entry(key).or_default();
        row.0 += 1;
        row.1 += u64::from(history.steps.iter().any(|step| is_reset(step.cause)));
        row.2 += history.steps.len() as u64;
    }
    if all.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = all.into_iter().collect();
    rows.sort_by_key(|(_, counts)| Reverse(counts.0));
    let rows = rows.into_iter().map(|(key, (connections, resets, transitions))| {
        let counts = [connections, resets, transitions].map(count);
        key.iter().map(text).chain(counts).collect()
    });
    table(columns, rows.collect())
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
