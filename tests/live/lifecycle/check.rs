//! Compares the records of one scenario with the expected paths and with the observers.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{Outcome, Quiet, Run, scenarios::Scenario};
use crate::{connections::compare_with_transitions, observer, skip, sockets::Kind};

/// Scenarios that the estimate gets wrong: the full socket does not show that its mini-socket receives a FIN later, or
/// that the kernel had no room for a mini-socket.
const WRONG_ESTIMATES: [&str; 9] = [
    "client closes first",
    "server closes first",
    "half close, then close",
    "orphan, the peer closes late",
    "TCP_LINGER2 beyond a minute",
    "no room for TIME_WAIT",
    "TIME_WAIT reused by connect",
    "TIME_WAIT reused by a SYN",
    "TIME_WAIT killed from outside",
];

pub(super) fn whole(run: &Run) {
    let story = &run.story;
    let lost: Vec<&Value> =
        story.of("lost").filter(|lost| !(run.may_lose && lost["place"] == "recursion")).collect();
    assert!(lost.is_empty(), "{lost:?}");
    // Later records correct what was hidden or lost.
    let is_hidden = |record: &Value| {
        let mut ports =
            [&record["local"], &record["remote"]].into_iter().filter_map(|end| end["port"].as_u64());
        ports.any(|port| run.hidden.iter().any(|hidden| u64::from(*hidden) == port))
    };
    let resyncs: Vec<&Value> =
        story.of("resync").filter(|record| !run.may_lose && !is_hidden(record)).collect();
    // A resync corrects at most one mini-socket for each event that the kernel hid.
    let (minis, others): (Vec<&Value>, Vec<&Value>) =
        resyncs.into_iter().partition(|record| record["mini"] == true);
    assert!(others.is_empty(), "{others:#?}");
    assert!(minis.len() <= run.hidden_minis, "{} hidden: {minis:#?}", run.hidden_minis);
    let stop = story.records.last().expect("stop");
    assert_eq!(stop["illegal"], 0);
    compare_with_transitions(&story.records);
}

pub(super) fn scenario(run: &Run, scenario: &Scenario, kind: Kind, outcome: &Outcome, tier: &str) {
    if let Some(why) = outcome.watch.skipped {
        skip(why);
        return;
    }
    if run.hidden.contains(&outcome.port) {
        skip("this kernel hid transitions of it from every BPF program, as ftrace shows");
        return;
    }
    let connections = connections_of(run, outcome);
    let exact = !["estimate", "none"].contains(&tier);
    let before_the_end = |connection: &Vec<&Value>| -> Vec<String> {
        // The namespace ends with the scenario, and the mini-sockets end with the namespace.
        let lived = connection.iter().filter(|record| record["cause"] != "netns_gone");
        let lived: Vec<&Value> = lived.copied().collect();
        assert!(!lived.is_empty(), "only an end: {connection:#?}");
        path(&lived)
    };
    let mut paths: Vec<Vec<String>> = connections.iter().map(before_the_end).collect();
    paths.sort();
    let shown = |tier: &str, path: &str| -> Option<Vec<String>> {
        let steps: Vec<String> = path.split(' ').map(str::to_owned).collect();
        match tier {
            "none" => without_minis(&steps),
            "estimate" => estimated(&steps),
            _ => Some(steps),
        }
    };
    let mut wanted: Vec<Vec<String>> = scenario.paths.iter().filter_map(|path| shown(tier, path)).collect();
    wanted.sort();
    let fit = paths.len() == wanted.len()
        && paths.iter().zip(&wanted).all(|(path, wanted)| fits(path, wanted, tier));
    if !fit && run.excuse_a_loss() {
        skip("the tracer had said that it lost a transition in this run");
        return;
    }
    let has_mini = scenario.paths.iter().any(|path| path.split(' ').any(is_mini));
    if !fit && has_mini && run.excuse_a_mini() {
        skip("this kernel hid the timer of a mini-socket from every BPF program, as ftrace shows");
        return;
    }
    if tier == "estimate" && WRONG_ESTIMATES.contains(&scenario.name) {
        check_estimate(&connections, &wanted);
        return;
    }
    assert!(fit, "paths {paths:#?}\nwanted {wanted:#?}\n{connections:#?}");
    for connection in &connections {
        check_chain(connection);
        check_ends(connection, kind, outcome.port);
    }
    if exact {
        for point in &outcome.watch.points {
            check_point(&connections, point);
        }
    }
    if observer::is_there() {
        let mut full: Vec<Vec<String>> =
            connections.iter().filter_map(|connection| full_socket(connection)).collect();
        full.sort();
        let count = full.iter().map(|path| path.len() - 1).sum();
        let seen = observer::paths(outcome.port, count);
        let missing = count.saturating_sub(seen.iter().map(|path| path.len() - 1).sum());
        if missing == 0 || !observer::excuses(missing as u64) {
            assert_eq!(full, seen, "on the right is what bpftrace saw");
        }
        let invented = not_among(states(&seen), states(&full));
        assert!(invented.is_empty(), "only bpftrace saw {invented:?}: {full:?}, {seen:?}");
        assert_eq!(not_among(states(&full), states(&seen)).len(), missing, "{full:?}, {seen:?}");
    }
}

