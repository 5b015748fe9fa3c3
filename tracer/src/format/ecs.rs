//! The Elastic Common Schema, version 8.17: its own fields where it has them, `sockstate.*` for the rest.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{
    Content, FormatName, LineFormat,
    fields::Fields,
    keys::{Keys, keys},
    message::{Severity, message, severity},
    name::Source,
    object::Object,
};
use crate::wire::{End, Ends, Kind, Labels, Line, Owner, Pod, Segments, Traffic};

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
        Object::append(out, |document| write(line, &fields, document));
        out.push(b'\n');
    }
}

/// The fields in the order of the alphabet. ECS leaves out what is not known.
fn write(line: &Line<'_>, fields: &Fields<'_>, document: &mut Object<'_>) {
    let ends = fields.network();
    let (local, remote) =
        (ends.and_then(|ends| ends.local.as_ref()), ends.and_then(|ends| ends.remote.as_ref()));
    let traffic = fields.traffic.map(|traffic| {
        let Traffic { bytes, segments, .. } = traffic;
        [(bytes.sent, segments.sent), (bytes.received, segments.received)]
    });
    let [sent, received] = [0, 1].map(|way| traffic.map(|ways| ways[way]));
    let nat = ends.and_then(|ends| ends.nat.as_ref());
    let local_side = Side { end: local, nat: nat.map(|nat| &nat.local), sent };
    let remote_side = Side { end: remote, nat: nat.map(|nat| &nat.remote), sent: received };
    // A reset answers a segment of the peer.
    let from_peer = fields.role == Some("server") || matches!(line.kind, Kind::Reset(_));
    let (source, destination) = if from_peer { (remote_side, local_side) } else { (local_side, remote_side) };
    document.put("@timestamp", &fields.time);
    document.object("container", |container| {
        container.put("id", &fields.container);
        if let Some(image) = fields.image {
            container.object("image", |object| {
                object.object("hash", |hash| hash.put("all", &image.digest.map(|digest| [digest])));
                object.put("name", &image.name);
                object.put("tag", &image.tag.map(|tag| [tag]));
            });
        }
        container.put("name", &fields.container_name);
        container.put("runtime", &fields.runtime);
    });
    document.object("destination", |object| destination.write(object));
    document.object("ecs", |ecs| ecs.put("version", VERSION));
    document.object("error", |error| error.put("code", &fields.errno));
    document.object("event", |object| event(line, fields, object));
    document.object("host", |host| {
        host.put("hostname", &fields.host);
        host.put("name", &fields.host);
    });
    if let Some(known) = fields.labels.filter(|labels| !labels.is_empty()) {
        document.put("labels", &labels(known));
    }
    document.object("log", |log| log.put("level", level(line)));
    document.put("message", &format_args!("{}", message(line, fields)));
    if let Some(ends) = ends {
        document.object("network", |object| network(ends, fields, object));
    }
    if let Some(pod) = fields.pod {
        document.object("orchestrator", |orchestrator| {
            orchestrator.put("namespace", &pod.namespace);
            orchestrator.object("resource", |resource| {
                resource.put("id", &pod.uid);
                resource.put("label", &pod_labels(pod));
                resource.put("name", &pod.name);
                let kind = pod.workload.as_ref().map(|workload| &workload.kind);
                resource.object("parent", |parent| parent.put("type", &kind));
                resource.put("type", "pod");
            });
            orchestrator.put("type", "kubernetes");
        });
    }
    if let Some(owner) = fields.owner {
        document.object("process", |object| process(owner, object));
    }
    if ends.is_some() {
        let addresses = [local, remote].map(|end| end.map(|end| end.address));
        document.object("related", |related| related.put("ip", &addresses));
    }
    document.object("service", |service| service.put("name", &fields.unit));
    document.object("sockstate", |object| {
        keys(line, &mut Rest { object, owner: fields.owner });
        // ECS has a field for the kind of the workload only.
        object.put("workload", &fields.pod.and_then(|pod| pod.workload.as_ref()));
    });
    document.object("source", |object| source.write(object));
    if let Some(uid) = fields.owner.and_then(|owner| owner.uid) {
        document.object("user", |user| user.put("id", &format_args!("{uid}")));
    }
}

