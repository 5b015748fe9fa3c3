//! Copied stacks -> call paths with names: by the unwind tables of the executables (`.eh_frame`, `.debug_frame`), by frame
//! pointers where there are none; names by symbol tables, DWARF and perf maps. Reads below a root that tests may replace.

mod files;
mod interpreter;
mod mapped;
mod modules;
mod perf_map;
mod process;
mod symbols;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use sha1::{Digest, Sha1};

use crate::model::{Frame, Opening, Stack};
pub use mapped::cannot_open_mappings;
use modules::Modules;
use process::Process;
use symbols::Symbols;

/// Most processes whose mappings are remembered.
const PROCESSES: usize = 256;
/// Most call paths that are remembered.
const STACKS: usize = 16_384;

/// A process, not only its number: that is passed on.
type ProcessId = (u32, u64, u32);

/// Turns openings into call paths.
pub struct Unwinder {
    root: PathBuf,
    modules: Modules,
    symbols: Symbols,
    processes: HashMap<ProcessId, Process>,
    stacks: HashMap<u64, Arc<Stack>>,
}

impl Unwinder {
    /// One that reads `root`/proc.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            modules: Modules::default(),
            symbols: Symbols::default(),
            processes: HashMap::new(),
            stacks: HashMap::new(),
        }
    }

    /// The call path of an opening; none where the process had gone, or had executed another program, before it could be looked
    /// at.
    pub fn unwind(&mut self, opening: &Opening) -> Option<Arc<Stack>> {
        let id = (opening.task.pid, opening.task.start_ns, opening.task.exec_id);
        if !self.processes.contains_key(&id) && self.processes.len() >= PROCESSES {
            self.processes.clear();
        }
        let process = match self.processes.entry(id) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(Process::read(&self.root, &opening.task, &mut self.modules)?)
            }
        };
        let is_of_then =
            process.has_stack(opening) || (process.refresh(&mut self.modules) && process.has_stack(opening));
        if !is_of_then {
            self.processes.remove(&id);
            return None;
        }
        let (mut addresses, mut complete) = process.unwind(opening);
        if !addresses.iter().all(|address| process.knows(*address)) && process.refresh(&mut self.modules) {
            (addresses, complete) = process.unwind(opening);
        }
        let mut frames = Vec::new();
        for address in addresses {
            frames.extend_from_slice(process.frames(address, &mut self.symbols));
        }
        interpreter::mark(&mut frames);
        let id = identity(opening, &frames);
        if self.stacks.len() >= STACKS {
            self.stacks.clear();
        }
        let made = || {
            let comm = String::from_utf8_lossy(opening.task.comm()).into_owned();
            Arc::new(Stack { id, by: opening.by, comm, frames, complete })
        };
        Some(Arc::clone(self.stacks.entry(id).or_insert_with(made)))
    }
}

/// By names and places, not by addresses: those differ from process to process.
fn identity(opening: &Opening, frames: &[Frame]) -> u64 {
    let mut hash = Sha1::new();
    hash.update(opening.by.name());
    for frame in frames {
        for text in [&frame.module, &frame.function, &frame.file] {
            hash.update(text.as_deref().unwrap_or_default());
            hash.update([0]);
        }
        let place = match (frame.line, &frame.function) {
            (Some(line), _) => line.into(),
            // Code made at run time lies elsewhere each time.
            (None, Some(_)) if frame.module.is_none() => 0,
            (None, _) => frame.offset,
        };
        hash.update(place.to_le_bytes());
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}
