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
mod fuzz;
mod generate;
mod kernels;
mod leak;
mod measure;
mod sizes;
mod soak;
mod sources;
mod timers;
mod turn;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use testkit::{load, netns};
use xtask::{arch, cargo, command, output, refresh_objects, root, setup};

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
    /// Internal: the work that other commands measure, in a process of its own.
    #[command(subcommand, hide = true)]
    Internal(Internal),
}

#[derive(Subcommand)]
enum Internal {
    /// Connections.
    Load(load::Load),
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
            setup::benchmarks()?;
            refresh_objects()?;
            bench::all(&args)
        }
        Cli::Fuzz(args) => fuzz::all(&args),
        Cli::Soak(args) => {
            refresh_objects()?;
            soak::all(&args)
        }
        Cli::Internal(Internal::Format(work)) => work.run(),
        Cli::Internal(Internal::Leak(leak)) => leak.run(),
        Cli::Internal(Internal::Load(load)) => {
            let made = netns::in_new_netns(|| load.run())??;
            println!("{} {}", made.transitions, made.took.as_secs_f64());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn cargo_xtask_knows_every_command() {
        let command = super::Cli::command();
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        let names: Vec<&str> = shown.map(|command| command.get_name()).collect();
        assert_eq!(names, xtask::FULL);
    }
}