fn event(line: &Line<'_>, fields: &Fields<'_>, event: &mut Object<'_>) {
    let kind = line.kind.name();
    let is_connection = matches!(
        line.kind,
        Kind::Transition(_)
            | Kind::Connection(_)
            | Kind::Snapshot(_)
            | Kind::Resync(_)
            | Kind::Stuck(_)
            | Kind::Resolved(_)
            | Kind::Reset(_)
    );
    let r#type: &[&str] = match (&line.kind, fields.to) {
        (Kind::Transition(_), Some("ESTABLISHED")) => &["connection", "start"],
        (Kind::Transition(_), Some("CLOSE")) => &["connection", "end"],
        (Kind::Connection(lifespan), _) if lifespan.is_final => &["connection", "end"],
        (Kind::Reset(_), _) => &["connection", "denied"],
        (Kind::Lost(_), _) => &["error"],
        _ if is_connection => &["connection", "info"],
        _ => &["info"],
    };
    let event_kind = match line.kind {
        Kind::Stuck(_) => "alert",
        Kind::Snapshot(_) => "state",
        Kind::Aggregate(_) => "metric",
        Kind::Lost(_) => "pipeline_error",
        _ => "event",
    };
    event.put("action", &format_args!("tcp-{kind}"));
    event.put("category", &[if is_connection { "network" } else { "process" }]);
    event.put("dataset", &format_args!("sockstate.{kind}"));
    // The duration of the state that was left, or of the connection; ECS has nanoseconds, too.
    event.put("duration", &fields.in_state_ns.or(fields.duration_ns));
    event.put("end", &fields.begin.and(fields.time));
    event.put("kind", event_kind);
    event.put("module", "sockstate");
    event.put("reason", &fields.cause);
    event.put("sequence", &fields.seq);
    event.put("start", &fields.begin);
    event.put("type", r#type);
}

fn network(ends: &Ends<'_>, fields: &Fields<'_>, object: &mut Object<'_>) {
    let direction = match fields.role {
        Some("client") => Some("egress"),
        Some("server") => Some("ingress"),
        _ => None,
    };
    let network = ends.network.as_ref();
    let traffic = fields.traffic.as_ref();
    object.put("bytes", &traffic.map(|traffic| traffic.bytes.sent.saturating_add(traffic.bytes.received)));
    object.put("community_id", &network.and_then(|network| network.community_id.as_ref()));
    object.put("direction", &direction);
    let packets = |segments: Segments| u64::from(segments.sent) + u64::from(segments.received);
    object.put("packets", &traffic.map(|traffic| packets(traffic.segments)));
    object.put("transport", &network.map(|network| &network.transport));
    object.put("type", &network.map(|network| &network.r#type));
}

fn process(owner: &Owner<'_>, process: &mut Object<'_>) {
    process.put("command_line", &owner.cmdline);
    process.put("executable", &owner.exe);
    process.put("name", &owner.comm);
    process.put("pid", &owner.pid);
}

/// One side of a connection.
struct Side<'a> {
    end: Option<&'a End>,
    /// The end beyond translations, if there are any.
    nat: Option<&'a End>,
    /// The bytes and segments that this side has sent.
    sent: Option<(u64, u32)>,
}

impl Side<'_> {
    fn write(&self, object: &mut Object<'_>) {
        let Self { end, nat, sent } = *self;
        let address = end.map(|end| end.address);
        object.put("address", &address);
        object.put("bytes", &sent.map(|(bytes, _)| bytes));
        object.put("ip", &address);
        // A translation may leave one of the sides as it is.
        if let Some(nat) = nat.filter(|nat| end != Some(*nat)) {
            object.object("nat", |object| {
                object.put("ip", &nat.address);
                object.put("port", &nat.port);
            });
        }
        object.put("packets", &sent.map(|(_, packets)| packets));
        object.put("port", &end.and_then(|end| end.port));
    }
}

/// The labels of a pod as ECS has them: a list of texts.
fn pod_labels(pod: &Pod<'_>) -> Option<Vec<String>> {
    let labels = pod.labels.iter().map(|(label, value)| format!("{label}:{value}"));
    (!pod.labels.is_empty()).then(|| labels.collect())
}

/// Elasticsearch takes a dot in a name for a level: with `app` and `app.name`, `app` would be both a text and an
/// object, and each document would be refused. As is usual in ECS, an underscore replaces the dot.
fn labels<'a>(labels: &'a Labels<'_>) -> BTreeMap<String, &'a str> {
    labels.iter().map(|(key, value)| (ecs_label(key), &**value)).collect()
}

/// The name of a label in ECS.
#[must_use]
pub fn ecs_label(name: &str) -> String {
    name.replace('.', "_")
}

/// Values for which ECS has no field, below `sockstate`.
struct Rest<'a, 'o> {
    object: &'a mut Object<'o>,
    owner: Option<&'a Owner<'a>>,
}

impl Rest<'_, '_> {
    /// Whether the key is to be written as it is.
    fn wants(&mut self, name: &str) -> bool {
        if let ("owner", Some(owner)) = (name, self.owner) {
            self.object.object("owner", |object| object.put("source", &owner.source));
        }
        !matches!(
            name,
            "begin" | "cause" | "duration_ns" | "end" | "errno" | "in_state_ns" | "owner" | "seq" | "unit"
        )
    }
}

impl Keys for Rest<'_, '_> {
    fn key(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        if self.wants(name) {
            self.object.put(name, value);
        }
    }

    fn foreign(&mut self, name: &str, value: &Value) {
        if self.wants(name) {
            self.object.put_foreign(name, value);
        }
    }
}

fn level(line: &Line<'_>) -> &'static str {
    match severity(line) {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
        Severity::Info => "info",
    }
}
