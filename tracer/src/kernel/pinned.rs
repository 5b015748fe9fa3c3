//! Whether pinned objects are sockstate's, by the kernel's information about them: anyone may have created a file with that name.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapInfo, MapType},
    programs::{
        ProgramInfo,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};

use thiserror::Error;

use super::loaded::Hook;

pub(super) const RING: &str = "ring";
pub(super) const COUNTERS: &str = "counters";
pub(super) const PROCESSES: &str = "processes";
pub(super) const PROGRAM: &str = "program";
const LINK: &str = "link-";

/// Why nothing was pinned, adopted or removed.
#[derive(Debug, Error)]
pub enum PinError {
    #[error("cannot use {path} to keep the kernel programs: {source}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "cannot use {path} to keep the kernel programs: it is in no BPF file system; name a directory below /sys/fs/bpf (mount -t bpf bpf /sys/fs/bpf)"
    )]
    Elsewhere { path: PathBuf },
    #[error(
        "cannot use {path} to keep the kernel programs: it contains {}, which is not from sockstate; use a directory that only sockstate uses",
        name.to_string_lossy()
    )]
    Foreign { path: PathBuf, name: OsString },
    #[error("cannot keep the kernel programs: {0}")]
    Refused(String),
}

/// Each map's pin, type and name.
const MAPS: [(&str, MapType, &str); 3] = [
    (RING, MapType::RingBuf, "EVENTS"),
    (COUNTERS, MapType::PerCpuArray, "PER_CPU"),
    (PROCESSES, MapType::Hash, "PROCESSES"),
];
/// Bytes of a program's name that the kernel keeps.
const NAME: usize = 15;

/// Whether all of `names`, the files in `directory`, are sockstate's maps, its program, and links of programs that share maps with it.
/// Without CAP_SYS_ADMIN a link cannot be checked, and any file with the name of one of sockstate's links is accepted.
pub(super) fn verify(directory: &Path, names: &[OsString]) -> Result<(), PinError> {
    let mut maps = BTreeSet::new();
    let (links, others): (Vec<&OsString>, Vec<&OsString>) = names.iter().partition(|name| is_link(name));
    for name in others {
        let path = directory.join(name);
        let is_own = if name == PROGRAM {
            is_own_program(&path, &mut maps)
        } else {
            is_own_map(name, &path, &mut maps)
        };
        check(directory, name, is_own)?;
    }
    if links.is_empty() {
        return Ok(());
    }
    let programs = users(&maps);
    for name in links {
        let is_own = is_own_link(&directory.join(name), programs.as_ref());
        check(directory, name, is_own)?;
    }
    Ok(())
}

/// Name of the `at`th link.
pub(super) fn link(directory: &Path, at: usize) -> PathBuf {
    directory.join(format!("{LINK}{at}"))
}

pub(super) fn is_link(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(LINK));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

type Answer = Result<bool, Box<dyn Error>>;

fn check(directory: &Path, name: &OsStr, is_own: Answer) -> Result<(), PinError> {
    let path = directory.to_owned();
    match is_own {
        Ok(true) => Ok(()),
        Err(error) if is_permission(&*error) => {
            Err(PinError::Directory { path, source: io::ErrorKind::PermissionDenied.into() })
        }
        // For objects of another kind, the kernel gives no such information.
        Ok(false) | Err(_) => Err(PinError::Foreign { path, name: name.to_owned() }),
    }
}

fn is_permission(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Notes the map's number.
fn is_own_map(name: &OsStr, path: &Path, numbers: &mut BTreeSet<u32>) -> Answer {
    let Some((_, kind, own)) = MAPS.iter().find(|(pin, ..)| name == *pin) else { return Ok(false) };
    let info = MapInfo::from_pin(path)?;
    numbers.insert(info.id());
    Ok(info.name() == own.as_bytes() && info.map_type()? == *kind)
}

/// Notes the numbers of its maps: all programs of one object share some.
fn is_own_program(path: &Path, numbers: &mut BTreeSet<u32>) -> Answer {
    let info = ProgramInfo::from_pin(path)?;
    numbers.extend(info.map_ids().ok().flatten().unwrap_or_default());
    let names = [Hook::TpBtf, Hook::Tracepoint].map(Hook::program);
    Ok(names.iter().any(|name| info.name() == &name.as_bytes()[..name.len().min(NAME)]))
}

/// Whether each loaded program uses one of `maps`; `None` without the privilege to list programs (CAP_SYS_ADMIN): links are then
/// known by their names only.
fn users(maps: &BTreeSet<u32>) -> Option<BTreeMap<u32, bool>> {
    let mut users = BTreeMap::new();
    for program in loaded_programs() {
        let program = match program {
            Ok(program) => program,
            Err(error) if is_permission(&error) => return None,
            // The process has ended meanwhile.
            Err(_) => continue,
        };
        let used = program.map_ids().ok().flatten().unwrap_or_default();
        users.insert(program.id(), used.iter().any(|map| maps.contains(map)));
    }
    Some(users)
}

/// True for every link if `users` is `None`.
fn is_own_link(path: &Path, users: Option<&BTreeMap<u32, bool>>) -> Answer {
    let info = FdLink::from(PinnedLink::from_pin(path)?).info()?;
    Ok(users.is_none_or(|users| users.get(&info.program_id()) == Some(&true)))
}
