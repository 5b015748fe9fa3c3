//! Records about connections that go on (`interim`). In each interval a connection has one moment, which a hash of its id
//! chooses, so that thousands of connections that began together are not reported together.

use std::{collections::BTreeSet, io, rc::Rc, time::Duration};

use super::{Pipeline, monotonic_ns};
use crate::{
    model::{ConnId, Owner, Record, mixed},
    source::{CounterReader, Counters, SocketKey},
    track::{Living, Table},
};

/// Most connections that are looked at before the main loop goes on.
const MOST_AT_ONCE: usize = 256;
/// The moments are multiples of this, so that they wake nobody more often.
const GRAIN_NS: u64 = 100_000_000;

/// A connection whose record is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// `CLOCK_MONOTONIC` ns.
    at_ns: u64,
    sk: u64,
    conn: ConnId,
}

/// The connections of one interval that have not had their record.
#[derive(Debug)]
struct Round {
    every_ns: u64,
    /// The number of the interval since the boot: the next process goes on with the same moments.
    number: u64,
    /// The next one is the last.
    due: Vec<Due>,
}

impl Round {
    fn new(every: Duration, now_ns: u64, table: &Table) -> Self {
        let every_ns = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(GRAIN_NS);
        let mut round = Self { every_ns, number: now_ns / every_ns, due: Vec::new() };
        round.fill(table);
        // Those of the past were due before anybody wanted the records.
        round.due.retain(|due| due.at_ns > now_ns);
        round
    }

    fn begins_ns(&self) -> u64 {
        self.number.saturating_mul(self.every_ns)
    }

    fn next_ns(&self) -> u64 {
        let next = self.begins_ns().saturating_add(self.every_ns);
        self.due.last().map_or(next, |due| due.at_ns)
    }

    fn fill(&mut self, table: &Table) {
        let (begins_ns, every_ns) = (self.begins_ns(), self.every_ns);
        self.due.extend(table.living().map(|(sk, conn)| {
            let at_ns = begins_ns.saturating_add(moment(conn, every_ns)).next_multiple_of(GRAIN_NS);
            Due { at_ns, sk, conn }
        }));
        self.due.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// The next connection that is due at `now_ns`.
    fn next(&mut self, now_ns: u64, table: &Table) -> Option<Due> {
        let number = now_ns / self.every_ns;
        if self.due.is_empty() && self.number != number {
            self.number = number;
            self.fill(table);
        }
        self.due.pop_if(|due| due.at_ns <= now_ns)
    }
}

/// When in an interval the record of a connection is due.
fn moment(conn: ConnId, every_ns: u64) -> u64 {
    ((u128::from(mixed(conn.0)) * u128::from(every_ns)) >> 64) as u64
}

/// What the thread is asked for: a connection, and the interval of its streams.
type Asked = (Due, Duration);

/// The records that are due, and the thread that reads the counters.
#[derive(Default)]
pub struct Interims {
    reader: CounterReader<Asked>,
    rounds: Vec<(Duration, Round)>,
}

impl Interims {
    /// Starts the thread that reads the counters, which keeps the capabilities of this one that it needs.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        Ok(Self { reader: CounterReader::start(monotonic_ns)?, rounds: Vec::new() })
    }

    /// The streams want records at these intervals from now on.
    pub(super) fn follow(&mut self, intervals: &BTreeSet<Duration>, table: &Table) {
        self.rounds.retain(|(every, _)| intervals.contains(every));
        for every in intervals {
            if !self.rounds.iter().any(|(known, _)| known == every) {
                self.rounds.push((*every, Round::new(*every, monotonic_ns(), table)));
            }
        }
    }

    /// When the next record is due, `CLOCK_MONOTONIC` ns.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.rounds.iter().map(|(_, round)| round.next_ns()).min()
    }

    /// Whether an answer is to come.
    pub(super) fn is_busy(&self) -> bool {
        self.reader.is_busy()
    }
}

impl Pipeline {
    /// Reports the connections whose counters are read, and asks for the next ones.
    pub(super) fn report_interims(&mut self) {
        if self.interims.rounds.is_empty() {
            return;
        }
        let now_ns = monotonic_ns();
        for ((due, every), counters, read_ns) in self.interims.reader.answer() {
            // A socket that is gone has its last record soon; one that was there at this moment has ended later.
            if let Some(living) = self.table.so_far(due.sk, due.conn, read_ns)
                && counters != Counters::Gone
            {
                self.report_interim(living, counters, every);
            }
        }
        if self.interims.is_busy() {
            return;
        }
        let mut question = Vec::new();
        for at in 0..self.interims.rounds.len() {
            for _ in 0..MOST_AT_ONCE {
                let Some((every, round)) = self.interims.rounds.get_mut(at) else { break };
                let (every, Some(due)) = (*every, round.next(now_ns, &self.table)) else { break };
                let Some(living) = self.table.so_far(due.sk, due.conn, now_ns) else { continue };
                if u128::from(living.lifespan.duration_ns) < every.as_nanos() {
                    continue;
                }
                match key(&living).filter(|_| self.interims.reader.is_running()) {
                    Some(key) => question.push(((due, every), key)),
                    None => self.report_interim(living, Counters::Unknown, every),
                }
            }
        }
        if !question.is_empty() {
            self.interims.reader.ask(question);
        }
    }

    fn report_interim(&mut self, mut living: Living, counters: Counters, every: Duration) {
        if let Counters::Of(traffic) = counters {
            living.lifespan.traffic = Some(Rc::new(traffic));
        }
        let Self { router, streams, .. } = self;
        let record = Record::Connection(Box::new(living.lifespan));
        router.route(&record, |record| streams.interim(record, every));
    }
}

/// The socket that has the counters.
fn key(living: &Living) -> Option<SocketKey> {
    let conn = &living.lifespan.conn;
    let netns = conn.subject.netns.filter(|_| living.has_socket)?;
    Some(SocketKey { netns, pid: conn.subject.owner.as_ref().map(Owner::pid), tuple: conn.tuple })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand connections that began together: each tenth of an interval has about a tenth of them.
    #[test]
    fn no_moment_has_many_records() {
        const EVERY_NS: u64 = 300_000_000_000;
        let mut tenths = [0; 10];
        for id in 0..10_000 {
            let at_ns = moment(ConnId(0xdd_3277 << 40 | id), EVERY_NS);
            assert!(at_ns < EVERY_NS);
            tenths[(at_ns * 10 / EVERY_NS) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1200).contains(count)), "{tenths:?}");
    }
}
