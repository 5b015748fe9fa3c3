//! Finds processes that run CPython: the kernel programs must know them before they open a connection.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::Path,
};

use super::{
    mapped::Mappings,
    modules::{self, Modules},
    python::{self, Python},
};
use crate::model::PythonLayout;

/// How often a process is checked: it may execute CPython shortly after its start.
const LOOKS: u8 = 2;

/// Processes that were checked, and how often.
#[derive(Default)]
pub(super) struct PythonSearch(HashMap<u32, u8>);

impl PythonSearch {
    /// Checks new processes below `root`/proc, or `pids` only, and reports each one that runs CPython.
    pub(super) fn look(
        &mut self,
        root: &Path,
        pids: &[u32],
        modules: &mut Modules,
        mut report_python: impl FnMut(u32, &PythonLayout),
    ) {
        let proc = root.join("proc");
        let entries = fs::read_dir(&proc).into_iter().flatten().flatten();
        let present = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let present: HashSet<u32> = present.filter(|pid| pids.is_empty() || pids.contains(pid)).collect();
        self.0.retain(|pid, _| present.contains(pid));
        // Files without CPython, by device and inode.
        let mut others = HashSet::new();
        for pid in present {
            let looks = self.0.entry(pid).or_default();
            if *looks < LOOKS {
                *looks += 1;
                let found = find(&proc.join(pid.to_string()), modules, &mut others);
                found.iter().for_each(|python| report_python(pid, python.layout()));
            }
        }
    }
}

fn find(directory: &Path, modules: &mut Modules, others: &mut HashSet<(u64, u64)>) -> Option<Python> {
    let mappings = Mappings::read(directory)?;
    let mut runtimes = BTreeSet::new();
    for mapping in mappings.executable().filter(|mapping| mapping.file().is_some()) {
        let file = mapping.device_and_inode();
        if others.contains(&file) {
            continue;
        }
        match mappings.open(mapping) {
            Ok(opened) if modules::has_python(&opened) => {
                let tables = modules.tables(opened);
                runtimes.extend(tables.and_then(|tables| tables.python(mapping.range.start, mapping.offset)));
            }
            _ => {
                others.insert(file);
            }
        }
    }
    Python::read(&mappings, python::only(&runtimes)?)
}
