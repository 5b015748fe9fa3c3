//! An HTML report of a recording in one file: states over time, stuck connections, leaks, times.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Diagram, Timeline, Weights, escape};
use crate::display::{duration, endpoint, number, palette};
use crate::{
    model::State,
    story::{ConnHistory, Story},
};

/// Limit of rows in a table.
const ROWS: usize = 20;
/// Number of points in a curve.
const POINTS: usize = 240;
/// Limit of lanes in the timeline.
const LANES: usize = 60;

const STYLE: &str = ":root{--ink:#1f2328;--dim:#6e7781;--rule:#d0d7de;--paper:#fff;--box:#f6f8fa;--stuck:#d55e00}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#8d96a0;--rule:#30363d;--paper:#0d1117;--box:#161b22;--stuck:#ff9e64}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:1120px;padding:24px 20px 60px;background:var(--paper);color:var(--ink);\
font:14px/1.5 ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif}h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 10px}\
p{margin:6px 0}.dim{color:var(--dim)}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:18px 0}\
.card{background:var(--box);border:1px solid var(--rule);border-radius:10px;padding:10px 14px}.card b{display:block;font-size:22px}\
.card.bad b{color:var(--stuck)}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:left;padding:5px 14px 5px 0;\
border-bottom:1px solid var(--rule);vertical-align:top}th{font-weight:600;color:var(--dim)}td.n,th.n{text-align:right}code{font-family:ui-monospace,\
'DejaVu Sans Mono',monospace;font-size:13px}svg{max-width:100%;height:auto}.legend span{display:inline-block;margin:0 14px 4px 0;white-space:nowrap}\
.legend i{display:inline-block;width:14px;height:11px;margin-right:5px}.axis{fill:var(--dim);font-size:12px}.rule{stroke:var(--rule)}\
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:14px}.grid svg{width:100%}.grid h3{font-size:14px;margin:0}";

/// Writes the report; `name` is the name of the recording.
#[must_use]
pub fn report(story: &Story, name: &str) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{0}: sockstate</title><style>{STYLE}</style><body>\n<h1>{0}</h1>\n",
        escape(name)
    );
    out.push_str(&facts(story));
    section("Sockets by state over time", &over_time(story), &mut out);
    section("What leaks", &leaks(story), &mut out);
    section("Who has the most connections", &talkers(story), &mut out);
    section(
        "The way through the states",
        &Diagram::weighed(Weights::of(story), String::new()).svg(),
        &mut out,
    );
    section("How long connections stay in a state", &dwell(story), &mut out);
    section("The slowest closes", &slowest(story), &mut out);
    let timeline = Timeline::new(
        story,
        format!("At most {LANES} connections: those that were stuck, then the longest"),
        LANES,
    );
    section("Connections over time", &format!("<div class=\"scroll\">{}</div>", timeline.svg()), &mut out);
    out.push_str("</body></html>\n");
    out
}

fn section(title: &str, body: &str, out: &mut String) {
    out.push_str(&format!("<section><h2>{title}</h2>\n{body}</section>\n"));
}

fn facts(story: &Story) -> String {
    let (host, kernel) = story.host.clone().unwrap_or_default();
    let length = u64::try_from(story.end_ns - story.begin_ns).unwrap_or(0);
    let begin = jiff::Timestamp::from_nanosecond(story.begin_ns.into())
        .map(|time| time.to_string())
        .unwrap_or_default();
    let mut out = format!(
        "<p class=\"dim\">host {}, Linux {}, from {} on, {}</p>\n<div class=\"cards\">",
        escape(&host),
        escape(&kernel),
        escape(&begin),
        duration(length)
    );
    let histories = story.histories.values();
    let (stuck, over) = histories.fold((0, 0), |(stuck, over), history| {
        (stuck + u64::from(history.stuck.is_some()), over + u64::from(history.is_over()))
    });
    let lost: u64 = story.lost.values().sum();
    let resets: u64 =
        ["reset_received", "reset_sent"].iter().filter_map(|cause| story.causes.get(cause)).sum();
    let failed: u64 = ["refused", "connect_timeout"].iter().filter_map(|cause| story.causes.get(cause)).sum();
    for (count, what, bad) in [
        (story.histories.len() as u64, "sockets", false),
        (story.transitions, "transitions", false),
        (over, "ended", false),
        (resets, "ended by a reset", false),
        (failed, "connects that failed", false),
        (stuck, "were stuck", true),
        (lost, "records lost", true),
    ] {
        let class = if bad && count > 0 { "card bad" } else { "card" };
        out.push_str(&format!("<div class=\"{class}\"><b>{}</b>{what}</div>", number(count)));
    }
    out.push_str("</div>\n");
    out
}

