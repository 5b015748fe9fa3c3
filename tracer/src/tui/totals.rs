//! Counts of sockets by state, by process and by service.

use std::{cmp::Reverse, collections::BTreeMap};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    model::{Role, State},
    story::{ConnHistory, Story},
};

/// One process or service.
#[derive(Debug)]
pub(super) struct CountRow {
    /// A process and its pid, or a port and its process.
    pub(super) name: String,
    pub(super) stuck: u64,
    pub(super) sockets: u64,
}

/// The counts at one moment.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// How many sockets are in each state, and how many of them are stuck.
    pub(super) states: BTreeMap<&'static str, (u64, u64)>,
    /// Processes, the one with the most stuck sockets first.
    pub(super) processes: Vec<CountRow>,
    /// Local ports that something listens on, or that connections came in on; the port with the most stuck sockets first.
    pub(super) services: Vec<CountRow>,
}

/// A socket that gives the row its name, how many sockets are stuck, and how many there are.
type Counts<'a> = (&'a ConnHistory, u64, u64);

impl Totals {
    pub(super) fn of(story: &Story) -> Self {
        let mut by_pid: FxHashMap<u32, Counts<'_>> = FxHashMap::default();
        let mut by_port: FxHashMap<u16, Counts<'_>> = FxHashMap::default();
        let listens = |history: &&ConnHistory| history.state == State::Listen;
        let ports: FxHashSet<u16> =
            story.histories.values().filter(listens).map(|history| history.tuple.local_port).collect();
        for history in story.histories.values() {
            // A TIME_WAIT socket belongs to no process.
            if let Some(owner) = history.subject.owner.as_ref().filter(|_| history.state != State::TimeWait) {
                count(history, by_pid.entry(owner.pid()).or_insert((history, 0, 0)));
            }
            let port = history.tuple.local_port;
            let is_open = history.state != State::Close;
            if is_open && (history.role == Some(Role::Server) || ports.contains(&port)) {
                let counts = by_port.entry(port).or_insert((history, 0, 0));
                // The listener has the name of the service.
                if history.state == State::Listen {
                    counts.0 = history;
                }
                count(history, counts);
            }
        }
        let process = |history: &ConnHistory| {
            let owner = history.subject.owner.as_ref();
            owner.map_or_else(String::new, |owner| format!("{} ({})", owner.comm, owner.pid()))
        };
        let service = |history: &ConnHistory| {
            let owner = history.subject.owner.as_ref();
            let name = owner.map_or_else(String::new, |owner| format!(" {}", owner.comm));
            format!(":{}{name}", history.tuple.local_port)
        };
        Self {
            states: story.tally(),
            processes: rows(by_pid.into_values(), process),
            services: rows(by_port.into_values(), service),
        }
    }
}

fn count(history: &ConnHistory, counts: &mut Counts<'_>) {
    counts.1 += u64::from(history.is_stuck);
    counts.2 += 1;
}

/// The rows, those with the most stuck sockets first.
fn rows<'a>(
    counts: impl Iterator<Item = Counts<'a>>,
    name: impl Fn(&ConnHistory) -> String,
) -> Vec<CountRow> {
    let row = |(history, stuck, sockets): Counts<'_>| CountRow { name: name(history), stuck, sockets };
    let mut rows: Vec<CountRow> = counts.map(row).collect();
    rows.sort_by(|one, other| {
        let key = |row: &CountRow| Reverse((row.stuck, row.sockets));
        key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name))
    });
    rows
}
