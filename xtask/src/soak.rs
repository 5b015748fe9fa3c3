//! A daemon for a long time, under load, with a collector that comes and goes, reloaded, restarted and killed: its memory stays
//! bounded, and every transition is delivered once or counted.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::MetadataExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    blind::Blind,
    cargo, command,
    load::{Load, Mode},
    measure::{Running, mount_tracefs},
    netns::in_new_netns,
    root,
};

/// For how long, and where.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds: at least 45, which has one reload, one restart and one kill.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 600)]
    seconds: u64,
    /// Where records and spool go.
    #[arg(long, default_value = "target/soak")]
    directory: PathBuf,
}

const PIN: &str = "/sys/fs/bpf/sockstate-soak";
/// Twice the ring, which is mapped twice; two queues, and what is on its way out of them; a table and the rest.
const MOST_MB: f64 = 2.0 * 16.0 + 2.0 * 2.0 * 16.0 + 64.0;
const PORT: u16 = 7801;
/// Between two things that happen to the daemon.
const TURN: Duration = Duration::from_secs(15);

/// What has happened.
#[derive(Default)]
struct Tally {
    made: AtomicU64,
    /// Transitions that no program could see.
    hidden: u64,
    took: Duration,
    turns: u32,
    reloads: u64,
    restarts: u64,
    kills: u64,
    most_mb: f64,
}

pub(crate) fn all(args: &Args) -> Result<()> {
    command(cargo().args(["build", "--profile", "checked", "--package", "tracer"]))?;
    let directory = root().join(&args.directory);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    if !Path::new("/sys/fs/bpf/maps.debug").exists() {
        command(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))?;
    }
    let result = in_new_netns(|| soak(&directory, Duration::from_secs(args.seconds)))?;
    command(sockstate().args(["detach", "--pin", PIN]))?;
    let tally = result?;
    check(&directory, &tally)?;
    Ok(fs::remove_dir_all(&directory)?)
}

fn sockstate() -> Command {
    Command::new(root().join("target/checked/sockstate"))
}

fn configure(directory: &Path) -> Result<PathBuf> {
    let netns = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let here = directory.display();
    let text = format!(
        "pin = \"{PIN}\"\n[filter]\nnetns = {netns}\n[kernel]\nalongside = true\ntier = \"none\"\n\
         [sinks.file]\ntype = \"file\"\npath = \"{here}/records\"\nrotate-size = \"64M\"\nzstd = true\n\
         [sinks.collector]\ntype = \"socket\"\naddress = \"unix:{here}/collector\"\nspool = \"{here}/spool\"\nretry = \"1s\"\n\
         spool-size = \"8G\"\n[sinks.counts]\ntype = \"file\"\npath = \"{here}/counts\"\naggregate = \"10s\"\n"
    );
    let path = directory.join("config.toml");
    fs::write(&path, text)?;
    Ok(path)
}

fn soak(directory: &Path, length: Duration) -> Result<Tally> {
    let config = configure(directory)?;
    let (ends, mut tally) = (AtomicBool::new(false), Tally::default());
    let mut daemon = start(&config, directory)?;
    // It traces when it has written something.
    while !fs::metadata(directory.join("records")).is_ok_and(|it| it.len() > 0) {
        watch(&daemon, Duration::from_millis(100), &mut tally)?;
    }
    let begin = Instant::now();
    mount_tracefs()?;
    let blind = Blind::watch(PORT).context("cannot have ftrace watch for what is hidden from programs")?;
    thread::scope(|scope| {
        let collector = scope.spawn(|| collect(directory, &ends));
        let load = scope.spawn(|| {
            let made = AtomicU64::new(0);
            load(&made, &ends).map(|()| made.into_inner())
        });
        let mut work = || -> Result<()> {
            while begin.elapsed() < length {
                watch(&daemon, TURN, &mut tally)?;
                tally.turns += 1;
                match tally.turns % 3 {
                    0 => {
                        tally.reloads += 1;
                        daemon.signal(libc::SIGHUP);
                    }
                    1 => {
                        tally.restarts += 1;
                        daemon.signal(libc::SIGTERM);
                        ensure!(daemon.0.wait()?.success(), "it does not end as it should");
                        daemon = start(&config, directory)?;
                    }
                    _ => {
                        tally.kills += 1;
                        daemon.signal(libc::SIGKILL);
                        daemon.0.wait()?;
                        daemon = start(&config, directory)?;
                    }
                }
            }
            ends.store(true, Ordering::Relaxed);
            while !load.is_finished() {
                watch(&daemon, Duration::from_secs(1), &mut tally)?;
            }
            // What the collector has not is taken by now, or spooled.
            watch(&daemon, Duration::from_secs(5), &mut tally)?;
            daemon.signal(libc::SIGTERM);
            ensure!(daemon.0.wait()?.success(), "it does not end as it should");
            Ok(())
        };
        let result = work();
        ends.store(true, Ordering::Relaxed);
        let made = load.join().map_err(|_| anyhow::anyhow!("the load has failed"))??;
        collector.join().map_err(|_| anyhow::anyhow!("the collector has failed"))??;
        result?;
        tally.took = begin.elapsed();
        tally.made.store(made, Ordering::Relaxed);
        tally.hidden = blind.count().context("cannot read ftrace")?;
        Ok(tally)
    })
}

