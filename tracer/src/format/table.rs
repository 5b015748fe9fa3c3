//! For people: one line a transition, aligned, coloured on a terminal.

use std::io::Write;

use super::{Format, time::Times};
use crate::display::{duration, endpoints, lower_bound, palette, readable};
use crate::model::{Connection, Owner, Record, Role, State, Transition, bounds::SENTENCE, printable};

/// The format.
pub struct Table {
    times: Times,
    colour: bool,
}

impl Table {
    /// With or without colours.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        Self { times: Times::clock(), colour }
    }

    fn state(&self, state: State) -> String {
        let name = match state {
            State::Unknown(number) => format!("UNKNOWN({number})"),
            known => known.name().to_owned(),
        };
        self.paint(palette::of(state).sgr, &format!("{name:<11}"))
    }

    /// The columns that every kind of line has.
    fn side(&mut self, time_ns: i64, conn: &Connection, out: &mut Vec<u8>) {
        self.times.write(time_ns, 3, out);
        let (pid, comm) = owner(conn.subject.owner.as_ref());
        let (local, remote) = endpoints(&conn.tuple, None);
        let role = conn.role.map_or("-", Role::name);
        // Writing to a vector does not fail.
        let _ = write!(out, " {pid:>7} {comm:<15} {role:<8} {local:<22} {remote:<22} ");
    }

    fn transition(&mut self, transition: &Transition, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.side(transition.time_ns, &transition.conn, out);
        let ms = transition.in_state.map_or_else(
            || "-".to_owned(),
            |time| format!("{}{:.3}", lower_bound(time), time.ns as f64 / 1e6),
        );
        let mut cause = transition.cause.map_or_else(String::new, |cause| format!("  {}", cause.name()));
        if let Some(why) = transition.reset_why {
            cause.push_str(&format!(" ({why})"));
        }
        if !transition.exact {
            cause.push_str("  estimate");
        }
        if transition.illegal {
            cause.push_str("  TCP does not do this");
        }
        let (from, to) = (self.state(transition.from), self.state(transition.to));
        writeln!(out, "{from} -> {to} {ms:>12}{cause}")
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Format for Table {
    fn header(&mut self, out: &mut Vec<u8>) {
        let line = format!(
            "{:<12} {:>7} {:<15} {:<8} {:<22} {:<22} {:<11}    {:<11} {:>12}\n",
            "TIME", "PID", "COMM", "ROLE", "LOCAL", "REMOTE", "FROM", "TO", "MS"
        );
        out.extend_from_slice(self.paint("1", line.trim_end()).as_bytes());
        out.push(b'\n');
    }

    fn record(&mut self, _: u64, record: &Record, out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = match record {
            Record::Transition(transition) => self.transition(transition, out),
            Record::Snapshot(snapshot) => {
                self.side(snapshot.time_ns, &snapshot.conn, out);
                let mini = if snapshot.conn.mini { "is (mini)" } else { "is" };
                writeln!(out, "{mini:<11}    {}", self.state(snapshot.state))
            }
            Record::Resync(resync) => {
                self.side(resync.time_ns, &resync.conn, out);
                let was = resync.was.map_or_else(|| format!("{:<11}", "-"), |was| self.state(was));
                writeln!(out, "{was} => {} {:>12}  corrected", self.state(resync.state), "-")
            }
            Record::Stuck(stuck) => {
                self.side(stuck.time_ns, &stuck.conn, out);
                let reason = stuck.found.as_ref().map_or("", |found| found.1.why.as_str());
                let text = format!("STUCK for {}{}", lower_bound(stuck.age), duration(stuck.age.ns));
                writeln!(
                    out,
                    "{} {}  {}",
                    self.state(stuck.state),
                    self.paint("1;31", &text),
                    readable(reason, SENTENCE)
                )
            }
            Record::Resolved(resolved) => {
                self.side(resolved.time_ns, &resolved.conn, out);
                let time = format!("{}{}", lower_bound(resolved.age), duration(resolved.age.ns));
                writeln!(out, "{} no longer stuck, after {time}", self.state(resolved.state))
            }
            Record::Lost(lost) => {
                self.times.write(lost.time_ns, 3, out);
                let mut text = format!("LOST {} transitions ({})", lost.count, lost.place.name());
                if lost.in_doubt > 0 {
                    text.push_str(&format!(", {} in doubt", lost.in_doubt));
                }
                writeln!(out, " {}", self.paint("1;31", &text))
            }
            Record::Aggregate(_) | Record::Start(_) | Record::Stop(_) => Ok(()),
        };
    }
}

fn owner(owner: Option<&Owner>) -> (String, String) {
    match owner {
        Some(owner) => (owner.pid().to_string(), printable(&owner.comm)),
        None => ("-".to_owned(), "-".to_owned()),
    }
}
