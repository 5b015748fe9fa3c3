//! A process for the unwinder: its mappings, modules and names.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    time::Instant,
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
    python::{self, Python, Run},
    symbols::Symbols,
};
use crate::{
    enrich,
    model::{Frame, MissingStack, Opening, PythonLayout, Task, Unnamed},
};

/// Limit of frames in a call path.
const DEPTH: usize = 256;

/// Limit of executables and libraries of a process.
const MODULES: usize = 4096;
/// The share of time for reading a process again is at most 1 / this number.
const SHARE: u32 = 10;

/// The file of a mapping.
struct Module {
    id: FileId,
    /// False if the mapping may have generated code, as a memfd does.
    is_elf: bool,
}

/// A call in a call path.
#[derive(Clone, Copy)]
pub(super) struct CallSite {
    /// Code address: inside the call instruction.
    pub(super) address: u64,
    /// Start of the function's part of the stack, which ends where the next one begins.
    pub(super) stack: u64,
}

pub(super) struct UnwoundProcess {
    directory: PathBuf,
    task: Task,
    mappings: Mappings,
    /// The mapped file, or why it is not available, by the start address of the mapping.
    modules: HashMap<u64, Result<Module, Unnamed>>,
    frames: Frames<Bytes>,
    cache: Cache,
    /// Names of generated code.
    perf_map: PerfMap,
    /// The process's CPython, if its layout is known.
    python: Option<Python>,
    /// Cached frames by address.
    known: HashMap<u64, Vec<Frame>>,
    /// Earliest time to read the process again for unknown names.
    renew_at: Instant,
}

