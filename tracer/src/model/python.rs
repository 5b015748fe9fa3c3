//! CPython frames that the kernel programs have copied.

/// Where the CPython of a process keeps the frames of its threads: the address of `_PyRuntime`, and offsets from its
/// `_Py_DebugOffsets`.
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
    /// Address of the `_PyRuntime` that led to the frames.
    pub runtime: u64,
    pub frames: Vec<PythonFrame>,
    /// Whether the outermost frame was reached.
    pub complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PythonFrame {
    /// A call of the interpreter loop, which runs the functions before this frame: an address within the part of the C stack
    /// that belongs to this call.
    Loop(u64),
    /// The next frames belong to another interpreter of the thread.
    Interpreter,
    /// A Python function.
    Function {
        /// Address of its code object.
        code: u64,
        /// Address of the current instruction.
        instruction: u64,
        /// The code object's `co_qualname`.
        qualname: u64,
    },
}
