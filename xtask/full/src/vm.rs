//! Runs the live tests on Debian's kernels, each in a virtual machine.

pub(crate) mod machine;
mod report;

use std::{
    collections::BTreeMap,
    slice,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use machine::{Programs, boot, build};
use report::Ran;

use crate::{
    arch::Arch,
    kernels::{self, Kernel},
    setup, turn,
};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernels, the newest of each series: 5.10, 7, or with Debian's flavour 5.10-rt, 6.12-cloud, 7-16k [default: all
    /// that are tested on this machine].
    kernels: Vec<String>,
    /// The architecture of the virtual machines.
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Only the part of the matrix that .ci/turn selects: every fourth kernel, each with one of the tiers.
    #[arg(long, conflicts_with = "shell")]
    turn: bool,
    /// Only tests whose name contains this text; may be given more than once.
    #[arg(long)]
    filter: Vec<String>,
    /// Only these tiers.
    #[arg(long, value_delimiter = ',', default_values_t = TIERS.map(str::to_owned))]
    tiers: Vec<String>,
    /// Run this shell command in the virtual machines instead of the tests.
    #[arg(long)]
    shell: Option<String>,
    /// How many virtual machines run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How often tests that failed are run again, in a new virtual machine: an emulated machine may be too slow.
    #[arg(long, default_value_t = 0)]
    again: usize,
    /// Seconds until a virtual machine is ended.
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
}

/// The tiers that the tests run with; with `tracepoint`, the tracer uses the classic tracepoint only.
const TIERS: [&str; 5] = ["fentry", "kprobe", "timers", "estimate", "tracepoint"];

/// One virtual machine.
struct Job<'a> {
    number: usize,
    kernel: &'a Kernel,
    /// The tier, or the shell command.
    tier_or_command: &'a str,
    script: String,
}

