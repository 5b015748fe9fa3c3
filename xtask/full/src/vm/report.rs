//! A summary of what the tests in virtual machines printed.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter, Write},
    time::Duration,
};

use anyhow::Result;

/// The result of one virtual machine.
pub(super) struct Ran {
    /// The output of the last run, or why it did not pass.
    pub(super) result: Result<String>,
    /// The tests that were run again.
    pub(super) again: Vec<String>,
    /// The time of all runs together.
    pub(super) took: Duration,
    /// Whether the summary shows the whole output.
    pub(super) whole: bool,
}

impl Display for Ran {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} s", self.took.as_secs())?;
        match &self.result {
            Ok(text) if self.whole => f.write_str(text),
            Ok(text) => {
                f.write_str(text.lines().rfind(|line| line.starts_with("test result")).unwrap_or_default())
            }
            Err(error) => write!(f, "{error:#}"),
        }
    }
}

/// The names of the tests that failed, from the list at the end of the output of each run of the test program.
pub(super) fn failed(printed: &str) -> Vec<String> {
    let lists = printed.split("\nfailures:\n").skip(1);
    let names = lists.flat_map(|list| list.lines().map_while(|line| line.strip_prefix("    ")));
    names.map(str::to_owned).collect()
}

/// The reasons why tests were skipped, with the number of tests for each.
fn skipped(printed: &str) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for line in printed.lines().filter(|line| line.starts_with("test ")) {
        if let Some((_, reason)) = line.split_once("ignored (SKIPPED: ") {
            *reasons.entry(reason.trim_end_matches(')')).or_default() += 1;
        }
    }
    reasons
}

/// The results of all virtual machines: which tests were skipped and why, which ran again, and which failed.
pub(super) fn summary(results: &[(String, Ran)], took: Duration) -> String {
    let mut text = String::new();
    let mut reasons: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    for (name, ran) in results.iter().filter(|(_, ran)| !ran.whole) {
        for (reason, count) in ran.result.as_deref().map(skipped).unwrap_or_default() {
            let (all, machines) = reasons.entry(reason).or_default();
            *all += count;
            machines.push(name);
        }
    }
    for (reason, (count, machines)) in reasons {
        let _ = writeln!(text, "SKIPPED, {count} tests: {reason} ({})", machines.join(", "));
    }
    let again = results.iter().flat_map(|(name, ran)| ran.again.iter().map(move |test| (name, ran, test)));
    let again: Vec<String> = again
        .map(|(name, ran, test)| {
            let then = if ran.result.is_ok() { "passed" } else { "failed" };
            format!("RUN AGAIN, and then {then}: {name}: {test}\n")
        })
        .collect();
    text.extend(again.iter().map(String::as_str));
    for (name, _) in results.iter().filter(|(_, ran)| ran.result.is_err()) {
        let _ = writeln!(text, "FAILED: {name}");
    }
    let passed = results.iter().filter(|(_, ran)| ran.result.is_ok()).count();
    let _ = writeln!(
        text,
        "{} virtual machines in {} s; {} tests were run again\nmachines: {passed} passed, {} failed",
        results.len(),
        took.as_secs(),
        again.len(),
        results.len() - passed
    );
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const FAILED: &str = "not passed:\nfailures:\n\n---- a: b ----\ntest panicked\n\n\nfailures:\n    a: b\n    c's, d\n\ntest result: FAILED. 2 failed\n";

    #[test]
    fn what_failed_is_known_by_name() {
        assert_eq!(failed(FAILED), ["a: b", "c's, d"]);
        assert_eq!(failed(&FAILED.repeat(2)), ["a: b", "c's, d", "a: b", "c's, d"]);
        assert_eq!(failed("not passed:\nkernel panic"), [""; 0]);
    }

    #[test]
    fn the_summary_says_what_was_skipped_run_again_and_failed() {
        let printed = "booted\ntest a  ... ok\ntest b  ... ignored (SKIPPED: needs ss)\n\
                       test c ... ignored (SKIPPED: needs ss)\ntest result: ok. 1 passed";
        let ran = |result, again: &[&str]| Ran {
            result,
            again: again.iter().map(|test| (*test).to_owned()).collect(),
            took: Duration::from_secs(7),
            whole: false,
        };
        let results = [
            ("6.1 fentry".to_owned(), ran(Ok(printed.to_owned()), &["d"])),
            ("7 kprobe".to_owned(), ran(Err(anyhow!(FAILED)), &["a: b", "c's, d"])),
        ];
        let expected = "SKIPPED, 2 tests: needs ss (6.1 fentry)
RUN AGAIN, and then passed: 6.1 fentry: d
RUN AGAIN, and then failed: 7 kprobe: a: b
RUN AGAIN, and then failed: 7 kprobe: c's, d
FAILED: 7 kprobe
2 virtual machines in 60 s; 3 tests were run again
machines: 1 passed, 1 failed
";
        assert_eq!(summary(&results, Duration::from_secs(60)), expected);
        assert!(results[0].1.to_string().ends_with("\ntest result: ok. 1 passed"));
    }
}
