//! Whose socket it is.

use std::rc::Rc;

use super::Task;

/// How an owner became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerSource {
    /// It called `connect`.
    Connect,
    /// It called `listen`.
    Listen,
    /// The listener of a connection that came in belongs to it.
    Inherited,
    /// It alone held the socket when the tracer started, or was found to hold it since; of a listener's holders, it started first.
    Scan,
    /// It closed the socket, or shut down its sending side, and is not who was known before.
    Close,
}

impl OwnerSource {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Connect, Self::Listen, Self::Inherited, Self::Scan, Self::Close];

    /// As records show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Inherited => "inherited",
            Self::Scan => "scan",
            Self::Close => "close",
        }
    }
}

/// The process that owns a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process as the kernel knew it.
    pub task: Rc<Task>,
    /// Its name, invalid UTF-8 replaced.
    pub comm: String,
    /// Its executable, where it could still be read.
    pub exe: Option<String>,
    /// Uid of the socket, which is the creator's.
    pub uid: Option<u32>,
    /// How it is known.
    pub source: OwnerSource,
    /// Its command line, only when asked for; one text for all that the process owns.
    pub cmdline: Option<Rc<str>>,
}

impl Owner {
    /// Process id in the initial pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.task.pid
    }
}

/// A cgroup v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id (the inode number of its directory).
    pub id: u64,
    /// Its path below the hierarchy's root, where it still exists.
    pub path: Option<String>,
}

/// A container, by the path of its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id or name.
    pub id: String,
    /// Who runs it, where the path tells.
    pub runtime: Option<&'static str>,
}

/// Everything about the side of a socket that does not change from transition to transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Number of this very combination; formats may keep what they made of it.
    pub id: u64,
    /// The owner, `None` where it is not known.
    pub owner: Option<Owner>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// The socket's cgroup.
    pub cgroup: Option<Cgroup>,
    /// The container that this cgroup belongs to.
    pub container: Option<Container>,
    /// The Kubernetes pod that this cgroup belongs to.
    pub pod_uid: Option<String>,
    /// The systemd unit that this cgroup belongs to.
    pub unit: Option<String>,
}

impl Subject {
    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let owner = self.owner.as_ref();
        let path = self.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        let texts = [
            owner.map(|owner| owner.comm.as_str()),
            owner.and_then(|owner| owner.exe.as_deref()),
            owner.and_then(|owner| owner.cmdline.as_deref()),
            path,
            self.container.as_ref().map(|container| container.id.as_str()),
            self.pod_uid.as_deref(),
            self.unit.as_deref(),
        ];
        size_of::<Self>() + size_of::<Task>() + texts.into_iter().flatten().map(str::len).sum::<usize>()
    }
}

/// An owner before anybody looked it up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerKey {
    /// The process.
    pub task: Rc<Task>,
    /// How it is known.
    pub source: OwnerSource,
}

/// What a [`Subject`] is looked up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubjectKey {
    /// The owner.
    pub owner: Option<OwnerKey>,
    /// Uid of the socket.
    pub uid: Option<u32>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// Cgroup v2 id.
    pub cgroup: Option<u64>,
}

/// Turns keys into subjects; the connection table asks it once a connection, at once, while the process lives.
pub trait Identify {
    /// The subject of `key`.
    fn identify(&mut self, key: SubjectKey) -> Rc<Subject>;

    /// What was read of this process is old: it runs another program since.
    fn read_again(&mut self, task: &Task);
}
