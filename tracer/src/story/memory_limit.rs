//! The memory limit of a story: a recording may come from anybody, and expand to any size.

use std::rc::Rc;

use rustc_hash::FxHashSet;

use super::{ConnHistory, Step, Story};
use crate::model::{ConnId, Holder, Process, Stuck, Subject, Traffic};

/// The limit and the approximate use.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryLimit {
    most: usize,
    used: usize,
    is_full: bool,
}

impl Default for MemoryLimit {
    fn default() -> Self {
        Self::of(usize::MAX)
    }
}

/// Approximate sizes of a step and a connection: up to half of a hash table or a vector may be unused.
const STEP: usize = 2 * size_of::<Step>();
const HISTORY: usize = 2 * size_of::<(ConnId, ConnHistory)>() + size_of::<Traffic>();

impl MemoryLimit {
    pub(super) fn of(most: usize) -> Self {
        Self { most, used: 0, is_full: false }
    }

    /// Adds the size of a record, as if its connection and owner were new. The exact size is computed when the limit seems reached.
    pub(super) fn add(&mut self, subject: &Subject) {
        self.used = self.used.saturating_add(STEP + HISTORY + subject.bytes());
    }

    pub(super) fn replace(&mut self, before: Option<&Stuck>, now: &Stuck) {
        self.used = self.used.saturating_add(bytes(now)).saturating_sub(before.map_or(0, bytes));
    }
}

impl Story {
    /// Whether the open connections exceed the limit; later records were not added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.memory.is_full
    }

    /// Drops ended connections if the limit is reached.
    pub(super) fn drop_ended(&mut self) {
        if self.memory.used <= self.memory.most {
            return;
        }
        self.memory.used = self.weigh();
        if self.is_below_limit() {
            return;
        }
        let before = self.histories.len();
        self.histories.retain(|_, history| !history.is_over());
        self.histories.shrink_to_fit();
        self.left_out += (before - self.histories.len()) as u64;
        self.memory.used = self.weigh();
        self.memory.is_full = !self.is_below_limit();
    }

    /// Whether a quarter of the limit is free, so that the exact size need not be computed again soon.
    fn is_below_limit(&self) -> bool {
        self.memory.used <= self.memory.most / 4 * 3
    }

    fn weigh(&self) -> usize {
        let mut seen = FxHashSet::default();
        let mut subject = |subject: &Rc<Subject>| match seen.insert(Rc::as_ptr(subject)) {
            true => subject.bytes(),
            false => 0,
        };
        let mut history = |history: &ConnHistory| {
            let steps: usize = history.steps.iter().map(|step| subject(&step.subject)).sum();
            let own = subject(&history.subject) + history.stuck.as_deref().map_or(0, bytes);
            HISTORY + history.steps.capacity() * size_of::<Step>() + steps + own
        };
        self.histories.values().map(&mut history).sum()
    }
}

/// Approximate size in memory.
fn bytes(stuck: &Stuck) -> usize {
    let Some((found, diagnosis)) = stuck.found.as_deref() else { return size_of::<Stuck>() };
    let process = |process: &Process| {
        size_of::<Process>() + process.comm.len() + process.exe.as_ref().map_or(0, String::len)
    };
    let holders: usize =
        found.holders.iter().map(|holder| size_of::<Holder>() + process(&holder.process)).sum();
    let listeners = found.listeners.iter().flat_map(|listener| listener.holders.iter());
    let listeners: usize = listeners.map(|holder| process(holder)).sum();
    let texts: usize = diagnosis.commands.iter().map(|command| command.len() + size_of::<String>()).sum();
    let sentences = diagnosis.why.len() + diagnosis.advice.len();
    size_of::<Stuck>() + size_of_val(found) + size_of_val(diagnosis) + holders + listeners + texts + sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Connection, Record, State, Transition};

    const MIB: usize = 1 << 20;

    fn transition(id: u64, from: State, to: State) -> Record {
        let example = Connection::example();
        let subject = Rc::new(Subject { id, ..(*example.subject).clone() });
        let conn = Connection { id: ConnId(id), subject, ..example };
        Record::Transition(Transition { time_ns: id as i64, conn, ..Transition::example(from, to) })
    }

    #[test]
    fn connections_that_have_ended_make_room() {
        let mut story = Story::within(MIB);
        for conn in 1..=20_000 {
            story.record(&transition(conn, State::Close, State::SynSent));
            // Each hundredth stays open.
            if conn % 100 != 0 {
                story.record(&transition(conn, State::SynSent, State::Close));
            }
        }
        assert!(!story.is_full());
        assert_eq!(story.histories.values().filter(|history| !history.is_over()).count(), 200);
        assert_eq!(story.left_out + story.histories.len() as u64, 20_000);
        assert!(story.weigh() <= MIB, "{}", story.weigh());
        // The counts are complete.
        assert_eq!((story.transitions, story.edges[&("CLOSE", "SYN_SENT")].count), (39_800, 20_000));
    }

    #[test]
    fn one_connection_with_steps_without_an_end_has_the_last_ones() {
        let mut story = Story::within(8 * MIB);
        for _ in 0..50_000 {
            story.record(&transition(1, State::Close, State::SynSent));
        }
        let steps = story.histories[&ConnId(1)].steps.len();
        assert!(!story.is_full() && steps <= super::super::MAX_STEPS, "{steps}");
        assert_eq!(story.left_out_steps, 50_000 - steps as u64);
        assert_eq!(story.transitions, 50_000);
    }

    #[test]
    fn too_many_that_live_are_refused() {
        let mut story = Story::within(MIB);
        for conn in 1..=20_000 {
            story.record(&transition(conn, State::Close, State::SynSent));
        }
        assert!(story.is_full() && story.weigh() < 2 * MIB, "{}", story.weigh());
        let mut unbound = Story::default();
        (1..=20_000).for_each(|conn| unbound.record(&transition(conn, State::Close, State::SynSent)));
        assert!(!unbound.is_full() && unbound.histories.len() == 20_000);
    }
}
