//! Commands for building, checking, testing and measuring sockstate.

mod apt;
mod arch;
mod bench;
mod build_ebpf;
mod check;
mod circles;
mod cross;
mod directions;
mod fuzz;
mod generate;
mod kernels;
mod leak;
mod measure;
mod setup;
mod sizes;
mod soak;
mod sources;
mod testing;
mod timers;
mod turn;
mod vm;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use testkit::{load, netns};

/// cargo xtask
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Cli {
    /// Install the missing tools for building the programs, checking and testing (Debian's packages, rustup's
    /// components, bpf-linker).
    Setup {
        /// Also install what Kafka needs: OpenSSL's headers, and a broker, which takes minutes to build.
        #[arg(long)]
        kafka: bool,
    },
    /// Build sockstate and run it: `cargo xtask run -- trace --format json`.
    Run {
        /// sockstate's arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up, then run all tests; with `--fast` or `--live` a part of them, without setting up.
    Test(testing::Args),
    /// Fail if the committed object does not match its sources, the direction rule is broken, files use each other in a
    /// circle or are too long, or fmt or clippy (host and BPF) report something.
    Check,
    /// Write the man pages and completions in packaging, and the JSON Schemas in docs, again.
    Generate,
    /// Rebuild the kernel programs and the committed object.
    BuildEbpf,
    /// Run the live tests on other kernels, under QEMU.
    Vm(vm::Args),
    /// Increase .ci/turn: CI runs another part of the kernel matrix for the next change.
    Turn,
    /// Measure sockstate against tcpstates, an empty program and no tracer.
    Bench(bench::Args),
    /// Run libFuzzer on every reader of foreign data: kernel records, recordings, spools, configurations, files of
    /// processes.
    Fuzz(fuzz::Args),
    /// Run a daemon for a long time, with faulty collectors; reload, restart and kill it.
    Soak(soak::Args),
    /// Internal: make load in a new network namespace, and print its size.
    #[command(subcommand, hide = true)]
    Internal(Internal),
}

#[derive(Subcommand)]
enum Internal {
    /// Connections.
    Load(load::Load),
    /// Sockets that nobody closes.
    Leak(leak::Leak),
}

fn main() -> Result<()> {
    match Cli::parse() {
        Cli::Setup { kafka } => {
            setup::all()?;
            if kafka { setup::kafka() } else { Ok(()) }
        }
        Cli::Run { args } => run(&args),
        Cli::Test(args) => testing::run(&args),
        Cli::Check => {
            setup::all()?;
            check::all()
        }
        Cli::Generate => generate::write(),
        Cli::BuildEbpf => {
            setup::programs()?;
            build_ebpf::commit()
        }
        Cli::Vm(args) => {
            build_ebpf::refresh()?;
            vm::all(&args)
        }
        Cli::Turn => turn::advance(),
        Cli::Bench(args) => {
            setup::all()?;
            build_ebpf::refresh()?;
            bench::all(&args)
        }
        Cli::Fuzz(args) => fuzz::all(&args),
        Cli::Soak(args) => {
            build_ebpf::refresh()?;
            soak::all(&args)
        }
        Cli::Internal(Internal::Leak(leak)) => leak.run(),
        Cli::Internal(Internal::Load(load)) => {
            let made = netns::in_new_netns(|| load.run())??;
            println!("{} {}", made.transitions, made.took.as_secs_f64());
            Ok(())
        }
    }
}

/// Replaces this process by sockstate, built as for a release.
fn run(args: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    build_ebpf::refresh()?;
    command(cargo().args(["build", "--release", "--package", "tracer"]))?;
    let binary = root().join("target/release/sockstate");
    Err(Command::new(&binary).args(args).exec()).with_context(|| format!("cannot run {}", binary.display()))
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The cargo that runs this program, in the root of the repository.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Runs a command to its end, showing what it prints.
fn command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// What a command prints; an error if it fails.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command runs and succeeds.
fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
