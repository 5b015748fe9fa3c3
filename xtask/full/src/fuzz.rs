//! Runs libFuzzer on every reader of foreign data (tracer/src/fuzz), starting from the committed corpus.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{command, output, root, setup};

/// The directory of the package and the corpus.
const PACKAGE: &str = "tests/fuzz";
/// One program has all targets, so that only one is built and linked.
const PROGRAM: &str = "target";

/// The targets, and the time for each.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The targets: directories of tests/fuzz/corpus [default: all, one after another].
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 600)]
    seconds: u64,
}

/// Limits that no input may exceed: seconds, MB of memory in one allocation (unpacked debug information may take 512
/// MiB), and MB in total.
const MOST_SECONDS: u64 = 10;
const MOST_MALLOC_MB: u64 = 544;
const MOST_MB: u64 = 2048;
/// The longest input, in bytes. The inputs of the corpus are shorter.
const MOST_BYTES: u64 = 16 << 10;

pub(crate) fn all(args: &Args) -> Result<()> {
    let known = targets()?;
    if let Some(wrong) = args.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no target {wrong}; there are {}", known.join(", "));
    }
    setup::fuzzing()?;
    // Without --release, every library would be built with debug assertions.
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

/// `cargo fuzz`, with the toolchain that can instrument programs.
fn fuzz(verb: &str) -> Command {
    let mut fuzz = Command::new("cargo");
    fuzz.current_dir(root()).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    fuzz.args(["+nightly", "fuzz", verb, "--fuzz-dir", PACKAGE, "--target-dir"]).arg(work());
    fuzz
}

/// Runs a target, and returns the last line of libFuzzer. An input that shows a fault is in `target/fuzz/TARGET/`; once
/// the fault is repaired, the input belongs into the corpus.
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

/// Builds the program. Leak detection is off, because a parser keeps some texts until the end of the process.
fn program(target: &str) -> Result<Command> {
    let version = output(Command::new("rustc").args(["+nightly", "-vV"]).env_remove("RUSTUP_TOOLCHAIN"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc has no host")?;
    let mut program = Command::new(work().join(host).join("release").join(PROGRAM));
    program.current_dir(root()).env("SOCKSTATE_FUZZ", target).env("ASAN_OPTIONS", "detect_leaks=0");
    Ok(program)
}

/// The numbers of executions and of covered edges.
fn summary(log: &Path) -> Result<String> {
    let text = fs::read_to_string(log)?;
    let last =
        text.lines().rev().find(|line| line.contains(" cov: ")).context("the target printed no coverage")?;
    let word = |key: &str| last.split_once(key).and_then(|(_, rest)| rest.split_whitespace().next());
    let executed = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(format!(
        "{} inputs, {} edges, {} features",
        executed.unwrap_or("?").trim(),
        word(" cov: ").unwrap_or("?"),
        word(" ft: ").unwrap_or("?")
    ))
}
