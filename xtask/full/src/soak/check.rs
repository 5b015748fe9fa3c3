//! Checks that each sink has delivered every record once, or counted it as lost.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::DefaultHasher},
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{MOST_KILLED, Tally};

/// The content of one sink's stream.
#[derive(Default)]
pub(super) struct Stream {
    /// A hash of each transition. The probability that two of 10^8 hashes are equal by chance is below 1/3,000.
    seen: HashSet<u64>,
    /// The cause of each connection's end: of the transitions to CLOSE, or of the records of connections.
    ends: HashMap<u64, Option<String>>,
    /// Connections of which something was lost or hidden: a correction ended them.
    incomplete: HashSet<u64>,
    /// How many connections have no record, because many were never established, and are counted.
    counted: u64,
    /// How many records are in doubt.
    in_doubt: u64,
    instance: Option<String>,
    /// The counts of `lost` records, by the records' numbers: a stream that repeats records in doubt repeats `lost`
    /// records, too.
    losses: BTreeMap<u64, Loss>,
}

/// A `lost` record.
struct Loss {
    count: u64,
    by_kill: bool,
    /// Whether the lost records have the numbers before this record's number. Records that were lost in the kernel have
    /// no numbers.
    has_numbers: bool,
}

impl Stream {
    /// Adds a record, and returns its number. Only a stream of a sink that `may_repeat` can contain a record twice.
    pub(super) fn add(&mut self, line: &str, may_repeat: bool) -> Result<u64> {
        let record: Record<'_> = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let instance = self.instance.get_or_insert_with(|| record.instance.to_owned());
        ensure!(record.instance == instance, "another instance: {line}");
        match record.kind {
            "transition" => {
                let is_new = self.seen.insert(record.hash());
                ensure!(is_new || may_repeat, "twice: {line}");
                if record.to == Some("CLOSE")
                    && record.role != Some("listener")
                    && record.from != Some("LISTEN")
                {
                    self.ends.insert(record.conn()?, record.cause.map(str::to_owned));
                }
            }
            "connection" => {
                let conn = record.conn()?;
                let is_new = !self.ends.contains_key(&conn) && !self.incomplete.contains(&conn);
                ensure!(is_new, "a second record of a connection: {line}");
                if record.incomplete {
                    self.incomplete.insert(conn);
                } else {
                    self.ends.insert(conn, record.cause.map(str::to_owned));
                }
            }
            "aggregate" if record.of_connections => self.counted += record.count,
            "lost" => {
                let has_numbers = matches!(record.place, Some("sink" | "crash"));
                let by_kill = record.place == Some("crash");
                self.in_doubt += record.in_doubt;
                self.losses.insert(record.seq, Loss { count: record.count, by_kill, has_numbers });
            }
            _ => {}
        }
        Ok(record.seq)
    }

    /// How many records are counted as lost. At the end, the hung collector also reads old connections, whose records
    /// were counted as lost before. A later `lost` record counts the `lost` records among them again.
    fn lost(&self) -> u64 {
        let (mut sum, mut counted_from) = (0, u64::MAX);
        for (seq, loss) in self.losses.iter().rev().filter(|(_, loss)| loss.count > 0) {
            if *seq < counted_from {
                sum += loss.count;
                if loss.has_numbers {
                    counted_from = seq.saturating_sub(loss.count);
                }
            }
        }
        sum
    }

    /// How many transitions are delivered, or counted as lost.
    pub(super) fn known(&self) -> u64 {
        self.seen.len() as u64 + self.lost()
    }

    /// Checks that every transition that happened is delivered, or counted as lost.
    fn verify(&self, name: &str, tally: &Tally) -> Result<()> {
        let (made, delivered) = (tally.made, self.seen.len() as u64);
        println!("soak: sink {name}: {delivered} delivered, {} counted as lost", self.lost());
        let known = self.known() + tally.hidden;
        ensure!(delivered > 0, "{name}: nothing was delivered");
        ensure!(known >= made, "{name}: {} are missing and not counted", made - known);
        ensure!(delivered <= made, "{name}: more than happened");
        Ok(())
    }
}

