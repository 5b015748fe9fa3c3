//! The journal's native protocol (systemd's JOURNAL_NATIVE_PROTOCOL), with the fields of bcc's `tcpstates -Y` and our own.

use serde_json::Value;

use super::{message, record, severity};

/// A record as one entry.
pub fn journal(line: &[u8], out: &mut Vec<u8>) {
    let it = record(line);
    field("MESSAGE", &message(&it), out);
    field("PRIORITY", &(severity(&it) as u8).to_string(), out);
    field("SYSLOG_IDENTIFIER", "sockstate", out);
    // All of it, for who wants more than the fields.
    field("SOCKSTATE_RECORD", String::from_utf8_lossy(line).trim_end(), out);
    for key in [
        "kind",
        "seq",
        "conn",
        "role",
        "cause",
        "reset_why",
        "instance",
        "in_state_ns",
        "state",
        "age_ns",
        "place",
    ] {
        value(&format!("SOCKSTATE_{}", key.to_uppercase()), &it[key], out);
    }
    value("SOCKSTATE_COMMUNITY_ID", &it["network"]["community_id"], out);
    // journald takes OBJECT_PID from root, and adds what it knows of that process.
    value("OBJECT_PID", &it["owner"]["pid"], out);
    value("OBJECT_COMM", &it["owner"]["comm"], out);
    value("CONTAINER_ID", &it["container"]["id"], out);
    if it["network"].is_object() {
        let family = if it["network"]["type"] == "ipv6" { "IPV6" } else { "IPV4" };
        for (side, end) in [("SOURCE", &it["local"]), ("DESTINATION", &it["remote"])] {
            value(&format!("OBJECT_{family}_{side}_ADDRESS"), &end["address"], out);
            value(&format!("OBJECT_TCP_{side}_PORT"), &end["port"], out);
        }
    }
    value("OBJECT_TCP_OLD_STATE", &it["from"], out);
    value("OBJECT_TCP_NEW_STATE", if it["to"].is_string() { &it["to"] } else { &it["state"] }, out);
    if let Some(ns) = it["in_state_ns"].as_u64() {
        field("OBJECT_TCP_SPAN_TIME", &(ns / 1000).to_string(), out);
    }
}

fn value(name: &str, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => {}
        Value::String(text) => field(name, text, out),
        other => field(name, &other.to_string(), out),
    }
}

/// A value with lines in it has its length in front, instead of the sign.
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
