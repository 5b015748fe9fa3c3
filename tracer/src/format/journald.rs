//! The journal's native protocol (systemd's JOURNAL_NATIVE_PROTOCOL), with the fields of bcc's `tcpstates -Y` and
//! sockstate's own.

use super::{
    LineFormat,
    fields::Fields,
    lines::convert,
    message::{message, severity},
};
use crate::wire::{Ends, Line};

/// The format: one entry per record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Journald;

/// A line of our JSON as one entry.
pub fn journal(text: &[u8], out: &mut Vec<u8>) {
    convert(&mut Journald, text, out);
}

impl LineFormat for Journald {
    fn has_json(&self) -> bool {
        true
    }

    fn line(&mut self, line: &Line<'_>, text: &[u8], out: &mut Vec<u8>) {
        let fields = Fields::of(line);
        field("MESSAGE", &message(line, &fields).to_string(), out);
        field("PRIORITY", &(severity(line) as u8).to_string(), out);
        field("SYSLOG_IDENTIFIER", "sockstate", out);
        // The whole line, for values that have no field.
        field("SOCKSTATE_RECORD", String::from_utf8_lossy(text).trim_end(), out);
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                field(name, value, out);
            }
        };
        put("SOCKSTATE_KIND", Some(line.kind.name()).filter(|name| !name.is_empty()));
        put("SOCKSTATE_SEQ", number(fields.seq).as_deref());
        put("SOCKSTATE_CONN", fields.conn);
        put("SOCKSTATE_ROLE", fields.role);
        put("SOCKSTATE_CAUSE", fields.cause);
        put("SOCKSTATE_RESET_WHY", fields.reset_why);
        put("SOCKSTATE_INSTANCE", fields.instance);
        put("SOCKSTATE_IN_STATE_NS", number(fields.in_state_ns).as_deref());
        put("SOCKSTATE_STATE", fields.state);
        put("SOCKSTATE_AGE_NS", number(fields.age_ns).as_deref());
        put("SOCKSTATE_DURATION_NS", number(fields.duration_ns).as_deref());
        let bytes = fields.traffic.map(|traffic| traffic.bytes);
        put("SOCKSTATE_BYTES_SENT", number(bytes.map(|bytes| bytes.sent)).as_deref());
        put("SOCKSTATE_BYTES_RECEIVED", number(bytes.map(|bytes| bytes.received)).as_deref());
        put("SOCKSTATE_PLACE", fields.place);
        let network = fields.ends.and_then(|ends| ends.network.as_ref());
        put("SOCKSTATE_COMMUNITY_ID", network.and_then(|network| network.community_id.as_deref()));
        // journald accepts OBJECT_PID from root, and adds fields about that process.
        put("OBJECT_PID", number(fields.owner.map(|owner| owner.pid.into())).as_deref());
        put("OBJECT_COMM", fields.owner.map(|owner| &*owner.comm));
        // The names of docker's logging driver for the journal.
        put("CONTAINER_ID", fields.container);
        put("CONTAINER_NAME", fields.container_name);
        if let Some(ends) = fields.network() {
            both_ends(ends, &mut put);
        }
        put("OBJECT_TCP_OLD_STATE", fields.from);
        put("OBJECT_TCP_NEW_STATE", fields.now());
        put("OBJECT_TCP_SPAN_TIME", number(fields.in_state_ns.map(|ns| ns / 1000)).as_deref());
    }
}

fn both_ends(ends: &Ends<'_>, put: &mut impl FnMut(&str, Option<&str>)) {
    let is_v6 = ends.network.as_ref().is_some_and(|network| &*network.r#type == "ipv6");
    let family = if is_v6 { "IPV6" } else { "IPV4" };
    for (side, end) in [("SOURCE", &ends.local), ("DESTINATION", &ends.remote)] {
        let address = end.as_ref().map(|end| end.address.to_string());
        let port = end.as_ref().and_then(|end| end.port).map(|port| port.to_string());
        put(&format!("OBJECT_{family}_{side}_ADDRESS"), address.as_deref());
        put(&format!("OBJECT_TCP_{side}_PORT"), port.as_deref());
    }
}

/// A value with newlines has its length before it, instead of the equals sign.
fn field(name: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if text.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}
