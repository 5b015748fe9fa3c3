//! Counts the instructions that tracing costs a connection. QEMU's interpreter derives the time of a virtual machine from
//! the instructions that the machine has executed, so other programs on the host do not change the numbers.
//!
//! The numbers are those of one processor without caches, without branch prediction and without other processors.

mod baseline;
pub(crate) mod guest;
mod rows;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use baseline::Baseline;
use guest::Measured;
use rows::{Ends, RUNS, Row, Run};

use super::formats;
use crate::{
    arch::Arch,
    cargo, command,
    kernels::{self, Kernel},
    output, root, setup, testing,
    vm::machine::{Machine, Programs, initramfs, last_lines},
};

/// What to count.
#[derive(clap::Args)]
pub(crate) struct Counting {
    /// Count instructions in virtual machines and with valgrind instead: these numbers do not depend on the load of
    /// this machine.
    #[arg(long)]
    pub(super) instructions: bool,
    /// The kernel of the virtual machines: the newest of its series.
    #[arg(long, default_value = "6.12", requires = "instructions")]
    kernel: String,
    /// Count only the rows that CI counts; fail if a row costs more than committed.
    #[arg(long, requires = "instructions")]
    gate: bool,
    /// Measure the release profile, which users run, and not the programs of the tests. They take minutes to build.
    #[arg(long, requires = "instructions", conflicts_with = "gate")]
    release: bool,
    /// Write the numbers of `--gate` into the file that it compares with.
    #[arg(long, requires = "gate")]
    update: bool,
}

/// The number of boots of each row, for numbers that people read.
const ROUNDS: u32 = 2;

/// Two boots agree if they differ by at most this share.
const AGREEMENT: f64 = 0.004;

/// The time limit of a machine. It needs half a minute of a processor.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// tcpstates of libbpf-tools, where Debian's package has it.
const TCPSTATES: &str = "/usr/sbin/tcpstates";

/// The programs that are measured, and the program that makes the connections.
struct Built {
    profile: &'static str,
    sockstate: PathBuf,
    load: PathBuf,
}

impl Built {
    /// What users run.
    fn release() -> Result<Self> {
        command(cargo().args(["build", "--release", "--package", "sockstate", "--package", "xtask-full"]))?;
        Ok(Self::of("release"))
    }

    /// What the tests run, so that CI builds it once. A machine's own configuration of cargo must not change it.
    fn checked() -> Result<Self> {
        let mut tests = testing::with_features();
        for setting in ["incremental=false", "package.sockstate.opt-level=3"] {
            tests.args(["--config", &format!("profile.checked.{setting}")]);
        }
        // cargo builds the programs of a package for its tests: a small test of each package.
        command(tests.args(["--test", "viewers", "--test", "commands", "--no-run"]))?;
        Ok(Self::of("checked"))
    }

    fn of(profile: &'static str) -> Self {
        let place = root().join("target").join(profile);
        Self { profile, sockstate: place.join("sockstate"), load: place.join("xtask-full") }
    }

    /// The files of the virtual machines.
    fn programs(&self, directory: &Path) -> Result<Programs> {
        let load = directory.join("xtask-full");
        // The machine unpacks it.
        command(Command::new("strip").arg("-o").arg(&load).arg(&self.load))?;
        let mut others = vec![(self.sockstate.clone(), guest::SOCKSTATE.into()), (load, guest::LOAD.into())];
        let tcpstates = Path::new(TCPSTATES);
        if tcpstates.exists() {
            others.push((tcpstates.into(), guest::TCPSTATES.into()));
        }
        Programs::with(Arch::X86_64, others)
    }
}

