//! The readers of a hunt, with any bytes as input: other processes control these files and this memory.

use std::fs::File;

use framehop::{FrameAddress, Unwinder as _};

#[cfg(target_arch = "aarch64")]
use framehop::aarch64::{CacheAarch64 as Cache, UnwindRegsAarch64 as Registers, UnwinderAarch64 as Frames};
#[cfg(target_arch = "x86_64")]
use framehop::x86_64::{CacheX86_64 as Cache, UnwindRegsX86_64 as Registers, UnwinderX86_64 as Frames};

use super::{
    files,
    mapped::{self, Opened},
    modules,
    perf_map::PerfMap,
    python,
    symbols::Symbols,
};

/// The address at which the executable is mapped.
const BASE: u64 = 0x40_0000;
/// The limit of frames in a path.
const DEPTH: usize = 64;

/// Reads `/proc/PID/maps`.
pub(crate) fn maps(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        if let Some(file) = mapped::mapping(line).as_ref().and_then(|mapping| mapping.file()) {
            assert!(line.contains(file));
        }
    }
}

/// Reads a perf map.
pub(crate) fn perf_map(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines = text.lines().count();
    let Some(map) = PerfMap::parse(text) else { return };
    // A function takes three words in memory, and its line has at least six bytes.
    assert!(map.bytes() <= 64 * (lines + 8) + 4 * bytes.len());
    let words =
        bytes.chunks_exact(8).take(64).map(|word| word.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)));
    for address in words.chain([0, 0x7f00, 0x9000, u64::MAX]) {
        if let Some((start, name)) = map.find(address) {
            assert!(start <= address);
            python::named(name);
        }
    }
}

/// Reads an executable, and unwinds a stack by its tables.
pub(crate) fn elf(file: File, len: u64) {
    files::build_id(&file, 0);
    let Some(tables) = modules::read(file) else { return };
    tables.python(BASE, 0);
    let Some(module) = tables.at(BASE..BASE + len.max(1), 0) else { return };
    let mut frames = Frames::new();
    frames.add_module(module);
    let mut cache = Cache::new();
    for at in 0..16 {
        let mut registers = registers();
        let mut address = FrameAddress::from_instruction_pointer(BASE + at * len / 16);
        for _ in 0..DEPTH {
            // A stack with return addresses in the module.
            let mut read = |address: u64| Ok(BASE + address % len.max(1));
            match frames.unwind_frame(address, &mut registers, &mut cache, &mut read) {
                Ok(Some(caller)) => address = FrameAddress::from_return_address(caller).unwrap_or(address),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn registers() -> Registers {
    Registers::new(BASE, 0x7fff_0000, 0x7fff_0100)
}

#[cfg(target_arch = "aarch64")]
fn registers() -> Registers {
    Registers::new(BASE, 0x7fff_0000, 0x7fff_0100)
}

/// Reads the names of functions in an executable.
pub(crate) fn symbols(file: &File, len: u64) {
    let mut symbols = Symbols::default();
    let id = (0, 0, 0, 0);
    for at in 0..8 {
        let open = || {
            let file = file.try_clone();
            file.map(|file| Opened { file, id }).map_err(|_| crate::model::Unnamed::Unreadable)
        };
        let found = symbols.find(id, open, "/any", at * len / 8);
        assert!(!found.is_empty());
    }
}

/// The memory of a process: the address where it begins, and its bytes.
struct Memory<'a>(&'a [u8]);

impl python::Memory for Memory<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let at = address.checked_sub(BASE).and_then(|at| usize::try_from(at).ok());
        let found = at.and_then(|at| self.0.get(at..at.checked_add(bytes.len())?));
        found.is_some_and(|found| {
            bytes.copy_from_slice(found);
            true
        })
    }
}

/// Reads the memory of a process that runs CPython: the runtime, the code object of a frame, and the objects that it refers to.
pub(crate) fn python(bytes: &[u8]) {
    python::fuzz(&Memory(bytes), BASE, bytes);
}
