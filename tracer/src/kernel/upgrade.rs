//! An upgrade: the programs of this version are attached and pinned beside those of another version, which are then detached.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{HashMap, Map, MapData, MapInfo},
    programs::ProgramInfo,
};

use super::{
    error::{KernelError, LoadError, chain, errno},
    load::Request,
    loaded::{Adopted, Hook, Loaded},
    pin::{self, PinDirectory, PinnedPrograms},
    pinned::{PROGRAM, PinError, PinSet, RING},
};

/// How long the kernel may take to end detached programs. An emulated machine needs seconds.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// Programs of another version that are pinned and attached.
pub struct EarlierPrograms {
    pub objects: Adopted,
    pub hook: Hook,
    /// Ids of maps that only these programs use. Once the maps do not exist any more, no program runs.
    pub maps: Vec<u32>,
}

impl EarlierPrograms {
    /// Opens the programs that are pinned in `directory`.
    ///
    /// # Errors
    /// A pin is missing.
    pub fn open(pinned: &PinnedPrograms, directory: &Path) -> Result<Self, KernelError> {
        let open = || -> Result<Self, LoadError> {
            let objects = pin::open(directory, PinSet::Current)?;
            let pinned_maps = [&objects.ring, &objects.counters, &objects.processes];
            let pinned_ids = pinned_maps.map(|map| map.info().map(|info| info.id()));
            let pinned_ids = pinned_ids.into_iter().collect::<Result<Vec<_>, _>>()?;
            let program = ProgramInfo::from_pin(PinSet::Current.path(directory, PROGRAM))?;
            let mut maps = program.map_ids()?.unwrap_or_default();
            maps.retain(|id| !pinned_ids.contains(id));
            let hook = pinned.hook().ok_or("pinned by another version")?;
            Ok(Self { objects, hook, maps })
        };
        open().map_err(|error| KernelError::Adopt { reason: chain(&*error) })
    }
}

impl Loaded {
    /// Reports exec, change of name and exit of the processes for which the earlier programs do so.
    ///
    /// # Errors
    /// A map cannot be read or written. A comparison with the kernel's tables finds the ends of the processes that are missing.
    pub fn watch_as(&mut self, earlier: MapData) -> Result<(), KernelError> {
        let copy = || -> Result<(), LoadError> {
            let earlier: HashMap<_, u32, u8> = Map::HashMap(earlier).try_into()?;
            let map = self.ebpf.map_mut("PROCESSES").ok_or("the object lacks the map of processes")?;
            let mut map: HashMap<_, u32, u8> = map.try_into()?;
            for pid in earlier.keys() {
                map.insert(pid?, 1, 0)?;
            }
            Ok(())
        };
        copy().map_err(|error| KernelError::Adopt { reason: chain(&*error) })
    }
}

/// The ring of the earlier programs, in an upgrade that a previous process has begun.
///
/// # Errors
/// It is not pinned.
pub fn earlier_ring(directory: &Path) -> Result<MapData, KernelError> {
    let ring = MapData::from_pin(PinSet::Current.path(directory, RING));
    ring.map_err(|error| KernelError::Adopt { reason: chain(&error) })
}

/// Takes over the programs that a previous process has attached in an upgrade that it did not finish.
///
/// # Errors
/// A pin is missing.
pub fn adopt_next(
    request: &Request,
    pinned: &PinnedPrograms,
    directory: &Path,
) -> Result<Loaded, KernelError> {
    pin::adopt_set(request, pinned, directory, PinSet::Next)
}

/// Whether an upgrade has not read the earlier ring to its end yet. Otherwise only [`finish`] is left of it.
///
/// # Errors
/// The directory cannot be used.
pub fn is_unfinished(directory: &Path) -> Result<bool, PinError> {
    let Some(pins) = PinDirectory::find(directory)? else { return Ok(false) };
    Ok(pins.pins().iter().any(|(_, set, name)| *set == PinSet::Next && *name == RING))
}

/// Removes the pins of an upgrade that did not pin all of its programs. They are detached.
///
/// # Errors
/// The directory cannot be used.
pub fn discard_next(directory: &Path) -> Result<(), PinError> {
    pin::remove(directory, |set, _| set == PinSet::Next)
}

/// Detaches the earlier programs. Their ring and their counters stay.
///
/// # Errors
/// The directory cannot be used.
pub fn detach_earlier(directory: &Path) -> Result<(), PinError> {
    // The program that sees transitions has the first link, which is the last to be removed: without it, its companion would take
    // every transition for a hidden one.
    let is_program = |name: &str| name == PROGRAM || super::pinned::link_number(name).is_some();
    pin::remove(directory, |set, name| set == PinSet::Current && is_program(name))
}

/// Waits until no earlier program runs any more. The kernel frees the maps of a program when it frees the program, which it does after
/// the last run has ended.
///
/// # Errors
/// Why this cannot be seen.
pub fn await_end(maps: &[u32]) -> Result<(), String> {
    if maps.is_empty() {
        return Err("this kernel does not list the maps of a program".into());
    }
    let deadline = Instant::now() + PATIENCE;
    for map in maps {
        loop {
            match MapInfo::from_id(*map) {
                Err(error) if errno(&error) == Some(libc::ENOENT) => break,
                Err(error) => return Err(chain(&error)),
                Ok(_) if Instant::now() > deadline => {
                    return Err(format!("after {PATIENCE:?} they are still in use"));
                }
                Ok(_) => thread::sleep(POLL),
            }
        }
    }
    Ok(())
}

/// Gives the pins of the new programs the names of the earlier programs' pins, which are removed.
///
/// # Errors
/// The directory cannot be used.
pub fn finish(directory: &Path) -> Result<(), PinError> {
    let Some(pins) = PinDirectory::find(directory)? else { return Ok(()) };
    let mut next: Vec<_> = pins.pins().into_iter().filter(|(_, set, _)| *set == PinSet::Next).collect();
    // The ring is the first: the next process takes its old name for a sign that the earlier ring is still to be read.
    next.sort_by_key(|(_, _, name)| *name != RING);
    let rename = || next.iter().try_for_each(|(file, _, name)| pins.rename(file, name));
    rename().map_err(|source| PinError::Directory { path: directory.to_owned(), source })
}
