//! The commands of `cargo xtask` that need many crates: checking, measuring, generating, other kernels.

mod apt;
mod bench;
mod book;
mod build_ebpf;
mod check;
mod circles;
mod cross;
mod dependencies;
mod directions;
mod dist;
mod fuzz;
mod generate;
mod kernels;
mod leak;
mod live;
mod measure;
mod sizes;
mod soak;
mod sources;
mod timers;
mod turn;
mod vm;

use std::{ffi::OsString, iter, process::ExitCode};

use anyhow::{Result, ensure};
use bench::instructions;
use clap::{Parser, Subcommand};
use testkit::{load, netns};
use xtask::{arch, cargo, command, output, refresh_objects, root, setup, testing, toolchain};

/// cargo xtask
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Cli {
    /// Fail if the committed object does not match its sources, the direction rule is broken, files use each other in a
    /// circle or are too long, the documents have a broken link, or fmt or clippy (host and BPF) report something.
    Check,
    /// Make the documents a book with a search, in target/book/html, and follow its links.
    Book,
    /// Write the man pages and completions in packaging, and the JSON Schemas and pictures in docs, again.
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
    /// Build a release into target/dist: static binaries, packages, an image, licences, a bill of materials,
    /// checksums.
    Dist(dist::Args),
    /// Internal: what other commands run in a process of its own, to measure it or to read its output.
    #[command(subcommand, hide = true)]
    Internal(Internal),
}

#[derive(Subcommand)]
enum Internal {
    /// sockstate's command line.
    Sockstate {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Connections.
    Load(load::Load),
    /// Connections, beside a tracer that they measure.
    Churn(instructions::guest::Churn),
    /// A tracer that does nothing.
    Empty,
    /// Records that are read or written.
    Format(bench::formats::Work),
    /// Sockets that nobody closes.
    Leak(leak::Leak),
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
    match Cli::parse() {
        Cli::Check => {
            setup::checks()?;
            check::all()
        }
        Cli::Book => book::build(),
        Cli::Generate => generate::write(),
        Cli::BuildEbpf => {
            setup::programs()?;
            build_ebpf::commit()
        }
        Cli::Vm(args) => {
            refresh_objects()?;
            vm::all(&args)
        }
        Cli::Turn => turn::advance(),
        Cli::Bench(args) => {
            refresh_objects()?;
            bench::all(&args)
        }
        Cli::Fuzz(args) => fuzz::all(&args),
        Cli::Soak(args) => {
            refresh_objects()?;
            soak::all(&args)
        }
        Cli::Dist(args) => dist::all(&args),
        Cli::Internal(Internal::Sockstate { args }) => {
            let code = sockstate::cmd::main(iter::once("sockstate".into()).chain(args));
            ensure!(code == ExitCode::SUCCESS, "sockstate failed");
            Ok(())
        }
        Cli::Internal(Internal::Churn(churn)) => churn.run(),
        Cli::Internal(Internal::Empty) => instructions::guest::empty(),
        Cli::Internal(Internal::Format(work)) => work.run(),
        Cli::Internal(Internal::Leak(leak)) => leak.run(),
        Cli::Internal(Internal::Load(load)) => {
            let made = netns::in_new_netns(|| load.run())??;
            println!("{} {}", made.transitions, made.took.as_secs_f64());
            Ok(())
        }
    }
}
