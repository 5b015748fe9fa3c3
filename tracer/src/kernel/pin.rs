//! Programs that outlive the process: their links, their ring and their counters are pinned in a BPF file system, and the next
//! process takes them over.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData},
    programs::{ProgramInfo, links::PinnedLink},
};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstatfs, openat, statfs, unlinkat};
use serde::{Deserialize, Serialize};

use super::{
    error::{KernelError, chain},
    load::{Request, unattached},
    loaded::{Adopted, Hook, Loaded},
    mini_sockets::Tier,
    object::OBJECT,
    pinned::{self, COUNTERS, PROCESSES, PROGRAM, PinError, RING, is_link},
};

/// BPF_FS_MAGIC (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// The data about pinned programs that a later process needs to take them over. The names of the fields are a file format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPrograms {
    /// The checksum of the BPF object, and the request. Pinned programs with another one are not adopted.
    #[serde(rename = "asked")]
    pub fingerprint: String,
    hook: String,
    tier: String,
    sees_resets: bool,
    degraded: Vec<String>,
}

/// Identifies the programs that `request` asks for.
#[must_use]
pub fn fingerprint(request: &Request) -> String {
    // The sum of the object distinguishes versions: the offsets that the programs read are in the object.
    format!("{:08x} {:?}", crc32fast::hash(OBJECT), request)
}

impl Loaded {
    /// Pins the programs in `directory`, which is made.
    ///
    /// # Errors
    /// The directory is in no BPF file system, or a hook of this kernel cannot be pinned (classic tracepoints and kprobes before
    /// 5.15). The pins are then removed again, as far as possible, and the programs whose links were being pinned are detached.
    pub fn pin(&mut self, request: &Request, directory: &Path) -> Result<PinnedPrograms, PinError> {
        let refused = |error: &dyn std::error::Error| PinError::Refused(error.to_string());
        verify_pins(directory)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| PinError::Directory { path: directory.to_owned(), source })?;
        let result = self.pin_all(directory);
        if let Err(error) = result {
            // The next start replaces pins that could not be removed.
            let _ = unpin(directory);
            return Err(refused(&*error));
        }
        Ok(PinnedPrograms {
            fingerprint: fingerprint(request),
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
        self.links.pin(|at| pinned::link(directory, at))
    }
}

/// Takes over the programs that are pinned in `directory`.
///
/// # Errors
/// A pin is missing.
pub fn adopt(request: &Request, pinned: &PinnedPrograms, directory: &Path) -> Result<Loaded, KernelError> {
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
    let hook = [Hook::TpBtf, Hook::Tracepoint].into_iter().find(|hook| hook.name() == pinned.hook);
    let tier = Tier::ORDER.into_iter().find(|tier| tier.name() == pinned.tier);
    let (Some(hook), Some(tier)) = (hook, tier) else {
        return Err(KernelError::Unsupported { reason: "pinned by another version".into() });
    };
    let mut loaded = unattached(request, hook, tier)?;
    loaded.sees_resets = pinned.sees_resets;
    loaded.degraded.clone_from(&pinned.degraded);
    for path in links(directory).map_err(|error| unsupported(&error))? {
        let link = PinnedLink::from_pin(&path)
            .map_err(|error| KernelError::Unsupported { reason: chain(&error) })?;
        loaded.links.keep(link);
    }
    loaded.adopted = Some(adopted);
    Ok(loaded)
}

/// Verifies that `directory` may be used for pins: it is in a BPF file system, or can be made in one, and holds nothing but
/// sockstate's pins. Changes nothing.
///
/// # Errors
/// The directory may not be used.
pub fn verify_pins(directory: &Path) -> Result<(), PinError> {
    if PinDirectory::find(directory)?.is_some() {
        return Ok(());
    }
    let failed = |source| PinError::Directory { path: directory.to_owned(), source };
    let Some(existing) = directory.ancestors().skip(1).find(|ancestor| ancestor.exists()) else {
        return Err(failed(io::ErrorKind::NotFound.into()));
    };
    let file_system = statfs(existing).map_err(|error| failed(error.into()))?;
    if file_system.f_type as u32 != BPF_FS_MAGIC {
        return Err(PinError::Elsewhere { path: directory.to_owned() });
    }
    Ok(())
}

/// Removes sockstate's pins in `directory`, and then the directory. Programs that no process uses end. Returns whether there were
/// pins.
///
/// # Errors
/// The directory is in no BPF file system, or holds something else: then nothing is removed. Or the system refuses.
pub fn unpin(directory: &Path) -> Result<bool, PinError> {
    let Some(pins) = PinDirectory::find(directory)? else { return Ok(false) };
    let failed = |source: io::Error| PinError::Directory { path: directory.to_owned(), source };
    // Links first: they make the programs run.
    let (links, others): (Vec<&OsString>, Vec<&OsString>) = pins.names.iter().partition(|name| is_link(name));
    for name in links.into_iter().chain(others) {
        unlinkat(&pins.directory, name.as_os_str(), AtFlags::empty())
            .map_err(|error| failed(error.into()))?;
    }
    if pins.names.is_empty() {
        return Ok(false);
    }
    fs::remove_dir(directory).map_err(failed)?;
    Ok(true)
}

/// A directory of a BPF file system that holds nothing but pins of sockstate's.
struct PinDirectory {
    directory: OwnedFd,
    names: Vec<OsString>,
}

impl PinDirectory {
    /// Opens `directory`; `None` where it does not exist.
    fn find(path: &Path) -> Result<Option<Self>, PinError> {
        let failed =
            |error: rustix::io::Errno| PinError::Directory { path: path.to_owned(), source: error.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(CWD, path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if fstatfs(&directory).map_err(failed)?.f_type as u32 != BPF_FS_MAGIC {
            return Err(PinError::Elsewhere { path: path.to_owned() });
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let is_pin = entry.file_type() == FileType::RegularFile;
            if !is_pin
                || !(is_link(name) || [RING, COUNTERS, PROCESSES, PROGRAM].iter().any(|own| name == *own))
            {
                return Err(PinError::Foreign { path: path.to_owned(), name: name.to_owned() });
            }
            names.push(name.to_owned());
        }
        pinned::verify(path, &names)?;
        Ok(Some(Self { directory, names }))
    }
}

fn links(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let names = PinDirectory::find(directory)?.map(|pins| pins.names).unwrap_or_default();
    Ok(names.iter().filter(|name| is_link(name)).map(|name| directory.join(name)).collect())
}
