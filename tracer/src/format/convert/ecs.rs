//! The Elastic Common Schema, version 8.17: its own fields where it has them, `sockstate.*` for the rest.

use serde_json::{Map, Value, json};

use super::{Severity, message, record, severity, text};

/// Of the schema.
const VERSION: &str = "8.17.0";

/// A record as a line of ECS.
pub fn ecs(line: &[u8], out: &mut Vec<u8>) {
    let it = record(line);
    let mut found = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            found.insert(key.to_owned(), value);
        }
    };
    put("@timestamp", it["time"].clone());
    put("ecs", json!({"version": VERSION}));
    put("message", json!(message(&it)));
    put("event", event(&it));
    put("log", json!({"level": level(&it)}));
    if it["network"].is_object() {
        let (from, to) = if it["role"] == "server" { ("remote", "local") } else { ("local", "remote") };
        put("source", end(&it[from]));
        put("destination", end(&it[to]));
        put("network", network(&it));
        put("related", json!({"ip": [it["local"]["address"], it["remote"]["address"]]}));
    }
    if let Some(owner) = it["owner"].as_object() {
        let get = |key: &str| owner.get(key).cloned().unwrap_or_default();
        put(
            "process",
            without_nulls(
                json!({"pid": get("pid"), "name": get("comm"), "executable": get("exe"), "command_line": get("cmdline")}),
            ),
        );
        if let Some(uid) = get("uid").as_u64() {
            put("user", json!({"id": uid.to_string()}));
        }
    }
    put(
        "container",
        without_nulls(json!({"id": it["container"]["id"], "runtime": it["container"]["runtime"]})),
    );
    put("host", without_nulls(json!({"name": it["host"]["name"], "hostname": it["host"]["name"]})));
    put("orchestrator", pod(&it));
    put("service", without_nulls(json!({"name": it["unit"]})));
    put("error", without_nulls(json!({"code": it["errno"]})));
    put("labels", labels(&it["labels"]));
    put("sockstate", rest(&it));
    // Writing a value of ours to a vector does not fail.
    let _ = serde_json::to_writer(&mut *out, &found);
    out.push(b'\n');
}

fn event(it: &Value) -> Value {
    let kind = text(it, "kind");
    let is_connection = matches!(kind, "transition" | "snapshot" | "resync" | "stuck" | "resolved");
    let r#type = match (kind, text(it, "to")) {
        ("transition", "ESTABLISHED") => json!(["connection", "start"]),
        ("transition", "CLOSE") => json!(["connection", "end"]),
        ("lost", _) => json!(["error"]),
        _ if is_connection => json!(["connection", "info"]),
        _ => json!(["info"]),
    };
    let event_kind = match kind {
        "stuck" => "alert",
        "snapshot" => "state",
        "aggregate" => "metric",
        "lost" => "pipeline_error",
        _ => "event",
    };
    without_nulls(json!({
        "kind": event_kind,
        "category": [if is_connection { "network" } else { "process" }],
        "type": r#type,
        "action": format!("tcp-{kind}"),
        "module": "sockstate",
        "dataset": format!("sockstate.{kind}"),
        "sequence": it["seq"],
        // Of the state that was left, in nanoseconds as ECS has them.
        "duration": it["in_state_ns"],
        "reason": it["cause"],
    }))
}

fn network(it: &Value) -> Value {
    let direction = match text(it, "role") {
        "client" => json!("egress"),
        "server" => json!("ingress"),
        _ => Value::Null,
    };
    let given = &it["network"];
    without_nulls(json!({
        "transport": given["transport"],
        "type": given["type"],
        "community_id": given["community_id"],
        "direction": direction,
    }))
}

fn end(it: &Value) -> Value {
    without_nulls(json!({"address": it["address"], "ip": it["address"], "port": it["port"]}))
}

fn pod(it: &Value) -> Value {
    match it["pod"]["uid"].as_str() {
        Some(uid) => json!({"type": "kubernetes", "resource": {"type": "pod", "id": uid}}),
        None => Value::Null,
    }
}

/// Elasticsearch takes a dot in a name for a level: with `app` and `app.name`, `app` would be a text and an object, and every document
/// refused. ECS's custom is an underscore instead.
fn labels(it: &Value) -> Value {
    match it.as_object() {
        Some(labels) => labels.iter().map(|(key, value)| (ecs_label(key), value.clone())).collect(),
        None => Value::Null,
    }
}

/// The name of a label in ECS.
#[must_use]
pub fn ecs_label(name: &str) -> String {
    name.replace('.', "_")
}

/// What ECS has no field for, under our own names.
fn rest(it: &Value) -> Value {
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
    let Some(all) = it.as_object() else { return Value::Null };
    let mut rest: Map<String, Value> = all
        .iter()
        .filter(|(key, _)| !TAKEN.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(source) = it["owner"].get("source") {
        rest.insert("owner".into(), json!({"source": source}));
    }
    without_nulls(rest.into())
}

fn level(it: &Value) -> &'static str {
    match severity(it) {
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
