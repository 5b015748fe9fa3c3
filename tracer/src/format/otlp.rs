//! OpenTelemetry's log data model, by the semantic conventions' names where there are some.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, SeverityNumber},
    resource::v1::Resource,
};
use serde_json::{Value, json};

use super::{
    Content, FormatName, LineFormat, Stamp,
    fields::Fields,
    lines::convert,
    message::{Severity, message, severity},
    name::Source,
};
use crate::wire::Line;

pub(super) const FORMAT: FormatName = FormatName {
    name: "otlp",
    help: "OpenTelemetry's log data model as JSON, one log record per line",
    content: Content::Json,
    for_sinks: true,
    source: Source::Lines(|| Box::new(Otlp)),
};

/// `ScopeLogs.log_records`.
const LOG_RECORDS: u32 = 2;
/// `ResourceLogs.resource`, `ScopeLogs.scope`.
const FIRST: u32 = 1;

/// The format: one log record in JSON per line.
struct Otlp;

impl LineFormat for Otlp {
    fn line(&mut self, line: &Line<'_>, _: &[u8], out: &mut Vec<u8>) {
        // Writing a value of ours to a vector does not fail.
        let _ = serde_json::to_writer(&mut *out, &log_record(line));
        out.push(b'\n');
    }
}

/// The format in protobuf: each record is a field of `ScopeLogs`.
#[derive(Clone, Copy, Debug, Default)]
struct OtlpProtobuf;

impl LineFormat for OtlpProtobuf {
    fn line(&mut self, line: &Line<'_>, _: &[u8], out: &mut Vec<u8>) {
        prost::encoding::message::encode(LOG_RECORDS, &log_record(line), out);
    }
}

/// Converts a line of sockstate's JSON to a line with a log record in JSON.
pub fn otlp_json(text: &[u8], out: &mut Vec<u8>) {
    convert(&mut Otlp, text, out);
}

/// Converts a line of sockstate's JSON to a field of `ScopeLogs` in protobuf.
pub fn otlp_protobuf(text: &[u8], out: &mut Vec<u8>) {
    convert(&mut OtlpProtobuf, text, out);
}

/// The bytes before and after the log records of a JSON request.
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

/// The resource: sockstate on this host.
#[must_use]
pub fn otlp_resource(stamp: &Stamp<'_>) -> Resource {
    let mut attributes = vec![
        attribute("service.name", &json!("sockstate")),
        attribute("service.version", &json!(env!("CARGO_PKG_VERSION"))),
        attribute("service.instance.id", &json!(format!("{:06x}", stamp.instance))),
        attribute("host.name", &json!(stamp.host)),
        attribute("os.type", &json!("linux")),
    ];
    // No key may occur twice: the user's label overrides sockstate's attribute.
    attributes.retain(|attribute| !stamp.labels.contains_key(&attribute.key));
    attributes.extend(stamp.labels.iter().map(|(key, value)| attribute(key, &json!(value))));
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("sockstate".into(), env!("CARGO_PKG_VERSION").into());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}

fn log_record(line: &Line<'_>) -> LogRecord {
    let (number, name) = match severity(line) {
        Severity::Error => (SeverityNumber::Error, "ERROR"),
        Severity::Warning => (SeverityNumber::Warn, "WARN"),
        // OpenTelemetry's mapping of syslog severities.
        Severity::Notice => (SeverityNumber::Info2, "NOTICE"),
        Severity::Info => (SeverityNumber::Info, "INFO"),
    };
    let fields = Fields::of(line);
    let time = fields.time.and_then(|time| u64::try_from(time.0).ok()).unwrap_or(0);
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: number.into(),
        severity_text: name.into(),
        event_name: format!("sockstate.{}", line.kind.name()),
        body: any(&json!(message(line, &fields))),
        attributes: attributes(line, &fields),
        ..LogRecord::default()
    }
}

/// Attributes for which the semantic conventions have names.
fn named(fields: &Fields<'_>) -> [(&'static str, Value); 16] {
    let ends = fields.ends;
    let network = ends.and_then(|ends| ends.network.as_ref());
    let (local, remote) =
        (ends.and_then(|ends| ends.local.as_ref()), ends.and_then(|ends| ends.remote.as_ref()));
    let interface = ends.and_then(|ends| ends.interface.as_ref()).and_then(|bound| bound.name.as_ref());
    let owner = fields.owner;
    [
        ("network.transport", json!(network.map(|network| &network.transport))),
        ("network.type", json!(network.map(|network| &network.r#type))),
        ("network.community_id", json!(network.and_then(|network| network.community_id.as_ref()))),
        ("network.local.address", json!(local.map(|end| end.address))),
        ("network.local.port", json!(local.and_then(|end| end.port))),
        ("network.peer.address", json!(remote.map(|end| end.address))),
        ("network.peer.port", json!(remote.and_then(|end| end.port))),
        ("network.interface.name", json!(interface)),
        ("process.pid", json!(owner.map(|owner| owner.pid))),
        ("process.executable.name", json!(owner.map(|owner| &owner.comm))),
        ("process.executable.path", json!(owner.and_then(|owner| owner.exe.as_ref()))),
        ("process.command_line", json!(owner.and_then(|owner| owner.cmdline.as_ref()))),
        ("container.id", json!(fields.container)),
        ("container.runtime.name", json!(fields.runtime)),
        ("k8s.pod.uid", json!(fields.pod)),
        ("user.id", json!(owner.and_then(|owner| owner.uid).map(|uid| uid.to_string()))),
    ]
}

fn attributes(line: &Line<'_>, fields: &Fields<'_>) -> Vec<KeyValue> {
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
    let known = named(fields).into_iter().filter(|(_, value)| !value.is_null());
    let mut found: Vec<KeyValue> = known.map(|(name, value)| attribute(name, &value)).collect();
    if let Some(state) = fields.now().and_then(connection_state) {
        found.push(attribute("network.connection.state", &json!(state)));
    }
    let Value::Object(all) = json!(line) else { return found };
    let ours = all.iter().filter(|(key, value)| !value.is_null() && !ELSEWHERE.contains(&key.as_str()));
    found.extend(ours.map(|(key, value)| match (key.as_str(), fields.owner) {
        ("owner", Some(owner)) => attribute("sockstate.owner.source", &json!(owner.source)),
        (key, _) => attribute(&format!("sockstate.{key}"), value),
    }));
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
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => any_value::Value::IntValue(integer),
            None => any_value::Value::DoubleValue(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => any_value::Value::StringValue(text.clone()),
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
