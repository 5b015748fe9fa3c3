//! Compares sockstate with tcpstates of libbpf-tools, with an empty program on the same tracepoint, and with no tracer,
//! in one run.
//!
//! Each round measures all of them one after another; the printed numbers are medians over the rounds. The CPU time of
//! a tracer is that of its threads (/proc/PID/schedstat); the kernel's time for a transition comes from the kernel's
//! statistics of BPF programs.

mod filters;
pub(crate) mod formats;
pub(crate) mod instructions;
mod resources;
mod ring;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use testkit::load::Mode;

use crate::{
    cargo, command, leak,
    measure::{Program, Running, Statistics, mount_tracefs},
    output, root, setup, timers,
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The number of rounds [default: 5; 2 boots with --instructions, 1 with --gate].
    #[arg(long)]
    rounds: Option<u32>,
    /// Connections of each thread.
    #[arg(long, default_value_t = 40_000)]
    count: u32,
    /// The directory that the tracers write their files into.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// Only measurements with this text in their name: one kind of traffic, `filters`, `formats`, `timers`, `stuck`,
    /// `latency`, `memory` or `resources`; with --instructions, one tracer.
    #[arg(long, default_value = "")]
    only: String,
    #[command(flatten)]
    counted: instructions::Counting,
}

impl Args {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(5)
    }
}

/// One kind of traffic.
struct Traffic {
    name: &'static str,
    mode: Mode,
    threads: u32,
    acceptors: bool,
}

const TRAFFIC: [Traffic; 5] = [
    Traffic { name: "FIN, 1 thread", mode: Mode::Fin, threads: 1, acceptors: false },
    Traffic { name: "RST, 1 thread", mode: Mode::Rst, threads: 1, acceptors: false },
    Traffic { name: "FIN, 2 threads", mode: Mode::Fin, threads: 2, acceptors: false },
    Traffic { name: "FIN, 1 thread + acceptor", mode: Mode::Fin, threads: 1, acceptors: true },
    Traffic { name: "RST, 2 threads + acceptors", mode: Mode::Rst, threads: 2, acceptors: true },
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tracer {
    None,
    Empty,
    Sockstate,
    /// sockstate without mini-sockets.
    FullSockets,
    Tcpstates,
}

impl Tracer {
    const ALL: [Self; 5] = [Self::None, Self::Empty, Self::Sockstate, Self::FullSockets, Self::Tcpstates];

    fn name(self) -> &'static str {
        match self {
            Self::None => "no tracer",
            Self::Empty => "empty program",
            Self::Sockstate => "sockstate",
            Self::FullSockets => "sockstate --tier none",
            Self::Tcpstates => "tcpstates",
        }
    }
}

/// One run of one tracer.
#[derive(Clone, Copy, Default)]
struct Run {
    connections_per_second: f64,
    /// CPU seconds of the tracer for a million transitions that it has reported.
    cpu: f64,
    /// The nanoseconds that all programs together run for a transition.
    kernel_ns: f64,
    /// MB.
    rss: f64,
    /// The share of transitions that were neither delivered nor reported as lost.
    unaccounted: f64,
    /// Transitions that were reported as lost.
    lost: f64,
}

