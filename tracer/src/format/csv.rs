//! CSV with the header and columns of bcc's tcpstates, so that what reads those reads these.
//!
//! Two columns differ in what they hold: SKADDR is our connection id, for kernel addresses stay in the kernel, and
//! C-PID and C-COMM are the socket's owner (empty where not known), not whoever ran when it happened.

use std::io::Write;

use super::Format;
use crate::model::{Notice, Transition};

/// The format.
#[derive(Default)]
pub struct Csv;

impl Format for Csv {
    fn header(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS\n");
    }

    fn notice(&mut self, _: u64, _: &Notice, _: &mut Vec<u8>) {}

    fn transition(&mut self, _: u64, it: &Transition, out: &mut Vec<u8>) {
        let owner = it.subject.owner.as_ref();
        let pid = owner.map(|owner| owner.pid().to_string()).unwrap_or_default();
        let comm = owner.map(|owner| quoted(&owner.comm)).unwrap_or_default();
        let ms = it.in_state.map(|in_state| format!("{:.3}", in_state.ns as f64 / 1e6));
        // Writing to a vector does not fail.
        let _ = writeln!(
            out,
            "{},{pid},{comm},{},{},{},{},{},{},{},{}",
            it.conn,
            if it.tuple.is_v4() { 4 } else { 6 },
            it.tuple.local.canonical(),
            it.tuple.local_port,
            it.tuple.remote.canonical(),
            it.tuple.remote_port,
            it.from,
            it.to,
            ms.unwrap_or_default(),
        );
    }
}

/// A field by RFC 4180; control characters become `\n`, `\u{1b}` and so on, to keep a record on its line.
fn quoted(text: &str) -> String {
    let visible: String = text
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            escaped.into_iter().flatten().chain((!c.is_control()).then_some(c))
        })
        .collect();
    if visible.contains(['"', ',']) { format!("\"{}\"", visible.replace('"', "\"\"")) } else { visible }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_name_stays_one_field_on_one_line() {
        for (comm, field) in [
            ("nginx", "nginx"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "two\\nlines"),
            ("esc\u{1b}[31m", "esc\\u{1b}[31m"),
            ("bad\u{fffd}", "bad\u{fffd}"),
        ] {
            assert_eq!(quoted(comm), field);
        }
    }
}
