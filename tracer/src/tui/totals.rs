//! Counts of sockets by state and by process.

use std::{cmp::Reverse, collections::BTreeMap};

use rustc_hash::FxHashMap;

use crate::{
    model::State,
    story::{ConnHistory, Story},
};

/// One process.
#[derive(Debug)]
pub(super) struct ProcessRow {
    /// Name and pid.
    pub(super) name: String,
    pub(super) stuck: u64,
    pub(super) sockets: u64,
}

/// The counts at one moment.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// How many are in each state, and how many of them are stuck.
    pub(super) states: BTreeMap<&'static str, (u64, u64)>,
    /// Processes, the one with the most stuck sockets first.
    pub(super) processes: Vec<ProcessRow>,
}

impl Totals {
    pub(super) fn of(story: &Story) -> Self {
        let mut by_pid: FxHashMap<u32, (&ConnHistory, u64, u64)> = FxHashMap::default();
        // A TIME_WAIT socket belongs to no process.
        for history in story.histories.values().filter(|history| history.state != State::TimeWait) {
            if let Some(owner) = &history.subject.owner {
                let counts = by_pid.entry(owner.pid()).or_insert((history, 0, 0));
                counts.1 += u64::from(history.is_stuck);
                counts.2 += 1;
            }
        }
        let mut processes: Vec<ProcessRow> = by_pid
            .into_values()
            .filter_map(|(history, stuck, sockets)| {
                let owner = history.subject.owner.as_ref()?;
                Some(ProcessRow { name: format!("{} ({})", owner.comm, owner.pid()), stuck, sockets })
            })
            .collect();
        processes.sort_by(|a, b| {
            let key = |process: &ProcessRow| Reverse((process.stuck, process.sockets));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        Self { states: story.tally(), processes }
    }
}
