//! CSV with the header and columns of bcc's tcpstates, or of its tcplife for a stream of connections, for programs that
//! read the output of these tools.
//!
//! The values of three columns differ: SKADDR is the connection's id instead of a kernel pointer, and the process is the
//! socket's owner (empty if it is not known) instead of the process that ran at the time of the transition.

use super::{
    Content, Format, FormatName,
    line::{Fragment, Line, append, digits, hex},
    name::Source,
    text_cache::TextCache,
};
use crate::model::{Lifespan, Record, State, Subject, Transition, Tuple};

pub(super) const FORMAT: FormatName = FormatName {
    name: "csv",
    help: "CSV with the header and columns of bcc's tcpstates, or tcplife",
    content: Content::OneKind,
    for_sinks: true,
    source: Source::Records(|options| {
        let cell = if options.escape_formulas { escaped } else { quoted };
        Box::new(Csv { connections: options.connections, cell, ..Csv::default() })
    }),
};

/// The format.
pub struct Csv {
    /// One line a connection instead of one line a transition.
    connections: bool,
    /// Writes foreign text; the other cells are numbers, addresses and states.
    cell: fn(&str) -> String,
    /// The cells of the owner, by the subject's number.
    owners: TextCache<u64>,
    /// The cells of the owner and of both ends, by both ends and the subject's number.
    middles: TextCache<(Tuple, u64)>,
    /// The cells of both states, by the states.
    pairs: Vec<Option<Fragment<32>>>,
}

impl Default for Csv {
    fn default() -> Self {
        Self {
            connections: false,
            cell: quoted,
            owners: TextCache::new(64),
            middles: TextCache::new(256),
            pairs: vec![None; 1 << 10],
        }
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
        match record {
            Record::Transition(transition) if !self.connections => self.transition(transition, out),
            // A reader of tcplife's columns takes each row for an end.
            Record::Connection(lifespan) if self.connections && lifespan.is_final => {
                self.lifespan(lifespan, out);
            }
            _ => {}
        }
    }
}

impl Csv {
    fn transition(&mut self, transition: &Transition, out: &mut Vec<u8>) {
        let Transition { conn, from, to, in_state, .. } = transition;
        append(out, |line| {
            line.text(&hex(conn.id.0));
            line.text(b",");
        });
        let (owners, cell) = (&mut self.owners, self.cell);
        let middle = self.middles.get(conn.id.0, (conn.tuple, conn.subject.id), |(tuple, id), out| {
            out.extend_from_slice(owners.get(*id, *id, |_, out| owner(&conn.subject, cell, out)));
            append(out, |line| ends(tuple, line));
        });
        out.extend_from_slice(middle);
        append(out, |line| {
            let pair = usize::from(from.number()) << 5 | usize::from(to.number());
            match self.pairs.get_mut(pair) {
                Some(known) => line.fragment(known.get_or_insert_with(|| states(*from, *to))),
                None => line.fragment(&states(*from, *to)),
            }
            if let Some(in_state) = in_state {
                milliseconds::<3>(in_state.ns, line);
            }
            line.text(b"\n");
        });
    }

    fn lifespan(&mut self, lifespan: &Lifespan, out: &mut Vec<u8>) {
        let Lifespan { conn, traffic, duration_ns, .. } = lifespan;
        let (cell, id) = (self.cell, conn.subject.id);
        out.extend_from_slice(self.owners.get(id, id, |_, out| owner(&conn.subject, cell, out)));
        append(out, |line| {
            ends(&conn.tuple, line);
            line.text(b",");
            if let Some(traffic) = traffic {
                line.number(traffic.bytes_sent / 1024);
                line.text(b",");
                line.number(traffic.bytes_received / 1024);
            } else {
                line.text(b",");
            }
            line.text(b",");
            milliseconds::<2>(*duration_ns, line);
            line.text(b"\n");
        });
    }
}

/// The process id and the name of the owner.
fn owner(subject: &Subject, cell: fn(&str) -> String, out: &mut Vec<u8>) {
    let owner = subject.owner.as_ref();
    if let Some(owner) = owner {
        append(out, |line| line.number(owner.pid().into()));
    }
    out.push(b',');
    out.extend(owner.into_iter().flat_map(|owner| cell(&owner.comm).into_bytes()));
    out.push(b',');
}

fn ends(tuple: &Tuple, line: &mut Line<'_>) {
    line.text(if tuple.is_v4() { b"4," } else { b"6," });
    line.address(tuple.local.canonical());
    line.text(b",");
    line.number(tuple.local_port.into());
    line.text(b",");
    line.address(tuple.remote.canonical());
    line.text(b",");
    line.number(tuple.remote_port.into());
}

/// Both states, with the commas around them.
fn states(from: State, to: State) -> Fragment<32> {
    Fragment::new(format!(",{from},{to},").as_bytes())
}

/// Milliseconds with this number of decimals, as the standard library rounds them.
fn milliseconds<const DECIMALS: usize>(ns: u64, line: &mut Line<'_>) {
    /// The quotient of fewer nanoseconds is exact enough to be rounded as a whole number.
    const EXACT_NS: u64 = 1 << 50;
    let in_one = 10_u64.pow(DECIMALS as u32);
    let unit_ns = 1_000_000 / in_one;
    let (units, rest) = (ns / unit_ns, ns % unit_ns);
    if ns >= EXACT_NS || rest == unit_ns / 2 {
        return line.display(format_args!("{:.*}", DECIMALS, ns as f64 / 1e6));
    }
    let units = units + u64::from(rest > unit_ns / 2);
    line.number(units / in_one);
    line.text(b".");
    line.bytes(&digits(units % in_one)[8 - DECIMALS..]);
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
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = Vec::new();
        append(&mut out, write);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn halves_are_rounded_as_the_standard_library_does() {
        for ns in [0, 499, 500, 501, 1500, 2500, 4999, 5000, 5001, 15_000, 999_999_500, u64::MAX] {
            assert_eq!(text(|line| milliseconds::<3>(ns, line)), format!("{:.3}", ns as f64 / 1e6), "{ns}");
            assert_eq!(text(|line| milliseconds::<2>(ns, line)), format!("{:.2}", ns as f64 / 1e6), "{ns}");
        }
    }

    proptest! {
        #[test]
        fn milliseconds_are_those_of_the_standard_library(ns: u64, bits in 0_u32..64) {
            let ns = ns >> bits;
            prop_assert_eq!(text(|line| milliseconds::<3>(ns, line)), format!("{:.3}", ns as f64 / 1e6));
            prop_assert_eq!(text(|line| milliseconds::<2>(ns, line)), format!("{:.2}", ns as f64 / 1e6));
        }
    }

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
