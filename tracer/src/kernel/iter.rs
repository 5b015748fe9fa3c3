//! The iterator programs, run on demand.

use std::fs::File;

use aya::programs::iter::IterLink;

use super::{attach, error::chain, loaded::Loaded};

/// What to walk through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Every TCP socket of the opener's network namespace.
    Sockets,
    /// Every socket that a process holds, in all network namespaces.
    Files,
    /// Every TCP socket of the opener's network namespace that the kernel itself uses.
    OfKernel,
}

/// A walk that is ready to begin, by whichever thread opens it.
pub struct IterOpener(IterLink);

impl IterOpener {
    /// Begins it, in this thread's network namespace; the records are read from the file, until its end.
    ///
    /// # Errors
    /// Why this kernel cannot.
    pub fn open(self) -> Result<File, String> {
        self.0.into_file().map_err(|error| chain(&error))
    }
}

impl Loaded {
    /// Prepares a walk.
    ///
    /// # Errors
    /// Why this kernel cannot.
    pub fn opener(&mut self, walk: Walk) -> Result<IterOpener, String> {
        let (name, kind) = match walk {
            Walk::Sockets => ("sockets", "tcp"),
            Walk::Files => ("files", "task_file"),
            Walk::OfKernel => ("of_kernel", "tcp"),
        };
        // The types may be forgotten once the program is loaded.
        let link = attach::iterator(&mut self.ebpf, name, kind, self.btf.as_ref());
        link.map(IterOpener).map_err(|error| chain(&*error))
    }

    /// Begins a walk in this thread's network namespace.
    ///
    /// # Errors
    /// Why this kernel cannot.
    pub fn walk(&mut self, walk: Walk) -> Result<File, String> {
        self.opener(walk)?.open()
    }
}