/// Runs the tests on every kernel; fails if a test fails. The end of the output names kernels that the archive does not
/// have.
pub(crate) fn all(args: &Args) -> Result<()> {
    setup::virtual_machines()?;
    let programs = build(args.arch)?;
    let chosen = choose(args)?;
    let mut kernels: BTreeMap<&str, Option<Kernel>> = BTreeMap::new();
    for (series, _) in &chosen {
        if !kernels.contains_key(series) {
            let kernel = match kernels::get(args.arch, series) {
                Err(error) if args.kernels.is_empty() => {
                    println!("kernel {series}: {error:#}");
                    None
                }
                result => result?,
            };
            kernels.insert(series, kernel);
        }
    }
    let missing: Vec<&str> =
        kernels.iter().filter(|(_, kernel)| kernel.is_none()).map(|kernel| *kernel.0).collect();
    if !missing.is_empty() && !args.kernels.is_empty() {
        bail!("Debian's archive has no kernel {}", missing.join(", "));
    }
    let available = chosen
        .into_iter()
        .filter_map(|(series, tier_or_command)| Some((kernels.get(series)?.as_ref()?, tier_or_command)));
    let jobs: Vec<Job<'_>> = available
        .enumerate()
        .map(|(number, (kernel, tier_or_command))| Job {
            number,
            kernel,
            tier_or_command,
            script: if args.shell.is_some() {
                tier_or_command.to_owned()
            } else {
                tests(tier_or_command, &args.filter)
            },
        })
        .collect();
    let begin = Instant::now();
    let (queue, results) = (Mutex::new(jobs.into_iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                while let Ok(Some(job)) = queue.lock().map(|mut queue| queue.next()) {
                    let ran = run(args, &programs, &job);
                    println!("== {} {}: {ran}", job.kernel.release, job.tier_or_command);
                    if let Ok(mut results) = results.lock() {
                        results.push((format!("{} {}", job.kernel.release, job.tier_or_command), ran));
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_default();
    for series in missing {
        println!("SKIPPED: kernel {series}: not available: see the message above");
    }
    print!("{}", report::summary(&results, begin.elapsed()));
    let failed = results.iter().filter(|(_, ran)| ran.result.is_err()).count();
    if failed > 0 || results.is_empty() {
        bail!("{failed} of {} virtual machines failed", results.len());
    }
    Ok(())
}

/// The pairs of a kernel's series and a tier (or the shell command), in the order in which they run.
fn choose(args: &Args) -> Result<Vec<(&str, &str)>> {
    let series: Vec<&str> = match &args.kernels[..] {
        [] => kernels::tested(args.arch).to_vec(),
        given => given.iter().map(String::as_str).collect(),
    };
    let runs: Vec<&str> = match &args.shell {
        Some(shell) => vec![shell],
        None => args.tiers.iter().map(String::as_str).collect(),
    };
    if args.turn {
        let turn = turn::read()?;
        let part = turn::part(&series, &runs, turn);
        println!(
            "turn {turn}: {} of {} kernels, each with one tier; {} turns in a row cover all kernels and tiers",
            part.len(),
            series.len(),
            turn::needed(series.len(), runs.len())
        );
        return Ok(part);
    }
    Ok(series.iter().flat_map(|series| runs.iter().map(move |run| (*series, *run))).collect())
}

fn run(args: &Args, programs: &Programs, job: &Job<'_>) -> Ran {
    let begin = Instant::now();
    let limit = Duration::from_secs(args.timeout);
    let boot = |script: &str| boot(args.arch, job.kernel, programs, script, job.number, limit);
    let mut result = boot(&job.script);
    let mut again = Vec::new();
    for _ in 0..args.again {
        let Err(error) = &result else { break };
        let error = format!("{error:#}");
        let failed = report::failed(&error);
        println!("== {} {}: once more, after {error}", job.kernel.release, job.tier_or_command);
        result = boot(&once_more(&job.script, &failed));
        again.push(if failed.is_empty() { vec!["the whole run".to_owned()] } else { failed });
    }
    Ran { result, again: again.concat(), took: begin.elapsed(), whole: args.shell.is_some() }
}

/// The live tests with one tier, as a shell script whose first line names the tier. Tests that do not depend on the
/// tier run with the first tier only.
fn tests(tier: &str, filters: &[String]) -> String {
    let default = if tier == TIERS[0] { "" } else { "lifecycle" }.to_owned();
    let filters = if filters.is_empty() { slice::from_ref(&default) } else { filters };
    // The tests named `burst` measure speed, and an emulated machine is too slow for them.
    let run = |filter: &String| format!("/live --color never {} --skip burst || failed=1\n", quoted(filter));
    let runs: String = filters.iter().map(run).collect();
    format!("export SOCKSTATE_TEST_TIER={tier}\n{runs}[ -z \"$failed\" ] && echo PASSED")
}

/// A script of the tests that failed; all of `script` if no name of a failed test is known.
fn once_more(script: &str, failed: &[String]) -> String {
    let commands: Vec<String> =
        failed.iter().map(|name| format!("/live --color never --exact {}", quoted(name))).collect();
    match script.lines().next() {
        Some(first) if !commands.is_empty() => format!("{first}\n{} && echo PASSED", commands.join(" && ")),
        _ => script.to_owned(),
    }
}

/// Quotes `text` as one word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_runs_once_more() {
        let script = tests("fentry", &["a".to_owned(), "b c".to_owned()]);
        assert_eq!(
            script,
            r#"export SOCKSTATE_TEST_TIER=fentry
/live --color never 'a' --skip burst || failed=1
/live --color never 'b c' --skip burst || failed=1
[ -z "$failed" ] && echo PASSED"#
        );
        let failed = ["a: b".to_owned(), "c's, d".to_owned()];
        let expected = r"export SOCKSTATE_TEST_TIER=fentry
/live --color never --exact 'a: b' && /live --color never --exact 'c'\''s, d' && echo PASSED";
        assert_eq!(once_more(&script, &failed), expected);
        assert_eq!(once_more(&script, &[]), script);
    }
}
