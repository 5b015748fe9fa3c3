//! A process as the unwinder needs it: what is mapped where.

use std::{
    collections::HashMap,
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
    files::FileId,
    mapped::{Mapping, Mappings},
    modules::{Bytes, Modules},
    perf_map::PerfMap,
    symbols::Symbols,
};
use crate::{
    enrich,
    model::{Frame, Opening, Task, Unnamed},
};

/// Most frames of a path: recursion ends somewhere.
const DEPTH: usize = 256;

/// A file whose mapping begins there.
struct Module {
    id: FileId,
    /// Else it may hold code that was made at run time, as a memfd does.
    is_elf: bool,
}

/// The process.
pub(super) struct Process {
    directory: PathBuf,
    task: Task,
    mappings: Mappings,
    /// By the mapping's beginning: the file that is proven to be behind it, or why there is none.
    modules: HashMap<u64, Result<Module, Unnamed>>,
    frames: Frames<Bytes>,
    cache: Cache,
    /// Names of code made at run time.
    perf_map: PerfMap,
    /// What is at an address.
    known: HashMap<u64, Vec<Frame>>,
}

impl Process {
    /// Reads it below `root`/proc; none where it has gone.
    pub(super) fn read(root: &Path, task: &Task, modules: &mut Modules) -> Option<Self> {
        let directory = root.join("proc").join(task.pid.to_string());
        let mappings = Mappings::read(&directory)?;
        let mut process = Self {
            directory,
            task: task.clone(),
            mappings,
            modules: HashMap::new(),
            frames: Frames::new(),
            cache: Cache::new(),
            perf_map: PerfMap::default(),
            known: HashMap::new(),
        };
        process.load(modules).then_some(process)
    }

    /// Reads its mappings again; false where it has gone.
    pub(super) fn refresh(&mut self, modules: &mut Modules) -> bool {
        let Some(mappings) = Mappings::read(&self.directory) else { return false };
        self.mappings = mappings;
        self.load(modules)
    }

    fn load(&mut self, modules: &mut Modules) -> bool {
        self.modules.clear();
        self.frames = Frames::new();
        self.cache = Cache::new();
        self.known.clear();
        self.perf_map = PerfMap::read(&self.directory, self.task.start_ns);
        for mapping in self.mappings.executable().filter(|mapping| mapping.file().is_some()) {
            let module = self.mappings.open(mapping).map(|opened| {
                let id = opened.id;
                let tables = modules.tables(opened);
                let is_elf = tables.is_some();
                let module = tables.and_then(|tables| tables.at(mapping.range.clone(), mapping.offset));
                module.into_iter().for_each(|module| self.frames.add_module(module));
                Module { id, is_elf }
            });
            self.modules.insert(mapping.range.start, module);
        }
        // Only then all of that was this process.
        enrich::is_same(&self.directory, &self.task)
    }

    /// Whether these are the mappings of that moment: after an exec the stack is elsewhere.
    pub(super) fn has_stack(&self, opening: &Opening) -> bool {
        self.mappings.find(opening.registers.sp).is_some() && self.code(opening.registers.pc).is_some()
    }

    /// Whether there is code at this address, as far as is known, and a name for it where it was made at run time.
    pub(super) fn knows(&self, address: u64) -> bool {
        self.code(address)
            .is_some_and(|mapping| mapping.file().is_some() || self.perf_map.find(address).is_some())
    }

    fn code(&self, address: u64) -> Option<&Mapping> {
        self.mappings.find(address).filter(|mapping| mapping.is_executable)
    }

    /// Addresses of the path, the innermost first, and whether its end was reached.
    pub(super) fn unwind(&mut self, opening: &Opening) -> (Vec<u64>, bool) {
        let sp = opening.registers.sp;
        let mut read = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(sp)).map_err(|_| ())?;
            let word = opening.stack.get(at..).and_then(|rest| rest.first_chunk());
            word.map(|word| u64::from_ne_bytes(*word)).ok_or(())
        };
        let mut registers = registers(opening, self.frames.max_known_code_address());
        let mut address = FrameAddress::from_instruction_pointer(opening.registers.pc);
        let mut addresses = Vec::new();
        while addresses.len() < DEPTH {
            // The address behind a call may be another line, or another function.
            addresses.push(address.address_for_lookup());
            let next = match self.leave_trampoline(address.address(), &mut registers, &mut read) {
                Some(caller) => Ok(Some(caller)),
                None => self.frames.unwind_frame(address, &mut registers, &mut self.cache, &mut read),
            };
            let caller = match next {
                Ok(None) => return (addresses, true),
                Ok(Some(caller)) => FrameAddress::from_return_address(caller),
                Err(_) => None,
            };
            // What is no code was not the address of a caller.
            match caller.filter(|caller| self.code(caller.address_for_lookup()).is_some()) {
                Some(caller) => address = caller,
                None => break,
            }
        }
        (addresses, false)
    }

    /// CPython's trampoline for perf has no unwind table and no frame pointer: `sub $8,%rsp; call *%rcx`. Returns who called
    /// it.
    #[cfg(target_arch = "x86_64")]
    fn leave_trampoline(
        &self,
        address: u64,
        registers: &mut Registers,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<u64> {
        const CODE: [u8; 6] = [0x48, 0x83, 0xec, 0x08, 0xff, 0xd1];
        let (start, name) = self.perf_map.find(address)?;
        let is_behind_the_call = address == start + CODE.len() as u64;
        if !is_behind_the_call || !name.starts_with("py::") || !self.mappings.has_bytes(start, &CODE) {
            return None;
        }
        let caller = read(registers.sp() + 8).ok()?;
        registers.set_sp(registers.sp() + 16);
        registers.set_ip(caller);
        Some(caller)
    }

    /// It keeps frame pointers.
    #[cfg(target_arch = "aarch64")]
    fn leave_trampoline(
        &self,
        _: u64,
        _: &mut Registers,
        _: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<u64> {
        None
    }

    /// The functions at an address: several where some are inlined, the innermost first.
    pub(super) fn frames(&mut self, address: u64, symbols: &mut Symbols) -> &[Frame] {
        if !self.known.contains_key(&address) {
            let frames = self.look_up(address, symbols);
            self.known.insert(address, frames);
        }
        self.known.get(&address).map_or(&[], Vec::as_slice)
    }

    fn look_up(&self, address: u64, symbols: &mut Symbols) -> Vec<Frame> {
        let Some(mapping) = self.code(address) else {
            return vec![Frame { offset: address, unnamed: Some(Unnamed::Generated), ..Frame::default() }];
        };
        let module = mapping.file().map(|file| (file, self.modules.get(&mapping.range.start)));
        let offset = address - mapping.range.start + mapping.offset;
        match module {
            Some((file, Some(Ok(Module { id, is_elf: true })))) => {
                symbols.find(*id, || self.mappings.open(mapping), file, offset)
            }
            Some((file, Some(Err(why)))) => {
                vec![Frame { module: Some(file.to_owned()), offset, unnamed: Some(*why), ..Frame::default() }]
            }
            _ => {
                let function = self.perf_map.find(address).map(|(_, name)| name.to_owned());
                let unnamed = function.is_none().then_some(Unnamed::Generated);
                vec![Frame { function, offset: address, unnamed, ..Frame::default() }]
            }
        }
    }
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
