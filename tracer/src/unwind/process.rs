//! A process as the unwinder needs it: what is mapped where.

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

/// Most frames of a path: recursion ends somewhere.
const DEPTH: usize = 256;

/// Most executables and libraries of a process.
const MODULES: usize = 4096;
/// Reading a process again takes at most one part in this many of the time.
const SHARE: u32 = 10;

/// A file whose mapping begins there.
struct Module {
    id: FileId,
    /// Else it may hold code that was made at run time, as a memfd does.
    is_elf: bool,
}

/// A place of a path.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Of the code: within the call, where it called another one.
    pub(super) address: u64,
    /// Where the function's part of the stack begins; it ends where the next one's does.
    pub(super) stack: u64,
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
    /// The CPython that it runs, if it is one that says where its frames are.
    python: Option<Python>,
    /// What is at an address.
    known: HashMap<u64, Vec<Frame>>,
    /// When it may be read again only for names that are not known.
    renew_at: Instant,
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
            python: None,
            known: HashMap::new(),
            renew_at: Instant::now(),
        };
        process.load(modules).then_some(process)
    }

    /// Reads its mappings again; false where it has gone.
    pub(super) fn refresh(&mut self, modules: &mut Modules) -> bool {
        let Some(mappings) = Mappings::read(&self.directory) else { return false };
        self.mappings = mappings;
        self.load(modules)
    }

    /// The same for names that are not known; false also where that would be too often.
    pub(super) fn renew(&mut self, modules: &mut Modules) -> bool {
        Instant::now() >= self.renew_at && self.refresh(modules)
    }

    /// Bytes of memory that its names take.
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
        // Only then all of that was this process.
        enrich::is_same(&self.directory, &self.task)
    }

    /// Why these are not the mappings of that moment: after an exec stack and code are elsewhere, a thread that ends may take its stack
    /// along.
    pub(super) fn is_other_than(&self, opening: &Opening) -> Option<MissingStack> {
        let has_code = self.code(opening.registers.pc).is_some();
        let has_stack = self.mappings.find(opening.registers.sp).is_some();
        match (has_code, has_stack) {
            (true, true) => None,
            (true, false) => Some(MissingStack::StackGone),
            (false, _) => Some(MissingStack::ProcessGone),
        }
    }

    /// Whether there is code at this address, as far as is known, and a name for it where it was made at run time.
    pub(super) fn knows(&self, address: u64) -> bool {
        self.code(address)
            .is_some_and(|mapping| mapping.file().is_some() || self.perf_map.find(address).is_some())
    }

    fn code(&self, address: u64) -> Option<&Mapping> {
        self.mappings.find(address).filter(|mapping| mapping.is_executable)
    }

    /// What the kernel programs need to copy the frames of its CPython.
    pub(super) fn python_layout(&self) -> Option<&PythonLayout> {
        self.python.as_ref().map(Python::layout)
    }

    /// The Python functions that ran then, by the calls of the interpreter's loop, the innermost first; none where it ran no CPython
    /// that is known, or anything is not as it should be.
    pub(super) fn python(&self, opening: &Opening, path: &[Place]) -> Option<Vec<Run>> {
        let python = self.python.as_ref()?;
        let runtime = python.layout().runtime;
        let is_own = |address| self.mappings.has_same_file(address, runtime);
        let runs = python.runs(&opening.python, opening.registers.sp, &self.mappings, is_own)?;
        // Where the path is known, the loop's calls are calls of the interpreter's own code.
        let calls = |run: &Run| python::caller(path, run.stack).is_none_or(|place| is_own(place.address));
        runs.iter().all(calls).then_some(runs)
    }

    /// The path, the innermost place first, and whether its end was reached.
    pub(super) fn unwind(&mut self, opening: &Opening) -> (Vec<Place>, bool) {
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
            // The address behind a call may be another line, or another function.
            path.push(Place { address: address.address_for_lookup(), stack: registers.sp() });
            let next = match self.leave_trampoline(address.address(), &mut registers, &mut read) {
                Some(caller) => Ok(Some(caller)),
                None => self.frames.unwind_frame(address, &mut registers, &mut self.cache, &mut read),
            };
            let caller = match next {
                Ok(None) => return (path, true),
                Ok(Some(caller)) => FrameAddress::from_return_address(caller),
                Err(_) => None,
            };
            // What is no code was not the address of a caller.
            match caller.filter(|caller| self.code(caller.address_for_lookup()).is_some()) {
                Some(caller) => address = caller,
                None => break,
            }
        }
        (path, false)
    }

    /// CPython's trampoline for perf has no unwind table, and up to 3.13.0 no frame pointer: `sub $8,%rsp; call *%rcx`, with `endbr64` in
    /// front where the compiler protects branches. Returns who called it.
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