/// The connections that the tracer saw of this scenario.
fn connections_of<'a>(run: &'a Run, outcome: &Outcome) -> Vec<Vec<&'a Value>> {
    let mut connections = run.story.connections();
    // The kernel uses the inode number of a namespace again after the namespace has ended.
    connections.retain(|connection| {
        let endpoints = [&connection[0]["local"], &connection[0]["remote"]];
        connection[0]["netns"] == outcome.netns
            && endpoints.iter().any(|endpoint| endpoint["port"] == outcome.port)
    });
    // Connections of an earlier namespace with this number ended with that namespace, before the scenario began.
    let is_end = |connection: &[&Value]| connection.iter().all(|record| record["cause"] == "netns_gone");
    let lived = connections.iter().filter(|connection| !is_end(connection));
    let Some(begin) = lived.filter_map(|connection| connection[0]["time"].as_str()).min() else {
        return connections;
    };
    connections.retain(|connection| !is_end(connection) || connection[0]["time"].as_str() >= Some(begin));
    connections
}

/// The states that the sockets entered. If a transition is missing, the next transition still shows the state that it
/// leads to.
fn states(paths: &[Vec<String>]) -> Vec<&str> {
    paths.iter().flat_map(|path| path.iter().skip(1)).map(String::as_str).collect()
}

/// The elements that `some` has more often than `others`.
fn not_among<'a>(some: Vec<&'a str>, mut others: Vec<&str>) -> Vec<&'a str> {
    let mut rest = some;
    rest.retain(|state| match others.iter().position(|other| other == state) {
        Some(at) => {
            others.swap_remove(at);
            false
        }
        None => true,
    });
    rest
}

/// A wrong estimate is marked: the records are correct up to the first one that is marked as an estimate. Without such
/// a record the path ends in FIN_WAIT2, because the tracer does not see the FIN that the mini-socket receives later.
fn check_estimate(connections: &[Vec<&Value>], wanted: &[Vec<String>]) {
    let mut unseen = wanted.to_vec();
    let mut wrong = Vec::new();
    for connection in connections {
        let path = path(connection);
        match unseen.iter().position(|wanted| fits(&path, wanted, "estimate")) {
            Some(at) => drop(unseen.swap_remove(at)),
            None => wrong.push((path, connection)),
        }
    }
    for (path, connection) in wrong {
        // The path begins with a state that is not in the records.
        let known = match connection.iter().position(|record| record["exact"] == false) {
            Some(estimate) => &path[..=estimate],
            None => &path[..],
        };
        let ends_in_fin_wait2 = known.last().is_some_and(|state| state == "FIN_WAIT2");
        assert!(known.len() < path.len() || ends_in_fin_wait2, "no estimate, and wrong: {connection:#?}");
        let begins = |wanted: &Vec<String>| {
            wanted.get(..known.len()).is_some_and(|begin| fits(known, begin, "estimate"))
        };
        let begun = unseen.iter().position(begins);
        unseen.swap_remove(begun.unwrap_or_else(|| panic!("{known:?} begins none of {unseen:?}")));
    }
    assert!(unseen.is_empty(), "missing: {unseen:?}");
}

