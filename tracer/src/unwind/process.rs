//! A process as the unwinder needs it: what is mapped where.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

#[cfg(target_arch = "aarch64")]
use framehop::aarch64::{
    CacheAarch64 as Cache, PtrAuthMask, UnwindRegsAarch64 as Registers, UnwinderAarch64 as Frames,
};
#[cfg(target_arch = "x86_64")]
use framehop::x86_64::{CacheX86_64 as Cache, UnwindRegsX86_64 as Registers, UnwinderX86_64 as Frames};
use framehop::{FrameAddress, Unwinder as _};

use super::{
    modules::{Bytes, Modules},
    symbols::{PerfMap, Symbols},
};
use crate::model::{Frame, Opening};

/// Most frames of a path: recursion ends somewhere.
const DEPTH: usize = 256;

/// Executable memory.
struct Mapping {
    range: Range<u64>,
    /// Where in the file it begins.
    offset: u64,
    /// The file, as the process names it; none for memory of its own.
    file: Option<String>,
}

/// The process.
pub(super) struct Process {
    directory: PathBuf,
    mappings: Vec<Mapping>,
    frames: Frames<Bytes>,
    cache: Cache,
    /// Names of code made at run time.
    perf_map: PerfMap,
    /// What is at an address.
    known: HashMap<u64, Vec<Frame>>,
}

impl Process {
    /// Reads `root`/proc/`pid`; none where it has gone.
    pub(super) fn read(root: &Path, pid: u32, modules: &mut Modules) -> Option<Self> {
        let mut process = Self {
            directory: root.join("proc").join(pid.to_string()),
            mappings: Vec::new(),
            frames: Frames::new(),
            cache: Cache::new(),
            perf_map: PerfMap::default(),
            known: HashMap::new(),
        };
        process.refresh(modules).then_some(process)
    }

    /// Reads its mappings again; false where it has gone.
    pub(super) fn refresh(&mut self, modules: &mut Modules) -> bool {
        let Ok(text) = fs::read_to_string(self.directory.join("maps")) else { return false };
        self.mappings = text.lines().filter_map(mapping).collect();
        if self.mappings.is_empty() {
            return false;
        }
        self.frames = Frames::new();
        self.cache = Cache::new();
        self.known.clear();
        self.perf_map = PerfMap::read(&self.directory);
        for mapping in &self.mappings {
            let Some(file) = &mapping.file else { continue };
            let tables = modules.tables(&in_its_root(&self.directory, file));
            if let Some(module) = tables.and_then(|it| it.at(mapping.range.clone(), mapping.offset)) {
                self.frames.add_module(module);
            }
        }
        true
    }

    /// Whether there is code at this address, as far as is known, and a name for it where it was made at run time.
    pub(super) fn knows(&self, address: u64) -> bool {
        self.mapping(address).is_some_and(|it| it.file.is_some() || self.perf_map.find(address).is_some())
    }

    fn mapping(&self, address: u64) -> Option<&Mapping> {
        self.mappings.iter().find(|it| it.range.contains(&address))
    }

    /// Addresses of the path, the innermost first, and whether its end was reached.
    pub(super) fn unwind(&mut self, opening: &Opening) -> (Vec<u64>, bool) {
        let sp = opening.registers.sp;
        let mut read = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(sp)).map_err(|_| ())?;
            let word = opening.stack.get(at..).and_then(|rest| rest.first_chunk());
            word.map(|word| u64::from_ne_bytes(*word)).ok_or(())
        };
        let registers = registers(opening, self.frames.max_known_code_address());
        let mut iter = self.frames.iter_frames(opening.registers.pc, registers, &mut self.cache, &mut read);
        let mut addresses = Vec::new();
        while addresses.len() < DEPTH {
            match iter.next() {
                // The address behind a call may be another line, or another function.
                Ok(Some(frame)) => addresses.push(lookup(frame)),
                Ok(None) => return (addresses, true),
                Err(_) => break,
            }
        }
        (addresses, false)
    }

    /// The functions at an address: several where some are inlined, the innermost first.
    pub(super) fn frames(&mut self, address: u64, symbols: &mut Symbols) -> &[Frame] {
        if !self.known.contains_key(&address) {
            let frames = match self.mapping(address) {
                Some(Mapping { range, offset, file: Some(file) }) => {
                    let path = in_its_root(&self.directory, file);
                    symbols.find(&path, file, address - range.start + offset)
                }
                _ => {
                    let function = self.perf_map.find(address).map(ToOwned::to_owned);
                    vec![Frame { function, offset: address, ..Frame::default() }]
                }
            };
            self.known.insert(address, frames);
        }
        self.known.get(&address).map_or(&[], Vec::as_slice)
    }
}

/// The file as this process sees it.
fn in_its_root(directory: &Path, file: &str) -> PathBuf {
    directory.join("root").join(file.trim_start_matches('/'))
}

fn lookup(frame: FrameAddress) -> u64 {
    frame.address_for_lookup()
}

#[cfg(target_arch = "x86_64")]
fn registers(opening: &Opening, _: u64) -> Registers {
    let it = opening.registers;
    Registers::new(it.pc, it.sp, it.fp)
}

#[cfg(target_arch = "aarch64")]
fn registers(opening: &Opening, highest: u64) -> Registers {
    let it = opening.registers;
    let mask = PtrAuthMask::from_max_known_address(highest);
    Registers::new_with_ptr_auth_mask(mask, it.lr, it.sp, it.fp)
}

/// A line of /proc/PID/maps (proc_pid_maps(5)), if it is executable.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let permissions = fields.next()?;
    let offset = hex(fields.next()?)?;
    let name = fields.nth(2).unwrap_or_default().trim_start();
    let file = name.strip_suffix(" (deleted)").unwrap_or(name);
    permissions.contains('x').then_some(())?;
    Some(Mapping {
        range: hex(start)?..hex(end)?,
        offset,
        file: file.starts_with('/').then(|| file.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings() {
        let code =
            mapping("55d0c0a01000-55d0c0a02000 r-xp 00001000 08:01 1234      /usr/bin/with space (deleted)");
        let code = code.expect("executable");
        assert_eq!(code.range, 0x55d0_c0a0_1000..0x55d0_c0a0_2000);
        assert_eq!((code.offset, code.file.as_deref()), (0x1000, Some("/usr/bin/with space")));
        assert!(mapping("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ").is_none());
        let jit = mapping("7f0000000000-7f0000001000 rwxp 00000000 00:00 0 ").expect("executable");
        assert_eq!(jit.file, None);
        let vdso = mapping("7ffd1000-7ffd2000 r-xp 00000000 00:00 0  [vdso]").expect("executable");
        assert_eq!(vdso.file, None);
        for broken in ["", "-", "zz-zz r-xp 0 0 0 /x", "1-2"] {
            assert!(mapping(broken).is_none(), "{broken}");
        }
    }
}
