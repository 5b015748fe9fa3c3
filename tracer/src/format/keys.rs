//! All keys of a line, for formats that have names of their own for some of them only.

use serde::Serialize;
use serde_json::{Value, json};

use crate::wire::{Kind, Line, Transition};

/// Takes the keys of a line.
pub(super) trait Keys {
    /// A key and its value, which may be null.
    fn key(&mut self, name: &'static str, value: &(impl Serialize + ?Sized));

    /// A key that may have any name.
    fn foreign(&mut self, name: &str, value: &Value);
}

/// Keys that the formats take from [`Fields`](super::fields::Fields) instead.
const OWN_FIELDS: [&str; 9] =
    ["schema", "time", "network", "local", "remote", "container", "pod", "host", "labels"];

/// Passes the keys of the line in the order of the alphabet, except [`OWN_FIELDS`].
pub(super) fn keys(line: &Line<'_>, to: &mut impl Keys) {
    if let Kind::Transition(transition) = &line.kind {
        return of_transition(transition, to);
    }
    all(line, to);
}

/// The same for every kind, but slow.
fn all(line: &Line<'_>, to: &mut impl Keys) {
    let Value::Object(keys) = json!(line) else { return };
    let others = keys.iter().filter(|(name, _)| !OWN_FIELDS.contains(&name.as_str()));
    others.for_each(|(name, value)| to.foreign(name, value));
}

fn of_transition(transition: &Transition<'_>, to: &mut impl Keys) {
    let yes = |value: bool| value.then_some(true);
    let (owner, placement) = (&transition.subject.owner, &transition.subject.placement);
    let traffic = transition.traffic.as_ref();
    to.key("bytes", &traffic.map(|traffic| traffic.bytes));
    to.key("cause", &transition.cause);
    to.key("cgroup", &placement.cgroup);
    to.key("conn", &transition.conn);
    to.key("errno", &transition.errno);
    to.key("exact", &transition.exact);
    to.key("from", &transition.from);
    to.key("from_number", &transition.from_number);
    to.key("illegal", &yes(transition.illegal));
    to.key("in_state_at_least", &yes(transition.in_state_at_least));
    to.key("in_state_ns", &transition.in_state_ns);
    to.key("instance", &transition.stamp.instance);
    to.key("interface", &transition.ends.interface);
    to.key("kind", "transition");
    to.key("mini", &yes(transition.mini));
    to.key("nat", &transition.ends.nat);
    to.key("netns", &placement.netns);
    to.key("owner", owner);
    to.key("peer", &transition.peer);
    to.key("reset_why", &transition.reset_why);
    to.key("retransmits", &traffic.map(|traffic| traffic.retransmits));
    to.key("role", &transition.role);
    to.key("rtt", &traffic.map(|traffic| traffic.rtt));
    to.key("sample", &transition.sample);
    to.key("segments", &traffic.map(|traffic| traffic.segments));
    to.key("seq", &transition.seq);
    to.key("to", &transition.to);
    to.key("to_number", &transition.to_number);
    if !transition.truncated.is_empty() {
        to.key("truncated", &transition.truncated);
    }
    to.key("unit", &placement.workload.unit);
    to.key("unread_bytes", &traffic.map(|traffic| traffic.unread_bytes));
}
