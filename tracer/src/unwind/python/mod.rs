//! The functions of a Python program, from the frames that the kernel programs have copied. CPython 3.13 describes the layout of
//! its structures in `_Py_DebugOffsets`. Either all frames of a thread get names, or none.

mod lines;
mod merge;
mod objects;
mod offsets;
#[cfg(test)]
mod tests;

pub(super) use merge::{caller, merge, named, only};
use objects::{Function, Objects};
use offsets::Offsets;

use crate::model::{Frame, PythonFrame, PythonLayout, PythonStack};

/// The memory of a process.
pub(super) trait Memory {
    /// Fills `bytes` from `address` on; false if this memory cannot be read.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
}

/// A CPython runtime in a process, with the offsets of its structures.
pub(super) struct Python(Offsets);

/// The functions that one call of the interpreter's loop runs, the innermost first.
#[derive(Debug, PartialEq)]
pub(super) struct Run {
    /// An address within that call's part of the stack.
    pub(super) stack: u64,
    pub(super) functions: Vec<Frame>,
}

impl Python {
    /// Reads the offsets from the `_PyRuntime` at this address; `None` if the version of CPython is not known.
    pub(super) fn read(memory: &impl Memory, runtime: u64) -> Option<Self> {
        Offsets::read(memory, runtime).map(Self)
    }

    /// The offsets that the kernel programs need.
    pub(super) fn layout(&self) -> &PythonLayout {
        &self.0.layout
    }

    /// The runs of a thread whose stack pointer was `sp`, the innermost first. `is_own` returns whether an address is in the file of the
    /// interpreter: CPython itself inserts a frame with code from there between a class and its `__init__`.
    pub(super) fn runs(
        &self,
        stack: &PythonStack,
        sp: u64,
        memory: &impl Memory,
        is_own: impl Fn(u64) -> bool,
    ) -> Option<Vec<Run>> {
        if stack.frames.is_empty() || stack.runtime != self.0.layout.runtime {
            return None;
        }
        let objects = Objects { memory, offsets: &self.0, is_own: &is_own };
        let mut runs: Vec<Run> = Vec::new();
        let mut functions = Vec::new();
        // Outer calls have higher addresses.
        let mut inner = sp;
        for frame in &stack.frames {
            match *frame {
                PythonFrame::Function { code, .. } if is_own(code) => {}
                PythonFrame::Function { code, instruction, qualname } => {
                    functions.push(objects.frame(&Function { code, instruction, qualname })?);
                }
                PythonFrame::Loop(stack) if stack > inner => {
                    inner = stack;
                    runs.push(Run { stack, functions: std::mem::take(&mut functions) });
                }
                // Another interpreter of the process follows. The addresses of the calls show which of the two is the inner one.
                PythonFrame::Interpreter if functions.is_empty() => inner = sp,
                PythonFrame::Loop(_) | PythonFrame::Interpreter => return None,
            }
        }
        // Functions without the call that runs them are left out if the copy of the stack ended there. Otherwise the stack is invalid.
        if runs.is_empty() || (stack.complete && !functions.is_empty()) {
            return None;
        }
        runs.sort_by_key(|run| run.stack);
        Some(runs)
    }
}

/// Reads the functions of a thread. The memory of the process begins at `base`, with the runtime. The last 24 bytes of `bytes` are
/// the only frame of the thread.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(memory: &impl Memory, base: u64, bytes: &[u8]) {
    /// The part of the memory that belongs to the file of the interpreter: the table, and the types after it.
    const OWN_BYTES: u64 = 1024;
    let words: Vec<u64> = bytes
        .rchunks_exact(8)
        .take(3)
        .filter_map(|word| word.try_into().ok())
        .map(u64::from_ne_bytes)
        .collect();
    let [qualname, instruction, code] = words[..] else { return };
    lines::line_at(bytes, 1, code % 4096);
    let Some(python) = Python::read(memory, base) else { return };
    let stack = PythonStack {
        runtime: base,
        frames: vec![PythonFrame::Function { code, instruction, qualname }, PythonFrame::Loop(2)],
        complete: true,
    };
    let is_own = |address| (base..base + OWN_BYTES).contains(&address);
    if let Some(runs) = python.runs(&stack, 1, memory, is_own) {
        let functions = runs.into_iter().flat_map(|run| run.functions);
        assert!(functions.filter_map(|frame| frame.function).all(|name| !name.is_empty()));
    }
}
