//! For people: one line a transition, aligned, coloured on a terminal. [`columns`] has what fits which width.

mod already_stuck;
mod columns;

use already_stuck::{AlreadyStuck, Kept};
use columns::{Field, fields};

use super::{Content, Format, FormatName, ReadWidth, name::Source, time::Times};
use crate::{
    display::{Layout, duration, endpoints, lower_bound, number, palette, readable},
    model::{
        Cause, Connection, InState, Lifespan, Record, Role, State, Transition, bounds::SENTENCE, printable,
    },
};

pub(super) const FORMAT: FormatName = FormatName {
    name: "table",
    help: "A table for people",
    content: Content::Text,
    for_sinks: false,
    source: Source::Records(|options| {
        let table = Table::new(options.colour, options.width);
        Box::new(if options.connections { table.of_connections() } else { table })
    }),
};

/// The format.
pub struct Table {
    times: Times,
    colour: bool,
    read_width: Option<ReadWidth>,
    /// The table has connections instead of transitions.
    connections: bool,
    fields: &'static [Field],
    layout: Layout,
    already_stuck: AlreadyStuck,
}

/// The cells of a record that depend on its kind.
#[derive(Default)]
struct States {
    /// The earlier state, or what is shown instead.
    from: String,
    /// The state, without an arrow.
    to: String,
    /// The arrow before the state.
    arrow: &'static str,
    in_state: Option<InState>,
    /// Bytes that a connection has sent and received.
    bytes: Option<(u64, u64)>,
}

impl Table {
    /// With or without colours; for a terminal, or with all columns.
    #[must_use]
    pub fn new(colour: bool, read_width: Option<ReadWidth>) -> Self {
        let width = read_width.and_then(|read| read());
        let fields = fields(width, false);
        Self {
            times: Times::clock(),
            colour,
            read_width,
            connections: false,
            fields,
            layout: layout(fields, width),
            already_stuck: AlreadyStuck::default(),
        }
    }

    /// With the columns for connections instead of transitions.
    #[must_use]
    fn of_connections(self) -> Self {
        let fields = fields(self.layout.width, true);
        Self { connections: true, fields, layout: layout(fields, self.layout.width), ..self }
    }

    /// Follows the width of the terminal. Other columns get their titles.
    fn follow_width(&mut self, out: &mut Vec<u8>) {
        let width = self.read_width.and_then(|read| read());
        if width == self.layout.width {
            return;
        }
        let before = std::mem::replace(&mut self.fields, fields(width, self.connections));
        self.layout = layout(self.fields, width);
        if self.fields != before {
            self.header(out);
        }
    }

    fn state(&self, state: State) -> String {
        let name = match state {
            State::Unknown(number) => format!("UNKNOWN({number})"),
            known => known.name().to_owned(),
        };
        self.paint(palette::of(state).sgr, &name)
    }

