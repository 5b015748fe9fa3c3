//! Runs a daemon under load for a long time. Some collectors come and go, others hang, a disk is full for a while, and
//! nobody reads standard error. The daemon is reloaded with other sinks, restarted and killed. Its memory must stay
//! bounded, and each sink must deliver every transition or count it as lost.

mod check;
mod faults;

use std::{
    fs::{self, File},
    io::PipeReader,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Signal, kill_process};
use testkit::{
    blind::Blind,
    load::{Load, Mode},
    netns::in_new_netns,
};

use crate::{
    command, live,
    measure::{Running, mount_tracefs, rss},
    root, testing,
};
use check::Stream;
use faults::{Disk, Hung};

/// The duration, and the directory.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds, at least 60: a minute has one reload, one restart, one kill and one full disk.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 600)]
    seconds: u64,
    /// The directory of the records and the spool.
    #[arg(long, default_value = "target/soak")]
    directory: PathBuf,
    /// Run the sinks in a process of their own, as the user nobody. Every second kill is that of this process.
    #[arg(long)]
    split: bool,
}

const PIN: &str = "/sys/fs/bpf/sockstate-soak";
/// The limit of the daemon's memory: twice the ring, which is mapped twice; three large and two small queues, and the
/// records that are on their way out of them; 64 MB each for three hung sinks, whose streams hold records at the end;
/// a segment of the spool, which may hold a whole queue; the connection table and the rest.
const MOST_MB: f64 = 2.0 * 16.0 + 2.0 * (3.0 * 16.0 + 2.0 * 4.0) + 3.0 * 64.0 + (8.0 + 16.0) + 64.0;
/// How many records a kill can lose: those of the file's queue, and as many that are on their way to the file or
/// compressed and not yet written. A record has at least 400 bytes.
const MOST_KILLED: u64 = 2 * (16 << 20) / 400;
const PORT: u16 = 7801;
const SINKS_USER: &str = "nobody";
/// The time between two events.
const TURN: Duration = Duration::from_secs(15);
const FULL: Duration = Duration::from_secs(5);
/// How long the hung collectors may need at the end to read everything, while the daemon still runs.
const AT_LAST: Duration = Duration::from_secs(180);

/// Counts of what has happened.
#[derive(Default)]
struct Tally {
    made: u64,
    /// Transitions that no BPF program could see.
    hidden: u64,
    took: Duration,
    turns: u32,
    reloads: u64,
    restarts: u64,
    kills: u64,
    full: u64,
    most_mb: f64,
}

pub(crate) fn all(args: &Args) -> Result<()> {
    live::build(&mut testing::with_features())?;
    let directory = root().join(&args.directory);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    if !Path::new("/sys/fs/bpf/maps.debug").exists() {
        command(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))?;
    }
    let disk = Disk::mount(directory.join("disk"))?;
    let result = in_new_netns(|| soak(&directory, &disk, args))?;
    command(sockstate().args(["detach", "--pin", PIN]))?;
    let (tally, hung) = result?;
    check::all(&directory, &tally, &hung)?;
    drop(disk);
    Ok(fs::remove_dir_all(&directory)?)
}

fn sockstate() -> Command {
    Command::new(root().join("target/checked/sockstate"))
}

