//! One look at the sockets, as tables for people and as JSON lines (docs/stuck.md).

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value, json};

use super::{
    community_id::community_id,
    json::belongs_to,
    table::{ends, printable, sign},
    time::Times,
};
use crate::model::{Address, Diagnosis, Examined, Holder, Looked, Process, State, Subject, Watch};

/// Stuck sockets counted by something.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What they have in common.
    pub key: String,
    /// How many.
    pub count: usize,
    /// Time that the oldest has not moved, ns.
    pub oldest_ns: Option<u64>,
    /// Bytes that nobody has read, all together.
    pub unread_bytes: u64,
    /// How many in each state.
    pub states: BTreeMap<&'static str, usize>,
    /// How many for each reason.
    pub reasons: BTreeMap<&'static str, usize>,
}

/// All sockets, one a line.
#[must_use]
pub fn sockets_table<'a>(sockets: impl IntoIterator<Item = &'a Examined>) -> String {
    let mut out = format!(
        "{:<11} {:>9} {:>8} {:>8} {:<24} {:<24} {}\n",
        "STATE", "AGE", "UNREAD", "UNSENT", "LOCAL", "REMOTE", "HELD BY"
    );
    for it in sockets {
        line(it, &mut out);
    }
    out
}

/// Stuck sockets: those with one reason and one holder together, then why, and what to do.
#[must_use]
pub fn stuck_table(stuck: &[(Looked, Diagnosis)]) -> String {
    if stuck.is_empty() {
        return "nothing is stuck\n".into();
    }
    let mut sections: Vec<(String, Vec<&(Looked, Diagnosis)>)> = Vec::new();
    for one in stuck {
        let (Looked { it, .. }, diagnosis) = one;
        let pids: Vec<u32> = it.holders.iter().map(|holder| holder.process.pid).collect();
        let key = format!("{} {} {pids:?}", it.socket.state, diagnosis.reason.name());
        match sections.iter_mut().find(|(known, _)| *known == key) {
            Some((_, section)) => section.push(one),
            None => sections.push((key, vec![one])),
        }
    }
    let mut out = String::new();
    for (_, section) in sections {
        out.push_str(&sockets_table(section.iter().map(|(looked, _)| &looked.it)));
        let Some((Looked { it, subject }, diagnosis)) = section.first() else { continue };
        // Writing to a string does not fail.
        let _ = writeln!(out, "  why   {}", diagnosis.why);
        if let Some(creator) = it.creator() {
            let _ = writeln!(out, "  made  by {}, which listens", process(creator));
        }
        if let Some(place) = place(subject) {
            let _ = writeln!(out, "  in    {place}");
        }
        let _ = writeln!(out, "  do    {}", diagnosis.advice);
        for command in &diagnosis.commands {
            let _ = writeln!(out, "        $ {command}");
        }
        out.push('\n');
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    stuck.iter().for_each(|(looked, _)| *counts.entry(looked.it.socket.state.name()).or_default() += 1);
    let list: Vec<String> = counts.iter().map(|(state, count)| format!("{count} in {state}")).collect();
    let _ = writeln!(out, "{} stuck: {}", stuck.len(), list.join(", "));
    out
}

/// Counts, the greatest first.
#[must_use]
pub fn groups_table(groups: &[Group]) -> String {
    let mut out =
        format!("{:>7} {:>9} {:>12} {:<32} {}\n", "COUNT", "OLDEST", "UNREAD", "GROUP", "STATES, REASONS");
    for group in groups {
        let list = |counts: &BTreeMap<&'static str, usize>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let oldest = group.oldest_ns.map_or_else(|| "-".into(), |ns| format!(">{}", short(ns)));
        let _ = writeln!(
            out,
            "{:>7} {oldest:>9} {:>12} {:<32} {}; {}",
            group.count,
            group.unread_bytes,
            printable(&group.key),
            list(&group.states),
            list(&group.reasons)
        );
    }
    out
}

/// A socket as a JSON line.
#[must_use]
pub fn socket_json(looked: &Looked, time_ns: i64) -> String {
    finish(socket("socket", looked, time_ns))
}

/// A stuck socket as a JSON line.
#[must_use]
pub fn stuck_json(looked: &Looked, diagnosis: &Diagnosis, time_ns: i64) -> String {
    let mut members = socket("stuck", looked, time_ns);
    members.extend(explained(diagnosis));
    finish(members)
}

/// A count as a JSON line.
#[must_use]
pub fn group_json(group: &Group, time_ns: i64) -> String {
    let mut members = head("stuck_group", time_ns);
    members.insert("key".into(), json!(group.key));
    members.insert("count".into(), json!(group.count));
    members.insert("oldest_ns".into(), json!(group.oldest_ns));
    members.insert("unread_bytes".into(), json!(group.unread_bytes));
    members.insert("states".into(), json!(group.states));
    members.insert("reasons".into(), json!(group.reasons));
    finish(members)
}

fn finish(members: Map<String, Value>) -> String {
    let mut text = Value::Object(members).to_string();
    text.push('\n');
    text
}

fn head(kind: &str, time_ns: i64) -> Map<String, Value> {
    let mut time = Vec::new();
    Times::rfc3339().write(time_ns, 9, &mut time);
    let mut members = Map::new();
    members.insert("schema".into(), json!("sockstate/1"));
    members.insert("kind".into(), json!(kind));
    members.insert("time".into(), json!(format!("{}Z", String::from_utf8_lossy(&time))));
    members
}

fn socket(kind: &str, Looked { it, subject }: &Looked, time_ns: i64) -> Map<String, Value> {
    let (socket, tuple) = (&it.socket, &it.socket.tuple);
    let mut members = head(kind, time_ns);
    let mut put = |key: &str, value: Value| members.insert(key.to_owned(), value);
    put("state", json!(socket.state.name()));
    if let State::Unknown(number) = socket.state {
        put("state_number", json!(number));
    }
    put("age_ns", json!(it.age.map(|age| age.ns)));
    put("age_at_least", json!(it.age.map(|age| age.at_least)));
    let id = tuple.is_complete().then(|| String::from_utf8_lossy(&community_id(tuple)).into_owned());
    let family = if tuple.is_v4() { "ipv4" } else { "ipv6" };
    put("network", json!({"transport": "tcp", "type": family, "community_id": id}));
    put("local", end(tuple.local, tuple.local_port));
    put("remote", end(tuple.remote, tuple.remote_port));
    for (key, value) in seen(it) {
        put(&key, value);
    }
    put("uid", json!(socket.uid));
    if socket.mini {
        put("mini", json!(true));
    }
    for (key, value) in belongs_to(subject) {
        put(key, value);
    }
    members
}

/// What only a look shows.
pub(super) fn seen(it: &Examined) -> Map<String, Value> {
    let socket = &it.socket;
    let mut members = Map::new();
    let mut put = |key: &str, value: Value| members.insert(key.to_owned(), value);
    put("holders", it.holders.iter().map(holder).collect());
    put("creator", json!(it.creator().map(|process| json!({"pid": process.pid, "comm": process.comm}))));
    if socket.state == State::Listen {
        put("backlog", json!({"queued": socket.receive_queue, "limit": socket.send_queue}));
    } else {
        put("unread_bytes", json!(socket.unread_bytes()));
        put("unsent_bytes", json!(socket.unsent_bytes()));
    }
    let timer = socket.timer.map(|timer| json!({"name": timer.kind.name(), "left_ns": timer.left_ns}));
    put("timer", json!(timer));
    put("retransmits", json!(socket.retransmits));
    put("unanswered_ns", json!(it.unanswered_ns));
    members
}

/// What it means.
pub(super) fn explained(it: &Diagnosis) -> Map<String, Value> {
    let members = [
        ("reason", json!(it.reason.name())),
        ("why", json!(it.why)),
        ("advice", json!(it.advice)),
        ("commands", json!(it.commands)),
    ];
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn end(address: Address, port: u16) -> Value {
    json!({"address": address.canonical().to_string(), "port": (port != 0).then_some(port)})
}

fn holder(it: &Holder) -> Value {
    let Process { pid, comm, exe, .. } = &it.process;
    let epoll = match &it.watch {
        Some(Watch::Epoll(events)) => json!(events),
        Some(Watch::NoEpoll) => json!([]),
        None => Value::Null,
    };
    json!({"pid": pid, "fd": it.fd, "comm": comm, "exe": exe, "epoll": epoll})
}

fn line(it: &Examined, out: &mut String) {
    let (socket, tuple) = (&it.socket, &it.socket.tuple);
    let (local, remote) = ends(tuple);
    let age = match (it.age, it.unanswered_ns) {
        (Some(age), _) => format!("{}{}", sign(age), short(age.ns)),
        (None, Some(ns)) => format!("({})", short(ns)),
        (None, None) => "-".into(),
    };
    let (unread, unsent) = match socket.state {
        State::Listen => (format!("{}", socket.receive_queue), format!("/{}", socket.send_queue)),
        _ => (socket.unread_bytes().to_string(), socket.unsent_bytes().to_string()),
    };
    let held: Vec<String> =
        it.holders.iter().map(|holder| format!("{} fd {}", process(&holder.process), holder.fd)).collect();
    let held = match (&held[..], it.socket.inode, it.hidden_holders) {
        ([], 0, _) => "-".to_owned(),
        ([], _, true) => "?".to_owned(),
        ([], _, false) => "nobody".to_owned(),
        (held, _, _) => held.join(", "),
    };
    let state = socket.state.name();
    let _ = writeln!(out, "{state:<11} {age:>9} {unread:>8} {unsent:>8} {local:<24} {remote:<24} {held}");
}

fn process(it: &Process) -> String {
    format!("{}({})", printable(&it.comm), it.pid)
}

/// Container, pod or unit, where one is known.
fn place(subject: &Subject) -> Option<String> {
    let container = subject.container.as_ref().map(|it| format!("container {}", it.id));
    let pod = subject.pod_uid.as_ref().map(|uid| format!("pod {uid}"));
    let unit = subject.unit.as_ref().map(|unit| format!("unit {unit}"));
    let parts: Vec<String> = [container, pod, unit].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// `850ms`, `42s`, `3m20s`, `2h05m`, `4d03h`.
pub(super) fn short(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0 => format!("{}ms", ns / 1_000_000),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        7200..172_800 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn lengths_of_time() {
        for (seconds, text) in [
            (0, "0ms"),
            (119, "119s"),
            (120, "2m00s"),
            (7199, "119m59s"),
            (7500, "2h05m"),
            (200_000, "2d07h"),
        ] {
            assert_eq!(short(seconds * 1_000_000_000), text);
        }
    }
}
