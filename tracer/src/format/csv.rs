//! CSV with the header and columns of bcc's tcpstates, or of its tcplife for a stream of connections, for programs that
//! read the output of these tools.
//!
//! The values of three columns differ: SKADDR is the connection's id instead of a kernel pointer, and the process is the
//! socket's owner (empty if it is not known) instead of the process that ran at the time of the transition.

use std::{fmt::Display, io::Write};

use super::{Content, Format, FormatName, name::Source};
use crate::model::{Connection, Lifespan, Record, Transition};

pub(super) const FORMAT: FormatName = FormatName {
    name: "csv",
    help: "CSV with the header and columns of bcc's tcpstates, or tcplife",
    content: Content::OneKind,
    for_sinks: true,
    source: Source::Records(|options| {
        Box::new(Csv {
            connections: options.connections,
            cell: if options.escape_formulas { escaped } else { quoted },
        })
    }),
};

/// The format.
pub struct Csv {
    /// One line a connection instead of one line a transition.
    connections: bool,
    /// Writes foreign text; the other cells are numbers, addresses and states.
    cell: fn(&str) -> String,
}

impl Default for Csv {
    fn default() -> Self {
        Self { connections: false, cell: quoted }
    }
}

impl Format for Csv {
    fn header(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.connections {
            b"PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS\n"
        } else {
            b"SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS\n"
        });
    }

    fn record(&mut self, _: u64, record: &Record, out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = match record {
            Record::Transition(transition) if !self.connections => self.transition(transition, out),
            // A reader of tcplife's columns takes each row for an end.
            Record::Connection(lifespan) if self.connections && lifespan.is_final => {
                self.lifespan(lifespan, out)
            }
            _ => Ok(()),
        };
    }
}

impl Csv {
    fn transition(&self, transition: &Transition, out: &mut Vec<u8>) -> std::io::Result<()> {
        let Transition { conn, from, to, in_state, .. } = transition;
        let ms = in_state.map(|in_state| format!("{:.3}", in_state.ns as f64 / 1e6)).unwrap_or_default();
        writeln!(out, "{},{},{from},{to},{ms}", conn.id, self.connection(conn))
    }

    fn lifespan(&self, lifespan: &Lifespan, out: &mut Vec<u8>) -> std::io::Result<()> {
        let Lifespan { conn, traffic, duration_ns, .. } = lifespan;
        write!(out, "{},", self.connection(conn))?;
        match traffic {
            Some(traffic) => write!(out, "{},{}", traffic.bytes_sent / 1024, traffic.bytes_received / 1024)?,
            None => out.extend_from_slice(b","),
        }
        writeln!(out, ",{:.2}", *duration_ns as f64 / 1e6)
    }

    /// The owner and both ends.
    fn connection(&self, conn: &Connection) -> impl Display {
        let (tuple, owner) = (&conn.tuple, conn.subject.owner.as_ref());
        let pid = owner.map(|owner| owner.pid().to_string()).unwrap_or_default();
        let comm = owner.map(|owner| (self.cell)(&owner.comm)).unwrap_or_default();
        format!(
            "{pid},{comm},{},{},{},{},{}",
            if tuple.is_v4() { 4 } else { 6 },
            tuple.local.canonical(),
            tuple.local_port,
            tuple.remote.canonical(),
            tuple.remote_port,
        )
    }
}

fn escaped(text: &str) -> String {
    quoted(&without_formulas(text))
}

/// Puts `'` before a text that a spreadsheet takes for a formula (OWASP, CSV injection): at the beginning, and after
/// characters that some spreadsheets take for the end of a cell.
fn without_formulas(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins && matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') {
            safe.push('\'');
        }
        begins = matches!(c, ',' | ';' | '\t' | '\r' | '\n') || begins && matches!(c, ' ' | '"');
        safe.push(c);
    }
    safe
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
    use super::*;

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

    #[test]
    fn a_cell_is_no_formula_if_that_is_wanted() {
        for (comm, plain, safe) in [
            ("nginx", "nginx", "nginx"),
            ("kworker/0:1-ev", "kworker/0:1-ev", "kworker/0:1-ev"),
            ("a=b", "a=b", "a=b"),
            ("", "", ""),
            ("=1+1", "=1+1", "'=1+1"),
            ("+1", "+1", "'+1"),
            ("-bash", "-bash", "'-bash"),
            ("@SUM(A1)", "@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\\t=1", "'\\t'=1"),
            ("\r1", "\\r1", "'\\r1"),
            (" =1", " =1", " '=1"),
            ("a;=1", "a;=1", "a;'=1"),
            ("a,=1", "\"a,=1\"", "\"a,'=1\""),
            ("\"=1", "\"\"\"=1\"", "\"\"\"'=1\""),
            ("＝1", "＝1", "'＝1"),
        ] {
            assert_eq!((quoted(comm), escaped(comm)), (plain.into(), safe.into()), "{comm:?}");
        }
    }
}
