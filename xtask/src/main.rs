//! `cargo xtask`: building, trying and testing sockstate. Everything else is in `xtask-full`.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser};
use xtask::{FULL, cargo, command, full, refresh_objects, root, setup, testing};

/// cargo xtask
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Cli {
    /// Install the missing tools for building the programs, checking and testing (Debian's packages, rustup's
    /// components, bpf-linker).
    Setup {
        /// Also install what Kafka needs: OpenSSL's headers, and a broker, which takes minutes to build.
        #[arg(long)]
        kafka: bool,
    },
    /// Build sockstate quickly, without optimisation, and run it: `cargo xtask run -- trace --format json`.
    Run {
        /// sockstate's arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up, then run all tests; with `--fast` or `--live` a part of them, without setting up.
    Test(testing::Args),
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|first| FULL.iter().any(|name| first == name)) {
        return Err(full().args(&args).exec()).context("cannot run cargo");
    }
    let more = format!(
        "For changing sockstate, in a second program that is built when it is first used:\n  {}\n\n`cargo xtask \
         COMMAND --help` describes each of them.",
        FULL.join(", ")
    );
    let matches = Cli::command().after_help(more).get_matches();
    match Cli::from_arg_matches(&matches)? {
        Cli::Setup { kafka } => {
            setup::all()?;
            if kafka { setup::kafka() } else { Ok(()) }
        }
        Cli::Run { args } => run(&args),
        Cli::Test(args) => testing::run(&args),
    }
}

/// Replaces this process by sockstate, built for trying. Standard output belongs to sockstate.
fn run(args: &[String]) -> Result<()> {
    refresh_objects()?;
    let binary = root().join("target/quick/sockstate");
    let takes = if binary.exists() { "" } else { "; the first time takes minutes" };
    eprintln!(
        "building sockstate without optimisation, for trying (`cargo install --path tracer` builds the program \
         to install){takes}"
    );
    command(cargo().args(["build", "--profile", "quick", "--package", "sockstate"]))?;
    eprintln!("{}; Ctrl-C ends it", if traces(args) { "tracing" } else { "running sockstate" });
    Err(Command::new(&binary).args(args).exec()).with_context(|| format!("cannot run {}", binary.display()))
}

/// Whether sockstate traces with these arguments: `trace` is the command if there is no other.
fn traces(args: &[String]) -> bool {
    let is_help = |arg: &String| ["-h", "--help", "-V", "--version"].contains(&arg.as_str());
    args.first().is_none_or(|first| first == "trace" || first.starts_with('-')) && !args.iter().any(is_help)
}

#[cfg(test)]
mod tests {
    use super::traces;

    #[test]
    fn only_a_trace_is_called_tracing() {
        let traces = |line: &str| traces(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for line in ["", "trace", "trace --format json", "--port 80"] {
            assert!(traces(line), "{line}");
        }
        for line in ["stuck", "top", "--help", "-V", "trace --help", "explain trace"] {
            assert!(!traces(line), "{line}");
        }
    }
}
