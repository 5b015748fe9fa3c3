//! Syslog messages by RFC 5424: the record's JSON as the message, what one filters by as structured data.

use std::io::Write;

use super::{record, severity, text};

/// RFC 5612's number for examples: nobody has registered one for sockstate.
const ID: &str = "sockstate@32473";

/// What all messages have.
#[derive(Clone, Debug)]
pub struct Syslog {
    facility: u8,
    host: String,
    pid: u32,
}

impl Syslog {
    /// Messages of `facility` from `host`.
    #[must_use]
    pub fn new(facility: u8, host: &str, pid: u32) -> Self {
        let host = host.chars().filter(char::is_ascii_graphic).take(255).collect();
        Self { facility, host, pid }
    }

    /// A record as a message and a line's end.
    pub fn convert(&self, line: &[u8], out: &mut Vec<u8>) {
        let it = record(line);
        let priority = self.facility * 8 + severity(&it) as u8;
        let host = if self.host.is_empty() { "-" } else { &self.host };
        // RFC 5424 knows microseconds.
        let time = text(&it, "time");
        let time = time.get(..26).map_or_else(|| "-".to_owned(), |time| format!("{time}Z"));
        let kind = match text(&it, "kind") {
            "" => "-",
            kind => kind,
        };
        // Writing to a vector does not fail.
        let _ = write!(out, "<{priority}>1 {time} {host} sockstate {} {kind} ", self.pid);
        let mut data = format!("[{ID} seq=\"{}\"", it["seq"]);
        for key in ["instance", "conn", "from", "to", "state", "place"] {
            if let Some(value) = it[key].as_str() {
                data.push_str(&format!(" {key}=\"{}\"", escaped(value)));
            }
        }
        data.push(']');
        out.extend_from_slice(data.as_bytes());
        out.push(b' ');
        out.extend_from_slice(line.trim_ascii_end());
        out.push(b'\n');
    }
}

/// RFC 5424, 6.3.3.
fn escaped(value: &str) -> String {
    value.chars().flat_map(|c| matches!(c, '"' | '\\' | ']').then_some('\\').into_iter().chain([c])).collect()
}
