//! Where in its code a program opened a connection.

use super::{PythonStack, Task};

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
    /// The frames of its CPython, where it runs one that is known.
    pub python: PythonStack,
    /// Its stack, from the stack pointer up.
    pub stack: Vec<u8>,
}

/// One function of a call path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its name, demangled.
    pub function: Option<String>,
    /// Source file; none without debug information.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// The executable or library; none for code that was made at run time.
    pub module: Option<String>,
    /// Offset in the module's file, else the address.
    pub offset: u64,
    /// Why `function` is not known.
    pub unnamed: Option<Unnamed>,
    /// The interpreter whose own machinery this is.
    pub interpreter: Option<String>,
    /// The language of a function that an interpreter runs.
    pub language: Option<&'static str>,
}

/// Why a function has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unnamed {
    /// Another file is at the path of the mapped one, and the mapping itself cannot be opened.
    Replaced,
    /// No file is at the path of the mapped one, and the mapping itself cannot be opened.
    Removed,
    /// The file cannot be read, or is too large, or is not a regular file.
    Unreadable,
    /// The file has no symbol there.
    NoSymbol,
    /// The program made this code at run time, and no perf map of this process names it.
    Generated,
}

impl Unnamed {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Replaced, Self::Removed, Self::Unreadable, Self::NoSymbol, Self::Generated];

    /// As records show it.
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

    /// For people; none where the missing name says enough.
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

/// Why a hunt does not know where a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unseen {
    /// It existed when the hunt began.
    BeforeHunt,
    /// No process has accepted it yet.
    NotAccepted,
    /// Its process ended, or executed another program, before its mappings could be read.
    ProcessGone,
    /// The thread's stack was not mapped any more when the process's mappings were read.
    StackGone,
    /// Its stack was taken, and its call path is not found yet.
    NotUnwound,
    /// Its stack was not taken: the rate limit, a full ring, or a call that the hunt's hooks do not see.
    NotSeen,
}

impl Unseen {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::BeforeHunt,
        Self::NotAccepted,
        Self::ProcessGone,
        Self::StackGone,
        Self::NotUnwound,
        Self::NotSeen,
    ];

    /// As records show it.
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

    /// For people: what stands behind the socket.
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