    fn time(&mut self, time_ns: i64, digits: usize) -> String {
        let mut text = Vec::new();
        self.times.write(time_ns, digits, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The cells of a record, up to the last one that the record has.
    fn cells(&mut self, time_ns: i64, conn: &Connection, states: &States) -> Vec<String> {
        let owner = conn.subject.owner.as_ref();
        let (local, remote) = endpoints(&conn.tuple, None);
        let age = states.in_state;
        let cell = |table: &mut Self, field: Field| match field {
            Field::Time => table.time(time_ns, 3),
            Field::Clock => table.time(time_ns, 0),
            Field::Pid => owner.map_or_else(|| "-".to_owned(), |owner| owner.pid().to_string()),
            Field::Comm(_) => owner.map_or_else(|| "-".to_owned(), |owner| printable(&owner.comm)),
            Field::Role => conn.role.map_or("-", Role::name).to_owned(),
            Field::Local(_) => local.clone(),
            Field::LocalPort => format!(":{}", local.rsplit(':').next().unwrap_or_default()),
            Field::Remote(_) => remote.clone(),
            Field::From => states.from.clone(),
            Field::To => format!("{:<3}{}", states.arrow, states.to),
            Field::State if states.to.is_empty() => states.from.clone(),
            Field::State => states.to.clone(),
            Field::Ms => age.map_or_else(
                || "-".to_owned(),
                |age| format!("{}{:.3}", lower_bound(age), age.ns as f64 / 1e6),
            ),
            Field::Sent => states.bytes.map_or_else(|| "-".to_owned(), |(sent, _)| number(sent)),
            Field::Received => states.bytes.map_or_else(|| "-".to_owned(), |(_, received)| number(received)),
            Field::Lasted => {
                age.map_or_else(|| "-".to_owned(), |age| format!("{}{}", lower_bound(age), duration(age.ns)))
            }
        };
        let has = |field: &&Field| match field {
            Field::To => !states.to.is_empty(),
            Field::Ms | Field::Lasted | Field::Sent | Field::Received => !states.arrow.is_empty(),
            _ => true,
        };
        let fields = self.fields;
        fields.iter().take_while(has).map(|field| cell(self, *field)).collect()
    }

    /// Digits of the second's fraction.
    fn digits(&self) -> usize {
        if self.fields.first() == Some(&Field::Time) { 3 } else { 0 }
    }

    /// Whether the state before a transition has a column.
    fn has_from(&self) -> bool {
        self.fields.contains(&Field::From)
    }

    fn transition(&mut self, transition: &Transition) -> String {
        let mut text = transition.cause.map_or_else(String::new, |cause| cause.name().to_owned());
        if let Some(why) = transition.reset_why {
            text.push_str(&format!(" ({why})"));
        }
        if !transition.exact {
            text.push_str("  estimate");
        }
        if transition.illegal {
            text.push_str("  TCP does not do this");
        }
        let states = States {
            from: self.state(transition.from),
            to: self.state(transition.to),
            arrow: "->",
            in_state: transition.in_state,
            bytes: None,
        };
        let cells = self.cells(transition.time_ns, &transition.conn, &states);
        self.layout.row(&cells, 2, text.trim_start())
    }

    fn lifespan(&mut self, lifespan: &Lifespan) -> String {
        let Lifespan { time_ns, conn, traffic, .. } = lifespan;
        let mut text = how_ended(lifespan);
        let bytes = traffic.as_deref().map(|traffic| (traffic.bytes_sent, traffic.bytes_received));
        let lasted = InState { ns: lifespan.duration_ns, at_least: lifespan.at_least };
        if self.connections {
            let states = States { arrow: "->", in_state: Some(lasted), bytes, ..States::default() };
            let cells = self.cells(*time_ns, conn, &states);
            return self.layout.row(&cells, 1, &text);
        }
        let what = if lifespan.is_final { "closed after" } else { "open for" };
        text = format!("{what} {}{}  {text}", lower_bound(lasted), duration(lasted.ns));
        if let Some((sent, received)) = bytes {
            text.push_str(&format!("  {} sent, {} received", number(sent), number(received)));
        }
        let cells = self.cells(*time_ns, conn, &States::default());
        self.layout.row(&cells, 1, &text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn row(&mut self, record: &Record) -> Option<String> {
        let one = |from: String| States { from, ..States::default() };
        let (time_ns, conn, states, gap, text) = match record {
            Record::Transition(transition) => return Some(self.transition(transition)),
            Record::Connection(lifespan) => return Some(self.lifespan(lifespan)),
            Record::Snapshot(snapshot) => {
                let (is, existing) = match snapshot.conn.mini {
                    true => ("is (mini)", "existing (mini)"),
                    false => ("is", "existing"),
                };
                let to = self.state(snapshot.state);
                let text = if self.has_from() { "" } else { existing };
                (snapshot.time_ns, &snapshot.conn, States { to, ..one(is.to_owned()) }, 2, text.to_owned())
            }
            Record::Resync(resync) => {
                let from = resync.was.map_or_else(|| "-".to_owned(), |was| self.state(was));
                let states = States { to: self.state(resync.state), arrow: "=>", ..one(from) };
                (resync.time_ns, &resync.conn, states, 2, "corrected".to_owned())
            }
            Record::Stuck(stuck) => {
                let reason = stuck.found.as_ref().map_or("", |found| found.1.why.as_str());
                let text = format!("STUCK for {}{}", lower_bound(stuck.age), duration(stuck.age.ns));
                let text =
                    format!("{}  {}", self.paint(palette::STUCK_SGR, &text), readable(reason, SENTENCE));
                (stuck.time_ns, &stuck.conn, one(self.state(stuck.state)), 1, text)
            }
            Record::Resolved(resolved) => {
                let time = format!("{}{}", lower_bound(resolved.age), duration(resolved.age.ns));
                let text = format!("no longer stuck, after {time}");
                (resolved.time_ns, &resolved.conn, one(self.state(resolved.state)), 1, text)
            }
            Record::Lost(lost) => {
                let mut text = format!("LOST {} transitions ({})", lost.count, lost.place.name());
                if lost.in_doubt > 0 {
                    text.push_str(&format!(", {} in doubt", lost.in_doubt));
                }
                let time = self.time(lost.time_ns, self.digits());
                return Some(self.layout.row(&[time], 1, &self.paint(palette::STUCK_SGR, &text)));
            }
            Record::Reset(reset) => {
                let text = match &reset.answered {
                    Some(answered) => {
                        let (local, remote) = endpoints(&answered.tuple, None);
                        let flags: Vec<&str> = answered.flags().collect();
                        format!("{local} <- {remote} {}: reset, there is no socket", flags.join(" "))
                    }
                    None => format!("{} more resets, there are no sockets", number(reset.count)),
                };
                let time = self.time(reset.time_ns, self.digits());
                return Some(self.layout.row(&[time], 1, &text));
            }
            Record::Aggregate(aggregate) if aggregate.of_connections => {
                let cause = aggregate.cause.map_or("-", Cause::name);
                let count = number(aggregate.count);
                let text = format!("{count} more connections were not established: {cause}");
                let time = self.time(aggregate.time_ns, self.digits());
                return Some(self.layout.row(&[time], 1, &text));
            }
            Record::Aggregate(_) | Record::Start(_) | Record::Stop(_) => return None,
        };
        let cells = self.cells(time_ns, conn, &states);
        Some(self.layout.row(&cells, gap, &text))
    }
}

/// How a connection has ended: the cause, the side that closed it first, and anything unusual.
fn how_ended(lifespan: &Lifespan) -> String {
    let unknown = if lifespan.is_final { "-" } else { "goes on" };
    let mut text = lifespan.cause.map_or(unknown, Cause::name).to_owned();
    if let Some(why) = lifespan.reset_why {
        text.push_str(&format!(" ({why})"));
    }
    if let Some(side) = lifespan.closed_first() {
        text.push_str(&format!(", {}", side.name()));
    }
    let retransmits = lifespan.traffic.as_ref().map_or(0, |traffic| traffic.retransmits);
    if retransmits > 0 {
        text.push_str(&format!("  {retransmits} retransmits"));
    }
    if !lifespan.exact {
        text.push_str("  estimate");
    }
    if lifespan.incomplete {
        text.push_str("  incomplete");
    }
    text
}

fn layout(fields: &[Field], width: Option<usize>) -> Layout {
    Layout { columns: fields.iter().map(|field| field.column()).collect(), width }
}

impl Format for Table {
    fn header(&mut self, out: &mut Vec<u8>) {
        let line = self.layout.header("");
        out.extend_from_slice(self.paint("1", line.trim_end()).as_bytes());
        out.push(b'\n');
    }

    fn record(&mut self, _: u64, record: &Record, out: &mut Vec<u8>) {
        self.follow_width(out);
        match record {
            Record::Stuck(stuck) if self.already_stuck.is_not_shown(stuck.conn.id) => return,
            Record::Resolved(resolved) if self.already_stuck.forget(resolved.conn.id) => return,
            _ => {}
        }
        let row = self.row(record);
        match (record, row) {
            (Record::Stuck(stuck), Some(row)) if stuck.before_trace => self.already_stuck.keep(stuck, row),
            (_, Some(row)) => out.extend_from_slice(row.as_bytes()),
            (_, None) => {}
        }
    }

    fn pause(&mut self, out: &mut Vec<u8>) {
        match self.already_stuck.take() {
            None => {}
            Some(Kept::Rows(rows)) => rows.iter().for_each(|row| out.extend_from_slice(row.as_bytes())),
            Some(Kept::Sum { time_ns, text }) => {
                let time = self.time(time_ns, self.digits());
                let text = self.paint(palette::STUCK_SGR, &text);
                out.extend_from_slice(self.layout.row(&[time], 1, &text).as_bytes());
            }
        }
    }
}