/// A stacked chart of the number of sockets in each state over time.
fn over_time(story: &Story) -> String {
    let length = (story.end_ns - story.begin_ns).max(1);
    let index = |time_ns: i64| {
        let at = (time_ns - story.begin_ns).clamp(0, length) as i128 * POINTS as i128 / i128::from(length);
        at as usize
    };
    let mut changes: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for history in story.histories.values() {
        let states = history.states();
        for (at, (state, begin_ns)) in
            states.iter().enumerate().filter(|(_, (state, _))| *state != State::Close)
        {
            let row = changes.entry(state.name()).or_insert_with(|| vec![0; POINTS + 2]);
            row[index(*begin_ns)] += 1;
            if let Some((_, end_ns)) = states.get(at + 1) {
                row[index(*end_ns).max(index(*begin_ns)) + 1] -= 1;
            }
        }
    }
    let mut base = vec![0_i64; POINTS + 1];
    let mut layers = Vec::new();
    for state in palette::ORDER {
        let Some(row) = changes.get(state.name()) else { continue };
        let mut now = 0;
        let top: Vec<i64> = (0..=POINTS)
            .map(|at| {
                now += row[at];
                base[at] + now
            })
            .collect();
        layers.push((state, base.clone(), top.clone()));
        base = top;
    }
    let most = base.iter().copied().max().unwrap_or(0).max(1);
    let (width, height, left) = (1040.0, 260.0, 50.0);
    let x = |at: usize| left + at as f64 / POINTS as f64 * (width - left - 10.0);
    let y = |value: i64| height - 24.0 - value as f64 / most as f64 * (height - 40.0);
    let mut out = legend(layers.iter().map(|(state, _, _)| *state));
    out.push_str(&format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"sockets by state over time\">"
    ));
    for (state, base, top) in &layers {
        let upper = (0..=POINTS).map(|at| format!("{:.1} {:.1}", x(at), y(top[at])));
        let lower = (0..=POINTS).rev().map(|at| format!("{:.1} {:.1}", x(at), y(base[at])));
        let points: Vec<String> = upper.chain(lower).collect();
        out.push_str(&format!(
            "<path d=\"M{}Z\" fill=\"{}\"><title>{}</title></path>",
            points.join("L"),
            palette::of(*state).colour,
            state.name()
        ));
    }
    out.push_str(&format!(
        "<text class=\"axis\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
        left - 6.0,
        y(most) + 4.0,
        number(most.unsigned_abs())
    ));
    out.push_str(&format!(
        "<text class=\"axis\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">0</text>",
        left - 6.0,
        y(0) + 4.0
    ));
    for part in 0..=4_i64 {
        let at = POINTS * part as usize / 4;
        let label = duration(u64::try_from(length / 4 * part).unwrap_or(0));
        let label = if part == 0 { "0".to_owned() } else { label };
        out.push_str(&format!(
            "<text class=\"axis\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
            x(at),
            height - 6.0
        ));
    }
    out.push_str("</svg>\n");
    out
}

fn legend(states: impl Iterator<Item = State>) -> String {
    let items = states.map(|state| {
        format!("<span><i style=\"background:{}\"></i>{}</span>", palette::of(state).colour, state.name())
    });
    format!("<div class=\"legend\">{}</div>\n", items.collect::<String>())
}

/// The name of the owner, as the key of counts.
fn whose(history: &ConnHistory) -> String {
    history.subject.owner.as_ref().map_or_else(|| "nobody known".into(), |owner| owner.comm.clone())
}

