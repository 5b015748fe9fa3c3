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

use super::{error::errno, loaded::Hook};

pub(super) const RING: &str = "ring";
pub(super) const COUNTERS: &str = "counters";
pub(super) const PROCESSES: &str = "processes";
pub(super) const PROGRAM: &str = "program";
const LINK: &str = "link-";
/// What the names of the new programs' pins begin with during an upgrade.
const NEXT: &str = "next-";

/// One of the two sets of pins that a directory has during an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PinSet {
    /// The only set, or the programs that an upgrade replaces.
    Current,
    /// The programs that an upgrade has attached.
    Next,
}

impl PinSet {
    /// The path of the pin `name` of this set.
    pub(super) fn path(self, directory: &Path, name: &str) -> PathBuf {
        directory.join(match self {
            Self::Current => name.to_owned(),
            Self::Next => format!("{NEXT}{name}"),
        })
    }

    /// The path of the `at`th link.
    pub(super) fn link(self, directory: &Path, at: usize) -> PathBuf {
        self.path(directory, &format!("{LINK}{at}"))
    }
}

/// The set that a pin belongs to, and its name within the set. `None` if sockstate pins nothing by this name.
pub(super) fn parse(file: &OsStr) -> Option<(PinSet, &str)> {
    let file = file.to_str()?;
    let (set, name) = match file.strip_prefix(NEXT) {
        Some(name) => (PinSet::Next, name),
        None => (PinSet::Current, file),
    };
    ([RING, COUNTERS, PROCESSES, PROGRAM].contains(&name) || link_number(name).is_some())
        .then_some((set, name))
}

/// The number of a link, from its name within the set.
pub(super) fn link_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix(LINK)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

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

/// Whether all of `names`, the files in `directory`, are sockstate's maps, its programs, and links of programs that share maps with them.
/// Without CAP_SYS_ADMIN a link cannot be checked, and any file with the name of one of sockstate's links is accepted.
pub(super) fn verify(directory: &Path, names: &[OsString]) -> Result<(), PinError> {
    let mut maps = BTreeSet::new();
    let (links, others): (Vec<&OsString>, Vec<&OsString>) = names.iter().partition(|name| is_link(name));
    for name in others {
        let path = directory.join(name);
        let is_own = match parse(name) {
            Some((_, PROGRAM)) => is_own_program(&path, &mut maps),
            Some((_, name)) => is_own_map(name, &path, &mut maps),
            None => Ok(false),
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

/// Whether a pin of this name, in either set, is a link.
pub(super) fn is_link(file: &OsStr) -> bool {
    parse(file).is_some_and(|(_, name)| link_number(name).is_some())
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
    matches!(errno(error), Some(libc::EPERM | libc::EACCES))
}

/// Notes the map's number.
fn is_own_map(name: &str, path: &Path, numbers: &mut BTreeSet<u32>) -> Answer {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_sockstates_or_nobodys() {
        let parsed = |name: &'static str| parse(OsStr::new(name));
        assert_eq!(parsed("ring"), Some((PinSet::Current, "ring")));
        assert_eq!(parsed("next-ring"), Some((PinSet::Next, "ring")));
        assert_eq!(parsed("link-12"), Some((PinSet::Current, "link-12")));
        assert_eq!(parsed("next-link-0"), Some((PinSet::Next, "link-0")));
        for foreign in
            ["", "next-", "next-next-ring", "ring2", "link-", "link-x", "link-+1", "next-link-", "next-other"]
        {
            assert_eq!(parsed(foreign), None, "{foreign}");
        }
        for set in [PinSet::Current, PinSet::Next] {
            let path = set.link(Path::new("/pins"), 7);
            assert_eq!(parse(path.file_name().expect("a name")), Some((set, "link-7")));
        }
    }
}
