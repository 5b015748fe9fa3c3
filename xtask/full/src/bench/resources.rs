//! What the daemon of the DaemonSet needs: memory and CPU at some rates of connections, for resource requests.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use testkit::load::Mode;

use super::{Args, Traffic, load};
use crate::{measure::Running, root};

const MANIFEST: &str = "packaging/kubernetes/sockstate.yaml";
/// Where the daemon serves its metrics, once it traces.
const METRICS: &str = "127.0.0.1:9435";
/// Connections a second.
const RATES: [u32; 4] = [0, 100, 1_000, 5_000];
/// How long each rate lasts.
const SECONDS: u32 = 20;

/// Measures and prints a table in Markdown.
pub(super) fn bench(args: &Args) -> Result<()> {
    println!("\nthe daemon of the DaemonSet, {SECONDS} s for each rate\n");
    println!("| connections/s | CPU, share of a core | RSS MB |");
    println!("| --- | --- | --- |");
    let directory = fs::canonicalize(&args.directory)?;
    let daemon = start(&directory)?;
    for rate in RATES {
        let (cpu_before, begin) = (daemon.cpu()?, Instant::now());
        let made = make(rate)?;
        let share = (daemon.cpu()? - cpu_before) / begin.elapsed().as_secs_f64();
        println!("| {made:.0} | {share:.4} | {:.1} |", daemon.rss()?);
    }
    Ok(())
}

/// Makes connections at about this rate. Returns the rate that was reached.
fn make(rate: u32) -> Result<f64> {
    if rate == 0 {
        thread::sleep(Duration::from_secs(u64::from(SECONDS)));
        return Ok(0.0);
    }
    let traffic = Traffic { name: "", mode: Mode::Fin, threads: 1, acceptors: false };
    let count = rate * SECONDS;
    let (_, seconds) = load(&traffic, count, u64::from(1_000_000 / rate))?;
    Ok(f64::from(count) / seconds)
}

/// Starts the daemon with the configuration of the manifest, and waits until it traces.
fn start(directory: &Path) -> Result<Running> {
    let config = directory.join("daemon.toml");
    fs::write(&config, configuration(&fs::read_to_string(root().join(MANIFEST))?, directory)?)?;
    let mut command = Command::new(root().join("target/release/sockstate"));
    command.args(["run", "--config"]).arg(&config);
    let (stdout, messages) = (directory.join("daemon.out"), directory.join("daemon.err"));
    command.stdin(Stdio::null()).stdout(File::create(stdout)?).stderr(File::create(&messages)?);
    let mut daemon = Running(command.spawn()?);
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(METRICS).is_err() {
        let is_running = daemon.0.try_wait()?.is_none() && Instant::now() < deadline;
        ensure!(is_running, "the daemon does not start: {}", fs::read_to_string(messages)?);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(daemon)
}

/// The configuration in the ConfigMap, with the node's directories replaced by `directory`.
fn configuration(manifest: &str, directory: &Path) -> Result<String> {
    let block =
        manifest.split("  sockstate.toml: |\n").nth(1).context("the manifest has no configuration")?;
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: String = lines.map(|line| format!("{}\n", line.trim_start_matches("    "))).collect();
    ensure!(text.contains("\"/run/"), "the configuration names no directory below /run");
    let directory = directory.display();
    Ok(text.replace("\"0.0.0.0:", "\"127.0.0.1:").replace("\"/run/", &format!("\"{directory}/")))
}
