//! The saved state: what this process leaves to the next beside the kernel programs and the ledger.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Ledger, files::file};
use crate::{
    files,
    kernel::PinnedPrograms,
    source::Losses,
    track::{SavedTable, Table},
};

/// How often the state is written, in case this process is killed.
const EVERY: Duration = Duration::from_secs(10);
/// A table with more connections than this takes too long, and is written at the end only.
const MOST: usize = 100_000;
/// Bytes of a state: some hundred for each connection.
const MOST_BYTES: u64 = 1 << 30;

/// What the next process needs, except the records. Renaming a field changes the file's format.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedState {
    /// The kernel programs that it belongs to.
    #[serde(rename = "pinned")]
    pub programs: PinnedPrograms,
    /// Upper bits of the connections' ids.
    pub instance: u32,
    /// The state was written at the end of the process, and everything that has happened since is in the ring.
    pub is_complete: bool,
    /// The connections.
    pub table: SavedTable,
}

impl SavedState {
    /// The state of the programs that are pinned in `directory`, if there is one that the ledger belongs to: without the ledger's
    /// numbers, records would get numbers that others have.
    #[must_use]
    pub fn read(directory: &Path, ledger: &Ledger) -> Option<Self> {
        let bytes = files::read(&file(directory, "state"), MOST_BYTES).ok()?;
        let state: Self = serde_json::from_slice(&bytes).ok()?;
        (ledger.instance() == u64::from(state.instance)).then_some(state)
    }
}

/// Writes the state, and notes in the ledger what concerns all sinks.
pub struct StateWriter {
    path: PathBuf,
    programs: PinnedPrograms,
    instance: u32,
    ledger: Arc<Ledger>,
    /// The state is written no sooner.
    next: Instant,
    /// Something has happened since it was written.
    is_old: bool,
}

impl StateWriter {
    /// Writes the state that belongs to `programs`, which are pinned in `directory`.
    #[must_use]
    pub fn new(directory: &Path, programs: PinnedPrograms, instance: u32, ledger: Arc<Ledger>) -> Self {
        // The streams' counts already include what waited in the previous process.
        ledger.set_waiting(0);
        ledger.set_instance(instance);
        let path = file(directory, "state");
        Self { path, programs, instance, ledger, next: Instant::now(), is_old: true }
    }

    /// Losses that are reported.
    pub fn note_losses(&self, losses: Losses) {
        self.ledger.set_losses(losses);
    }

    /// The last id that a connection was given, before anybody reads it.
    pub fn note_last_id(&self, id: u64) {
        self.ledger.set_last_id(id);
    }

    /// How many transitions are in no stream yet, and no longer in the ring.
    pub fn note_waiting(&self, count: usize) {
        self.ledger.set_waiting(count);
    }

    /// Writes the state if it is time, and something `happened` since it was written.
    pub fn write_if_due(&mut self, table: &Table, happened: bool) {
        self.is_old |= happened;
        if !self.is_old || Instant::now() < self.next {
            return;
        }
        self.is_old = false;
        let begin = Instant::now();
        self.write(table, false);
        // At most a fiftieth of the time is spent on it.
        self.next = Instant::now() + EVERY.max(begin.elapsed() * 50);
    }

    /// When the state is to be written next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.is_old.then_some(self.next)
    }

    /// Writes the state; `is_complete` at the end of the process.
    pub fn write(&self, table: &Table, is_complete: bool) {
        // No connections are better than outdated ones: a comparison with the kernel's tables finds them again.
        let is_too_large = !is_complete && table.len() > MOST;
        let table = if is_too_large { SavedTable::default() } else { table.save() };
        let (programs, instance) = (self.programs.clone(), self.instance);
        let state = SavedState { programs, instance, is_complete, table };
        if let Err(error) = self.replace(&state) {
            message!(
                "cannot write {}: {error}; the next one will not know the connections",
                self.path.display()
            );
        }
    }

    fn replace(&self, state: &SavedState) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec(state)?)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::json;

    use super::*;
    use crate::{
        model::{Identify, Subject, SubjectKey, Task},
        track::Visibility,
    };

    /// Subjects without a name.
    struct Nameless;

    impl Identify for Nameless {
        fn identify(&mut self, key: SubjectKey) -> Rc<Subject> {
            let (cgroup, container, pod_uid, unit) = (None, None, None, None);
            Rc::new(Subject { id: 0, owner: None, netns: key.netns, cgroup, container, pod_uid, unit })
        }

        fn forget_process(&mut self, _: &Task) {}
    }

    /// A table with `count` connections, taken over from an earlier process.
    fn table(count: usize) -> Table {
        let address = [0_u8; 16];
        let conns: Vec<_> = (1..=count)
            .map(|at| {
                json!({
                    "sk": at, "id": at, "since_ns": 1, "since": 0, "whose": 0, "local": (address, 1), "remote": (address, 2),
                    "v6": false, "state": 1, "role": null, "mini": false, "stuck": 0
                })
            })
            .collect();
        let whose = json!([{"owner": null, "uid": null, "netns": null, "cgroup": null}]);
        let saved = json!({"next": count, "subjects": whose, "conns": conns});
        let mut table = Table::new(1, 0, Visibility::default());
        table.restore(&serde_json::from_value(saved).expect("saved"), 0, &mut Nameless);
        assert_eq!(table.len(), count);
        table
    }

    #[test]
    fn of_a_table_that_is_too_large_no_old_state_is_left() {
        let directory = tempfile::tempdir().expect("directory");
        let pinned = json!({"asked": "", "hook": "", "tier": "", "sees_resets": true, "degraded": []});
        let writer = StateWriter {
            path: directory.path().join("state"),
            programs: serde_json::from_value(pinned).expect("pinned"),
            instance: 1,
            ledger: Arc::new(Ledger::open(&directory.path().join("ledger")).expect("ledger")),
            next: Instant::now(),
            is_old: true,
        };
        let written = || -> (usize, bool) {
            let bytes = std::fs::read(directory.path().join("state")).expect("state");
            let state: SavedState = serde_json::from_slice(&bytes).expect("state");
            (state.table.len(), state.is_complete)
        };
        writer.write(&table(MOST), false);
        assert_eq!(written(), (MOST, false));
        // Killed now, the next one finds no connections rather than old ones.
        let large = table(MOST + 1);
        writer.write(&large, false);
        assert_eq!(written(), (0, false));
        writer.write(&large, true);
        assert_eq!(written(), (MOST + 1, true), "an orderly end writes all");
    }
}
