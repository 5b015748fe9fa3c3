//! Samples of the last two minutes, one per second.

use std::collections::{BTreeMap, VecDeque};

use crate::model::State;

/// How many seconds are kept.
const KEPT: usize = 120;

/// Counts per second.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Transitions into each state in this second.
    now: BTreeMap<&'static str, u64>,
    /// Transitions into each state in the last seconds, the newest last.
    rates: BTreeMap<&'static str, VecDeque<u64>>,
    /// How many sockets were in each state.
    counts: BTreeMap<&'static str, VecDeque<u64>>,
    seconds: usize,
}

impl Samples {
    pub(super) fn transition(&mut self, to: State) {
        *self.now.entry(to.name()).or_default() += 1;
    }

    pub(super) fn second(&mut self, tally: &BTreeMap<&'static str, (u64, u64)>) {
        let now = std::mem::take(&mut self.now);
        push(&mut self.rates, now.iter().map(|(name, count)| (*name, *count)), self.seconds);
        push(&mut self.counts, tally.iter().map(|(name, (count, _))| (*name, *count)), self.seconds);
        self.seconds = (self.seconds + 1).min(KEPT);
    }

    /// Transitions into a state in the last second.
    pub(super) fn rate(&self, state: &str) -> u64 {
        self.rates.get(state).and_then(|all| all.back()).copied().unwrap_or(0)
    }

    /// All transitions in the last second.
    pub(super) fn total_rate(&self) -> u64 {
        self.rates.values().filter_map(|all| all.back()).sum()
    }

    /// How many sockets were in a state in the last `width` seconds.
    pub(super) fn counts(&self, state: &str, width: usize) -> Vec<u64> {
        let Some(all) = self.counts.get(state) else { return Vec::new() };
        all.iter().skip(all.len().saturating_sub(width)).copied().collect()
    }
}

/// Appends one second; a state that is missing in `now` has 0.
fn push(
    all: &mut BTreeMap<&'static str, VecDeque<u64>>,
    now: impl Iterator<Item = (&'static str, u64)>,
    seconds: usize,
) {
    for series in all.values_mut() {
        series.push_back(0);
    }
    for (name, count) in now {
        let series = all.entry(name).or_insert_with(|| std::iter::repeat_n(0, seconds + 1).collect());
        if let Some(last) = series.back_mut() {
            *last = count;
        }
    }
    for series in all.values_mut().filter(|series| series.len() > KEPT) {
        series.pop_front();
    }
}
