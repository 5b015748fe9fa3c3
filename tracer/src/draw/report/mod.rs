//! An HTML report of a recording, in one file: what was stuck, states over time, leaks, bytes, handshakes, retransmits, times, closes.

mod charts;
mod leaks;
mod numbers;
mod tables;

use super::{
    Diagram, Timeline, Weights, escape, theme,
    timeline::{LANES_SCRIPT, LANES_STYLE},
};
use crate::{
    display::{duration, number},
    model::{Container, Pod, State, Subject},
    story::{ConnHistory, Story},
};

/// Limit of rows in a table.
const ROWS: usize = 20;
/// Limit of lanes in the timeline.
const LANES: usize = 40;

const STYLE: &str = include_str!("report.css");
/// Shows values under the pointer, and sorts and filters tables. Without scripts the page shows the same numbers.
const SCRIPT: &str = include_str!("report.js");

/// Writes the report; `name` is the name of the recording.
#[must_use]
pub fn report(story: &Story, name: &str) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{0}: sockstate</title><style>{1}{2}{STYLE}{LANES_STYLE}</style><body>\n<h1>{0}</h1>\n",
        escape(name),
        theme::variables(":root"),
        theme::rules()
    );
    out.push_str(&facts(story));
    section("What was stuck", &(charts::stuck(story) + &leaks::leaks(story)), &mut out);
    section("Sockets in each state over time", &charts::states(story), &mut out);
    section("Who has the most connections", &tables::talkers(story), &mut out);
    for (title, body) in [
        ("Bytes", numbers::bytes(story)),
        ("Handshakes", charts::handshakes(story) + &numbers::handshakes(story)),
        ("Retransmits", numbers::retransmits(story)),
    ] {
        if !body.is_empty() {
            section(title, &body, &mut out);
        }
    }
    let diagram = Diagram::weighed(Weights::of(story), String::new()).svg();
    let ways = format!("<div class=\"diagram\">{diagram}</div>\n{}", tables::transitions(story));
    section("Transitions", &ways, &mut out);
    section("How long connections stay in a state", &charts::dwell(story), &mut out);
    section("The slowest closes", &tables::slowest(story), &mut out);
    let timeline = Timeline::of_kinds(story, String::new(), LANES);
    let note = "<p class=\"dim\">One lane for each kind of connection: the same process, service and states. The lane is that of \
                the longest connection.</p>\n";
    section("Connections over time", &(note.to_owned() + &timeline.lanes_html()), &mut out);
    out.push_str(&format!("<script>{SCRIPT}{LANES_SCRIPT}</script></body></html>\n"));
    out
}

fn section(title: &str, body: &str, out: &mut String) {
    out.push_str(&format!("<section><h2>{title}</h2>\n{body}</section>\n"));
}

/// The source of the records, and a card for each number.
fn facts(story: &Story) -> String {
    let (host, kernel) = story.host.clone().unwrap_or_default();
    let begin = jiff::Timestamp::from_second(story.begin_ns.div_euclid(1_000_000_000))
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default();
    let mut out = format!(
        "<p class=\"dim\">host {}, Linux {}; recorded from {} for {}</p>\n<div class=\"cards\">",
        escape(&host),
        escape(&kernel),
        escape(&begin),
        duration(length_ns(story))
    );
    let count = |is_wanted: fn(&ConnHistory) -> bool| {
        story.histories.values().filter(|history| is_wanted(history)).count() as u64
    };
    let causes = |names: [&str; 2]| -> u64 { names.iter().filter_map(|cause| story.causes.get(cause)).sum() };
    for (count, what, bad) in [
        (story.histories.len() as u64, "sockets", false),
        (story.transitions, "transitions", false),
        (count(ConnHistory::is_over), "ended", false),
        (causes(["reset_received", "reset_sent"]), "ended by a reset", false),
        (causes(["refused", "connect_timeout"]), "failed connects", false),
        (count(|history| history.stuck.is_some()), "were stuck", true),
        (count(|history| history.is_stuck), "stuck at the end", true),
        (story.lost.values().sum(), "records lost", true),
    ] {
        let class = if bad && count > 0 { "card bad" } else { "card" };
        out.push_str(&format!(
            "<div class=\"{class}\"><b title=\"{count}\">{}</b>{what}</div>",
            number(count)
        ));
    }
    out.push_str("</div>\n");
    out
}

/// The length of the recording, ns.
fn length_ns(story: &Story) -> u64 {
    u64::try_from(story.end_ns.saturating_sub(story.begin_ns)).unwrap_or(0)
}

/// The name of the owner, as the key of counts.
fn owner_name(history: &ConnHistory) -> String {
    history.subject.owner.as_ref().map_or_else(|| "unknown".into(), |owner| owner.comm.clone())
}

/// The namespace, the pod and the container; `None` if no container and no pod is known.
fn place(subject: &Subject) -> Option<[String; 3]> {
    let (pod, container) = (subject.pod.as_ref(), subject.container.as_ref());
    if pod.is_none() && container.is_none() {
        return None;
    }
    let names = [
        pod.and_then(|pod| pod.namespace.as_deref()),
        pod.map(Pod::shown_name),
        container.map(Container::shown_name),
    ];
    Some(names.map(|name| name.unwrap_or("-").to_owned()))
}

/// When a connection left the state in which it was stuck; the end of the recording if it did not.
fn stuck_until_ns(history: &ConnHistory, stuck_ns: i64, story: &Story) -> i64 {
    let moved_on = history.steps.iter().find(|step| step.time_ns > stuck_ns);
    moved_on.map_or(story.end_ns, |step| step.time_ns)
}

/// Whether a state is an end of a close, as far as this end can delay it.
fn is_closed(state: State) -> bool {
    matches!(state, State::TimeWait | State::Close)
}
