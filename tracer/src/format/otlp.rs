//! OpenTelemetry's log data model, by the semantic conventions' names where there are some.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, SeverityNumber},
    resource::v1::Resource,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Content, FormatName, LineFormat, Stamp,
    fields::Fields,
    image::Image,
    keys::{Keys, keys},
    lines::convert,
    message::{Severity, message, severity},
    name::Source,
};
use crate::wire::{Line, Owner, PodWorkload};

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
        attribute("service.name", "sockstate"),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", &format!("{:06x}", stamp.instance)),
        attribute("host.name", stamp.host),
        attribute("os.type", "linux"),
    ];
    // No key may occur twice: the user's label overrides sockstate's attribute.
    attributes.retain(|attribute| !stamp.labels.contains_key(&attribute.key));
    attributes.extend(stamp.labels.iter().map(|(key, value)| attribute(key, value)));
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
        body: text(message(line, &fields).to_string()),
        attributes: attributes(line, &fields),
        ..LogRecord::default()
    }
}

/// The attributes of a record.
struct Attributes<'a> {
    list: Vec<KeyValue>,
    owner: Option<&'a Owner<'a>>,
}

impl Attributes<'_> {
    /// Adds an attribute, unless its value is null.
    fn put(&mut self, key: impl Into<String>, value: &(impl Serialize + ?Sized)) {
        let value = any(json!(value));
        if value.is_some() {
            self.list.push(KeyValue { key: key.into(), value, ..KeyValue::default() });
        }
    }

    /// Adds those for which the semantic conventions have names.
    fn put_named(&mut self, fields: &Fields<'_>) {
        let ends = fields.ends;
        if let Some(network) = ends.and_then(|ends| ends.network.as_ref()) {
            self.put("network.transport", &network.transport);
            self.put("network.type", &network.r#type);
            self.put("network.community_id", &network.community_id);
        }
        if let Some(local) = ends.and_then(|ends| ends.local.as_ref()) {
            self.put("network.local.address", &local.address);
            self.put("network.local.port", &local.port);
        }
        if let Some(remote) = ends.and_then(|ends| ends.remote.as_ref()) {
            self.put("network.peer.address", &remote.address);
            self.put("network.peer.port", &remote.port);
        }
        if let Some(interface) = ends.and_then(|ends| ends.interface.as_ref()) {
            self.put("network.interface.name", &interface.name);
        }
        if let Some(owner) = fields.owner {
            self.put("process.pid", &owner.pid);
            self.put("process.executable.name", &owner.comm);
            self.put("process.executable.path", &owner.exe);
            self.put("process.command_line", &owner.cmdline);
        }
        self.put_workload(fields);
        if let Some(uid) = fields.owner.and_then(|owner| owner.uid) {
            self.put("user.id", &uid.to_string());
        }
        self.put("network.connection.state", &fields.now().and_then(connection_state));
    }

    fn put_workload(&mut self, fields: &Fields<'_>) {
        self.put("container.id", &fields.container);
        self.put("container.runtime.name", &fields.runtime);
        if let Some(Image { name, tag, digest }) = fields.image {
            self.put("container.image.name", &name);
            self.put("container.image.tags", &tag.map(|tag| [tag]));
            match (name, digest) {
                (Some(name), Some(digest)) => {
                    self.put("container.image.repo_digests", &[format!("{name}@{digest}")]);
                }
                (_, id) => self.put("container.image.id", &id),
            }
        }
        let Some(pod) = fields.pod else {
            return self.put("container.name", &fields.container_name);
        };
        self.put("k8s.container.name", &fields.container_name);
        self.put("k8s.namespace.name", &pod.namespace);
        self.put("k8s.pod.name", &pod.name);
        self.put("k8s.pod.uid", &pod.uid);
        if let Some(PodWorkload { kind, name }) = &pod.workload {
            match workload_attribute(kind) {
                Some(key) => self.put(key, name),
                // The conventions have no names for the kinds of extensions.
                None => self.put("sockstate.pod.workload", &pod.workload),
            }
        }
        for (label, value) in &pod.labels {
            self.put(format!("k8s.pod.label.{label}"), value);
        }
    }

    /// Adds a key of the line under sockstate's own name, unless the key is elsewhere.
    fn put_own(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        match (name, self.owner) {
            // The kind is the name of the event, and the resource has the instance.
            ("kind" | "instance", _) => {}
            ("owner", Some(owner)) => self.put("sockstate.owner.source", &owner.source),
            _ => self.put(["sockstate.", name].concat(), value),
        }
    }
}

impl Keys for Attributes<'_> {
    fn key(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.put_own(name, value);
    }

    fn foreign(&mut self, name: &str, value: &Value) {
        self.put_own(name, value);
    }
}

fn attributes(line: &Line<'_>, fields: &Fields<'_>) -> Vec<KeyValue> {
    let mut attributes = Attributes { list: Vec::with_capacity(32), owner: fields.owner };
    attributes.put_named(fields);
    keys(line, &mut attributes);
    attributes.list
}

/// The conventions' name for the name of a workload.
fn workload_attribute(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Deployment" => "k8s.deployment.name",
        "StatefulSet" => "k8s.statefulset.name",
        "DaemonSet" => "k8s.daemonset.name",
        "ReplicaSet" => "k8s.replicaset.name",
        "ReplicationController" => "k8s.replicationcontroller.name",
        "Job" => "k8s.job.name",
        "CronJob" => "k8s.cronjob.name",
        _ => return None,
    })
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

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: text(value), ..KeyValue::default() }
}

fn text(text: impl Into<String>) -> Option<AnyValue> {
    Some(AnyValue { value: Some(any_value::Value::StringValue(text.into())) })
}

fn any(value: Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(value) => any_value::Value::BoolValue(value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => any_value::Value::IntValue(integer),
            None => any_value::Value::DoubleValue(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => any_value::Value::StringValue(text),
        Value::Array(items) => {
            let values = items.into_iter().filter_map(any).collect();
            any_value::Value::ArrayValue(ArrayValue { values })
        }
        Value::Object(map) => {
            let values = map.into_iter();
            let values =
                values.map(|(key, value)| KeyValue { key, value: any(value), ..KeyValue::default() });
            any_value::Value::KvlistValue(KeyValueList { values: values.collect() })
        }
    };
    Some(AnyValue { value: Some(value) })
}
