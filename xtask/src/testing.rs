//! `cargo xtask test`: all tests, or the part that an inner loop needs.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    cargo, output, refresh_objects, root,
    setup::{self, Plan},
};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// Also install what only a few tests need (collectors, query engines, a browser, Go; gigabytes), and build and test
    /// the features that are not built by default. CI does.
    #[arg(long, conflicts_with_all = ["fast", "live"])]
    all: bool,
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
const FAST: [&str; 8] =
    ["cli", "records", "recordings", "reports", "viewers", "screens", "delivery", "kubernetes"];

/// The live tests, optimised and with assertions.
const LIVE: [&str; 7] = ["test", "--package", "sockstate", "--profile", "checked", "--test", "live"];

/// The prefix of the names of live tests that need a feature of the package.
const FEATURE: &str = "feature ";

/// The name of the variable with the path of a file that gets a line for each skipped test (tests/testkit/src/skipping.rs).
const SKIPPED: &str = "SOCKSTATE_SKIPPED";

/// Runs the tests; fails if a test fails.
pub fn run(args: &Args) -> Result<()> {
    if args.fast {
        refresh_objects()?;
        let programs = FAST.iter().flat_map(|name| ["--test", name]);
        return run_tests(
            cargo().args(["test", "--workspace", "--lib", "--bins"]).args(programs).args(&args.args),
        );
    }
    if let Some(name) = &args.live {
        refresh_objects()?;
        return live(name);
    }
    prepare(args.all)?;
    refresh_objects()?;
    let file = root().join("target/skipped");
    fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
    let mut tests = if args.all { with_features() } else { workspace() };
    let result = run_tests(tests.args(&args.args).env(SKIPPED, &file));
    eprintln!("\n{}", summary(&fs::read_to_string(&file)?));
    if args.all {
        skip_kafka();
    } else if args.args.is_empty() {
        eprintln!("SKIPPED: the live tests of the features grpc, nats and kafka: cargo xtask test --all");
    }
    result
}

/// Says on standard error what is to come, and installs what is missing.
fn prepare(all: bool) -> Result<()> {
    eprintln!(
        "cargo xtask test will build everything with optimisation, in target/checked, and run the live tests one after \
         another.\nOn two cores this takes tens of minutes the first time; `cargo xtask test --fast` is quicker."
    );
    let plan = Plan::tests(all);
    for line in plan.lines() {
        eprintln!("It will {line}.");
    }
    let plain = plan.names();
    let left_out: Vec<&str> =
        Plan::tests(true).names().into_iter().filter(|name| !plain.contains(name)).collect();
    if !left_out.is_empty() {
        let names = left_out.join(", ");
        eprintln!("It skips the tests that need {names}; `cargo xtask test --all` installs these.");
    }
    match plan.install() {
        // Most tests run without what is missing.
        Err(error) if !all => eprintln!("{error:#}\nThe tests that need {} are skipped.", plain.join(", ")),
        result => result?,
    }
    Ok(())
}

/// `cargo test` of the whole workspace, optimised and with assertions.
fn workspace() -> Command {
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--profile", "checked"]);
    tests
}

/// As [`workspace`], with every feature that this machine can test. The soak and the virtual machines use this build too,
/// so that CI builds the tests once.
pub fn with_features() -> Command {
    let mut tests = workspace();
    tests.args(["--features", &features()]);
    tests
}

/// Runs a command that prints which tests failed.
fn run_tests(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("a test failed, or the tests could not be built; the reasons are above ({status})");
    }
    Ok(())
}

/// How many tests were skipped for each reason; `lines` has a reason for each test.
fn summary(lines: &str) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in lines.lines() {
        *reasons.entry(reason).or_default() += 1;
    }
    let total: usize = reasons.values().sum();
    let each = reasons.iter().map(|(reason, count)| format!("\n{count:5}  {reason}"));
    format!("SKIPPED: {total} tests{}", each.collect::<String>())
}

/// Runs the live tests whose name contains `name`; fails if there is no such test.
fn live(name: &str) -> Result<()> {
    let is_of_feature = name.starts_with(FEATURE);
    let test = |arguments: &[&str]| {
        let mut test = cargo();
        test.args(LIVE);
        if is_of_feature {
            test.args(["--features", &features()]);
        }
        test.arg("--").args(arguments);
        test
    };
    let list = output(&mut test(&["--list", name]))?;
    if !list.lines().any(|line| line.ends_with(": test")) {
        bail!(
            "no live test has '{name}' in its name; `cargo xtask test --test live -- --list` prints all names"
        );
    }
    if is_of_feature {
        skip_kafka();
    }
    run_tests(&mut test(&[name]))
}

/// The features that this machine can build and test, as an argument of cargo. The one for Kafka needs OpenSSL's headers
/// and a broker.
pub fn features() -> String {
    let kafka = if setup::has_kafka() { ",sockstate/kafka" } else { "" };
    format!("sockstate/grpc,sockstate/nats{kafka}")
}

/// Says that the feature for Kafka is not tested if this machine has no broker.
fn skip_kafka() {
    if !setup::has_kafka() {
        eprintln!(
            "SKIPPED: feature kafka: needs a broker, which takes minutes to build: cargo xtask setup --kafka"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn skipped_tests_are_counted_by_reason() {
        assert_eq!(summary(""), "SKIPPED: 0 tests");
        let lines = "needs go\nneeds root\nneeds go\n";
        assert_eq!(summary(lines), "SKIPPED: 3 tests\n    2  needs go\n    1  needs root");
    }

    #[test]
    fn fast_runs_every_test_program_but_the_live_one() {
        let manifest = fs::read_to_string(root().join("tracer/Cargo.toml")).expect("manifest");
        let tests = manifest.split("[[test]]\n").skip(1);
        let name = |section: &str| Some(section.lines().next()?.strip_prefix("name = ")?.replace('"', ""));
        let programs: BTreeSet<String> = tests.filter_map(name).collect();
        let fast = FAST.iter().chain(["live"].iter()).map(|name| (*name).to_owned());
        assert_eq!(programs, fast.collect());
    }
}
