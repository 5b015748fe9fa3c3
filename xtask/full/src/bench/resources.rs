//! What a daemon needs: memory and CPU at some rates of connections. The numbers for the DaemonSet are for its resource requests;
//! those for the service show what the second process of the sinks costs.

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
use crate::{
    command,
    measure::{Running, cpu, rss},
    root,
};

const MANIFEST: &str = "packaging/kubernetes/sockstate.yaml";
const SERVICE: &str = "packaging/systemd/sockstate.toml";
const SINKS_USER: &str = "nobody";
/// Where the daemon serves its metrics, once it traces.
const METRICS: &str = "127.0.0.1:9435";
/// Connections a second.
const RATES: [u32; 4] = [0, 100, 1_000, 5_000];
/// How long each rate lasts.
const SECONDS: u32 = 20;

/// Measures and prints a table in Markdown.
pub(super) fn bench(args: &Args) -> Result<()> {
    println!("\nwhat a daemon needs, {SECONDS} s for each rate\n");
    println!("| daemon | connections/s | CPU, share of a core | RSS MB |");
    println!("| --- | --- | --- | --- |");
    let directory = fs::canonicalize(&args.directory)?;
    let manifest = fs::read_to_string(root().join(MANIFEST))?;
    let service = fs::read_to_string(root().join(SERVICE))?;
    for (name, configuration) in [
        ("DaemonSet", of_manifest(&manifest)?),
        ("service, in one process", of_service(&service, "")?),
        ("service", of_service(&service, &format!("sinks-user = \"{SINKS_USER}\""))?),
    ] {
        let daemon = start(&directory, &configuration)?;
        for rate in RATES {
            let (cpu_before, begin) = (used(&daemon, cpu)?, Instant::now());
            let made = make(rate)?;
            let share = (used(&daemon, cpu)? - cpu_before) / begin.elapsed().as_secs_f64();
            println!("| {name} | {made:.0} | {share:.4} | {:.1} |", used(&daemon, rss)?);
        }
    }
    Ok(())
}

/// The sum over the daemon and the process of its sinks, if there is one.
fn used(daemon: &Running, of: impl Fn(u32) -> Result<f64>) -> Result<f64> {
    let sinks = daemon.child()?.map(|sinks| of(sinks.as_raw_nonzero().get().cast_unsigned()));
    Ok(of(daemon.0.id())? + sinks.transpose()?.unwrap_or_default())
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

/// Starts a daemon whose files are in `directory`, and waits until it traces.
fn start(directory: &Path, configuration: &str) -> Result<Running> {
    let config = directory.join("daemon.toml");
    let logs = directory.join("logs");
    // The process of the sinks must reach this directory.
    drop(fs::remove_dir_all(&logs));
    fs::create_dir_all(&logs)?;
    command(Command::new("chown").arg(SINKS_USER).arg(&logs))?;
    let text = configuration.replace("/var/log/sockstate", &logs.display().to_string());
    fs::write(&config, text.replace("\"/run/", &format!("\"{}/", directory.display())))?;
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

/// The configuration in the ConfigMap.
fn of_manifest(manifest: &str) -> Result<String> {
    let block =
        manifest.split("  sockstate.toml: |\n").nth(1).context("the manifest has no configuration")?;
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: String = lines.map(|line| format!("{}\n", line.trim_start_matches("    "))).collect();
    ensure!(text.contains("\"/run/"), "the configuration names no directory below /run");
    Ok(text.replace("\"0.0.0.0:", "\"127.0.0.1:"))
}

/// The configuration of the service with another key for the process of the sinks.
fn of_service(text: &str, process: &str) -> Result<String> {
    let line = text.lines().find(|line| line.starts_with("sinks-socket = "));
    Ok(text.replace(line.context("the service's configuration has no sinks-socket")?, process))
}
