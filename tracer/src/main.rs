//! Parse, run, exit code.

use std::process::ExitCode;

/// musl's own allocator takes a lock for each allocation.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sockstate::cmd::main(std::env::args_os())
}