/// The states of a path without its marks (see `scenarios.rs`).
fn path(connection: &[&Value]) -> Vec<String> {
    let mut path = vec![connection[0]["from"].as_str().expect("state").to_owned()];
    for record in connection {
        let mini = if record["mini"] == true { "m" } else { "" };
        let cause = record["cause"].as_str().map(|cause| format!("/{cause}")).unwrap_or_default();
        path.push(format!("{}{mini}{cause}", record["to"].as_str().expect("state")));
    }
    path
}

fn is_mini(step: &str) -> bool {
    step.split('/').next().is_some_and(|state| state.ends_with('m'))
}

/// `*` stands for any cause; the timers do not show SYN cookies.
fn fits(path: &[String], wanted: &[String], tier: &str) -> bool {
    path.len() == wanted.len()
        && path.iter().zip(wanted).all(|(step, wanted)| {
            wanted.split('|').any(|wanted| {
                let (state, cause) = wanted.split_once('/').unwrap_or((wanted, ""));
                let (got_state, got_cause) = step.split_once('/').unwrap_or((step, ""));
                let unseen =
                    cause == "syncookie" && got_cause.is_empty() && tier != "fentry" && tier != "kprobe";
                state == got_state && (cause == got_cause || cause == "*" || unseen)
            })
        })
}

/// The part of a path that the full sockets show.
fn without_minis(steps: &[String]) -> Option<Vec<String>> {
    let mut shown = Vec::new();
    for step in steps {
        match step.as_str() {
            "SYN_RECVm" => shown.push("SYN_RECV".to_owned()),
            mini if is_mini(mini) => {
                shown.push("CLOSE".to_owned());
                break;
            }
            // Without mini-sockets, the connection may be in TIME_WAIT.
            "CLOSE/fin" if shown.last().is_some_and(|state| state == "FIN_WAIT2") => {
                shown.push("CLOSE".to_owned())
            }
            full => shown.push(full.to_owned()),
        }
    }
    // A request that never became a full socket.
    if shown == ["LISTEN", "SYN_RECV", "CLOSE"] { None } else { Some(shown) }
}

/// The same with the estimated mini-sockets, but without the transitions that end them.
fn estimated(steps: &[String]) -> Option<Vec<String>> {
    let full = without_minis(steps)?;
    let mut shown = full.clone();
    if let Some(at) = steps.iter().position(|step| step == "TIME_WAITm/fin") {
        shown.truncate(at);
        shown.push("TIME_WAITm/fin".to_owned());
    } else if steps.last().is_some_and(|step| step.starts_with("CLOSEm")) {
        // The estimate assumes that the state stays FIN_WAIT2.
        shown.pop();
    }
    Some(shown)
}

/// Checks that each transition begins in the state that the previous one led to, and has the time in this state.
fn check_chain(connection: &[&Value]) {
    assert_eq!(connection[0]["in_state_ns"], Value::Null);
    for pair in connection.windows(2) {
        assert_eq!(pair[0]["to"], pair[1]["from"]);
        let (earlier, later) = (nanoseconds(&pair[0]["time"]), nanoseconds(&pair[1]["time"]));
        let said = pair[1]["in_state_ns"].as_i64().expect("known");
        // Something may adjust the wall clock a little meanwhile.
        assert!((later - earlier - said).abs() < 1_000_000, "{} {}", pair[0], pair[1]);
        assert!(pair[1]["in_state_at_least"].is_null());
    }
}

