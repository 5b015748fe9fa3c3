//! Syslog messages by RFC 5424: the record's JSON as the message, what one filters by as structured data.

use std::{
    fmt::{self, Display},
    io::Write,
};

use super::{
    Content, FormatName, LineFormat, fields::Fields, lines::convert, message::severity, name::Source,
};
use crate::wire::Line;

pub(super) const FORMAT: FormatName = FormatName {
    name: "syslog",
    help: "Messages of RFC 5424, one per line",
    content: Content::Text,
    for_sinks: false,
    source: Source::Lines(|| Box::new(Syslog::of_stream())),
};

/// RFC 5612's number for examples: nobody has registered one for sockstate.
const ID: &str = "sockstate@32473";

/// The facility of programs that run in the background (RFC 5424, 6.2.1).
const DAEMON: u8 = 3;

/// The length of a time with microseconds.
const MICROSECONDS: usize = "2026-11-26T00:00:00.000000".len();

/// The parts that all messages have.
#[derive(Clone, Debug)]
pub struct Syslog {
    facility: u8,
    host: String,
    /// The process id of the sockstate that sends the messages; `None` in a stream that any sockstate may have recorded.
    pid: Option<u32>,
}

impl Syslog {
    /// Messages of `facility` from `host`.
    #[must_use]
    pub fn new(facility: u8, host: &str, pid: u32) -> Self {
        Self { facility, host: printable(host), pid: Some(pid) }
    }

    /// Messages of a stream: their host is the one of the latest record that says it, as the first record does.
    fn of_stream() -> Self {
        Self { facility: DAEMON, host: String::new(), pid: None }
    }

    /// A line of our JSON as a message and a line's end.
    pub fn convert(&self, text: &[u8], out: &mut Vec<u8>) {
        convert(&mut self.clone(), text, out);
    }
}

impl LineFormat for Syslog {
    fn has_json(&self) -> bool {
        true
    }

    fn line(&mut self, line: &Line<'_>, text: &[u8], out: &mut Vec<u8>) {
        let fields = Fields::of(line);
        if let (None, Some(host)) = (self.pid, fields.host) {
            self.host = printable(host);
        }
        let priority = self.facility * 8 + severity(line) as u8;
        let host = if self.host.is_empty() { "-" } else { &self.host };
        // Writing to a vector does not fail.
        let _ = write!(out, "<{priority}>1 ");
        match fields.time {
            Some(time) => {
                // RFC 5424 knows microseconds.
                let begin = out.len();
                let _ = write!(out, "{time}");
                out.truncate(begin + MICROSECONDS);
                out.push(b'Z');
            }
            None => out.push(b'-'),
        }
        let kind = Some(line.kind.name()).filter(|kind| !kind.is_empty()).unwrap_or("-");
        let (pid, seq) = (or(self.pid, "-"), or(fields.seq, "null"));
        let _ = write!(out, " {host} sockstate {pid} {kind} [{ID} seq=\"{seq}\"");
        for (key, value) in [
            ("instance", fields.instance),
            ("conn", fields.conn),
            ("from", fields.from),
            ("to", fields.to),
            ("state", fields.state),
            ("place", fields.place),
        ] {
            if let Some(value) = value {
                let _ = write!(out, " {key}=\"");
                escape(value, out);
                out.push(b'"');
            }
        }
        out.extend_from_slice(b"] ");
        out.extend_from_slice(text.trim_ascii_end());
        out.push(b'\n');
    }
}

/// The number, or `unknown` if there is none.
fn or(number: Option<impl Display>, unknown: &str) -> impl Display {
    fmt::from_fn(move |f| match &number {
        Some(number) => number.fmt(f),
        None => f.write_str(unknown),
    })
}

/// A host name has at most 255 printable characters of ASCII (RFC 5424, 6).
fn printable(host: &str) -> String {
    host.chars().filter(char::is_ascii_graphic).take(255).collect()
}

/// Appends a value of the structured data (RFC 5424, 6.3.3).
fn escape(value: &str, out: &mut Vec<u8>) {
    for byte in value.bytes() {
        if matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}
