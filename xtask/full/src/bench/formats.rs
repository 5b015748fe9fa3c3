//! Counts the instructions that decoding, the connection table and each format take for a record. valgrind counts them, so
//! other programs on the machine do not change the numbers.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use sockstate::{
    format::{
        FormatName, FormatOptions,
        convert::{Syslog, journal, otlp_protobuf},
    },
    model::Record,
    track::Lifespans,
    wire::Parser,
};

use super::ring::Ring;
use crate::root;

/// The recording whose transitions are read and written, again and again.
const RECORDING: &str = "tests/fixtures/2ca3231/recording.ndjson.zst";

/// The work for a record, done for every transition of the recording, or for every record of the ring.
#[derive(clap::Args)]
pub(crate) struct Work {
    /// `lines` writes what a sink makes of the lines in its queue, `records` what `trace` makes of records, `connections`
    /// what it makes of records of whole connections; `parse` reads lines as records. `decode` makes events of the ring's
    /// records, `follow` also passes them through the table, and `follow-connections` through one that reports connections.
    from: String,
    /// The name of the format.
    #[arg(default_value = "")]
    format: String,
    /// How often the recording is gone through.
    #[arg(long, default_value_t = 1)]
    rounds: u64,
}

impl Work {
    /// Does the work, and prints the number of records in one round.
    pub(crate) fn run(&self) -> Result<()> {
        println!("{}", self.records()?);
        Ok(())
    }

    fn records(&self) -> Result<usize> {
        let from = self.from.as_str();
        if ["decode", "follow", "follow-connections"].contains(&from) {
            let mut ring = Ring::read()?;
            match from {
                "decode" => ring.decode(self.rounds)?,
                _ => drop(ring.follow(self.rounds, from == "follow-connections")?),
            }
            return Ok(ring.len());
        }
        let lines = transitions()?;
        let mut parser = Parser::default();
        let mut out = Vec::new();
        match from {
            "parse" => {
                for _ in 0..self.rounds {
                    for line in &lines {
                        parser.parse(line)?;
                    }
                }
            }
            "lines" => {
                let mut convert = converter(&self.format)?;
                for _ in 0..self.rounds {
                    out.clear();
                    lines.iter().for_each(|line| convert(line, &mut out));
                }
            }
            _ => {
                let mut records: Vec<Record> = lines
                    .iter()
                    .filter_map(|line| parser.parse(line).transpose())
                    .collect::<Result<_, _>>()?;
                if from == "connections" {
                    let mut lifespans = Lifespans::default();
                    records = records.iter().filter_map(|record| lifespans.note(record)).collect();
                }
                let name = FormatName::ALL.iter().find(|name| name.name == self.format);
                let mut format = name.context("no such format")?.make(FormatOptions::default());
                for _ in 0..self.rounds {
                    out.clear();
                    records.iter().zip(1..).for_each(|(record, seq)| format.record(seq, record, &mut out));
                }
                return Ok(records.len());
            }
        }
        Ok(lines.len())
    }
}

fn transitions() -> Result<Vec<Vec<u8>>> {
    let mut text = String::new();
    zstd::Decoder::new(std::fs::File::open(root().join(RECORDING))?)?.read_to_string(&mut text)?;
    let lines = text.split_inclusive('\n').filter(|line| line.contains("\"kind\":\"transition\""));
    Ok(lines.map(|line| line.as_bytes().to_vec()).collect())
}

/// Appends a line, given as text, in another format.
type Convert = Box<dyn FnMut(&[u8], &mut Vec<u8>)>;

fn converter(format: &str) -> Result<Convert> {
    let syslog = Syslog::new(3, "web1", 42);
    Ok(match format {
        "otlp-protobuf" => Box::new(otlp_protobuf),
        "journald" => Box::new(journal),
        "syslog" => Box::new(move |line, out| syslog.convert(line, out)),
        _ => {
            let name = FormatName::ALL.iter().find(|name| name.name == format);
            Box::new(name.and_then(FormatName::converter).context("no such format")?)
        }
    })
}

/// Prints a table in Markdown.
pub(super) fn bench(program: &Path) -> Result<()> {
    let instructions = |work: &[&str]| instructions(program, work);
    println!("\n| work | instructions for a record |\n| --- | --- |");
    println!("| a record of the ring to an event | {:.0} |", instructions(&["decode"])?);
    println!("| the same, and through the table | {:.0} |", instructions(&["follow"])?);
    println!("| the same, with connections | {:.0} |", instructions(&["follow-connections"])?);
    println!("| a line to a record | {:.0} |", instructions(&["parse"])?);
    for format in FormatName::ALL {
        println!("| a record to {} | {:.0} |", format.name, instructions(&["records", format.name])?);
    }
    for format in ["json", "csv", "table"] {
        println!("| a connection to {format} | {:.0} |", instructions(&["connections", format])?);
    }
    for format in ["ecs", "otlp", "otlp-protobuf", "syslog", "journald"] {
        println!("| a line to {format} | {:.0} |", instructions(&["lines", format])?);
    }
    Ok(())
}

/// Instructions for a record: the difference between few and many rounds, which leaves out what is done once.
fn instructions(program: &Path, work: &[&str]) -> Result<f64> {
    const FEW: u64 = 10;
    const MANY: u64 = 110;
    let ((few, records), (many, _)) = (counted(program, work, FEW)?, counted(program, work, MANY)?);
    Ok((many - few) / ((MANY - FEW) as f64 * records))
}

/// The instructions of a process that does the work, and the number of records in a round.
fn counted(program: &Path, work: &[&str], rounds: u64) -> Result<(f64, f64)> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]).arg(program);
    command.args(["internal", "format"]).args(work).args(["--rounds", &rounds.to_string()]);
    let output = command.stdin(Stdio::null()).output().context("cannot run valgrind")?;
    let (out, report) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let count =
        report.lines().find_map(|line| line.split_once("refs:").map(|(_, count)| count.replace(',', "")));
    let count = count.with_context(|| format!("valgrind counted nothing: {report}"))?;
    Ok((count.trim().parse()?, out.trim().parse()?))
}