/// Measures and prints a table in Markdown.
pub(crate) fn all(args: &Args) -> Result<()> {
    if args.counted.instructions {
        return instructions::bench(&args.counted, args.rounds, &args.only);
    }
    setup::benchmarks()?;
    command(cargo().args(["build", "--release", "--package", "sockstate", "--package", "xtask-full"]))?;
    fs::create_dir_all(&args.directory)?;
    // bpftrace reads the format of the tracepoint in tracefs.
    mount_tracefs()?;
    touch_memory(&args.directory)?;
    println!("{}, {} rounds of {} connections a thread", machine()?, args.rounds(), args.count);
    let wanted = |name: &str| name.contains(&args.only);
    for traffic in TRAFFIC.iter().filter(|traffic| wanted(traffic.name)) {
        let mut runs: BTreeMap<Tracer, Vec<Run>> = BTreeMap::new();
        for _ in 0..args.rounds() {
            for tracer in Tracer::ALL {
                runs.entry(tracer).or_default().push(run(args, tracer, traffic)?);
            }
        }
        // A run of its own, because the statistics cost time.
        let statistics = Statistics::on()?;
        for tracer in Tracer::ALL {
            let kernel_ns = run(args, tracer, traffic)?.kernel_ns;
            runs.entry(tracer).or_default().iter_mut().for_each(|run| run.kernel_ns = kernel_ns);
        }
        drop(statistics);
        show(traffic, &runs);
    }
    if wanted("filters") {
        filters::bench(args)?;
    }
    if wanted("formats") {
        formats::bench(&root().join("target/release/xtask-full"))?;
    }
    if wanted("timers") {
        timers::bench(args.rounds())?;
    }
    if wanted("stuck") {
        leak::bench(args.rounds(), &args.directory)?;
    }
    if wanted("latency") {
        latency(args)?;
    }
    if wanted("memory") {
        memory()?;
    }
    if wanted("resources") {
        resources::bench(args)?;
    }
    Ok(())
}

/// Writes as much as a run writes. A virtual machine gets memory that it has never used from its host, which would slow
/// down the first writer.
fn touch_memory(directory: &Path) -> Result<()> {
    const MB: usize = 1 << 20;
    let path = directory.join("memory.out");
    let mut file = File::create(&path)?;
    for _ in 0..1024 {
        file.write_all(&[1; MB])?;
    }
    Ok(fs::remove_file(path)?)
}

fn machine() -> Result<String> {
    let kernel = output(Command::new("uname").arg("-r"))?;
    let cores = thread::available_parallelism()?;
    Ok(format!("kernel {}, {cores} cores", kernel.trim()))
}

fn median(runs: &[Run], of: fn(&Run) -> f64) -> f64 {
    median_of(runs.iter().map(of))
}

fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn show(traffic: &Traffic, runs: &BTreeMap<Tracer, Vec<Run>>) {
    let of =
        |tracer: Tracer, value: fn(&Run) -> f64| runs.get(&tracer).map_or(0.0, |runs| median(runs, value));
    let untraced = of(Tracer::None, |run| run.connections_per_second);
    println!("\n{}: {untraced:.0} connections/s untraced\n", traffic.name);
    println!(
        "| tracer | of untraced | CPU s per million reported | kernel ns | RSS MB | reported lost | unaccounted |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for tracer in Tracer::ALL.into_iter().skip(1) {
        println!(
            "| {} | {:.2} | {:.2} | {:.0} | {:.1} | {:.0} | {:.0} |",
            tracer.name(),
            of(tracer, |run| run.connections_per_second) / untraced,
            of(tracer, |run| run.cpu),
            of(tracer, |run| run.kernel_ns),
            of(tracer, |run| run.rss),
            of(tracer, |run| run.lost),
            of(tracer, |run| run.unaccounted),
        );
    }
    println!();
    for tracer in [Tracer::Sockstate, Tracer::FullSockets] {
        let ratio = |value: fn(&Run) -> f64| of(tracer, value) / of(Tracer::Tcpstates, value);
        println!(
            "{} against tcpstates: {:.1} times the connections/s, 1/{:.1} of the CPU, 1/{:.0} of the kernel ns",
            tracer.name(),
            ratio(|run| run.connections_per_second),
            1.0 / ratio(|run| run.cpu),
            1.0 / ratio(|run| run.kernel_ns),
        );
    }
}

