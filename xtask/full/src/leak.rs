//! Measures how quickly `sockstate stuck` answers, and what the detector costs, with 100,000 sockets in CLOSE_WAIT.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use testkit::{
    load::{Load, Mode},
    netns,
};

use crate::{
    measure::{Running, cpu},
    output, root,
};

/// The number of processes, and of sockets of each: a process may have 20,000 descriptors here.
const PROCESSES: u16 = 6;
const EACH: u32 = 17_000;

/// Leaks `count` sockets in CLOSE_WAIT, and keeps them until its input ends.
#[derive(clap::Args)]
pub(crate) struct Leak {
    /// How many.
    #[arg(long)]
    count: u32,
    /// The listener's port.
    #[arg(long)]
    port: u16,
}

impl Leak {
    /// Leaks in this thread's network namespace.
    pub(crate) fn run(&self) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        let mut leaked = Vec::new();
        for number in 0..self.count {
            // One client address has too few ports for all sockets.
            let [first, second] = self.port.to_be_bytes();
            let host = Ipv4Addr::new(127, first, second, 1 + (number / 10_000) as u8);
            let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            client.bind(&SocketAddr::from((host, 0)).into())?;
            client.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).into())?;
            leaked.push(listener.accept()?.0);
            drop(client);
        }
        println!("ready");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        drop::<Vec<TcpStream>>(leaked);
        Ok(())
    }
}

/// Measures and prints.
pub(crate) fn bench(rounds: u32, directory: &Path) -> Result<()> {
    netns::in_new_netns(|| -> Result<()> {
        let mut leaking = (0..PROCESSES).map(start).collect::<Result<Vec<_>>>()?;
        let sockets = output(Command::new("ss").args(["-tnH", "state", "close-wait"]))?.lines().count();
        println!("\n{sockets} sockets in CLOSE_WAIT, held by {PROCESSES} processes\n");
        println!("| command | s |");
        println!("| --- | --- |");
        let sockstate = root().join("target/release/sockstate").display().to_string();
        let json = format!("{sockstate} close-wait --older-than 0 --format json");
        let table = format!("{sockstate} close-wait --older-than 0 --format table");
        let groups = format!("{sockstate} close-wait --older-than 0 --format table --group-by process");
        let check = format!("{sockstate} close-wait --older-than 0 --check");
        for line in [&json, &table, &groups, &check, "ss -tanpei state close-wait"] {
            let mut times = Vec::new();
            for _ in 0..rounds {
                let begin = Instant::now();
                Command::new("sh").args(["-c", line]).stdout(Stdio::null()).status()?;
                times.push(begin.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            let shown = line.trim_start_matches(sockstate.trim_end_matches("sockstate"));
            println!("| `{shown}` | {:.2} |", times[times.len() / 2]);
        }
        // The clients' ends would otherwise end during the next measurement.
        while !output(Command::new("ss").args(["-tnH", "state", "fin-wait-2"]))?.is_empty() {
            thread::sleep(Duration::from_secs(1));
        }
        detector(directory)?;
        screen()?;
        leaking.iter_mut().for_each(|(_, stdin)| drop(stdin.take()));
        Ok(())
    })?
}

/// Measures what a tracer costs that watches all these sockets while nothing changes.
fn detector(directory: &Path) -> Result<()> {
    const IDLE: Duration = Duration::from_secs(10);
    let file = directory.join("detector.out");
    let _ = fs::remove_file(&file);
    for (name, watching) in [("watching", true), ("--no-stuck", false)] {
        let mut command = Command::new(root().join("target/release/sockstate"));
        command.args(["trace", "--alongside", "--format", "json", "--resync", "0", "--output"]).arg(&file);
        command.args(if watching { &["--threshold", "CLOSE_WAIT=1h"][..] } else { &["--no-stuck"] });
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let running = Running(child);
        // The tracer first reads a snapshot of all sockets, and corrects it in the following seconds.
        thread::sleep(Duration::from_secs(6));
        let before = running.cpu()?;
        thread::sleep(IDLE);
        let cpu = (running.cpu()? - before) / IDLE.as_secs_f64() * 100.0;
        println!(
            "\ntracer, {name}: {cpu:.3} % of a core while nothing changes, RSS {:.1} MB",
            running.rss()?
        );
    }
    Ok(())
}

/// Measures what `top` costs that shows all these sockets, while nothing changes, and while connections come and go.
fn screen() -> Result<()> {
    const TIME: Duration = Duration::from_secs(10);
    let sockstate = root().join("target/release/sockstate").display().to_string();
    let line = format!("stty cols 160 rows 50; exec {sockstate} top --alongside --threshold CLOSE_WAIT=1h");
    let mut script = Command::new("script");
    script.args(["--quiet", "--command", &line, "/dev/null"]).env("TERM", "xterm-256color");
    // If standard input ended, the terminal would end.
    let child = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("script")?;
    let terminal = Running(child);
    thread::sleep(Duration::from_secs(8));
    let id = terminal.0.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let pid: u32 = children.trim().parse().with_context(|| format!("top does not run: '{children}'"))?;
    println!("\n| `sockstate top` on a screen of 160 x 50, transitions/s | % of a core |");
    println!("| --- | --- |");
    for gap_us in [None, Some(4000), Some(400)] {
        let (begin, before) = (Instant::now(), cpu(pid)?);
        let mut made = 0;
        while begin.elapsed() < TIME {
            let Some(gap_us) = gap_us else {
                thread::sleep(TIME);
                break;
            };
            let load = Load { mode: Mode::Fin, threads: 1, count: 500, acceptors: false, gap_us, port: 7801 };
            // A namespace of its own, so that the end of the load can be seen.
            made += netns::in_new_netns(|| load.run())??.transitions;
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!("| {:.0} | {:.1} |", made as f64 / seconds, (cpu(pid)? - before) / seconds * 100.0);
    }
    Ok(())
}

fn start(number: u16) -> Result<(Running, Option<std::process::ChildStdin>)> {
    let mut child: Child = Command::new(root().join("target/release/xtask-full"))
        .args(["internal", "leak", "--count", &EACH.to_string(), "--port", &(7900 + number).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let running = Running(child);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the leaking process printed '{line}'");
    Ok((running, stdin))
}
