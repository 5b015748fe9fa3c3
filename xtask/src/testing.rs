//! `cargo xtask test`: all tests, or the part that an inner loop needs.

use anyhow::{Result, bail};

use crate::{cargo, command, output, refresh_objects, setup};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// Run only the tests that need neither root nor the network, built without optimisation; install nothing.
    #[arg(long, conflicts_with = "live")]
    fast: bool,
    /// Run only the live tests whose name contains NAME (root); install nothing.
    #[arg(long, value_name = "NAME", conflicts_with = "args")]
    live: Option<String>,
    /// Arguments of `cargo test`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// The test programs of `tracer/Cargo.toml` that `--fast` runs: all but `live`.
const FAST: [&str; 7] = ["cli", "records", "recordings", "reports", "viewers", "screens", "delivery"];

/// The live tests, optimised and with assertions.
const LIVE: [&str; 7] = ["test", "--package", "tracer", "--profile", "checked", "--test", "live"];

/// The prefix of the names of live tests that need a feature of the package.
const FEATURE: &str = "feature ";

/// Runs the tests; fails if a test fails.
pub fn run(args: &Args) -> Result<()> {
    if args.fast {
        refresh_objects()?;
        let programs = FAST.iter().flat_map(|name| ["--test", name]);
        return command(
            cargo().args(["test", "--workspace", "--lib", "--bins"]).args(programs).args(&args.args),
        );
    }
    if let Some(name) = &args.live {
        refresh_objects()?;
        return live(name);
    }
    setup::all()?;
    refresh_objects()?;
    command(cargo().args(["test", "--workspace", "--profile", "checked"]).args(&args.args))?;
    if args.args.is_empty() { live(FEATURE) } else { Ok(()) }
}

/// Runs the live tests whose name contains `name`; fails if there is no such test.
fn live(name: &str) -> Result<()> {
    let features = if name.starts_with(FEATURE) { features() } else { String::new() };
    let test = |arguments: &[&str]| {
        let mut test = cargo();
        test.args(LIVE).args(["--features", &features, "--"]).args(arguments);
        test
    };
    let list = output(&mut test(&["--list", name]))?;
    if !list.lines().any(|line| line.ends_with(": test")) {
        bail!(
            "no live test has '{name}' in its name; `cargo xtask test --test live -- --list` prints all names"
        );
    }
    command(&mut test(&[name]))
}

/// The features that this machine can test.
fn features() -> String {
    if setup::has_kafka() {
        return "grpc,nats,kafka".to_owned();
    }
    println!(
        "SKIPPED: feature kafka: needs a broker, which takes minutes to build: cargo xtask setup --kafka"
    );
    "grpc,nats".to_owned()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn fast_runs_every_test_program_but_the_live_one() {
        let manifest = fs::read_to_string(crate::root().join("tracer/Cargo.toml")).expect("manifest");
        let tests = manifest.split("[[test]]\n").skip(1);
        let name = |section: &str| Some(section.lines().next()?.strip_prefix("name = ")?.replace('"', ""));
        let programs: BTreeSet<String> = tests.filter_map(name).collect();
        let fast = FAST.iter().chain(["live"].iter()).map(|name| (*name).to_owned());
        assert_eq!(programs, fast.collect());
    }
}