/// Stuck connections by process and state.
fn leaks(story: &Story) -> String {
    struct Leak {
        count: u64,
        still: u64,
        longest_ns: u64,
        why: Option<(String, String)>,
    }
    let mut leaks: BTreeMap<(String, &str), Leak> = BTreeMap::new();
    for (history, stuck) in
        story.histories.values().filter_map(|history| Some((history, history.stuck.as_ref()?)))
    {
        let leak = leaks.entry((whose(history), stuck.state.name())).or_insert(Leak {
            count: 0,
            still: 0,
            longest_ns: 0,
            why: None,
        });
        let moved_on =
            history.steps.iter().find(|step| step.time_ns > stuck.time_ns).map(|step| step.time_ns);
        let since = u64::try_from(moved_on.unwrap_or(story.end_ns) - stuck.time_ns).unwrap_or(0);
        leak.count += 1;
        leak.still += u64::from(history.is_stuck);
        leak.longest_ns = leak.longest_ns.max(stuck.age.ns.saturating_add(since));
        let found = stuck.found.as_ref().map(|found| (found.1.why.clone(), found.1.advice.clone()));
        leak.why = leak.why.take().or(found);
    }
    if leaks.is_empty() {
        return "<p>Nothing was stuck.</p>\n".into();
    }
    let mut rows: Vec<_> = leaks.into_iter().collect();
    rows.sort_by_key(|(_, leak)| Reverse(leak.count));
    let rows = rows.iter().take(ROWS).map(|((who, state), leak)| {
        let (why, advice) = leak.why.as_ref().map(|why| (why.0.as_str(), why.1.as_str())).unwrap_or_default();
        vec![
            escape(who),
            (*state).to_owned(),
            leak.count.to_string(),
            leak.still.to_string(),
            duration(leak.longest_ns),
            format!("{}<br><span class=\"dim\">{}</span>", escape(why), escape(advice)),
        ]
    });
    table(&["process", "state", "#stuck", "#at the end", "#longest", "why, and what to do"], rows)
}

fn talkers(story: &Story) -> String {
    let mut all: BTreeMap<(String, String), (u64, u64, u64)> = BTreeMap::new();
    // Of what is left of connections before the recording nothing tells who had been whose client.
    let is_known = |history: &&ConnHistory| {
        history.tuple.remote_port != 0 && (history.role.is_some() || !history.steps.is_empty())
    };
    for history in story.histories.values().filter(is_known) {
        let (service, peer) = match history.role {
            Some(crate::model::Role::Client) => {
                ("connects to".to_owned(), endpoint(history.tuple.remote, history.tuple.remote_port))
            }
            _ => (
                format!("serves port {}, of", history.tuple.local_port),
                history.tuple.remote.canonical().to_string(),
            ),
        };
        let resets = history.steps.iter().any(|step| {
            matches!(step.cause, Some(crate::model::Cause::ResetReceived | crate::model::Cause::ResetSent))
        });
        let row = all.entry((whose(history), format!("{service} {peer}"))).or_default();
        row.0 += 1;
        row.1 += u64::from(resets);
        row.2 += history.steps.len() as u64;
    }
    let mut rows: Vec<_> = all.into_iter().collect();
    rows.sort_by_key(|(_, counts)| Reverse(counts.0));
    let rows = rows.iter().take(ROWS).map(|((who, what), (count, resets, steps))| {
        vec![escape(who), escape(what), count.to_string(), resets.to_string(), steps.to_string()]
    });
    table(&["process", "what it does", "#connections", "#reset", "#transitions"], rows)
}

