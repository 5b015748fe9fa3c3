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
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstatfs, openat, renameat, statfs, unlinkat};
use serde::{Deserialize, Serialize};
use sockstate_abi::abi::LAYOUT;

use super::{
    error::{KernelError, LoadError, chain},
    load::{Request, unattached},
    loaded::{Adopted, Hook, Loaded},
    mini_sockets::Tier,
    object::OBJECT,
    pinned::{self, COUNTERS, PROCESSES, PROGRAM, PinError, PinSet, RING, is_link},
};

/// BPF_FS_MAGIC (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// What must be known of pinned programs to take them over. The names of the fields are a file format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPrograms {
    /// The checksum of the BPF object, and the request ([`fingerprint`]).
    #[serde(rename = "asked")]
    fingerprint: String,
    /// The layout of the records ([`LAYOUT`]); the first versions did not write it.
    #[serde(default)]
    layout: Option<u32>,
    hook: String,
    tier: String,
    sees_resets: bool,
    degraded: Vec<String>,
}

impl PinnedPrograms {
    fn of(loaded: &Loaded, request: &Request) -> Self {
        Self {
            fingerprint: fingerprint(request),
            layout: Some(LAYOUT),
            hook: loaded.hook.name().into(),
            tier: loaded.tier.name().into(),
            sees_resets: loaded.sees_resets,
            degraded: loaded.degraded.clone(),
        }
    }

    /// Whether these are the programs of this version that `request` asks for.
    #[must_use]
    pub fn are_asked(&self, request: &Request) -> bool {
        self.fingerprint == fingerprint(request)
    }

    /// Whether some version's programs for `request` are pinned.
    #[must_use]
    pub fn have_request(&self, request: &Request) -> bool {
        self.fingerprint.split_once(' ').is_some_and(|(_, of)| of == text(request))
    }

    /// Whether this version can read the ring and the counters of these programs.
    #[must_use]
    pub fn have_this_layout(&self) -> bool {
        self.layout == Some(LAYOUT)
    }

    /// Whether `others` observe the same as these programs: the absence of a record then means the same.
    #[must_use]
    pub fn observe_as(&self, others: &Self) -> bool {
        let of = |programs: &Self| (programs.hook.clone(), programs.tier.clone(), programs.sees_resets);
        of(self) == of(others)
    }

    pub(super) fn hook(&self) -> Option<Hook> {
        [Hook::TpBtf, Hook::Tracepoint].into_iter().find(|hook| hook.name() == self.hook)
    }
}

/// Identifies the programs that `request` asks for.
fn fingerprint(request: &Request) -> String {
    // The sum of the object distinguishes versions: the offsets that the programs read are in the object.
    format!("{:08x} {}", crc32fast::hash(OBJECT), text(request))
}

/// The request as the saved state has it. A change of this text, as by another field, makes an upgrade a replacement.
fn text(request: &Request) -> String {
    format!("{request:?}")
}

impl Loaded {
    /// Pins the programs in `directory`, which is made.
    ///
    /// # Errors
    /// The directory is in no BPF file system, or a hook of this kernel cannot be pinned (classic tracepoints and kprobes before
    /// 5.15). The pins are then removed again, as far as possible, and the programs whose links were being pinned are detached.
    pub fn pin(&mut self, request: &Request, directory: &Path) -> Result<PinnedPrograms, PinError> {
        verify_pins(directory)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| PinError::Directory { path: directory.to_owned(), source })?;
        self.pin_set(request, directory, PinSet::Current)
    }

    /// Pins the programs in `directory` beside those that are pinned there.
    ///
    /// # Errors
    /// As [`Loaded::pin`]. The other programs stay.
    pub fn pin_next(&mut self, request: &Request, directory: &Path) -> Result<PinnedPrograms, PinError> {
        self.pin_set(request, directory, PinSet::Next)
    }

    fn pin_set(
        &mut self,
        request: &Request,
        directory: &Path,
        set: PinSet,
    ) -> Result<PinnedPrograms, PinError> {
        if let Err(error) = self.pin_all(directory, set) {
            // What could not be removed is removed at the next start.
            let _ = match set {
                PinSet::Current => unpin(directory).map(drop),
                PinSet::Next => remove(directory, |set, _| set == PinSet::Next),
            };
            return Err(PinError::Refused(error.to_string()));
        }
        Ok(PinnedPrograms::of(self, request))
    }

    fn pin_all(&mut self, directory: &Path, set: PinSet) -> Result<(), LoadError> {
        for (map, name) in [("EVENTS", RING), ("PER_CPU", COUNTERS), ("PROCESSES", PROCESSES)] {
            match self.ebpf.map(map) {
                Some(Map::RingBuf(data) | Map::PerCpuArray(data) | Map::HashMap(data)) => {
                    data.pin(set.path(directory, name))?
                }
                _ => return Err("the object lacks a map".into()),
            }
        }
        let program = self.ebpf.program_mut(self.hook.program()).ok_or("the object lacks the program")?;
        program.pin(set.path(directory, PROGRAM))?;
        self.links.pin(|at| set.link(directory, at))
    }
}