/// The configuration of one turn. Each reload changes two sinks, and adds or removes one.
fn configure(directory: &Path, turn: u32, split: bool) -> Result<PathBuf> {
    let netns = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let here = directory.display();
    let is_odd = turn % 2 == 1;
    let (size, batch) = if is_odd { ("48M", "1M") } else { ("64M", "512K") };
    let user = if split { format!("sinks-user = \"{SINKS_USER}\"\n") } else { String::new() };
    let mut text = format!(
        "{user}pin = \"{PIN}\"\n[filter]\nnetns = {netns}\n[kernel]\nalongside = true\ntier = \"none\"\n\
         [sinks.file]\ntype = \"file\"\npath = \"{here}/records\"\nrotate-size = \"{size}\"\nzstd = true\n\
         [sinks.connections]\ntype = \"file\"\npath = \"{here}/connections\"\nrecords = [\"connections\"]\n\
         [sinks.disk]\ntype = \"file\"\npath = \"{here}/disk/records\"\nrotate-size = \"8M\"\nzstd = true\nretry = \"1s\"\n\
         [sinks.collector]\ntype = \"socket\"\naddress = \"unix:{here}/collector\"\nspool = \"{here}/spool\"\nretry = \"1s\"\n\
         batch = \"{batch}\"\nspool-size = \"8G\"\n\
         [sinks.hung]\ntype = \"socket\"\naddress = \"unix:{here}/hung\"\nqueue = \"4M\"\n\
         [sinks.pipe]\ntype = \"file\"\npath = \"{here}/pipe\"\nqueue = \"4M\"\n"
    );
    if is_odd {
        text.push_str(&format!(
            "[sinks.counts]\ntype = \"file\"\npath = \"{here}/counts\"\naggregate = \"10s\"\n"
        ));
    }
    let path = directory.join("config.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Makes the files those of the sinks' process.
fn give(files: &[&Path]) -> Result<()> {
    command(Command::new("chown").arg(SINKS_USER).args(files))
}

/// Runs the soak, and returns what the hung collectors have read at the end.
fn soak(directory: &Path, disk: &Disk, args: &Args) -> Result<(Tally, [(&'static str, Stream); 2])> {
    let length = Duration::from_secs(args.seconds);
    let [ends, stops] = [false; 2].map(AtomicBool::new);
    let made = AtomicU64::new(0);
    let (socket, pipe) = (Hung::default(), Hung::default());
    let mut tally = Tally::default();
    // The collectors use unix sockets: TCP connections would be counted as load.
    let listener = faults::listen(&directory.join("hung"))?;
    let fifo = faults::fifo(&directory.join("pipe"))?;
    if args.split {
        give(&[directory, &directory.join("disk"), &directory.join("pipe")])?;
    }
    configure(directory, 0, args.split)?;
    let mut daemon = Daemon::start(directory, 0)?;
    // The daemon traces once it has written something.
    while !fs::metadata(directory.join("records")).is_ok_and(|record| record.len() > 0) {
        daemon.watch(Duration::from_millis(100), &mut tally)?;
    }
    let begin = Instant::now();
    mount_tracefs()?;
    let blind = Blind::watch(PORT)
        .context("cannot start ftrace, which sees transitions that BPF programs do not see")?;
    thread::scope(|scope| {
        let collector = scope.spawn(|| faults::collect(directory, &ends));
        let reader_of_socket = scope.spawn(|| faults::hang(&listener, &socket));
        let reader_of_pipe = scope.spawn(|| faults::hold(fifo, &pipe));
        let load = scope.spawn(|| load(&made, &stops));
        let mut work = || -> Result<()> {
            while begin.elapsed() < length {
                daemon.watch(TURN, &mut tally)?;
                tally.turns += 1;
                turn(&mut daemon, directory, disk, &mut tally, args.split)?;
            }
            stops.store(true, Ordering::Relaxed);
            while !load.is_finished() {
                daemon.watch(Duration::from_secs(1), &mut tally)?;
            }
            // The hung collectors read now. By then, the collector has taken all records, or they are in the spool.
            [&socket, &pipe].into_iter().for_each(|hung| hung.reads.store(true, Ordering::Relaxed));
            let made = made.load(Ordering::Relaxed);
            let deadline = Instant::now() + AT_LAST;
            let has_everything = || -> Result<bool> {
                let visible = made.saturating_sub(blind.count().context("cannot read ftrace")?);
                Ok([&socket, &pipe].iter().all(|hung| hung.known.load(Ordering::Relaxed) >= visible))
            };
            while !has_everything()? && Instant::now() < deadline {
                daemon.watch(Duration::from_millis(500), &mut tally)?;
            }
            daemon.end()
        };
        let result = work();
        [&ends, &stops].into_iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
        for hung in [&socket, &pipe] {
            hung.reads.store(true, Ordering::Relaxed);
            hung.ends.store(true, Ordering::Relaxed);
        }
        let failed = || anyhow!("a thread has failed");
        load.join().map_err(|_| failed())??;
        collector.join().map_err(|_| failed())??;
        let of_socket = reader_of_socket.join();
        let of_pipe = reader_of_pipe.join();
        result?;
        tally.took = begin.elapsed();
        tally.made = made.load(Ordering::Relaxed);
        tally.hidden = blind.count().context("cannot read ftrace")?;
        let of = |joined: thread::Result<Result<Stream>>| joined.map_err(|_| failed())?;
        Ok((tally, [("hung", of(of_socket)?), ("pipe", of(of_pipe)?)]))
    })
}

/// Lets one event happen to the daemon, or to its environment.
fn turn(daemon: &mut Daemon, directory: &Path, disk: &Disk, tally: &mut Tally, split: bool) -> Result<()> {
    match tally.turns % 4 {
        0 => {
            tally.full += 1;
            disk.fill()?;
            let result = daemon.watch(FULL, tally);
            disk.empty()?;
            result
        }
        1 => {
            tally.restarts += 1;
            daemon.end()?;
            daemon.renew(directory, tally.turns)
        }
        2 => {
            tally.reloads += 1;
            configure(directory, tally.turns / 4 + 1, split)?;
            daemon.running.signal(libc::SIGHUP);
            Ok(())
        }
        _ => {
            tally.kills += 1;
            let sinks = daemon.running.child()?.filter(|_| tally.kills.is_multiple_of(2));
            match sinks {
                // The daemon ends with the process of its sinks.
                Some(sinks) => drop(kill_process(sinks, Signal::KILL)),
                None => daemon.running.signal(libc::SIGKILL),
            }
            daemon.running.0.wait()?;
            daemon.renew(directory, tally.turns)
        }
    }
}

/// The daemon.
struct Daemon {
    running: Running,
    /// The standard error of the daemon, if nobody reads it.
    _deaf: Option<PipeReader>,
}

impl Daemon {
    /// Nobody reads the standard error of every second daemon.
    fn start(directory: &Path, number: u32) -> Result<Self> {
        let mut command = sockstate();
        command.args(["run", "--config"]).arg(directory.join("config.toml")).stdout(Stdio::null());
        let deaf = if number % 4 == 1 {
            let (stderr, reader) = faults::deaf()?;
            command.stderr(stderr);
            Some(reader)
        } else {
            command.stderr(File::options().create(true).append(true).open(directory.join("log"))?);
            None
        };
        Ok(Self { running: Running(command.spawn().context("cannot start the daemon")?), _deaf: deaf })
    }

    fn renew(&mut self, directory: &Path, number: u32) -> Result<()> {
        *self = Self::start(directory, number)?;
        Ok(())
    }

    /// Checks that the daemon runs, and that its memory does not grow.
    fn watch(&self, time: Duration, tally: &mut Tally) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(500));
            let mb = self.running.rss().context("the daemon has ended")?;
            let sinks = self.running.child()?.map(|sinks| rss(sinks.as_raw_nonzero().get().cast_unsigned()));
            let mb = mb + sinks.transpose()?.unwrap_or_default();
            tally.most_mb = tally.most_mb.max(mb);
            ensure!(
                mb <= MOST_MB,
                "the daemon takes {mb:.0} MB, and should never take more than {MOST_MB:.0}"
            );
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.running.signal(libc::SIGTERM);
        ensure!(self.running.0.wait()?.success(), "the daemon did not end successfully");
        Ok(())
    }
}

/// Mostly a few hundred connections a second, sometimes as many as possible.
fn load(made: &AtomicU64, ends: &AtomicBool) -> Result<()> {
    for turn in 0_u64.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let (count, gap_us) = if turn % 15 == 4 { (20_000, 0) } else { (1000, 2000) };
        let load = Load { mode: Mode::Fin, threads: 1, count, acceptors: false, gap_us, port: PORT };
        made.fetch_add(load.run()?.transitions, Ordering::Relaxed);
    }
    Ok(())
}
