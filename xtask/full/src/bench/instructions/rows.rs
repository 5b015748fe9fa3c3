//! What is measured.

use std::fmt::{self, Display, Formatter};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::guest::{LOAD, Measured, SOCKSTATE, TCPSTATES};

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Ends {
    /// The client closes, then the server.
    Fin,
    /// The client resets.
    Rst,
}

impl Ends {
    pub(super) const ALL: [Self; 2] = [Self::Fin, Self::Rst];

    /// The transitions of full sockets for each connection, until the client has closed and the server, too.
    pub(super) fn transitions(self) -> f64 {
        match self {
            Self::Fin => 10.0,
            Self::Rst => 6.0,
        }
    }
}

impl Display for Ends {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fin => "FIN",
            Self::Rst => "RST",
        })
    }
}

/// Where the tracer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Null,
    /// A file in memory.
    File,
}

impl Output {
    fn path(self) -> &'static str {
        match self {
            Self::Null => "/dev/null",
            Self::File => "/tmp/out",
        }
    }
}

impl Display for Output {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "/dev/null",
            Self::File => "file",
        })
    }
}

/// A tracer, and where it writes.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: &'static str,
    tracer: Tracer,
    pub(super) output: Output,
    /// The connections that CI measures.
    pub(super) gate: &'static [Ends],
}

#[derive(Debug)]
enum Tracer {
    None,
    Empty,
    /// The tier, and more arguments of `sockstate trace`.
    Sockstate(&'static str, &'static str),
    Tcpstates,
}

const fn run(name: &'static str, tracer: Tracer, output: Output, gate: &'static [Ends]) -> Run {
    Run { name, tracer, output, gate }
}

/// All of them. The first one is what the others are compared with.
pub(super) static RUNS: [Run; 15] = {
    use Ends::{Fin, Rst};
    use Output::{File, Null};
    use Tracer::{Empty, None, Sockstate, Tcpstates};
    const CONNECTIONS: &str = "--records connections";
    [
        run(UNTRACED, None, Null, &[Fin, Rst]),
        run("empty program", Empty, Null, &[]),
        run("fentry, all filtered out", Sockstate("fentry", "--port 1"), Null, &[Fin]),
        run("none", Sockstate("none", ""), Null, &[]),
        run("none", Sockstate("none", ""), File, &[]),
        run("timers", Sockstate("timers", ""), Null, &[]),
        run("timers", Sockstate("timers", ""), File, &[]),
        run("kprobe", Sockstate("kprobe", ""), Null, &[]),
        run("kprobe", Sockstate("kprobe", ""), File, &[]),
        run("fentry", Sockstate("fentry", ""), Null, &[Fin, Rst]),
        run("fentry", Sockstate("fentry", ""), File, &[Fin]),
        run("fentry, connections", Sockstate("fentry", CONNECTIONS), Null, &[]),
        run("fentry, connections", Sockstate("fentry", CONNECTIONS), File, &[Fin]),
        run("tcpstates", Tcpstates, Null, &[]),
        run("tcpstates", Tcpstates, File, &[]),
    ]
};

const UNTRACED: &str = "no tracer";

impl Run {
    pub(super) fn is_untraced(&self) -> bool {
        matches!(self.tracer, Tracer::None)
    }

    /// Whether `--only` selects this run. Nothing can be compared without the first one.
    pub(super) fn is_wanted(&self, only: &str) -> bool {
        self.is_untraced() || self.name.contains(only)
    }

    /// The commands in the virtual machine.
    pub(super) fn script(&self, ends: &[Ends]) -> String {
        let path = self.output.path();
        let tracer = match self.tracer {
            Tracer::None => String::new(),
            Tracer::Empty => format!("{LOAD} internal empty"),
            Tracer::Sockstate(tier, more) => {
                format!("{SOCKSTATE} trace --format json --tier {tier} --output {path} {more}")
            }
            Tracer::Tcpstates => TCPSTATES.to_owned(),
        };
        // sockstate writes to its output; the standard output of the others is what they write.
        let stdout = if matches!(self.tracer, Tracer::Tcpstates) { path } else { "/dev/null" };
        let ends: Vec<String> = ends.iter().map(|ends| ends.to_string().to_lowercase()).collect();
        format!("{LOAD} internal churn --ends {} --stdout {stdout} -- {tracer}", ends.join(","))
    }
}

