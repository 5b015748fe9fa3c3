//! What each sink has: everything once, or counted.

use std::{
    collections::{BTreeMap, HashSet, hash_map::DefaultHasher},
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Tally;

/// What one sink's stream holds.
#[derive(Default)]
pub(super) struct Stream {
    /// A hash of each transition. That two of 10^8 are equal by chance has a probability below 1/3,000.
    seen: HashSet<u64>,
    instance: Option<String>,
    /// What `lost` records count, by their numbers: a stream that repeats what is in doubt repeats them, too.
    losses: BTreeMap<u64, Loss>,
}

/// A `lost` record.
struct Loss {
    count: u64,
    /// Whether the records that it counts have the numbers before its own: those of the kernel's places have none.
    has_numbers: bool,
}

impl Stream {
    /// Adds a record; its number. Only a stream `may_repeat` one.
    pub(super) fn add(&mut self, line: &str, may_repeat: bool) -> Result<u64> {
        let record: Record<'_> = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let instance = self.instance.get_or_insert_with(|| record.instance.to_owned());
        ensure!(record.instance == instance, "another instance: {line}");
        match record.kind {
            "transition" => {
                let is_new = self.seen.insert(record.hash());
                ensure!(is_new || may_repeat, "twice: {line}");
            }
            "lost" => {
                let has_numbers = matches!(record.place, Some("sink" | "crash"));
                self.losses.insert(record.seq, Loss { count: record.count, has_numbers });
            }
            _ => {}
        }
        Ok(record.seq)
    }

    /// How many records are counted as lost. What hung is read at last from old connections too, after it was counted; a `lost` record
    /// among it is one of those that a later one counts again.
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

    /// Everything that happened is there, or counted.
    fn verify(&self, name: &str, tally: &Tally) -> Result<()> {
        let (made, delivered) = (tally.made.load(Ordering::Relaxed), self.seen.len() as u64);
        let lost = self.lost();
        println!("soak: sink {name}: {delivered} delivered, {lost} counted as lost");
        let known = delivered + lost + tally.hidden;
        ensure!(delivered > 0, "{name}: nothing was delivered");
        ensure!(known >= made, "{name}: {} are missing and not counted", made - known);
        ensure!(delivered <= made, "{name}: more than happened");
        Ok(())
    }
}

/// Everything in the files and in the streams that were read, once, or counted.
pub(super) fn all(directory: &Path, tally: &Tally, hung: &[(&str, Stream)]) -> Result<()> {
    let made = tally.made.load(Ordering::Relaxed);
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
    ensure!(!log.contains("panicked"), "it has panicked: {log}");
    let happened = [tally.reloads, tally.restarts, tally.kills, tally.full];
    ensure!(happened.iter().all(|count| *count > 0), "too short: something did not happen in it");
    let records = files(directory, "records")?;
    // A kill costs what was in memory, of a load like this: much less than a second's records.
    ensure!(records.lost() <= tally.kills * 20_000, "too much is lost");
    records.verify("file", tally)?;
    files(&directory.join("disk"), "records")?.verify("disk", tally)?;
    hung.iter().try_for_each(|(name, stream)| stream.verify(name, tally))
}

/// What the files of a sink hold; their numbers go up.
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
            ensure!(seq > last, "{seq} comes behind {last} in {}: {line}", file.display());
            last = seq;
            line.clear();
        }
    }
    Ok(stream)
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
    place: Option<&'a str>,
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