/// Counts, and prints tables in Markdown, or compares with what is committed.
pub(super) fn bench(args: &Counting, rounds: Option<u32>, only: &str) -> Result<()> {
    if !args.gate {
        setup::benchmarks()?;
    }
    setup::virtual_machines()?;
    let kernel = kernels::get(Arch::X86_64, &args.kernel)?;
    let kernel = kernel.with_context(|| format!("Debian's archive has no kernel {}", args.kernel))?;
    let built = if args.release { Built::release()? } else { Built::checked()? };
    let directory = root().join("target/vm/instructions");
    fs::create_dir_all(&directory)?;
    let lab = Lab { kernel: &kernel, programs: built.programs(&directory)?, directory };
    let wanted = |run: &&Run| if args.gate { !run.gate.is_empty() } else { run.is_wanted(only) };
    let runs: Vec<&'static Run> = RUNS.iter().filter(wanted).collect();
    let found = lab.count(&runs, args.gate, rounds.unwrap_or(if args.gate { 1 } else { ROUNDS }))?;
    let baseline = Baseline::new(&kernel.release, &built, &found.rows)?;
    println!("{}\n\n{}", baseline.made_with(), table::text(&found.rows));
    for missing in &found.missing {
        println!("not measured: {missing}");
    }
    if args.gate {
        ensure!(found.missing.is_empty(), "{} rows were not measured", found.missing.len());
        return if args.update { baseline.commit() } else { baseline.judge() };
    }
    if let Some(row) = found.rows.iter().find(|row| row.differ() > AGREEMENT) {
        bail!("the boots of {} differ by {:.2} %", row.name(), row.differ() * 100.0);
    }
    if only.is_empty() { formats::bench(&built.load) } else { Ok(()) }
}

/// What was measured, and why something was not.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    missing: Vec<String>,
}

/// Boots virtual machines.
struct Lab<'a> {
    kernel: &'a Kernel,
    programs: Programs,
    directory: PathBuf,
}

impl Lab<'_> {
    fn count(&self, runs: &[&'static Run], gate: bool, rounds: u32) -> Result<Found> {
        let mut found = Found::default();
        for &run in runs {
            let ends = if gate { run.gate } else { &Ends::ALL };
            let mut rows: Vec<Row> = ends.iter().map(|ends| Row::new(run, *ends)).collect();
            for _ in 0..rounds {
                match self.boot(run, ends)? {
                    Ok(measured) => {
                        rows.iter_mut().zip(measured).for_each(|(row, boot)| row.boots.push(boot))
                    }
                    Err(reason) => {
                        found.missing.push(format!("{}, {}: {reason}", run.name, run.output));
                        rows.clear();
                        break;
                    }
                }
            }
            for row in &rows {
                eprintln!("{}: {:.0} instructions for a connection", row.name(), row.best().all);
            }
            found.rows.extend(rows);
        }
        Ok(found)
    }

    /// Boots a machine for one tracer; `Err` within `Ok` says why this tracer cannot be measured there.
    fn boot(&self, run: &Run, ends: &[Ends]) -> Result<Result<Vec<Measured>, String>> {
        let script = run.script(ends);
        let initramfs = initramfs(self.kernel, &self.programs, &script, &self.directory)?;
        let machine = Machine {
            arch: Arch::X86_64,
            kernel: self.kernel,
            initramfs: &initramfs,
            memory: "1500M",
            parameters: "nokaslr norandmaps",
        };
        let printed = machine.count(&self.directory.join("log"), LIMIT)?;
        if let Some(reason) = guest::ended_early(&printed) {
            return Ok(Err(reason));
        }
        let measured = guest::measured(&printed)?;
        ensure!(
            measured.iter().map(|found| found.ends).eq(ends.iter().copied()),
            "the machine did not measure {}:\n{}",
            run.name,
            last_lines(&printed)
        );
        Ok(Ok(measured))
    }
}

/// The second word of a version: `rustc 1.95.0 (59807616e 2026-04-14)`.
fn version(program: &str) -> Result<String> {
    let printed = output(Command::new(program).arg("--version").current_dir(root()))?;
    let is_version = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
    let version = printed.split_whitespace().find(is_version);
    Ok(version.with_context(|| format!("{program} --version printed {printed}"))?.to_owned())
}
