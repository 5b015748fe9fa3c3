//! The Elastic Common Schema, version 8.17: its own fields where it has them, `sockstate.*` for the rest.

use serde_json::{Map, Value, json};

use super::{
    Content, FormatName, LineFormat,
    fields::Fields,
    message::{Severity, message, severity},
    name::Source,
};
use crate::wire::{End, Ends, Kind, Labels, Line, Owner};

pub(super) const FORMAT: FormatName = FormatName {
    name: "ecs",
    help: "Elastic Common Schema, one JSON object per line",
    content: Content::Json,
    for_sinks: true,
    source: Source::Lines(|| Box::new(Ecs)),
};

/// The version of the schema.
const VERSION: &str = "8.17.0";

/// The format: one JSON object per line.
struct Ecs;

impl LineFormat for Ecs {
    fn line(&mut self, line: &Line<'_>, _: &[u8], out: &mut Vec<u8>) {
        let fields = Fields::of(line);
        let mut found = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                found.insert(key.to_owned(), value);
            }
        };
        put("@timestamp", json!(fields.time));
        put("ecs", json!({"version": VERSION}));
        put("message", message(line, &fields).into());
        put("event", event(line, &fields));
        put("log", json!({"level": level(line)}));
        if let Some(ends) = fields.network() {
            let (local, remote) = (ends.local.as_ref(), ends.remote.as_ref());
            let (from, to) = if fields.role == Some("server") { (remote, local) } else { (local, remote) };
            put("source", end(from));
            put("destination", end(to));
            put("network", network(ends, fields.role));
            put("related", json!({"ip": [local.map(|end| end.address), remote.map(|end| end.address)]}));
        }
        if let Some(owner) = fields.owner {
            put("process", process(owner));
            if let Some(uid) = owner.uid {
                put("user", json!({"id": uid.to_string()}));
            }
        }
        put("container", without_nulls(json!({"id": fields.container, "runtime": fields.runtime})));
        put("host", without_nulls(json!({"name": fields.host, "hostname": fields.host})));
        put("orchestrator", fields.pod.map(pod).unwrap_or_default());
        put("service", without_nulls(json!({"name": fields.unit})));
        put("error", without_nulls(json!({"code": fields.errno})));
        put("labels", fields.labels.map(labels).unwrap_or_default());
        put("sockstate", rest(line, fields.owner));
        // Writing a value of ours to a vector does not fail.
        let _ = serde_json::to_writer(&mut *out, &found);
        out.push(b'\n');
    }
}

fn event(line: &Line<'_>, fields: &Fields<'_>) -> Value {
    let kind = line.kind.name();
    let is_connection = matches!(
        line.kind,
        Kind::Transition(_) | Kind::Snapshot(_) | Kind::Resync(_) | Kind::Stuck(_) | Kind::Resolved(_)
    );
    let r#type = match (&line.kind, fields.to) {
        (Kind::Transition(_), Some("ESTABLISHED")) => json!(["connection", "start"]),
        (Kind::Transition(_), Some("CLOSE")) => json!(["connection", "end"]),
        (Kind::Lost(_), _) => json!(["error"]),
        _ if is_connection => json!(["connection", "info"]),
        _ => json!(["info"]),
    };
    let event_kind = match line.kind {
        Kind::Stuck(_) => "alert",
        Kind::Snapshot(_) => "state",
        Kind::Aggregate(_) => "metric",
        Kind::Lost(_) => "pipeline_error",
        _ => "event",
    };
    without_nulls(json!({
        "kind": event_kind,
        "category": [if is_connection { "network" } else { "process" }],
        "type": r#type,
        "action": format!("tcp-{kind}"),
        "module": "sockstate",
        "dataset": format!("sockstate.{kind}"),
        "sequence": fields.seq,
        // The duration of the state that was left; ECS has nanoseconds, too.
        "duration": fields.in_state_ns,
        "reason": fields.cause,
    }))
}

fn network(ends: &Ends<'_>, role: Option<&str>) -> Value {
    let direction = match role {
        Some("client") => Some("egress"),
        Some("server") => Some("ingress"),
        _ => None,
    };
    let network = ends.network.as_ref();
    without_nulls(json!({
        "transport": network.map(|network| &network.transport),
        "type": network.map(|network| &network.r#type),
        "community_id": network.and_then(|network| network.community_id.as_ref()),
        "direction": direction,
    }))
}

fn process(owner: &Owner<'_>) -> Value {
    without_nulls(json!({
        "pid": owner.pid,
        "name": owner.comm,
        "executable": owner.exe,
        "command_line": owner.cmdline,
    }))
}

fn end(end: Option<&End>) -> Value {
    let address = end.map(|end| end.address);
    without_nulls(json!({"address": address, "ip": address, "port": end.and_then(|end| end.port)}))
}

fn pod(uid: &str) -> Value {
    json!({"type": "kubernetes", "resource": {"type": "pod", "id": uid}})
}

/// Elasticsearch takes a dot in a name for a level: with `app` and `app.name`, `app` would be both a text and an
/// object, and each document would be refused. As is usual in ECS, an underscore replaces the dot.
fn labels(labels: &Labels<'_>) -> Value {
    if labels.is_empty() {
        return Value::Null;
    }
    labels.iter().map(|(key, value)| (ecs_label(key), json!(value))).collect()
}

/// The name of a label in ECS.
#[must_use]
pub fn ecs_label(name: &str) -> String {
    name.replace('.', "_")
}

/// Values for which ECS has no field, below `sockstate`.
fn rest(line: &Line<'_>, owner: Option<&Owner<'_>>) -> Value {
    const TAKEN: [&str; 15] = [
        "time",
        "network",
        "local",
        "remote",
        "owner",
        "container",
        "pod",
        "host",
        "labels",
        "seq",
        "unit",
        "errno",
        "schema",
        "in_state_ns",
        "cause",
    ];
    let Value::Object(mut rest) = json!(line) else { return Value::Null };
    rest.retain(|key, _| !TAKEN.contains(&key.as_str()));
    if let Some(owner) = owner {
        rest.insert("owner".into(), json!({"source": owner.source}));
    }
    without_nulls(rest.into())
}

fn level(line: &Line<'_>) -> &'static str {
    match severity(line) {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
        Severity::Info => "info",
    }
}

/// Null for an object with nothing in it: ECS leaves out what is not known.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: Map<String, Value> = map.into_iter().filter(|(_, value)| !value.is_null()).collect();
            if map.is_empty() { Value::Null } else { map.into() }
        }
        other => other,
    }
}