fn run(args: &Args, tracer: Tracer, traffic: &Traffic) -> Result<Run> {
    let file = args.directory.join(format!("{}.out", tracer.name()));
    let _ = fs::remove_file(&file);
    let before = Statistics::programs()?;
    let mut running = start(tracer, &file, &before)?;
    let cpu_before = running.as_ref().map_or(Ok(0.0), Running::cpu)?;
    let (transitions, seconds) = load(traffic, args.count, 0)?;
    // The last records may still be on their way.
    thread::sleep(Duration::from_millis(300));
    let connections = f64::from(args.count * traffic.threads);
    let mut result = Run { connections_per_second: connections / seconds, ..Run::default() };
    let kernel_ns: f64 = Statistics::since(&before)?.iter().map(|program| program.ns).sum();
    result.kernel_ns = kernel_ns / transitions;
    if let Some(running) = &mut running {
        let cpu = running.cpu()? - cpu_before;
        // The records that are still in the ring have cost no CPU time yet.
        result.cpu = cpu / reported(tracer, &file)?.unwrap_or(transitions) * 1e6;
        result.rss = running.rss()?;
        running.end()?;
    }
    match tracer {
        Tracer::Sockstate | Tracer::FullSockets => {
            let text = fs::read_to_string(&file)?;
            // Only transitions of full sockets are counted; the end of a TIME_WAIT is a transition of a mini-socket.
            let counts = |line: &&str| {
                line.contains("\"kind\":\"transition\"") && !line.contains("\"from\":\"TIME_WAIT\"")
            };
            let delivered = text.lines().filter(counts).count();
            let stop: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
            let lost = stop["lost"].as_object().context("no stop record")?;
            result.lost = lost.values().filter_map(serde_json::Value::as_u64).sum::<u64>() as f64;
            result.unaccounted = transitions - delivered as f64 - result.lost;
        }
        Tracer::Tcpstates => result.unaccounted = transitions - reported(tracer, &file)?.unwrap_or(0.0),
        Tracer::None | Tracer::Empty => {}
    }
    Ok(result)
}

/// How many transitions a tracer has written to its file. The count of sockstate includes mini-sockets.
fn reported(tracer: Tracer, file: &Path) -> Result<Option<f64>> {
    let text = fs::read_to_string(file)?;
    let count = match tracer {
        Tracer::None | Tracer::Empty => return Ok(None),
        Tracer::Sockstate | Tracer::FullSockets => text.matches("\"kind\":\"transition\"").count(),
        // A header, and a line for each transition.
        Tracer::Tcpstates => text.lines().skip(1).count(),
    };
    Ok(Some(count as f64))
}

fn start(tracer: Tracer, file: &Path, before: &BTreeMap<u64, Program>) -> Result<Option<Running>> {
    let mut command = match tracer {
        Tracer::None => return Ok(None),
        Tracer::Empty => {
            // The smallest possible program, made by bpftrace.
            let mut command = Command::new("bpftrace");
            command.args(["-e", "tracepoint:sock:inet_sock_set_state { }"]);
            command
        }
        Tracer::Sockstate | Tracer::FullSockets => {
            let mut command = Command::new(root().join("target/release/sockstate"));
            command.args(["trace", "--alongside", "--format", "json", "--output"]).arg(file);
            if tracer == Tracer::FullSockets {
                command.args(["--tier", "none"]);
            }
            command
        }
        Tracer::Tcpstates => Command::new("tcpstates"),
    };
    let out = File::create(file)?;
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn();
    let running = Running(child.with_context(|| format!("cannot start {}", tracer.name()))?);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The other tracers do not print that they are ready; wait until their programs are loaded.
        let ready = match tracer {
            Tracer::Sockstate | Tracer::FullSockets => {
                fs::read_to_string(file).unwrap_or_default().contains("\"start\"")
            }
            _ => Statistics::programs()?.len() > before.len(),
        };
        if ready {
            break;
        }
        if Instant::now() > deadline {
            bail!("{} does not start", tracer.name());
        }
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    Ok(Some(running))
}