impl UnwoundProcess {
    /// Reads a process below `root`/proc; `None` if it no longer exists.
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
            python: None,
            known: HashMap::new(),
            renew_at: Instant::now(),
        };
        process.load(modules).then_some(process)
    }

    /// Reads the mappings again; false if the process no longer exists.
    pub(super) fn refresh(&mut self, modules: &mut Modules) -> bool {
        let Some(mappings) = Mappings::read(&self.directory) else { return false };
        self.mappings = mappings;
        self.load(modules)
    }

    /// Reads the mappings again for unknown names; false also if that was done too recently.
    pub(super) fn renew(&mut self, modules: &mut Modules) -> bool {
        Instant::now() >= self.renew_at && self.refresh(modules)
    }

    /// Bytes of memory that the names take.
    pub(super) fn bytes(&self) -> usize {
        self.perf_map.bytes()
    }

    fn load(&mut self, modules: &mut Modules) -> bool {
        let began = Instant::now();
        let is_same = self.read_all(modules);
        self.renew_at = Instant::now() + began.elapsed() * SHARE;
        is_same
    }

    fn read_all(&mut self, modules: &mut Modules) -> bool {
        self.modules.clear();
        self.frames = Frames::new();
        self.cache = Cache::new();
        self.known.clear();
        self.perf_map =
            PerfMap::read(&self.directory, self.task.start_ns, std::mem::take(&mut self.perf_map));
        let mut runtimes = BTreeSet::new();
        for mapping in self.mappings.executable().filter(|mapping| mapping.file().is_some()).take(MODULES) {
            let module = self.mappings.open(mapping).map(|opened| {
                let id = opened.id;
                let tables = modules.tables(opened);
                let is_elf = tables.is_some();
                let runtime =
                    tables.as_ref().and_then(|tables| tables.python(mapping.range.start, mapping.offset));
                runtimes.extend(runtime);
                let module = tables.and_then(|tables| tables.at(mapping.range.clone(), mapping.offset));
                module.into_iter().for_each(|module| self.frames.add_module(module));
                Module { id, is_elf }
            });
            self.modules.insert(mapping.range.start, module);
        }
        self.python = python::only(&runtimes).and_then(|runtime| Python::read(&self.mappings, runtime));
        // All reads were of the same process only if this check succeeds.
        enrich::is_same(&self.directory, &self.task)
    }

    /// Why the current mappings do not fit the copied stack: the process executed another program, or the thread ended and its stack
    /// was unmapped.
    pub(super) fn mismatch(&self, opening: &Opening) -> Option<MissingStack> {
        let has_code = self.code(opening.registers.pc).is_some();
        let has_stack = self.mappings.find(opening.registers.sp).is_some();
        match (has_code, has_stack) {
            (true, true) => None,
            (true, false) => Some(MissingStack::StackGone),
            (false, _) => Some(MissingStack::ProcessGone),
        }
    }

    /// Whether the address is in known code; generated code must also have a name.
    pub(super) fn knows(&self, address: u64) -> bool {
        self.code(address)
            .is_some_and(|mapping| mapping.file().is_some() || self.perf_map.find(address).is_some())
    }

    fn code(&self, address: u64) -> Option<&Mapping> {
        self.mappings.find(address).filter(|mapping| mapping.is_executable)
    }

    /// The layout that the kernel programs need to copy CPython frames.
    pub(super) fn python_layout(&self) -> Option<&PythonLayout> {
        self.python.as_ref().map(Python::layout)
    }

    /// The Python functions of the copied stack, the innermost first, grouped by the calls of the interpreter's loop. `None` if the
    /// process runs no known version of CPython, or if the frames do not fit its mappings or `path`.
    pub(super) fn python(&self, opening: &Opening, path: &[CallSite]) -> Option<Vec<Run>> {
        let python = self.python.as_ref()?;
        let runtime = python.layout().runtime;
        let is_own = |address| self.mappings.has_same_file(address, runtime);
        let runs = python.runs(&opening.python, opening.registers.sp, &self.mappings, is_own)?;
        // If the path is known there, a call of the loop must be in the file of the interpreter.
        let calls = |run: &Run| python::caller(path, run.stack).is_none_or(|place| is_own(place.address));
        runs.iter().all(calls).then_some(runs)
    }

    /// The call path, innermost first, and whether its outermost frame was reached.
    pub(super) fn unwind(&mut self, opening: &Opening) -> (Vec<CallSite>, bool) {
        let sp = opening.registers.sp;
        let mut read = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(sp)).map_err(|_| ())?;
            let word = opening.stack.get(at..).and_then(|rest| rest.first_chunk());
            word.map(|word| u64::from_ne_bytes(*word)).ok_or(())
        };
        let mut registers = registers(opening, self.frames.max_known_code_address());
        let mut address = FrameAddress::from_instruction_pointer(opening.registers.pc);
        let mut path = Vec::new();
        while path.len() < DEPTH {
            // A return address may already belong to another line or function.
            path.push(CallSite { address: address.address_for_lookup(), stack: registers.sp() });
            let next = match self.leave_trampoline(address.address(), &mut registers, &mut read) {
                Some(caller) => Ok(Some(caller)),
                None => self.frames.unwind_frame(address, &mut registers, &mut self.cache, &mut read),
            };
            let caller = match next {
                Ok(None) => return (path, true),
                Ok(Some(caller)) => FrameAddress::from_return_address(caller),
                Err(_) => None,
            };
            // A value that is not a code address is not a return address.
            match caller.filter(|caller| self.code(caller.address_for_lookup()).is_some()) {
                Some(caller) => address = caller,
                None => break,
            }
        }
        (path, false)
    }

    /// The caller of CPython's trampoline for perf. The trampoline has no unwind table, and up to 3.13.0 no frame pointer:
    /// `sub $8,%rsp; call *%rcx`, after an `endbr64` if the compiler protects branches.
    #[cfg(target_arch = "x86_64")]
    fn leave_trampoline(
        &self,
        address: u64,
        registers: &mut Registers,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<u64> {
        const CODE: [u8; 10] = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0xff, 0xd1];
        let (start, name) = self.perf_map.find(address)?;
        let codes = [&CODE[..], &CODE[4..]];
        let code = codes.into_iter().find(|code| address - start == code.len() as u64)?;
        if !name.starts_with("py::") || !self.mappings.has_bytes(start, code) {
            return None;
        }
        let caller = read(registers.sp().checked_add(8)?).ok()?;
        registers.set_sp(registers.sp().checked_add(16)?);
        registers.set_ip(caller);
        Some(caller)
    }

    /// On aarch64 the trampoline keeps a frame pointer, so it needs no special case.
    #[cfg(target_arch = "aarch64")]
    fn leave_trampoline(
        &self,
        _: u64,
        _: &mut Registers,
        _: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<u64> {
        None
    }

    /// The functions at an address, the innermost first. There are several if functions are inlined.
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
        let offset = (address - mapping.range.start).wrapping_add(mapping.offset);
        match module {
            Some((file, Some(Ok(Module { id, is_elf: true })))) => {
                symbols.find(*id, || self.mappings.open(mapping), file, offset)
            }
            Some((file, Some(Err(why)))) => {
                vec![Frame { module: Some(file.to_owned()), offset, unnamed: Some(*why), ..Frame::default() }]
            }
            _ => {
                let unknown = Frame { unnamed: Some(Unnamed::Generated), ..Frame::default() };
                let named = self.perf_map.find(address).map_or(unknown, |(_, name)| python::named(name));
                vec![Frame { offset: address, ..named }]
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(opening: &Opening, _: u64) -> Registers {
    let registers = opening.registers;
    Registers::new(registers.pc, registers.sp, registers.fp)
}

#[cfg(target_arch = "aarch64")]
fn registers(opening: &Opening, highest: u64) -> Registers {
    let registers = opening.registers;
    let mask = PtrAuthMask::from_max_known_address(highest);
    Registers::new_with_ptr_auth_mask(mask, registers.lr, registers.sp, registers.fp)
}
