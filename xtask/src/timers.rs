//! What the tier `timers` costs a host that does something else: its programs see every timer of the kernel. Bulk data over
//! loopback sets thousands of timers a second and makes no connection.

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

/// Who watches.
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

/// How long data flows.
const FLOW: Duration = Duration::from_secs(3);

/// Prints throughput against no tracer, and nanoseconds for a timer event.
pub(crate) fn bench(rounds: u32) -> Result<()> {
    let mut throughput = [const { Vec::new() }; ALL.len()];
    for round in 0..rounds as usize {
        // The first and the last are not always the same one.
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
        // Each against its own round's: the machine is not as quick in all of them.
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
    // Those of the one before may still be there, and go.
    while Statistics::programs()?.keys().filter(|id| !before.contains_key(id)).count() < 3 {
        if Instant::now() > deadline {
            bail!("a tracer does not start");
        }
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    Ok(Some(running))
}

/// GB a second from one thread to another, in a network namespace of their own.
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
