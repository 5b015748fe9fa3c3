//! For people: one line a transition, aligned, coloured on a terminal.

use std::io::Write;

use super::{Format, cuts::readable, look::short, time::Times};
use crate::model::{
    Address, InState, Notice, Owner, Role, State, Subject, Transition, Tuple, bounds::SENTENCE, printable,
};

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
        self.paint(colour_of(state), &format!("{name:<11}"))
    }

    /// The columns that every kind of line has.
    fn side(
        &mut self,
        time_ns: i64,
        subject: &Subject,
        tuple: &Tuple,
        role: Option<Role>,
        out: &mut Vec<u8>,
    ) {
        self.times.write(time_ns, 3, out);
        let (pid, comm) = owner(subject.owner.as_ref());
        let (local, remote) = ends(tuple, None);
        let role = role.map_or("-", Role::name);
        // Writing to a vector does not fail.
        let _ = write!(out, " {pid:>7} {comm:<15} {role:<8} {local:<22} {remote:<22} ");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The palette tells by brightness too: states that may be stuck are bold.
fn colour_of(state: State) -> &'static str {
    match state {
        State::Established => "32",
        State::CloseWait | State::LastAck | State::Unknown(_) => "1;31",
        State::FinWait1 | State::FinWait2 | State::Closing | State::TimeWait => "33",
        State::Listen => "34",
        State::SynSent | State::SynRecv | State::NewSynRecv => "36",
        State::Close => "2",
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

    fn transition(&mut self, _: u64, it: &Transition, out: &mut Vec<u8>) {
        self.side(it.time_ns, &it.subject, &it.tuple, it.role, out);
        let ms = it
            .in_state
            .map_or_else(|| "-".to_owned(), |time| format!("{}{:.3}", sign(time), time.ns as f64 / 1e6));
        let mut cause = it.cause.map_or_else(String::new, |cause| format!("  {}", cause.name()));
        if let Some(why) = it.reset_why {
            cause.push_str(&format!(" ({why})"));
        }
        if !it.exact {
            cause.push_str("  estimate");
        }
        if it.illegal {
            cause.push_str("  TCP does not do this");
        }
        let (from, to) = (self.state(it.from), self.state(it.to));
        // Writing to a vector does not fail.
        let _ = writeln!(out, "{from} -> {to} {ms:>12}{cause}");
    }

    fn notice(&mut self, _: u64, notice: &Notice, out: &mut Vec<u8>) {
        let _ = match notice {
            Notice::Snapshot(it) => {
                self.side(it.time_ns, &it.subject, &it.tuple, it.role, out);
                let mini = if it.mini { "is (mini)" } else { "is" };
                writeln!(out, "{mini:<11}    {}", self.state(it.state))
            }
            Notice::Resync(it) => {
                self.side(it.time_ns, &it.subject, &it.tuple, it.role, out);
                let was = it.was.map_or_else(|| format!("{:<11}", "-"), |was| self.state(was));
                writeln!(out, "{was} => {} {:>12}  corrected", self.state(it.state), "-")
            }
            Notice::Stuck(it) => {
                self.side(it.time_ns, &it.subject, &it.tuple, it.role, out);
                let reason = it.found.as_ref().map_or("", |found| found.1.why.as_str());
                let text = format!("STUCK for {}{}", sign(it.age), short(it.age.ns));
                writeln!(
                    out,
                    "{} {}  {}",
                    self.state(it.state),
                    self.paint("1;31", &text),
                    readable(reason, SENTENCE)
                )
            }
            Notice::Resolved(it) => {
                self.side(it.time_ns, &it.subject, &it.tuple, it.role, out);
                let time = format!("{}{}", sign(it.age), short(it.age.ns));
                writeln!(out, "{} no longer stuck, after {time}", self.state(it.state))
            }
            Notice::Lost(it) => {
                self.times.write(it.time_ns, 3, out);
                let mut text = format!("LOST {} transitions ({})", it.count, it.place.name());
                if it.in_doubt > 0 {
                    text.push_str(&format!(", {} in doubt", it.in_doubt));
                }
                writeln!(out, " {}", self.paint("1;31", &text))
            }
            Notice::Aggregate(_) | Notice::Start(_) | Notice::Stop(_) => Ok(()),
        };
    }
}

/// Marks a lower bound.
pub(super) fn sign(time: InState) -> &'static str {
    if time.at_least { ">" } else { "" }
}

fn owner(owner: Option<&Owner>) -> (String, String) {
    match owner {
        Some(owner) => (owner.pid().to_string(), printable(&owner.comm)),
        None => ("-".to_owned(), "-".to_owned()),
    }
}

/// As `ss` shows them: the local one with the interface that the socket is bound to, by name where that is known.
pub(super) fn ends(tuple: &Tuple, interface: Option<&str>) -> (String, String) {
    let end = |address: Address, zone: &str, port: u16| {
        let port = if port == 0 { "-".to_owned() } else { port.to_string() };
        match address.canonical() {
            std::net::IpAddr::V4(v4) => format!("{v4}{zone}:{port}"),
            std::net::IpAddr::V6(v6) => format!("[{v6}]{zone}:{port}"),
        }
    };
    let zone = match (tuple.interface, interface) {
        (0, _) => String::new(),
        (_, Some(name)) => format!("%{}", printable(name)),
        (index, None) => format!("%{index}"),
    };
    (end(tuple.local, &zone, tuple.local_port), end(tuple.remote, "", tuple.remote_port))
}
