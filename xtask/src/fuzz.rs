//! libFuzzer on every reader of what others write (tracer/src/fuzz), from the kept corpus on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{command, output, root, setup};

/// Where the package and the corpus are.
const PACKAGE: &str = "tests/fuzz";
/// One program has all targets: only one is built and linked.
const PROGRAM: &str = "target";

/// Which target, and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The targets: directories of tests/fuzz/corpus. All of them, one after another, without any.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 600)]
    seconds: u64,
}

/// What no input may exceed: seconds, and MB of memory, at once (debug information may have 512 MiB unpacked) and
/// altogether.
const MOST_SECONDS: u64 = 10;
const MOST_MALLOC_MB: u64 = 544;
const MOST_MB: u64 = 2048;
/// Bytes of an input: the kept ones are smaller.
const MOST_BYTES: u64 = 16 << 10;

pub(crate) fn all(args: &Args) -> Result<()> {
    let known = targets()?;
    if let Some(wrong) = args.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no target {wrong}; there are {}", known.join(", "));
    }
    setup::fuzzing()?;
    // Without --release every library would have its debug assertions.
    command(fuzz("build").args(["--release", PROGRAM]))?;
    let chosen = if args.targets.is_empty() { &known } else { &args.targets };
    let mut failed = Vec::new();
    for target in chosen {
        match run(target, args) {
            Ok(report) => println!("{target}: {report}"),
            Err(error) => {
                println!("{target}: {error:#}");
                failed.push(target.as_str());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("broken promises: {}", failed.join(", ")) }
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir(corpus())?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn corpus() -> PathBuf {
    root().join(PACKAGE).join("corpus")
}

fn work() -> PathBuf {
    root().join("target/fuzz")
}

/// `cargo fuzz`, by the toolchain that can instrument programs.
fn fuzz(verb: &str) -> Command {
    let mut fuzz = Command::new("cargo");
    fuzz.current_dir(root()).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    fuzz.args(["+nightly", "fuzz", verb, "--fuzz-dir", PACKAGE, "--target-dir"]).arg(work());
    fuzz
}

/// Runs a target; what libFuzzer says at the end. What it finds is in `target/fuzz/TARGET/`, and is to be put into the corpus once it
/// is repaired.
fn run(target: &str, args: &Args) -> Result<String> {
    let (kept, grown) = (corpus().join(target), work().join(target).join("corpus"));
    fs::create_dir_all(&grown)?;
    let log = work().join(target).join("log");
    let written = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut fuzz = program(target)?;
    fuzz.args(["-print_final_stats=1", "-close_fd_mask=1"])
        .args([format!("-max_total_time={}", args.seconds), format!("-timeout={MOST_SECONDS}")])
        .args([format!("-rss_limit_mb={MOST_MB}"), format!("-malloc_limit_mb={MOST_MALLOC_MB}")])
        .arg(format!("-max_len={MOST_BYTES}"))
        .arg(format!("-artifact_prefix={}/", work().join(target).display()))
        .args([&grown, &kept])
        .stderr(written);
    let status = fuzz.status().context("cannot run the target")?;
    if !status.success() {
        bail!("{status}; see {}", log.display());
    }
    summary(&log)
}

/// The program that was built. Texts that a parser keeps for ever are no leak.
fn program(target: &str) -> Result<Command> {
    let version = output(Command::new("rustc").args(["+nightly", "-vV"]).env_remove("RUSTUP_TOOLCHAIN"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc has no host")?;
    let mut program = Command::new(work().join(host).join("release").join(PROGRAM));
    program.current_dir(root()).env("SOCKSTATE_FUZZ", target).env("ASAN_OPTIONS", "detect_leaks=0");
    Ok(program)
}

/// Executions and coverage.
fn summary(log: &Path) -> Result<String> {
    let text = fs::read_to_string(log)?;
    let last = text.lines().rev().find(|line| line.contains(" cov: ")).context("it did not begin")?;
    let word = |key: &str| last.split_once(key).and_then(|(_, rest)| rest.split_whitespace().next());
    let executed = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(format!(
        "{} inputs, {} edges, {} features",
        executed.unwrap_or("?").trim(),
        word(" cov: ").unwrap_or("?"),
        word(" ft: ").unwrap_or("?")
    ))
}
