//! The iterator programs, which run on demand.

use std::fs::File;

use aya::programs::iter::IterLink;

use super::{attach, error::chain, loaded::Loaded};

/// What an iterator lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IterKind {
    /// Every TCP socket of the opener's network namespace.
    Sockets,
    /// Every socket that a process holds, in all network namespaces.
    Files,
    /// Every TCP socket of the opener's network namespace that the kernel itself uses.
    OfKernel,
}

/// An iterator that is ready to be opened, by any thread.
pub struct IterOpener(IterLink);

impl IterOpener {
    /// Opens the iterator in this thread's network namespace. The records are read from the file until its end.
    ///
    /// # Errors
    /// The kernel cannot run the iterator; the text has the reason.
    pub fn open(self) -> Result<File, String> {
        self.0.into_file().map_err(|error| chain(&error))
    }
}

impl Loaded {
    /// Loads the program of an iterator and creates its link.
    ///
    /// # Errors
    /// The kernel cannot run the iterator; the text has the reason.
    pub fn opener(&mut self, kind: IterKind) -> Result<IterOpener, String> {
        let (name, target) = match kind {
            IterKind::Sockets => ("sockets", "tcp"),
            IterKind::Files => ("files", "task_file"),
            IterKind::OfKernel => ("of_kernel", "tcp"),
        };
        // Once the program is loaded, BTF is not needed again.
        let link = attach::iterator(&mut self.ebpf, name, target, self.btf.as_ref());
        link.map(IterOpener).map_err(|error| chain(&*error))
    }

    /// Opens an iterator in this thread's network namespace.
    ///
    /// # Errors
    /// The kernel cannot run the iterator; the text has the reason.
    pub fn iterate(&mut self, kind: IterKind) -> Result<File, String> {
        self.opener(kind)?.open()
    }
}