fn start(config: &Path, directory: &Path) -> Result<Running> {
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    let mut command = sockstate();
    let daemon = command.args(["run", "--config"]).arg(config).stdout(Stdio::null()).stderr(log);
    Ok(Running(daemon.spawn().context("cannot start the daemon")?))
}

/// It runs, and does not grow.
fn watch(daemon: &Running, time: Duration, tally: &mut Tally) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(500));
        let mb = daemon.rss().context("the daemon has ended")?;
        tally.most_mb = tally.most_mb.max(mb);
        ensure!(mb <= MOST_MB, "it takes {mb:.0} MB, and should never take more than {MOST_MB:.0}");
    }
    Ok(())
}

/// Mostly some hundred connections a second; then as many as there can be.
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

/// Reads, pauses, reads, goes away, and comes back.
fn collect(directory: &Path, ends: &AtomicBool) -> Result<()> {
    let path = directory.join("collector");
    while !ends.load(Ordering::Relaxed) {
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && !ends.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut buffer = vec![0; 1 << 20];
            let close = Instant::now() + Duration::from_secs(7);
            while Instant::now() < close {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    // Now and then it sleeps.
                    Ok(_) if close.elapsed().is_zero() && buffer[0].is_multiple_of(7) => {
                        thread::sleep(Duration::from_millis(200))
                    }
                    _ => {}
                }
            }
        }
        drop(listener);
        thread::sleep(Duration::from_secs(5));
    }
    Ok(())
}

/// Everything in the files, once, or counted.
fn check(directory: &Path, tally: &Tally) -> Result<()> {
    let made = tally.made.load(Ordering::Relaxed);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("records")));
    files.sort();
    // Sixty-four bits of each: two of a hundred million are the same in one soak of three thousand.
    let (mut seen, mut lost, mut instance) = (HashSet::new(), 0, None);
    for file in &files {
        let mut lines = lines(file)?;
        let (mut line, mut last) = (String::new(), 0);
        while lines.read_line(&mut line).with_context(|| format!("cannot read {}", file.display()))? > 0 {
            let record: Record<'_> =
                serde_json::from_str(&line).with_context(|| format!("in {}: {line}", file.display()))?;
            ensure!(record.seq > last, "{} comes behind {last} in {}: {line}", record.seq, file.display());
            last = record.seq;
            ensure!(
                record.instance == instance.get_or_insert_with(|| record.instance.to_owned()),
                "another instance: {line}"
            );
            match record.kind {
                "transition" => ensure!(seen.insert(record.hash()), "twice: {line}"),
                "lost" => lost += record.count,
                _ => {}
            }
            line.clear();
        }
    }
    let delivered = seen.len() as u64;
    println!(
        "soak: {} s, {} reloads, {} restarts, {} kills, {made} transitions, {} of them hidden by this kernel, \
         {delivered} delivered, {lost} counted as lost, {} files, at most {:.0} MB",
        tally.took.as_secs(),
        tally.reloads,
        tally.restarts,
        tally.kills,
        tally.hidden,
        files.len(),
        tally.most_mb
    );
    let log = fs::read_to_string(directory.join("log"))?;
    ensure!(!log.contains("panicked"), "it has panicked: {log}");
    let happened = [tally.reloads, tally.restarts, tally.kills, delivered];
    ensure!(happened.iter().all(|count| *count > 0), "too short: something did not happen in it");
    let known = delivered + lost + tally.hidden;
    ensure!(known >= made, "{} are missing and not counted", made - known);
    ensure!(delivered <= made, "more than happened");
    // A kill costs what was in memory, of a load like this: much less than a second's records.
    ensure!(lost <= tally.kills * 20_000, "too much is lost");
    Ok(())
}

/// What tells a record from others.
#[derive(Deserialize)]
struct Record<'a> {
    kind: &'a str,
    instance: &'a str,
    seq: u64,
    time: &'a str,
    local: Option<End<'a>>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    #[serde(default)]
    count: u64,
}

#[derive(Deserialize, Hash)]
struct End<'a> {
    address: &'a str,
    port: Option<u16>,
}

impl Record<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.time, &self.local, self.from, self.to).hash(&mut hasher);
        hasher.finish()
    }
}

fn lines(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        return Ok(Box::new(BufReader::new(zstd::Decoder::new(file)?)));
    }
    Ok(Box::new(BufReader::new(file)))
}
