//! The subcommands: they wire the rooms together and turn errors into words and exit codes.

mod doctor;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    kernel::KernelError,
};

/// Exit codes; the same as in `cli.rs`'s help.
pub mod exit {
    /// The output failed, or `doctor` found that nothing works.
    pub const FAILURE: u8 = 1;
    /// Bad arguments.
    pub const USAGE: u8 = 2;
    /// This kernel cannot.
    pub const KERNEL: u8 = 3;
    /// Not permitted.
    pub const PRIVILEGE: u8 = 4;
    /// Another instance is tracing.
    pub const SECOND: u8 = 5;
}

/// An error with the exit code that belongs to it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl ToString) -> Self {
        Self { code: exit::USAGE, message: message.to_string() }
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let code = match error {
            KernelError::Privilege { .. } => exit::PRIVILEGE,
            KernelError::Btf(_) | KernelError::Unsupported { .. } => exit::KERNEL,
        };
        Self { code, message: error.to_string() }
    }
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => trace::run(&cli.trace),
        Some(Command::Trace(args)) => trace::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sockstate: {error:#}");
            let code = error.downcast_ref::<Failure>().map_or(exit::FAILURE, |failure| failure.code);
            ExitCode::from(code)
        }
    }
}
