//! Measures what a filter costs that excludes all traffic of a busy host, in the kernel and in user space.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Args, Traffic, load, median_of};
use crate::{
    load::Mode,
    measure::{Running, Statistics},
    output, root,
};

const TRAFFIC: Traffic = Traffic { name: "", mode: Mode::Fin, threads: 1, acceptors: false };

/// A cgroup without processes, which is removed with the value.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let mount = output(Command::new("findmnt").args(["-n", "-t", "cgroup2", "-o", "TARGET"]))?;
        let path = Path::new(mount.lines().next().context("no cgroup v2")?.trim()).join("sockstate-bench");
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Measures, and prints a table in Markdown.
pub(super) fn bench(args: &Args) -> Result<()> {
    let cgroup = Cgroup::new()?;
    // The load runs in a namespace of its own.
    let netns = fs::metadata("/proc/self/ns/net")?.ino().to_string();
    let path = cgroup.0.display().to_string();
    let variants: [(&str, &[&str]); 3] = [
        ("none: everything is reported", &[]),
        ("`--cgroup`, decided in user space", &["--cgroup", &path]),
        ("`--netns`, decided in the kernel", &["--netns", &netns]),
    ];
    let mut runs: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for _ in 0..args.rounds() {
        for (name, filter) in variants {
            runs.entry(name).or_default().push(run(args, filter)?);
        }
    }
    let statistics = Statistics::on()?;
    println!(
        "\n| filter | connections/s | CPU s per million transitions | kernel ns |\n| --- | --- | --- | --- |"
    );
    for (name, filter) in variants {
        let before = Statistics::programs()?;
        let mut running = start(args, filter)?;
        let (transitions, _) = load(&TRAFFIC, args.count, 0)?;
        let ns: f64 = Statistics::since(&before)?.iter().map(|program| program.ns).sum();
        running.end()?;
        let runs = runs.get(name).map_or(&[][..], Vec::as_slice);
        let of = |value: fn(&(f64, f64)) -> f64| median_of(runs.iter().map(value));
        println!("| {name} | {:.0} | {:.3} | {:.0} |", of(|run| run.0), of(|run| run.1), ns / transitions);
    }
    drop(statistics);
    Ok(())
}

/// Connections a second, and CPU seconds of the tracer for a million transitions that happened.
fn run(args: &Args, filter: &[&str]) -> Result<(f64, f64)> {
    let mut running = start(args, filter)?;
    let before = running.cpu()?;
    let (transitions, seconds) = load(&TRAFFIC, args.count, 0)?;
    // The last records may still be on their way.
    thread::sleep(Duration::from_millis(300));
    let cpu = running.cpu()? - before;
    running.end()?;
    Ok((f64::from(args.count) / seconds, cpu / transitions * 1e6))
}

fn start(args: &Args, filter: &[&str]) -> Result<Running> {
    let file = args.directory.join("filter.out");
    let _ = fs::remove_file(&file);
    let mut command = Command::new(root().join("target/release/sockstate"));
    command.args(["trace", "--alongside", "--format", "json", "--output"]).arg(&file).args(filter);
    let child = command.stdin(Stdio::null()).stdout(File::create(&file)?).stderr(Stdio::null()).spawn();
    let running = Running(child.context("cannot start sockstate")?);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&file).unwrap_or_default().contains("\"start\"") {
        if Instant::now() > deadline {
            bail!("sockstate does not start");
        }
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    Ok(running)
}
