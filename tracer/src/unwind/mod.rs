//! Turns copied stacks into call paths. Unwinds by the tables of the executables (`.eh_frame`, `.debug_frame`), or by frame pointers
//! where there are none. Names come from symbol tables, DWARF and perf maps. Reads below a root that tests can replace.

mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod interpreter;
mod mapped;
mod modules;
mod perf_map;
mod process;
mod python;
mod python_search;
mod symbols;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use sha1::{Digest, Sha1};

use crate::model::{Frame, MissingStack, Opening, PythonLayout, Stack};
pub use guard::abort_on_panic;
pub use mapped::cannot_open_mappings;
use modules::Modules;
use process::UnwoundProcess;
use python_search::PythonSearch;
use symbols::Symbols;

/// Limit of cached processes.
const PROCESSES: usize = 256;
/// Limit of cached call paths.
const STACKS: usize = 16_384;

/// Limit of bytes of cached unwind tables and perf maps.
const MOST_BYTES: usize = 512 << 20;

/// The identity of a process; its pid alone may be reused.
type ProcessId = (u32, u64, u32);

/// Unwinds the stacks of openings.
pub struct Unwinder {
    root: PathBuf,
    modules: Modules,
    symbols: Symbols,
    processes: HashMap<ProcessId, UnwoundProcess>,
    stacks: HashMap<u64, Arc<Stack>>,
    pythons: PythonSearch,
    report_python: ReportPython,
}

/// Called with the pid of each process that runs CPython, and the layout of its frames.
pub type ReportPython = Box<dyn FnMut(u32, &PythonLayout) + Send>;

impl Unwinder {
    /// An unwinder that reads `root`/proc.
    #[must_use]
    pub fn new(root: PathBuf, report_python: ReportPython) -> Self {
        Self {
            pythons: PythonSearch::default(),
            report_python,
            root,
            modules: Modules::default(),
            symbols: Symbols::default(),
            processes: HashMap::new(),
            stacks: HashMap::new(),
        }
    }

    fn bytes(&self) -> usize {
        self.modules.bytes() + self.processes.values().map(UnwoundProcess::bytes).sum::<usize>()
    }

    /// Searches for new processes that run CPython, among `pids` if there are any.
    pub fn find_pythons(&mut self, pids: &[u32]) {
        self.pythons.look(&self.root, pids, &mut self.modules, &mut self.report_python);
    }

    /// The call path of an opening.
    ///
    /// # Errors
    /// The process had ended or executed another program, or the thread had ended, before its mappings were read.
    pub fn unwind(&mut self, opening: &Opening) -> Result<Arc<Stack>, MissingStack> {
        let id = (opening.task.pid, opening.task.start_ns, opening.task.exec_id);
        let is_known = self.processes.contains_key(&id);
        if !is_known && (self.processes.len() >= PROCESSES || self.bytes() > MOST_BYTES) {
            self.processes.clear();
            if self.bytes() > MOST_BYTES {
                self.modules.clear();
            }
        }
        let process = match self.processes.entry(id) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let process = UnwoundProcess::read(&self.root, &opening.task, &mut self.modules);
                new.insert(process.ok_or(MissingStack::ProcessGone)?)
            }
        };
        if process.mismatch(opening).is_some() {
            let is_there = process.refresh(&mut self.modules);
            let why = if is_there { process.mismatch(opening) } else { Some(MissingStack::ProcessGone) };
            if let Some(why) = why {
                self.processes.remove(&id);
                return Err(why);
            }
        }
        let (mut path, mut complete) = process.unwind(opening);
        if !path.iter().all(|place| process.knows(place.address)) && process.renew(&mut self.modules) {
            (path, complete) = process.unwind(opening);
        }
        if let Some(layout) = process.python_layout() {
            (self.report_python)(opening.task.pid, layout);
        }
        let runs = process.python(opening, &path);
        complete &= runs.is_none() || opening.python.complete;
        let frames =
            path.iter().map(|place| process.frames(place.address, &mut self.symbols).to_vec()).collect();
        let mut frames = python::merge(&path, frames, runs);
        interpreter::mark(&mut frames);
        let id = identity(opening, &frames);
        if self.stacks.len() >= STACKS {
            self.stacks.clear();
        }
        let made = || {
            let comm = String::from_utf8_lossy(opening.task.comm()).into_owned();
            Arc::new(Stack { id, by: opening.by, comm, frames, complete })
        };
        Ok(Arc::clone(self.stacks.entry(id).or_insert_with(made)))
    }
}

/// A hash of names and offsets. Addresses are not part of it, because they differ from process to process.
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
            // The offset of generated code differs each time.
            (None, Some(_)) if frame.module.is_none() => 0,
            (None, _) => frame.offset,
        };
        hash.update(place.to_le_bytes());
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}
