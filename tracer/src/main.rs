//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sockstate::cmd::main(std::env::args_os())
}
