//! The call path by which a program opened a connection.

use super::{PythonStack, Task};

/// The system call that opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenedBy {
    Connect,
    Accept,
}

impl OpenedBy {
    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
        }
    }
}

/// The registers of a thread in user space that unwinding needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub pc: u64,
    pub sp: u64,
    pub fp: u64,
    /// Link register; 0 where the architecture has none.
    pub lr: u64,
}

/// The opening of a connection, with the state of the process at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub by: OpenedBy,
    pub task: Task,
    pub registers: Registers,
    /// The CPython frames, if the process runs a CPython whose layout is known.
    pub python: PythonStack,
    /// A copy of the stack, from the stack pointer up.
    pub stack: Vec<u8>,
}

/// One function of a call path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The demangled name.
    pub function: Option<String>,
    /// Source file; `None` without debug information.
    pub file: Option<String>,
    pub line: Option<u32>,
    /// The executable or library; `None` for code that was generated at run time.
    pub module: Option<String>,
    /// Offset in the module's file; the address where there is no module.
    pub offset: u64,
    /// Why `function` is not known.
    pub unnamed: Option<Unnamed>,
    /// The name of the interpreter, for a function that is a part of it.
    pub interpreter: Option<String>,
    /// The language, for a function that an interpreter runs.
    pub language: Option<&'static str>,
}

/// Why a function has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unnamed {
    /// Another file is at the path of the mapped one, and the mapping itself cannot be opened.
    Replaced,
    /// No file is at the path of the mapped one, and the mapping itself cannot be opened.
    Removed,
    /// The file cannot be read, is too large, or is not a regular file.
    Unreadable,
    /// The file has no symbol at this address.
    NoSymbol,
    /// The program generated this code at run time, and no perf map of the process names it.
    Generated,
}

impl Unnamed {
    pub const ALL: [Self; 5] =
        [Self::Replaced, Self::Removed, Self::Unreadable, Self::NoSymbol, Self::Generated];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Unreadable => "unreadable",
            Self::NoSymbol => "no_symbol",
            Self::Generated => "generated",
        }
    }

    /// A text for people; `None` where the missing name says enough.
    #[must_use]
    pub fn why(self) -> Option<&'static str> {
        match self {
            Self::Replaced => Some("name not known: its file was replaced after it had been mapped"),
            Self::Removed => Some("name not known: its file was removed after it had been mapped"),
            Self::Unreadable => Some("name not known: its file cannot be read"),
            Self::NoSymbol => None,
            Self::Generated => Some("made at run time, and no perf map names it"),
        }
    }
}

/// A call path to the opening of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// A hash of the frames: equal for the same call path in every process and every run of one build.
    pub id: u64,
    pub by: OpenedBy,
    /// Name of the first process with this call path.
    pub comm: String,
    /// The innermost frame first.
    pub frames: Vec<Frame>,
    /// Whether the outermost frame was reached.
    pub complete: bool,
}

/// Why a hunt does not know which call path opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MissingStack {
    /// The connection existed when the hunt began.
    BeforeHunt,
    /// No process has accepted it yet.
    NotAccepted,
    /// The process ended, or executed another program, before its mappings could be read.
    ProcessGone,
    /// The thread's stack was no longer mapped when the process's mappings were read.
    StackGone,
    /// The stack was copied, and its call path is not found yet.
    NotUnwound,
    /// The stack was not copied: the rate limit, a full ring, or a call that the hunt's hooks do not see.
    NotSeen,
}

impl MissingStack {
    pub const ALL: [Self; 6] = [
        Self::BeforeHunt,
        Self::NotAccepted,
        Self::ProcessGone,
        Self::StackGone,
        Self::NotUnwound,
        Self::NotSeen,
    ];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeHunt => "before_hunt",
            Self::NotAccepted => "not_accepted",
            Self::ProcessGone => "process_gone",
            Self::StackGone => "stack_gone",
            Self::NotUnwound => "not_unwound",
            Self::NotSeen => "not_seen",
        }
    }

    /// A text for people, written instead of the call path.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::BeforeHunt => "opened before the hunt",
            Self::NotAccepted => "not accepted by any process",
            Self::ProcessGone => "its process was gone before its mappings could be read",
            Self::StackGone => "its thread's stack was gone before the process's mappings could be read",
            Self::NotUnwound => "its call path is not found yet",
            Self::NotSeen => "the opening was not seen",
        }
    }
}