/// A histogram of the times in each state.
fn dwell(story: &Story) -> String {
    let mut out = String::from("<div class=\"grid\">");
    for state in palette::ORDER {
        let times: Vec<_> = story.edges.iter().filter(|((from, _), _)| *from == state.name()).collect();
        let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut count, mut longest) = (0, 0);
        for (_, gone) in &times {
            gone.times
                .buckets()
                .for_each(|(end, many)| *buckets.entry(end.max(1).ilog2().into()).or_default() += many);
            count += gone.times.count();
            longest = longest.max(gone.times.longest_ns());
        }
        if count == 0 {
            continue;
        }
        out.push_str(&histogram(state, &buckets, count, longest));
    }
    out.push_str("</div>\n<p class=\"dim\">Each column is twice as long as the one before it. Only states that were seen from their beginning.</p>\n");
    out
}

fn histogram(state: State, buckets: &BTreeMap<u64, u64>, count: u64, longest_ns: u64) -> String {
    let (first, last) = (*buckets.keys().next().unwrap_or(&0), *buckets.keys().last().unwrap_or(&0));
    let most = buckets.values().copied().max().unwrap_or(1).max(1) as f64;
    let bar = (240.0 / (last - first + 1) as f64).min(24.0);
    let mut bars = String::new();
    for (power, many) in buckets {
        let height = (*many as f64 / most * 70.0).max(1.0);
        bars.push_str(&format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"><title>{many} about {}</title></rect>",
            (power - first) as f64 * bar,
            74.0 - height,
            bar - 1.0,
            palette::of(state).colour,
            duration(1 << power)
        ));
    }
    format!(
        "<div><h3>{}</h3><div class=\"dim\">{} times, at most {}</div><svg viewBox=\"0 0 242 92\">{bars}<line class=\"rule\" x1=\"0\" x2=\"242\" y1=\"74.5\" y2=\"74.5\"/>\
         <text class=\"axis\" x=\"0\" y=\"90\">{}</text><text class=\"axis\" x=\"240\" y=\"90\" text-anchor=\"end\">{}</text></svg></div>",
        state.name(),
        number(count),
        duration(longest_ns),
        duration(1 << first),
        duration(longest_ns)
    )
}

/// The slowest closes, from the first FIN to the last state.
fn slowest(story: &Story) -> String {
    let mut closes: Vec<(u64, &ConnHistory)> = story
        .histories
        .values()
        .filter_map(|history| {
            let begin =
                history.steps.iter().find(|step| matches!(step.to, State::FinWait1 | State::CloseWait))?;
            let is_end = |state| matches!(state, State::TimeWait | State::Close);
            let end = history.steps.iter().find(|step| step.time_ns > begin.time_ns && is_end(step.to));
            let end_ns = end.map_or(story.end_ns, |step| step.time_ns);
            Some((u64::try_from(end_ns - begin.time_ns).ok()?, history))
        })
        .collect();
    closes.sort_by_key(|(ns, history)| (Reverse(*ns), history.conn));
    let rows = closes.iter().take(ROWS).map(|(ns, history)| {
        let path: Vec<String> = history
            .steps
            .iter()
            .skip_while(|step| !matches!(step.to, State::FinWait1 | State::CloseWait))
            .skip(1)
            .filter_map(|step| Some(format!("{} {}", step.from.name(), duration(step.in_state?.ns))))
            .collect();
        let still =
            if history.is_over() || history.state == State::TimeWait { "" } else { ", still at the end" };
        vec![
            format!("{}{still}", duration(*ns)),
            escape(&whose(history)),
            escape(&endpoint(history.tuple.local, history.tuple.local_port)),
            escape(&endpoint(history.tuple.remote, history.tuple.remote_port)),
            if path.is_empty() { format!("in {}", history.state.name()) } else { path.join(", ") },
            format!("<code>{}</code>", history.conn),
        ]
    });
    table(&["#took", "process", "local", "remote", "where the time went", "connection"], rows)
}

/// Writes a table. Columns whose titles begin with # have numbers.
fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let class = |column: &str| if column.starts_with('#') { " class=\"n\"" } else { "" };
    let mut out = String::from("<div class=\"scroll\"><table><tr>");
    for column in columns {
        out.push_str(&format!("<th{}>{}</th>", class(column), column.trim_start_matches('#')));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for (column, cell) in columns.iter().zip(row) {
            out.push_str(&format!("<td{}>{cell}</td>", class(column)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
    out
}