fn check_ends(connection: &[&Value], kind: Kind, port: u16) {
    for record in connection {
        let is_listener = record["role"] == "listener";
        let (near, far) = if record["role"] == "client" { ("remote", "local") } else { ("local", "remote") };
        assert_eq!(record[near]["port"], port, "{record}");
        let unbound =
            record["from"] == "CLOSE" && record["to"] == "SYN_SENT" && record["local"]["port"].is_null();
        // Up to about 6.12 an accepted connection's first transition lacks its tuple.
        let unfilled =
            record["from"] == "LISTEN" && record["to"] == "SYN_RECV" && record["remote"]["port"].is_null();
        if !is_listener && !unfilled {
            assert_eq!(record["network"]["type"], kind.network_type(), "{record}");
            assert_eq!(record["local"]["address"], kind.address_text(), "{record}");
            assert_eq!(record["remote"]["address"], kind.address_text(), "{record}");
            assert_eq!(record[far]["port"].is_null(), unbound, "{record}");
            assert_eq!(record["network"]["community_id"].is_null(), unbound, "{record}");
        }
    }
}

/// Checks that the records up to a quiet point agree with /proc/net/tcp at this point.
fn check_point(connections: &[Vec<&Value>], point: &Quiet) {
    let mut said: BTreeMap<&str, &Value> = BTreeMap::new();
    for record in connections.iter().flatten().filter(|record| record["time"].as_str() <= Some(&point.time)) {
        said.insert(record["conn"].as_str().expect("conn"), record);
    }
    let mut shown = point.sockets.clone();
    for record in said.values() {
        let port = |end: &str| record[end]["port"].as_u64().unwrap_or(0) as u16;
        let state = record["to"].as_str().expect("state");
        if state == "CLOSE" {
            continue;
        }
        let at = shown.iter().position(|(local, remote, shown)| {
            // The local port of a connect is not in its first transition.
            let local_fits = port("local") == 0 || *local == port("local");
            local_fits && *remote == port("remote") && shown == state
        });
        match at {
            Some(at) => drop(shown.remove(at)),
            None if is_being_freed(connections, record, point) => {}
            None => {
                let whole: Vec<_> =
                    connections.iter().flatten().filter(|step| step["conn"] == record["conn"]).collect();
                panic!("{} of {whole:#?} is not among {:?} at {}", record["to"], point.sockets, point.time)
            }
        }
    }
    assert_eq!(shown, [], "shown by /proc, and not said");
}

/// The time between the removal of a mini-socket from the kernel's table and the release of its memory. The hooks see
/// only the release, and a timer on another processor may have the last reference. An emulated processor may pause in
/// between (0.7 s were measured).
fn is_being_freed(connections: &[Vec<&Value>], last: &Value, point: &Quiet) -> bool {
    let point: jiff::Timestamp = point.time.parse().expect("RFC 3339");
    let most = if observer::is_in_vm() { observer::patience() } else { Duration::from_millis(100) };
    let soon = |record: &Value| {
        i128::from(nanoseconds(&record["time"])) - point.as_nanosecond() < most.as_nanos() as i128
    };
    let mut later = connections.iter().flatten().filter(|record| record["conn"] == last["conn"]);
    last["mini"] == true
        && later.any(|record| record["to"] == "CLOSE" && record["mini"] == true && soon(record))
}

/// The path of the full socket, as the tracepoint shows it; `None` if there was no full socket.
fn full_socket(connection: &[&Value]) -> Option<Vec<String>> {
    let marked: Vec<String> = path(connection);
    let plain = |step: &String| step.split('/').next().unwrap_or_default().to_owned();
    let mut shown = without_minis(&marked.iter().map(plain).collect::<Vec<_>>())?;
    // If a mini-socket continues FIN_WAIT2, the tracepoint shows no transition of the full socket.
    let handed_over = shown.last().is_some_and(|state| state == "FIN_WAIT2");
    if handed_over {
        shown.push("CLOSE".to_owned());
    }
    Some(shown)
}

/// Converts the time of a record to nanoseconds since the epoch.
fn nanoseconds(time: &Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().expect("time").parse().expect("RFC 3339");
    time.as_nanosecond() as i64
}
