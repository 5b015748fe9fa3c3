//! What this sockstate leaves to the next, beside the programs that go on: who was who, and how far everything had come.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    files,
    kernel::Pinned,
    sinks::Ledger,
    source::Losses,
    track::{SavedTable, Table},
};

/// Where state is kept that ends with the machine, as the programs do.
const RUN: &str = "/run/sockstate";
/// How often the connections are written down, for the case that this one is killed.
const EVERY: Duration = Duration::from_secs(10);
/// With more than this it would take too long: they are written at the end only.
const MOST: usize = 100_000;

/// Bytes of a state: some hundred for each connection.
const MOST_BYTES: u64 = 1 << 30;

/// The ledger's words before this one are losses.
const WAITING: usize = 4;
const LAST_ID: usize = 5;
const INSTANCE: usize = 6;

/// Everything but the records.
#[derive(Debug, Serialize, Deserialize)]
pub struct Estate {
    /// The programs.
    pub pinned: Pinned,
    /// Upper bits of the connections' ids.
    pub instance: u32,
    /// It was written at the end, and nothing has happened since that is not in the ring.
    pub is_complete: bool,
    /// The connections.
    pub table: SavedTable,
}

/// Writes it down.
pub struct Keeper {
    path: PathBuf,
    pinned: Pinned,
    instance: u32,
    ledger: Arc<Ledger>,
    /// Not before.
    next: Instant,
    /// Something has happened since it was written.
    is_old: bool,
}

/// The estate of programs that are pinned in `directory`, if there is one that the ledger belongs to: without the ledger's numbers,
/// records would get numbers that others have.
#[must_use]
pub fn estate(directory: &Path, ledger: &Ledger) -> Option<Estate> {
    let estate: Estate =
        serde_json::from_slice(&files::read(&file(directory, "state"), MOST_BYTES).ok()?).ok()?;
    let instance = ledger.word(INSTANCE).load(Ordering::Relaxed);
    (instance == u64::from(estate.instance)).then_some(estate)
}

/// Removes the estate of programs that are gone.
///
/// # Errors
/// It cannot be removed.
pub fn forget_estate(directory: &Path) -> io::Result<()> {
    remove(&file(directory, "state"))
}

/// Removes the estate and the ledger.
///
/// # Errors
/// They cannot be removed.
pub fn forget(directory: &Path) -> io::Result<()> {
    forget_estate(directory)?;
    remove(&file(directory, "ledger"))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The ledger that belongs to `directory`.
///
/// # Errors
/// It cannot be made.
pub fn ledger(directory: &Path) -> io::Result<Arc<Ledger>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(RUN)?;
    Ok(Arc::new(Ledger::open(&file(directory, "ledger"))?))
}

/// One file for each directory of pins: directories of one name have files of their own.
fn file(directory: &Path, extension: &str) -> PathBuf {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{:08x}.{extension}", crc32fast::hash(directory.as_os_str().as_bytes())));
    Path::new(RUN).join(name)
}

impl Keeper {
    /// Keeps what belongs to the programs that are pinned in `directory`.
    #[must_use]
    pub fn new(directory: &Path, pinned: Pinned, instance: u32, ledger: Arc<Ledger>) -> Self {
        let path = file(directory, "state");
        let keeper = Self { path, pinned, instance, ledger, next: Instant::now(), is_old: true };
        // The streams' counts already include what waited in the previous process.
        keeper.set_waiting(0);
        keeper.ledger.word(INSTANCE).store(u64::from(instance), Ordering::Relaxed);
        keeper
    }

    /// Losses that were reported.
    #[must_use]
    pub fn told(ledger: &Ledger) -> Losses {
        let word = |at: usize| ledger.word(at).load(Ordering::Relaxed);
        Losses { ring: word(0), evidence: word(1), recursion: word(2), stacks: word(3) }
    }

    /// Notes them.
    pub(super) fn tell(&self, losses: Losses) {
        let all = [losses.ring, losses.evidence, losses.recursion, losses.stacks];
        for (at, count) in all.into_iter().enumerate() {
            self.ledger.word(at).store(count, Ordering::Relaxed);
        }
    }

    /// Transitions that are in no stream yet, and not in the ring any more.
    #[must_use]
    pub fn waiting(ledger: &Ledger) -> u64 {
        ledger.word(WAITING).load(Ordering::Relaxed)
    }

    /// The last id that a connection was given.
    #[must_use]
    pub fn last_id(ledger: &Ledger) -> u64 {
        ledger.word(LAST_ID).load(Ordering::Relaxed)
    }

    /// Notes it, before anybody reads it.
    pub(super) fn set_last_id(&self, id: u64) {
        self.ledger.word(LAST_ID).store(id, Ordering::Relaxed);
    }

    /// Notes how many there are.
    pub(super) fn set_waiting(&self, count: usize) {
        self.ledger.word(WAITING).store(count as u64, Ordering::Relaxed);
    }

    /// Writes the connections down when it is time, and something `happened` since.
    pub(super) fn keep(&mut self, table: &Table, happened: bool) {
        self.is_old |= happened;
        if !self.is_old || Instant::now() < self.next {
            return;
        }
        self.is_old = false;
        let begin = Instant::now();
        self.write(table, false);
        // Never more than a fiftieth of the time.
        self.next = Instant::now() + EVERY.max(begin.elapsed() * 50);
    }

    /// When that is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_old.then_some(self.next)
    }

    pub(super) fn write(&self, table: &Table, is_complete: bool) {
        let (pinned, instance) = (self.pinned.clone(), self.instance);
        // What an earlier write says of the connections is out of date; a comparison with the kernel's tables finds them again.
        let is_too_large = !is_complete && table.len() > MOST;
        let table = if is_too_large { SavedTable::default() } else { table.save() };
        let estate = Estate { pinned, instance, is_complete, table };
        if let Err(error) = self.save(&estate) {
            message!(
                "cannot write {}: {error}; the next one will not know the connections",
                self.path.display()
            );
        }
    }

    fn save(&self, estate: &Estate) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec(estate)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{enrich::Enricher, track::Sight};

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
        let mut table = Table::new(1, 0, Sight::default());
        let mut enricher = Enricher::new(PathBuf::from("/nowhere"), false);
        table.restore(&serde_json::from_value(saved).expect("saved"), 0, &mut enricher);
        assert_eq!(table.len(), count);
        table
    }

    #[test]
    fn of_a_table_that_is_too_large_no_old_state_is_left() {
        let directory = tempfile::tempdir().expect("directory");
        let pinned = json!({"asked": "", "hook": "", "tier": "", "sees_resets": true, "degraded": []});
        let keeper = Keeper {
            path: directory.path().join("state"),
            pinned: serde_json::from_value(pinned).expect("pinned"),
            instance: 1,
            ledger: Arc::new(Ledger::open(&directory.path().join("ledger")).expect("ledger")),
            next: Instant::now(),
            is_old: true,
        };
        let kept = || -> (usize, bool) {
            let bytes = fs::read(directory.path().join("state")).expect("state");
            let estate: Estate = serde_json::from_slice(&bytes).expect("estate");
            (estate.table.len(), estate.is_complete)
        };
        keeper.write(&table(MOST), false);
        assert_eq!(kept(), (MOST, false));
        // Killed now, the next one finds no connections rather than old ones.
        let large = table(MOST + 1);
        keeper.write(&large, false);
        assert_eq!(kept(), (0, false));
        keeper.write(&large, true);
        assert_eq!(kept(), (MOST + 1, true), "an orderly end writes all");
    }
}
