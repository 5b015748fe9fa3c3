//! Doubles of an upgrade. For a moment two sets of programs are attached, and both write a record of each event, each into its own
//! ring. This module puts the records of both rings into the order of the events, and leaves out the doubles.
//!
//! - One event is one run of a hook, in which both programs take the time. The next event of the same socket begins after that run. In
//!   the order of times, all records of one event therefore follow each other among the records of their socket.
//! - A socket cannot make the same transition twice in a row. The same transition right after itself, from the other ring or from a
//!   companion program, is a double.
//! - The same reset, or the same event of a mini-socket or a process, may happen twice in a row, and the hooks of these events are attached
//!   one after another. The order alone does not show where the doubles begin. Such a record is a double of the one in the other ring
//!   that is nearest in time, if it is also the nearest of that one, and if at most [`APART_NS`] are between them. If a double is not
//!   recognised, as when the CPU was taken away between two programs, no record of the stream is doubled, because these events only add
//!   to a connection's record or repeat its state.

use std::collections::HashMap;

use crate::{
    decode::decode,
    model::{Event, EventKind, State},
};

/// The longest time between two records of one event, other than a transition: a program takes some microseconds.
const APART_NS: u64 = 1_000_000;

/// Copies of the records of one ring, in their order.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    pub(super) fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[*begin..*end])
    }
}

/// The records of both rings without the doubles, in the order of the events.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    records: Records,
    /// How many of them were passed on.
    passed: usize,
}

impl Overlap {
    /// Combines the records of both rings.
    pub(super) fn of(earlier: &Records, new: &Records) -> Self {
        let mut entries = Vec::with_capacity(earlier.ends.len() + new.ends.len());
        for (ring, records) in [(Ring::Earlier, earlier), (Ring::New, new)] {
            let mut time_ns = 0;
            for bytes in records.iter() {
                let event = decode(bytes).ok();
                // A record that cannot be read stays behind the one before it, and is counted later.
                time_ns = event.as_ref().map_or(time_ns, |event| event.time_ns);
                let key = event.as_ref().and_then(Key::of);
                entries.push(Entry { ring, bytes, time_ns, key, is_double: false });
            }
        }
        // The sort keeps the order of records with the same time.
        entries.sort_by_key(|entry| entry.time_ns);
        mark_transitions(&mut entries);
        mark_others(&mut entries);
        let mut records = Records::default();
        entries.iter().filter(|entry| !entry.is_double).for_each(|entry| records.push(entry.bytes));
        Self { records, passed: 0 }
    }

    /// How many records were not passed on yet.
    pub(super) fn len(&self) -> usize {
        self.records.ends.len() - self.passed
    }

    /// Passes the next record to `take`; false if there is none.
    pub(super) fn next(&mut self, take: &mut impl FnMut(&[u8])) -> bool {
        if self.len() == 0 {
            // The memory is not needed any more.
            *self = Self::default();
            return false;
        }
        let begin = self.passed.checked_sub(1).map_or(0, |before| self.records.ends[before]);
        take(&self.records.bytes[begin..self.records.ends[self.passed]]);
        self.passed += 1;
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ring {
    Earlier,
    New,
}

struct Entry<'a> {
    ring: Ring,
    bytes: &'a [u8],
    time_ns: u64,
    /// `None` if the record cannot be read.
    key: Option<Key>,
    is_double: bool,
}

/// What the records of one event have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Transition {
        sk: u64,
        from: State,
        to: State,
        maybe_copy: bool,
    },
    Other {
        kind: std::mem::Discriminant<EventKind>,
        sk: u64,
        state: Option<State>,
        /// The process, and whether it has ended.
        process: Option<(u32, bool)>,
        ports: (u16, u16),
    },
}

impl Key {
    fn of(event: &Event) -> Option<Self> {
        let (state, process) = match &event.kind {
            EventKind::Transition { from, to, maybe_copy, .. } => {
                return Some(Self::Transition {
                    sk: event.sk,
                    from: *from,
                    to: *to,
                    maybe_copy: *maybe_copy,
                });
            }
            EventKind::Mini { state, .. }
            | EventKind::ResetReceived(state)
            | EventKind::ResetSent { state, .. } => (Some(*state), None),
            EventKind::Process { task, ended } => (None, Some((task.pid, *ended))),
            EventKind::MiniEnd(_) | EventKind::Cookie | EventKind::PortKnown | EventKind::Reset { .. } => {
                (None, None)
            }
            // The iterators write these, and only a hunt opens sockets; it pins nothing.
            EventKind::Socket { .. }
            | EventKind::Held { .. }
            | EventKind::OfKernel { .. }
            | EventKind::Opened(_) => return None,
        };
        let kind = std::mem::discriminant(&event.kind);
        let ports = (event.tuple.local_port, event.tuple.remote_port);
        Some(Self::Other { kind, sk: event.sk, state, process, ports })
    }
}

/// Marks transitions that are the same as the one before them of their socket.
fn mark_transitions(entries: &mut [Entry<'_>]) {
    let mut last_of: HashMap<u64, usize> = HashMap::new();
    for at in 0..entries.len() {
        let Some(Key::Transition { sk, from, to, maybe_copy }) = entries[at].key else { continue };
        let last = last_of.get(&sk).copied();
        let same = last.and_then(|last| match entries[last].key {
            Some(Key::Transition { from: last_from, to: last_to, maybe_copy, .. })
                if (from, to) == (last_from, last_to) =>
            {
                Some((last, maybe_copy))
            }
            _ => None,
        });
        match same {
            // The one before may be a second copy, which the table would doubt. This one is certain.
            Some((last, true)) if !maybe_copy => {
                entries[last].is_double = true;
                last_of.insert(sk, at);
            }
            Some((last, _)) if maybe_copy || entries[last].ring != entries[at].ring => {
                entries[at].is_double = true;
            }
            _ => {
                last_of.insert(sk, at);
            }
        }
    }
}

/// Marks the other records of the new ring that are in the earlier ring, too.
fn mark_others(entries: &mut [Entry<'_>]) {
    /// Places in the list of entries, in the order of time, of each ring.
    type Places = (Vec<usize>, Vec<usize>);
    let mut groups: HashMap<Key, Places> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Some(key @ Key::Other { .. }) = entry.key else { continue };
        let (earlier, new) = groups.entry(key).or_default();
        if entry.ring == Ring::Earlier { earlier.push(at) } else { new.push(at) }
    }
    for (earlier, new) in groups.into_values() {
        for at in &new {
            let pair = nearest(entries, &earlier, entries[*at].time_ns);
            if pair.is_some_and(|pair| nearest(entries, &new, entries[pair].time_ns) == Some(*at)) {
                entries[*at].is_double = true;
            }
        }
    }
}

/// The one of `places` whose time is nearest to `time_ns`, if it is not too far.
fn nearest(entries: &[Entry<'_>], places: &[usize], time_ns: u64) -> Option<usize> {
    let after = places.partition_point(|at| entries[*at].time_ns < time_ns);
    let around = places[after.saturating_sub(1)..].iter().take(2).copied();
    let distance = |at: &usize| entries[*at].time_ns.abs_diff(time_ns);
    around.min_by_key(distance).filter(|at| distance(at) <= APART_NS)
}

#[cfg(test)]
mod tests;
