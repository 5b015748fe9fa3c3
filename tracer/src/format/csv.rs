//! CSV with the header and columns of bcc's tcpstates, for programs that read the output of tcpstates.
//!
//! The values of three columns differ: SKADDR is the connection's id instead of a kernel pointer, and C-PID and
//! C-COMM are the socket's owner (empty if it is not known) instead of the process that ran at the time of the
//! transition.

use std::io::Write;

use super::{Content, Format, FormatName, name::Source};
use crate::model::{Record, Transition};

pub(super) const FORMAT: FormatName = FormatName {
    name: "csv",
    help: "CSV with the header and columns of bcc's tcpstates",
    content: Content::Transitions,
    for_sinks: true,
    source: Source::Records(
        |options| if options.escape_formulas { Box::new(EscapedCsv) } else { Box::new(Csv) },
    ),
};

/// The format.
#[derive(Default)]
pub struct Csv;

/// CSV for spreadsheets: no cell begins like a formula.
#[derive(Default)]
pub struct EscapedCsv;

impl Format for Csv {
    fn header(&mut self, out: &mut Vec<u8>) {
        header(out);
    }

    fn record(&mut self, _: u64, record: &Record, out: &mut Vec<u8>) {
        line(record, quoted, out);
    }
}

impl Format for EscapedCsv {
    fn header(&mut self, out: &mut Vec<u8>) {
        header(out);
    }

    fn record(&mut self, _: u64, record: &Record, out: &mut Vec<u8>) {
        line(record, escaped, out);
    }
}

fn header(out: &mut Vec<u8>) {
    out.extend_from_slice(b"SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS\n");
}

/// A transition's line; other records have none. `cell` is for foreign text; the other cells are numbers, addresses
/// and states.
fn line(record: &Record, cell: fn(&str) -> String, out: &mut Vec<u8>) {
    let Record::Transition(Transition { conn, from, to, in_state, .. }) = record else { return };
    let (tuple, owner) = (&conn.tuple, conn.subject.owner.as_ref());
    let pid = owner.map(|owner| owner.pid().to_string()).unwrap_or_default();
    let comm = owner.map(|owner| cell(&owner.comm)).unwrap_or_default();
    let ms = in_state.map(|in_state| format!("{:.3}", in_state.ns as f64 / 1e6));
    // Writing to a vector does not fail.
    let _ = writeln!(
        out,
        "{},{pid},{comm},{},{},{},{},{},{},{},{}",
        conn.id,
        if tuple.is_v4() { 4 } else { 6 },
        tuple.local.canonical(),
        tuple.local_port,
        tuple.remote.canonical(),
        tuple.remote_port,
        from,
        to,
        ms.unwrap_or_default(),
    );
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
