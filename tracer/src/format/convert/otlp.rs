//! OpenTelemetry's log data model, by the semantic conventions' names where there are some.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, SeverityNumber},
    resource::v1::Resource,
};
use serde_json::{Value, json};

use super::{Severity, message, record, severity, text};
use crate::format::Stamp;

/// `ScopeLogs.log_records`.
const LOG_RECORDS: u32 = 2;
/// `ResourceLogs.resource`, `ScopeLogs.scope`.
const FIRST: u32 = 1;

/// A record as a log record in JSON, a line.
pub fn otlp_json(line: &[u8], out: &mut Vec<u8>) {
    // Writing a value of ours to a vector does not fail.
    let _ = serde_json::to_writer(&mut *out, &log_record(&record(line)));
    out.push(b'\n');
}

/// A record as a field of `ScopeLogs` in protobuf.
pub fn otlp_protobuf(line: &[u8], out: &mut Vec<u8>) {
    prost::encoding::message::encode(LOG_RECORDS, &log_record(&record(line)), out);
}

/// What surrounds JSON log records in a request: before and behind.
#[must_use]
pub fn otlp_json_envelope(stamp: &Stamp<'_>) -> (Vec<u8>, Vec<u8>) {
    let before = format!(
        "{{\"resourceLogs\":[{{\"resource\":{},\"scopeLogs\":[{{\"scope\":{},\"logRecords\":[",
        json!(otlp_resource(stamp)),
        json!(scope())
    );
    (before.into_bytes(), b"]}]}]}".to_vec())
}

/// The resource as a field of `ResourceLogs`, and the scope as one of `ScopeLogs`, in protobuf.
#[must_use]
pub fn otlp_protobuf_envelope(stamp: &Stamp<'_>) -> (Vec<u8>, Vec<u8>) {
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    prost::encoding::message::encode(FIRST, &otlp_resource(stamp), &mut before);
    prost::encoding::message::encode(FIRST, &scope(), &mut behind);
    (before, behind)
}

/// Who says it.
#[must_use]
pub fn otlp_resource(stamp: &Stamp<'_>) -> Resource {
    let mut attributes = vec![
        attribute("service.name", &json!("sockstate")),
        attribute("service.version", &json!(env!("CARGO_PKG_VERSION"))),
        attribute("service.instance.id", &json!(format!("{:06x}", stamp.instance))),
        attribute("host.name", &json!(stamp.host)),
        attribute("os.type", &json!("linux")),
    ];
    // A key is there once: the user's own value goes before ours.
    attributes.retain(|attribute| !stamp.labels.contains_key(&attribute.key));
    attributes.extend(stamp.labels.iter().map(|(key, value)| attribute(key, &json!(value))));
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("sockstate".into(), env!("CARGO_PKG_VERSION").into());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}

fn log_record(it: &Value) -> LogRecord {
    let (number, name) = match severity(it) {
        Severity::Error => (SeverityNumber::Error, "ERROR"),
        Severity::Warning => (SeverityNumber::Warn, "WARN"),
        // As OpenTelemetry maps syslog's.
        Severity::Notice => (SeverityNumber::Info2, "NOTICE"),
        Severity::Info => (SeverityNumber::Info, "INFO"),
    };
    let time = text(it, "time").parse::<jiff::Timestamp>().map(|time| time.as_nanosecond());
    let time = time.ok().and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0);
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: number.into(),
        severity_text: name.into(),
        event_name: format!("sockstate.{}", text(it, "kind")),
        body: any(&json!(message(it))),
        attributes: attributes(it),
        ..LogRecord::default()
    }
}

fn attributes(it: &Value) -> Vec<KeyValue> {
    /// Our key, and the conventions'.
    const NAMES: [(&str, &str); 15] = [
        ("/network/transport", "network.transport"),
        ("/network/type", "network.type"),
        ("/network/community_id", "network.community_id"),
        ("/local/address", "network.local.address"),
        ("/local/port", "network.local.port"),
        ("/remote/address", "network.peer.address"),
        ("/remote/port", "network.peer.port"),
        ("/interface/name", "network.interface.name"),
        ("/owner/pid", "process.pid"),
        ("/owner/comm", "process.executable.name"),
        ("/owner/exe", "process.executable.path"),
        ("/owner/cmdline", "process.command_line"),
        ("/container/id", "container.id"),
        ("/container/runtime", "container.runtime.name"),
        ("/pod/uid", "k8s.pod.uid"),
    ];
    /// Keys that are elsewhere: in the record's own fields, or in the resource.
    const ELSEWHERE: [&str; 11] = [
        "schema",
        "kind",
        "time",
        "network",
        "local",
        "remote",
        "container",
        "pod",
        "host",
        "instance",
        "labels",
    ];
    let mut found: Vec<KeyValue> = NAMES
        .iter()
        .filter_map(|(pointer, name)| Some(attribute(name, it.pointer(pointer).filter(|it| !it.is_null())?)))
        .collect();
    if let Some(uid) = it["owner"]["uid"].as_u64() {
        found.push(attribute("user.id", &json!(uid.to_string())));
    }
    let now = if it["to"].is_string() { text(it, "to") } else { text(it, "state") };
    if let Some(state) = connection_state(now) {
        found.push(attribute("network.connection.state", &json!(state)));
    }
    let all = it.as_object().into_iter().flatten();
    let ours = all.filter(|(key, value)| !value.is_null() && !ELSEWHERE.contains(&key.as_str()));
    for (key, value) in ours {
        match (key.as_str(), value) {
            ("owner", owner) => found.push(attribute("sockstate.owner.source", &owner["source"])),
            (key, value) => found.push(attribute(&format!("sockstate.{key}"), value)),
        }
    }
    found
}

/// The conventions' names (`network.connection.state`).
fn connection_state(name: &str) -> Option<&'static str> {
    Some(match name {
        "ESTABLISHED" => "established",
        "SYN_SENT" => "syn_sent",
        "SYN_RECV" => "syn_received",
        "FIN_WAIT1" => "fin_wait_1",
        "FIN_WAIT2" => "fin_wait_2",
        "TIME_WAIT" => "time_wait",
        "CLOSE" => "closed",
        "CLOSE_WAIT" => "close_wait",
        "LAST_ACK" => "last_ack",
        "LISTEN" => "listen",
        "CLOSING" => "closing",
        _ => return None,
    })
}

fn attribute(key: &str, value: &Value) -> KeyValue {
    KeyValue { key: key.into(), value: any(value), ..KeyValue::default() }
}

fn any(value: &Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(it) => any_value::Value::BoolValue(*it),
        Value::Number(it) => match it.as_i64() {
            Some(integer) => any_value::Value::IntValue(integer),
            None => any_value::Value::DoubleValue(it.as_f64().unwrap_or_default()),
        },
        Value::String(it) => any_value::Value::StringValue(it.clone()),
        Value::Array(items) => {
            let values = items.iter().filter_map(any).collect();
            any_value::Value::ArrayValue(ArrayValue { values })
        }
        Value::Object(map) => {
            let values = map.iter().map(|(key, value)| attribute(key, value)).collect();
            any_value::Value::KvlistValue(KeyValueList { values })
        }
    };
    Some(AnyValue { value: Some(value) })
}
