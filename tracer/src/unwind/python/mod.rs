//! The functions of a Python program, by the frames that the kernel programs have copied and what CPython itself says of its
//! structures (`_Py_DebugOffsets`, 3.13). All of a thread's frames have names, or none has.

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
    /// Fills `bytes` from `address` on; false where that cannot be read.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
}

/// The CPython of a process.
pub(super) struct Python(Offsets);

/// The functions that one call of the interpreter's loop runs, the innermost first.
#[derive(Debug, PartialEq)]
pub(super) struct Run {
    /// An address within that call's part of the stack.
    pub(super) stack: u64,
    pub(super) functions: Vec<Frame>,
}

impl Python {
    /// The one whose `_PyRuntime` is at this address; none of versions that are not known.
    pub(super) fn read(memory: &impl Memory, runtime: u64) -> Option<Self> {
        Offsets::read(memory, runtime).map(Self)
    }

    /// What the kernel programs need.
    pub(super) fn layout(&self) -> &PythonLayout {
        &self.0.layout
    }

    /// The functions of a thread whose stack pointer was `sp`, by the calls of the loop, the innermost first. `is_own` says whether
    /// an address lies in the interpreter's own file: such code is CPython's own, between a class and its `__init__`.
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
        // Outer calls are further up.
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
                // Which of the two is the inner one, the places of their calls say.
                PythonFrame::Interpreter if functions.is_empty() => inner = sp,
                PythonFrame::Loop(_) | PythonFrame::Interpreter => return None,
            }
        }
        // Without the call that runs them, functions are left out where the copy ended, and are a fault elsewhere.
        if runs.is_empty() || (stack.complete && !functions.is_empty()) {
            return None;
        }
        runs.sort_by_key(|run| run.stack);
        Some(runs)
    }
}

/// Reads the functions of a thread in a process whose memory begins at `base` with the runtime. The last 24 bytes of `bytes` are the
/// thread's only frame.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(memory: &impl Memory, base: u64, bytes: &[u8]) {
    /// The part that is the interpreter's own file: the table, and types behind it.
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
