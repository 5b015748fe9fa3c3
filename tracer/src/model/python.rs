//! CPython's frames, as the kernel programs copy them.

/// Where a process's CPython keeps the frames of its threads: the address of `_PyRuntime`, and offsets as its own
/// `_Py_DebugOffsets` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PythonLayout {
    /// Address of `_PyRuntime`.
    pub runtime: u64,
    /// `PY_VERSION_HEX`.
    pub version: u64,
    /// `interpreters.head` of `_PyRuntimeState`.
    pub interpreters: u32,
    /// `next` of `PyInterpreterState`.
    pub next_interpreter: u32,
    /// `threads.head` of `PyInterpreterState`.
    pub threads: u32,
    /// `next` of `PyThreadState`.
    pub next_thread: u32,
    /// `native_thread_id` of `PyThreadState`.
    pub native_thread_id: u32,
    /// `current_frame` of `PyThreadState`.
    pub current_frame: u32,
    /// `previous` of `_PyInterpreterFrame`.
    pub previous: u32,
    /// `f_executable` of `_PyInterpreterFrame`.
    pub executable: u32,
    /// `instr_ptr` of `_PyInterpreterFrame`.
    pub instruction: u32,
    /// `owner` of `_PyInterpreterFrame`.
    pub owner: u32,
    /// `co_qualname` of `PyCodeObject`.
    pub qualname: u32,
}

/// The frames of one thread at the moment of an event, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PythonStack {
    /// The `_PyRuntime` that they were found by.
    pub runtime: u64,
    /// The frames.
    pub frames: Vec<PythonFrame>,
    /// Whether these are all.
    pub complete: bool,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PythonFrame {
    /// A call of the interpreter's loop, which runs the functions before this frame: an address within that call's part of the
    /// thread's stack.
    Loop(u64),
    /// The frames of another interpreter that the thread runs follow.
    Interpreter,
    /// A function of the program.
    Function {
        /// Its code object.
        code: u64,
        /// The instruction that runs.
        instruction: u64,
        /// The code object's `co_qualname`.
        qualname: u64,
    },
}
