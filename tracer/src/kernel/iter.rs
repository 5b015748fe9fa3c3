//! The iterator programs, run on demand.

use std::fs::File;

use aya::programs::Iter;

use super::Loaded;

/// What to walk through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Every TCP socket of the caller's network namespace.
    Sockets,
    /// Every socket that a process holds, in all network namespaces.
    Files,
}

impl Loaded {
    /// Starts the walk; the records are read from the file, until its end.
    ///
    /// # Errors
    /// Why this kernel cannot.
    pub fn walk(&mut self, walk: Walk) -> Result<File, String> {
        let btf = self.btf.as_ref().ok_or("no BTF")?;
        let (name, kind) = match walk {
            Walk::Sockets => ("sockets", "tcp"),
            Walk::Files => ("files", "task_file"),
        };
        let mut run = || -> Result<File, Box<dyn std::error::Error>> {
            let program: &mut Iter =
                self.ebpf.program_mut(name).ok_or("the object lacks the program")?.try_into()?;
            if program.fd().is_err() {
                program.load(kind, btf)?;
            }
            let link = program.attach()?;
            Ok(program.take_link(link)?.into_file()?)
        };
        run().map_err(|error| super::load::chain(&*error))
    }
}
