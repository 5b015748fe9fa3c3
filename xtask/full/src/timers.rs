//! Measures what the tier `timers` costs a host with other work: the programs of this tier see every timer of the
//! kernel. Bulk data over loopback sets thousands of timers a second, and makes no connection.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use testkit::netns;

use crate::{
    measure::{Running, Statistics},
    root,
};

/// What runs during the measurement.
#[derive(Clone, Copy)]
enum Watcher {
    Nobody,
    /// Programs that do nothing, on the same tracepoints.
    Empty,
    Sockstate,
}

const ALL: [(Watcher, &str); 3] = [
    (Watcher::Nobody, "no tracer"),
    (Watcher::Empty, "empty programs"),
    (Watcher::Sockstate, "sockstate --tier timers"),
];

const EMPTY: &str = "tracepoint:timer:timer_start { } tracepoint:timer:timer_cancel { } tracepoint:timer:timer_expire_entry { }";

const FLOW: Duration = Duration::from_secs(3);

/// Prints the throughput relative to no tracer, and the nanoseconds for each timer event.
pub(crate) fn bench(rounds: u32) -> Result<()> {
    let mut throughput = [const { Vec::new() }; ALL.len()];
    for round in 0..rounds as usize {
        // The order changes from round to round.
        for at in (0..ALL.len()).map(|at| (at + round) % ALL.len()) {
            let _running = start(ALL[at].0)?;
            throughput[at].push(flow()?);
        }
    }
    println!("\nbulk data over loopback, {} s each\n", FLOW.as_secs());
    println!("| tracer | GB/s | of untraced | events/s | ns per event |");
    println!("| --- | --- | --- | --- | --- |");
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list.get(list.len() / 2).copied().unwrap_or(0.0)
    };
    let untraced = throughput[0].clone();
    let statistics = Statistics::on()?;
    for ((watcher, name), list) in ALL.iter().zip(throughput) {
        let before = Statistics::programs()?;
        let running = start(*watcher)?;
        let begin = Instant::now();
        flow()?;
        let took = begin.elapsed().as_secs_f64();
        let timers =
            Statistics::since(&before)?.into_iter().filter(|program| program.name.starts_with("timer_"));
        let (ns, runs) =
            timers.fold((0.0, 0.0), |(ns, runs), program| (ns + program.ns, runs + program.runs));
        drop(running);
        // Each throughput is relative to the one of its own round, because the machine's speed changes between rounds.
        let share = median(list.iter().zip(&untraced).map(|(speed, untraced)| speed / untraced).collect());
        let speed = median(list);
        let each = if runs > 0.0 { ns / runs } else { 0.0 };
        println!("| {name} | {speed:.2} | {share:.2} | {:.0} | {each:.0} |", runs / took);
    }
    drop(statistics);
    Ok(())
}

fn start(watcher: Watcher) -> Result<Option<Running>> {
    let before = Statistics::programs()?;
    let mut command = match watcher {
        Watcher::Nobody => return Ok(None),
        Watcher::Empty => {
            let mut command = Command::new("bpftrace");
            command.args(["-e", EMPTY]);
            command
        }
        Watcher::Sockstate => {
            let mut command = Command::new(root().join("target/release/sockstate"));
            command.args(["trace", "--alongside", "--tier", "timers", "--format", "json"]);
            command
        }
    };
    let child: Child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a tracer")?;
    let running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    // The programs of the previous tracer may still be loaded, and go away.
    while Statistics::programs()?.keys().filter(|id| !before.contains_key(id)).count() < 3 {
        if Instant::now() > deadline {
            bail!("a tracer did not start");
        }
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    Ok(Some(running))
}

/// The throughput from one thread to another in GB/s, in a network namespace of their own.
fn flow() -> Result<f64> {
    netns::in_new_netns(|| -> std::io::Result<f64> {
        let listener = TcpListener::bind("127.0.0.1:7801")?;
        let mut sender = TcpStream::connect("127.0.0.1:7801")?;
        let mut receiver = listener.accept()?.0;
        let reader = thread::spawn(move || -> std::io::Result<u64> {
            let mut buffer = vec![0; 1 << 17];
            let mut bytes = 0;
            loop {
                match receiver.read(&mut buffer)? {
                    0 => return Ok(bytes),
                    len => bytes += len as u64,
                }
            }
        });
        let data = vec![7; 1 << 17];
        let begin = Instant::now();
        while begin.elapsed() < FLOW {
            sender.write_all(&data)?;
        }
        drop(sender);
        let bytes = reader.join().unwrap_or(Ok(0))?;
        Ok(bytes as f64 / begin.elapsed().as_secs_f64() / 1e9)
    })?
    .context("data does not flow")
}
