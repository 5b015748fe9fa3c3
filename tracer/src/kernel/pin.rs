//! Programs that outlive sockstate: their links, their ring and their counters are pinned in a BPF file system, and the next
//! sockstate goes on with them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData},
    programs::{ProgramFd, ProgramInfo, links::PinnedLink},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Hook, KernelError, Loaded, Request, Tier,
    failure::chain,
    load::{OBJECT, unattached},
};

const RING: &str = "ring";
const COUNTERS: &str = "counters";
const PROCESSES: &str = "processes";
const PROGRAM: &str = "program";

/// Why nothing was pinned, or adopted.
#[derive(Debug, Error)]
pub enum PinError {
    /// The directory.
    #[error(
        "cannot use {path} to keep the kernel programs: {source}; it must be in a BPF file system: mount -t bpf bpf /sys/fs/bpf"
    )]
    Directory {
        /// Its name.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel.
    #[error("cannot keep the kernel programs: {0}")]
    Refused(String),
}

/// What must be known of pinned programs to go on with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The programs, and what they were asked for: others are not adopted.
    pub asked: String,
    hook: String,
    tier: String,
    sees_resets: bool,
    degraded: Vec<String>,
}

/// What was adopted.
pub struct Adopted {
    /// The ring, with what the kernel has written meanwhile.
    pub ring: MapData,
    /// The counters of losses.
    pub counters: MapData,
    /// The processes whose end is told.
    pub processes: MapData,
    /// The program whose recursion misses count.
    pub program: ProgramFd,
}

/// What makes programs those that `request` asks for.
#[must_use]
pub fn asked(request: &Request) -> String {
    // Addresses and sizes of what it reads are in the object; its own sum tells versions apart.
    format!("{:08x} {:?}", crc32fast::hash(OBJECT), request)
}

impl Loaded {
    /// Pins what runs in `directory`, which is made.
    ///
    /// # Errors
    /// It is in no BPF file system, or a hook of this kernel cannot be pinned (classic tracepoints and kprobes before 5.15).
    /// Nothing is left there then, and not everything runs any more.
    pub fn pin(&mut self, request: &Request, directory: &Path) -> Result<Pinned, PinError> {
        let refused = |error: &dyn std::error::Error| PinError::Refused(error.to_string());
        fs::create_dir_all(directory)
            .map_err(|source| PinError::Directory { path: directory.display().to_string(), source })?;
        let result = self.pin_all(directory);
        if let Err(error) = result {
            let _ = unpin(directory);
            return Err(refused(&*error));
        }
        Ok(Pinned {
            asked: asked(request),
            hook: self.hook.name().into(),
            tier: self.tier.name().into(),
            sees_resets: self.sees_resets,
            degraded: self.degraded.clone(),
        })
    }

    fn pin_all(&mut self, directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
        for (map, name) in [("EVENTS", RING), ("PER_CPU", COUNTERS), ("PROCESSES", PROCESSES)] {
            match self.ebpf.map(map) {
                Some(Map::RingBuf(data) | Map::PerCpuArray(data) | Map::HashMap(data)) => {
                    data.pin(directory.join(name))?
                }
                _ => return Err("the object lacks a map".into()),
            }
        }
        let program = self.ebpf.program_mut(self.hook.program()).ok_or("the object lacks the program")?;
        program.pin(directory.join(PROGRAM))?;
        self.links.pin(directory)
    }
}

/// Takes over what is pinned in `directory`.
///
/// # Errors
/// It is not there, or not whole.
pub fn adopt(request: &Request, pinned: &Pinned, directory: &Path) -> Result<Loaded, KernelError> {
    let unsupported = |error: &dyn std::error::Error| KernelError::Unsupported { reason: error.to_string() };
    let open = || -> Result<Adopted, Box<dyn std::error::Error>> {
        Ok(Adopted {
            ring: MapData::from_pin(directory.join(RING))?,
            counters: MapData::from_pin(directory.join(COUNTERS))?,
            processes: MapData::from_pin(directory.join(PROCESSES))?,
            program: ProgramInfo::from_pin(directory.join(PROGRAM))?.fd()?,
        })
    };
    let adopted = open().map_err(|error| unsupported(&*error))?;
    let hook = [Hook::TpBtf, Hook::Tracepoint].into_iter().find(|it| it.name() == pinned.hook);
    let tier = Tier::ORDER.into_iter().find(|it| it.name() == pinned.tier);
    let (Some(hook), Some(tier)) = (hook, tier) else {
        return Err(KernelError::Unsupported { reason: "pinned by another version".into() });
    };
    let mut loaded = unattached(request, hook, tier)?;
    loaded.sees_resets = pinned.sees_resets;
    loaded.degraded.clone_from(&pinned.degraded);
    for path in links(directory) {
        let link = PinnedLink::from_pin(&path)
            .map_err(|error| KernelError::Unsupported { reason: chain(&error) })?;
        loaded.links.keep(link);
    }
    loaded.adopted = Some(adopted);
    Ok(loaded)
}

/// Removes everything in `directory`: programs that nobody else keeps end. Returns whether there was something.
///
/// # Errors
/// It cannot be removed.
pub fn unpin(directory: &Path) -> io::Result<bool> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(false) };
    // First what makes programs run.
    let (links, others): (Vec<PathBuf>, Vec<PathBuf>) =
        entries.flatten().map(|entry| entry.path()).partition(|path| is_link(path));
    links.iter().chain(&others).try_for_each(fs::remove_file)?;
    fs::remove_dir(directory)?;
    Ok(true)
}

/// Name of the `at`th link.
pub(super) fn link(directory: &Path, at: usize) -> PathBuf {
    directory.join(format!("link-{at}"))
}

fn is_link(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link-"))
}

fn links(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_link(path)).collect()
}