/// What was measured of one kind of connections with one tracer.
pub(super) struct Row {
    pub(super) run: &'static Run,
    pub(super) ends: Ends,
    /// One for each boot, at least one.
    pub(super) boots: Vec<Measured>,
}

impl Row {
    pub(super) fn new(run: &'static Run, ends: Ends) -> Self {
        Self { run, ends, boots: Vec::new() }
    }

    pub(super) fn name(&self) -> String {
        format!("{}, {}, {}", self.run.name, self.ends, self.run.output)
    }

    /// The boot with the fewest instructions.
    pub(super) fn best(&self) -> Measured {
        let least = self.boots.iter().min_by(|a, b| a.all.total_cmp(&b.all));
        least.copied().unwrap_or(Measured { ends: self.ends, all: f64::NAN, tracer: f64::NAN })
    }

    /// How far the boots differ, as a share of the lowest.
    pub(super) fn differ(&self) -> f64 {
        let most = self.boots.iter().map(|boot| boot.all).fold(0.0, f64::max);
        most / self.best().all - 1.0
    }

    /// The instructions for a connection that were added to those without a tracer, which are in `rows`.
    pub(super) fn added(&self, rows: &[Self]) -> Option<f64> {
        let untraced = rows.iter().find(|row| row.run.is_untraced() && row.ends == self.ends)?;
        Some(self.best().all - untraced.best().all)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn row(at: usize, ends: Ends, boots: &[(f64, f64)]) -> Row {
        let boots = boots.iter().map(|&(all, tracer)| Measured { ends, all, tracer }).collect();
        Row { boots, ..Row::new(&RUNS[at], ends) }
    }

    #[test]
    fn a_row_is_its_best_boot_and_says_how_far_the_boots_differ() {
        let rows = [row(0, Ends::Fin, &[(1000.0, 0.0)]), row(0, Ends::Rst, &[(800.0, 0.0)])];
        let traced = row(9, Ends::Rst, &[(1010.0, 70.0), (1000.0, 60.0)]);
        assert_eq!(traced.best().tracer, 60.0);
        assert_eq!(traced.added(&rows), Some(200.0));
        assert!((traced.differ() - 0.01).abs() < 1e-9);
        assert_eq!(traced.added(&rows[..1]), None);
    }

    #[test]
    fn ci_counts_five_rows_and_what_they_are_compared_with() {
        let counted = |run: &&Run| !run.is_untraced();
        assert_eq!(RUNS.iter().filter(counted).map(|run| run.gate.len()).sum::<usize>(), 5);
        for run in &RUNS {
            assert!(run.gate.iter().all(|ends| RUNS[0].gate.contains(ends)), "{run:?}");
        }
        assert!(RUNS[0].is_untraced() && RUNS[1..].iter().all(|run| !run.is_untraced()));
    }

    #[test]
    fn each_tracer_writes_to_the_place_of_its_row() {
        let script = |name: &str, output: Output| {
            let run = RUNS.iter().find(|run| run.name == name && run.output == output).expect("a run");
            run.script(&Ends::ALL)
        };
        assert_eq!(
            script("fentry, all filtered out", Output::Null),
            "/bin/xtask-full internal churn --ends fin,rst --stdout /dev/null -- /bin/sockstate trace \
             --format json --tier fentry --output /dev/null --port 1"
        );
        assert_eq!(
            script("tcpstates", Output::File),
            "/bin/xtask-full internal churn --ends fin,rst --stdout /tmp/out -- /bin/tcpstates"
        );
    }
}
