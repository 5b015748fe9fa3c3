//! Where in its code a program opened a connection.

use super::Task;

/// By which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenedBy {
    /// connect().
    Connect,
    /// accept().
    Accept,
}

impl OpenedBy {
    /// As records show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
        }
    }
}

/// A thread's registers in user space, as far as unwinding needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer, where the program keeps one.
    pub fp: u64,
    /// Link register; 0 where the architecture has none.
    pub lr: u64,
}

/// The opening of a connection, as the kernel saw the process in that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// By which call.
    pub by: OpenedBy,
    /// By whom.
    pub task: Task,
    /// Where it was.
    pub registers: Registers,
    /// Its stack, from the stack pointer up.
    pub stack: Vec<u8>,
}

/// One function of a call path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its name, demangled; null without symbols.
    pub function: Option<String>,
    /// Source file; null without debug information.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// The executable or library; null for code that was made at run time.
    pub module: Option<String>,
    /// Offset in the module's file, else the address.
    pub offset: u64,
}

/// A call path to the opening of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The same for the same path, in every process and every run of one build.
    pub id: u64,
    /// By which call.
    pub by: OpenedBy,
    /// Name of the process that did it first.
    pub comm: String,
    /// The innermost first.
    pub frames: Vec<Frame>,
    /// Whether the outermost was reached.
    pub complete: bool,
}
