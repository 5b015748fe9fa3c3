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
    kernel::{PinnedPrograms, upgrade},
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
    /// Losses of earlier programs that upgrades have replaced.
    #[serde(default)]
    pub carried: Losses,
    /// The upgrade that is not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
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

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        self.replace(&file(directory, "state"))
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        files::replace(path, &serde_json::to_vec(self)?)
    }
}

/// What the next process needs to know of an upgrade that is not finished. The names of the fields are a file format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upgrade {
    /// The new programs.
    pub programs: PinnedPrograms,
    /// Ids of maps that only the earlier programs use.
    pub(super) maps: Vec<u32>,
    /// The position in the earlier ring from which on the new programs may have seen the same events.
    pub(super) boundary: u64,
    /// Whether the records of the earlier ring can be read.
    pub(super) is_readable: bool,
}

/// What the next process needs, beside the connections.
pub struct Kept {
    /// The programs; during an upgrade those that it replaces.
    pub programs: PinnedPrograms,
    /// The upgrade that is not finished.
    pub upgrade: Option<Upgrade>,
    /// Losses of earlier programs that upgrades have replaced.
    pub carried: Losses,
    /// The ledger.
    pub ledger: Arc<Ledger>,
}

impl Kept {
    pub(super) fn new(programs: PinnedPrograms, ledger: Arc<Ledger>) -> Self {
        Self { programs, upgrade: None, carried: Losses::default(), ledger }
    }
}

/// Writes the state, and notes in the ledger what concerns all sinks.
pub struct StateWriter {
    /// The directory of the pins.
    directory: PathBuf,
    path: PathBuf,
    kept: Kept,
    instance: u32,
    /// The pins could not be renamed.
    cannot_finish: bool,
    /// The state is written no sooner.
    next: Instant,
    /// Something has happened since it was written.
    is_old: bool,
}

impl StateWriter {
    /// Writes the state that belongs to the programs that are pinned in `directory`.
    #[must_use]
    pub fn new(directory: &Path, kept: Kept, instance: u32) -> Self {
        // The streams' counts already include what waited in the previous process.
        kept.ledger.set_waiting(0);
        kept.ledger.set_instance(instance);
        let path = file(directory, "state");
        let directory = directory.to_owned();
        Self { directory, path, kept, instance, cannot_finish: false, next: Instant::now(), is_old: true }
    }

    /// Ends an upgrade: all records of the replaced programs are in the streams, and only the new programs stay.
    pub fn finish_upgrade(&mut self, table: &Table) {
        let Some(upgrade) = self.kept.upgrade.take_if(|_| !self.cannot_finish) else { return };
        if let Err(error) = upgrade::finish(&self.directory) {
            message!("{error}; the next start finishes the upgrade");
            self.kept.upgrade = Some(upgrade);
            self.cannot_finish = true;
            return;
        }
        self.kept.programs = upgrade.programs;
        self.write(table, false);
    }

    /// Losses that are reported.
    pub fn note_losses(&self, losses: Losses) {
        self.kept.ledger.set_losses(losses);
    }

    /// The last id that a connection was given, before anybody reads it.
    pub fn note_last_id(&self, id: u64) {
        self.kept.ledger.set_last_id(id);
    }

    /// How many transitions are in no stream yet, and no longer in the ring.
    pub fn note_waiting(&self, count: usize) {
        self.kept.ledger.set_waiting(count);
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
        let Kept { programs, upgrade, carried, .. } = &self.kept;
        let state = SavedState {
            programs: programs.clone(),
            instance: self.instance,
            is_complete,
            table,
            carried: *carried,
            upgrade: upgrade.clone(),
        };
        if let Err(error) = state.replace(&self.path) {
            message!(
                "cannot write {}: {error}; the next one will not know the connections",
                self.path.display()
            );
        }
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
            let (cgroup, container, pod, unit) = (None, None, None, None);
            Rc::new(Subject { id: 0, owner: None, netns: key.netns, cgroup, container, pod, unit })
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
        table.restore(&serde_json::from_value(saved).expect("saved"), 0, true, &mut Nameless);
        assert_eq!(table.len(), count);
        table
    }

    #[test]
    fn of_a_table_that_is_too_large_no_old_state_is_left() {
        let directory = tempfile::tempdir().expect("directory");
        let pinned = json!({"asked": "", "hook": "", "tier": "", "sees_resets": true, "degraded": []});
        let ledger = Arc::new(
            Ledger::open(&directory.path().join("ledger"), &directory.path().join("settled"))
                .expect("ledger"),
        );
        let writer = StateWriter {
            directory: directory.path().to_owned(),
            path: directory.path().join("state"),
            kept: Kept::new(serde_json::from_value(pinned).expect("pinned"), ledger),
            instance: 1,
            cannot_finish: false,
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