/// Runs the load in a process of its own; returns transitions and seconds.
fn load(traffic: &Traffic, count: u32, gap_us: u64) -> Result<(f64, f64)> {
    let mode = match traffic.mode {
        Mode::Fin => "fin",
        Mode::Rst => "rst",
        Mode::Flap => "flap",
    };
    let mut command = Command::new(root().join("target/release/xtask-full"));
    command.args(["internal", "load", "--mode", mode, "--threads", &traffic.threads.to_string()]);
    command.args(["--count", &count.to_string(), "--gap-us", &gap_us.to_string()]);
    if traffic.acceptors {
        command.arg("--acceptors");
    }
    let text = output(&mut command)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers[..] {
        [transitions, seconds] => Ok((transitions, seconds)),
        _ => bail!("the load printed {text}"),
    }
}

/// How long a record takes from the kernel program to the reader of a pipe, at about 2,000 transitions a second.
fn latency(args: &Args) -> Result<()> {
    let mut command = Command::new(root().join("target/release/sockstate"));
    command.args(["trace", "--alongside", "--format", "json", "--port", "7701"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut running = Running(child);
    let mut pipe = running.0.stdout.take().context("no stdout")?;
    let mut chunk = vec![0; 1 << 16];
    // The first record shows that the tracer runs.
    let len = pipe.read(&mut chunk)?;
    ensure!(len > 0, "sockstate does not start");
    let reader = thread::spawn(move || {
        let mut chunks = Vec::new();
        while let Ok(len @ 1..) = pipe.read(&mut chunk) {
            chunks.push((sockstate::pipeline::now_ns(), chunk[..len].to_vec()));
        }
        chunks
    });
    let slow = Traffic { name: "", mode: Mode::Fin, threads: 1, acceptors: false };
    load(&slow, args.count.min(1000), 4500)?;
    running.signal(libc::SIGINT);
    let mut delays = Vec::new();
    let mut text = Vec::new();
    for (now, chunk) in reader.join().unwrap_or_default() {
        text.extend(chunk);
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let record: serde_json::Value = serde_json::from_slice(&line)?;
            if record["kind"] == "transition"
                && let Some(ns) = record["time"].as_str().and_then(nanoseconds)
            {
                delays.push(now - ns);
            }
        }
    }
    delays.sort_unstable();
    let at = |share: f64| delays.get((delays.len() as f64 * share) as usize).copied().unwrap_or(0) / 1000;
    println!(
        "\nlatency to the reader of a pipe, about 2,000 transitions/s: p50 {} us, p90 {} us, p99 {} us",
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}

/// Bytes that the connection table needs for a connection, with a million of them.
fn memory() -> Result<()> {
    use sockstate::{
        decode::decode,
        enrich::Enricher,
        track::{Table, Visibility},
    };
    const MILLION: u64 = 1_000_000;
    let resident = || -> Result<u64> {
        let text = fs::read_to_string("/proc/self/statm")?;
        Ok(text.split(' ').nth(1).context("statm")?.parse::<u64>()? * 4096)
    };
    let mut table = Table::new(0, 0, Visibility::default());
    let mut enricher = Enricher::new("/".into(), false);
    let before = resident()?;
    for number in 0..MILLION {
        // CLOSE -> SYN_SENT of another socket, as the kernel program writes it.
        let mut bytes = vec![0; 56];
        bytes[8..16].copy_from_slice(&(0xffff_8881_0000_0000 + number * 2368).to_ne_bytes());
        bytes[32..36].copy_from_slice(&[1, 0, 7, 2]);
        bytes[36..38].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[44..48].copy_from_slice(&(number as u32).to_ne_bytes());
        table.apply(&decode(&bytes)?, &mut enricher);
    }
    let bytes = resident()? - before;
    println!("\nconnection table: {} connections, {} bytes each", table.len(), bytes / MILLION);
    Ok(())
}

/// Nanoseconds since the epoch.
fn nanoseconds(time: &str) -> Option<i64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}