/// Takes over the programs that are pinned in `directory`.
///
/// # Errors
/// A pin is missing.
pub fn adopt(request: &Request, pinned: &PinnedPrograms, directory: &Path) -> Result<Loaded, KernelError> {
    adopt_set(request, pinned, directory, PinSet::Current)
}

pub(super) fn adopt_set(
    request: &Request,
    pinned: &PinnedPrograms,
    directory: &Path,
    set: PinSet,
) -> Result<Loaded, KernelError> {
    let adopt = || -> Result<Loaded, LoadError> {
        let adopted = open(directory, set)?;
        let tier = Tier::ORDER.into_iter().find(|tier| tier.name() == pinned.tier);
        let (hook, tier) = pinned.hook().zip(tier).ok_or("pinned by another version")?;
        let mut loaded = unattached(request, hook, tier)?;
        loaded.sees_resets = pinned.sees_resets;
        loaded.degraded.clone_from(&pinned.degraded);
        for path in links(directory, set)? {
            loaded.links.keep(PinnedLink::from_pin(&path)?);
        }
        loaded.adopted = Some(adopted);
        Ok(loaded)
    };
    adopt().map_err(|error| KernelError::Adopt { reason: chain(&*error) })
}

/// Opens the maps and the program of a set.
pub(super) fn open(directory: &Path, set: PinSet) -> Result<Adopted, LoadError> {
    Ok(Adopted {
        ring: MapData::from_pin(set.path(directory, RING))?,
        counters: MapData::from_pin(set.path(directory, COUNTERS))?,
        processes: MapData::from_pin(set.path(directory, PROCESSES))?,
        program: ProgramInfo::from_pin(set.path(directory, PROGRAM))?.fd()?,
    })
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
    pins.remove(|_, _| true).map_err(failed)?;
    if pins.names.is_empty() {
        return Ok(false);
    }
    fs::remove_dir(directory).map_err(failed)?;
    Ok(true)
}

/// Removes the pins in `directory` that are `unwanted`.
pub(super) fn remove(directory: &Path, unwanted: impl Fn(PinSet, &str) -> bool) -> Result<(), PinError> {
    let Some(pins) = PinDirectory::find(directory)? else { return Ok(()) };
    pins.remove(unwanted).map_err(|source| PinError::Directory { path: directory.to_owned(), source })
}

/// A directory of a BPF file system that holds nothing but pins of sockstate's.
pub(super) struct PinDirectory {
    directory: OwnedFd,
    names: Vec<OsString>,
}

impl PinDirectory {
    /// Opens `directory`; `None` where it does not exist.
    pub(super) fn find(path: &Path) -> Result<Option<Self>, PinError> {
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
            if entry.file_type() != FileType::RegularFile || pinned::parse(name).is_none() {
                return Err(PinError::Foreign { path: path.to_owned(), name: name.to_owned() });
            }
            names.push(name.to_owned());
        }
        pinned::verify(path, &names)?;
        Ok(Some(Self { directory, names }))
    }

    /// The pins: for each its file, its set, and its name within the set. Links come first, because they make the programs run; the
    /// link that was pinned first is the last of them.
    pub(super) fn pins(&self) -> Vec<(&OsStr, PinSet, &str)> {
        let files = self.names.iter().map(OsString::as_os_str);
        let parsed = files.map(|file| (file, pinned::parse(file)));
        let mut pins: Vec<_> =
            parsed.filter_map(|(file, parsed)| parsed.map(|(set, name)| (file, set, name))).collect();
        pins.sort_by_key(|(_, _, name)| std::cmp::Reverse(pinned::link_number(name)));
        pins
    }

    fn remove(&self, unwanted: impl Fn(PinSet, &str) -> bool) -> io::Result<()> {
        for (file, ..) in self.pins().into_iter().filter(|(_, set, name)| unwanted(*set, name)) {
            unlinkat(&self.directory, file, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Renames a pin; another one of the new name is removed.
    pub(super) fn rename(&self, from: &OsStr, to: &str) -> io::Result<()> {
        Ok(renameat(&self.directory, from, &self.directory, to)?)
    }
}

fn links(directory: &Path, set: PinSet) -> Result<Vec<PathBuf>, PinError> {
    let Some(pins) = PinDirectory::find(directory)? else { return Ok(Vec::new()) };
    let links = pins.pins().into_iter().filter(|(file, of, _)| *of == set && is_link(file));
    Ok(links.map(|(file, ..)| directory.join(file)).collect())
}