/// Checks the files, and the streams that were read: every record once, or counted as lost.
pub(super) fn all(directory: &Path, tally: &Tally, hung: &[(&str, Stream)]) -> Result<()> {
    let made = tally.made;
    println!(
        "soak: {} s, {} reloads, {} restarts, {} kills, {} times a full disk, {made} transitions, {} of them hidden by this \
         kernel, at most {:.0} MB",
        tally.took.as_secs(),
        tally.reloads,
        tally.restarts,
        tally.kills,
        tally.full,
        tally.hidden,
        tally.most_mb
    );
    let log = fs::read_to_string(directory.join("log"))?;
    ensure!(!log.contains("panicked"), "the daemon has panicked: {log}");
    let happened = [tally.reloads, tally.restarts, tally.kills, tally.full];
    ensure!(happened.iter().all(|count| *count > 0), "too short: not every event happened");
    let records = files(directory, "records")?;
    records.verify("file", tally)?;
    // A kill loses the records that were in memory. How many the ring loses depends on the load of the machine.
    let killed: u64 = records.losses.values().filter(|loss| loss.by_kill).map(|loss| loss.count).sum();
    ensure!(killed <= tally.kills * MOST_KILLED, "{killed} records are lost by {} kills", tally.kills);
    ensure!(records.seen.len() as u64 >= made / 2, "the file has less than half of the transitions");
    compare_ends(&records, &files(directory, "connections")?)?;
    files(&directory.join("disk"), "records")?.verify("disk", tally)?;
    hung.iter().try_for_each(|(name, stream)| stream.verify(name, tally))
}

/// Checks that each connection that ends in the stream of transitions has one record in the stream of connections, with
/// the same cause, and the other way round, except where a correction ended a connection instead of a transition. What is
/// missing is counted, as lost or in doubt, or as a connection that was never established.
fn compare_ends(transitions: &Stream, connections: &Stream) -> Result<()> {
    let excused = |stream: &Stream| stream.lost() + stream.in_doubt;
    println!(
        "soak: connections: {} delivered, {} of them incomplete, {} counted as lost, {} in doubt",
        connections.ends.len() + connections.incomplete.len(),
        connections.incomplete.len(),
        connections.lost(),
        connections.in_doubt
    );
    ensure!(!connections.ends.is_empty(), "no connection was delivered");
    for (conn, cause) in &connections.ends {
        let known = transitions.ends.get(conn);
        ensure!(
            known.is_none_or(|known| known == cause),
            "connection {conn:016x}: {cause:?}, and its transition {known:?}"
        );
    }
    let has_record =
        |conn: &u64| connections.ends.contains_key(conn) || connections.incomplete.contains(conn);
    let no_record = transitions.ends.keys().filter(|conn| !has_record(conn)).count() as u64;
    let no_end = connections.ends.keys().filter(|conn| !transitions.ends.contains_key(conn)).count() as u64;
    ensure!(
        no_record <= excused(connections) + connections.counted,
        "{no_record} connections have no record"
    );
    ensure!(
        no_end <= excused(transitions) + connections.in_doubt,
        "{no_end} connections have no transition to CLOSE"
    );
    Ok(())
}

/// The content of a sink's files. The numbers of the records increase.
fn files(directory: &Path, name: &str) -> Result<Stream> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name)));
    files.sort();
    let mut stream = Stream::default();
    for file in &files {
        let mut lines = lines(file)?;
        let (mut line, mut last) = (String::new(), 0);
        while lines.read_line(&mut line).with_context(|| format!("cannot read {}", file.display()))? > 0 {
            let seq = stream.add(&line, false).with_context(|| format!("in {}", file.display()))?;
            ensure!(seq > last, "{seq} comes after {last} in {}: {line}", file.display());
            last = seq;
            line.clear();
        }
    }
    Ok(stream)
}

/// The part of a record that distinguishes it from all others.
#[derive(Deserialize)]
struct Record<'a> {
    kind: &'a str,
    instance: &'a str,
    seq: u64,
    time: &'a str,
    local: Option<End<'a>>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    conn: Option<&'a str>,
    role: Option<&'a str>,
    cause: Option<&'a str>,
    place: Option<&'a str>,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    in_doubt: u64,
    #[serde(default)]
    incomplete: bool,
    #[serde(default)]
    of_connections: bool,
}

#[derive(Deserialize, Hash)]
struct End<'a> {
    address: &'a str,
    port: Option<u16>,
}

impl Record<'_> {
    fn conn(&self) -> Result<u64> {
        let conn = self.conn.context("a record of a connection without its id")?;
        Ok(u64::from_str_radix(conn, 16)?)
    }

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
