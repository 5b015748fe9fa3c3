//! How many sockets there are: by state, and by process.

use std::{cmp::Reverse, collections::BTreeMap};

use rustc_hash::FxHashMap;

use crate::{
    model::State,
    story::{Life, Story},
};

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    /// Name and pid.
    pub(super) name: String,
    pub(super) stuck: u64,
    pub(super) sockets: u64,
}

/// All of it, at one moment.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// How many are in each state, and how many of them are stuck.
    pub(super) states: BTreeMap<&'static str, (u64, u64)>,
    /// Those with the most stuck ones first.
    pub(super) processes: Vec<Process>,
}

impl Totals {
    pub(super) fn of(story: &Story) -> Self {
        let mut by_pid: FxHashMap<u32, (&Life, u64, u64)> = FxHashMap::default();
        // A process that left TIME_WAIT behind has no descriptor for it.
        for life in story.lives.values().filter(|life| life.state != State::TimeWait) {
            if let Some(owner) = &life.subject.owner {
                let counts = by_pid.entry(owner.pid()).or_insert((life, 0, 0));
                counts.1 += u64::from(life.is_stuck);
                counts.2 += 1;
            }
        }
        let mut processes: Vec<Process> = by_pid
            .into_values()
            .filter_map(|(life, stuck, sockets)| {
                let owner = life.subject.owner.as_ref()?;
                Some(Process { name: format!("{} ({})", owner.comm, owner.pid()), stuck, sockets })
            })
            .collect();
        processes.sort_by(|a, b| {
            let key = |process: &Process| Reverse((process.stuck, process.sockets));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        Self { states: story.tally(), processes }
    }
}
