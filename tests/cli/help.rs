//! Help, manual pages and completions.

use std::{fs, process::Command};

use testkit::{golden, terminal::output_in_terminal};

use super::{sockstate, text};

/// The names of all commands.
fn commands() -> Vec<String> {
    let help = text(&sockstate(&["help"]).stdout);
    let list = help.split("Commands:\n").nth(1).expect("commands");
    let names = list.lines().take_while(|line| !line.is_empty() && !line.starts_with('-'));
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn help_fits_80_columns() {
    let mut count = 0;
    for name in commands().iter().map(String::as_str).map(Some).chain([None]) {
        for flag in ["-h", "--help"] {
            let args: Vec<&str> = name.into_iter().chain([flag]).collect();
            for width in [80, 200] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_sockstate"));
                let help =
                    output_in_terminal(command.env("TERM", "dumb").env("NO_COLOR", "1").args(&args), width);
                for line in help.lines() {
                    assert!(line.chars().count() <= 80, "{args:?}: {line}");
                }
                count += 1;
            }
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn the_short_help_is_short() {
    let lines = |args: &[&str]| text(&sockstate(args).stdout).lines().count();
    assert!(lines(&["-h"]) <= 50, "{}", lines(&["-h"]));
    for name in commands() {
        let (short, long) = (lines(&[&name, "-h"]), lines(&[&name, "--help"]));
        assert!(short <= 70 && short <= long, "{name}: {short} of {long} lines");
    }
    // All flags are in the long help.
    let long = text(&sockstate(&["--help"]).stdout);
    for word in ["--ring-size", "--cmdline", "--threshold", "Exit status:"] {
        assert!(long.contains(word) && !text(&sockstate(&["-h"]).stdout).contains(word), "{word}");
    }
}

/// Most users of these commands want only some kinds of records.
#[test]
fn the_short_help_lists_the_kinds_of_records() {
    let has = |args: &[&str]| text(&sockstate(args).stdout).contains("--records <KINDS>");
    let names = commands();
    let with: Vec<&str> = names.iter().map(String::as_str).filter(|name| has(&[name, "--help"])).collect();
    assert_eq!(with, ["trace", "record", "replay"]);
    assert!(has(&["-h"]));
    for name in with {
        assert!(has(&[name, "-h"]), "{name}");
    }
}

/// In the examples, a command has a line of its own, and so has what it is for.
#[test]
fn examples_are_commands() {
    use clap::Parser;
    let mut count = 0;
    for name in commands() {
        let help = text(&sockstate(&[&name, "--help"]).stdout);
        let examples = help.split("Examples:\n").nth(1).unwrap_or_else(|| panic!("{name} has no examples"));
        for line in examples.lines().take_while(|line| line.starts_with("  ")) {
            let Some(command) = line.strip_prefix("  sockstate") else {
                assert!(line.starts_with("      "), "{name}: {line}");
                continue;
            };
            let words = command.split(" > ").next().expect("a command").split_whitespace();
            let parsed = sockstate::cmd::Cli::try_parse_from(std::iter::once("sockstate").chain(words));
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("an error"));
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn pages_and_completions_are_those_of_the_packages() {
    let packaged = |name: &str| {
        fs::read_to_string(golden::file("").join("../packaging").join(name)).expect("a packaged file")
    };
    for (args, file) in [
        (&["man"][..], "man/sockstate.1"),
        (&["man", "stuck"], "man/sockstate-stuck.1"),
        (&["completions", "bash"], "completions/sockstate.bash"),
        (&["completions", "ZSH"], "completions/_sockstate"),
        (&["completions", "fish"], "completions/sockstate.fish"),
    ] {
        let output = sockstate(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(text(&output.stdout), packaged(file), "{args:?}: cargo xtask generate");
    }
}

#[test]
fn names_of_values_have_no_case() {
    let recording = "fixtures/recordings/sockstate-1.ndjson";
    for args in [
        &["replay", recording, "--format", "JSON"][..],
        &["replay", recording, "--format", "Table", "--color", "NEVER"],
        &["stuck", "--from", recording, "--group-by", "Process"],
        &["explain", "--lang", "UK", "Connected"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockstate"));
        let output = command.args(args).current_dir(golden::file("")).output().expect("sockstate");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_suggestion_is_a_misspelling() {
    for (args, words) in [(&["stuk"][..], "'stuck'"), (&["trace", "--formt", "x"], "'--format'")] {
        let error = text(&sockstate(args).stderr);
        assert!(error.contains(&format!("exists: {words}")), "{args:?}: {error}");
    }
    for (args, word) in [(&["tcp"][..], "top"), (&["--interface", "eth0"], "--tier"), (&["--zzzz"], "exists")]
    {
        let error = text(&sockstate(args).stderr);
        assert!(!error.contains(word), "{args:?}: {error}");
    }
}

#[test]
fn an_error_has_its_cause_once() {
    for args in [
        &["replay", "/no/such/file"][..],
        &["run", "--config", "/no/such/file"],
        &["stuck", "--from", "/no/such/file"],
        &["diagram", "--format", "svg", "-o", "/no/such/file"],
        &["report", "/no/such/file"],
        &["stuck", "--group-by", "stack", "--hunt", "/no/such/file"],
        &["trace", "--alongside", "--btf", "/no/such/file"],
        &["run", "--config", "/no/such/file", "--check"],
    ] {
        let error = text(&sockstate(args).stderr);
        assert_eq!(error.matches("No such file or directory").count(), 1, "{args:?}: {error}");
        assert_eq!(error.matches("os error").count(), 1, "{args:?}: {error}");
    }
}

#[test]
fn every_way_out_of_a_state_is_listed() {
    let said = text(&sockstate(&["explain", "ESTABLISHED", "LISTEN"]).stdout).replace("\n  ", " ");
    let ways = "Ways out of ESTABLISHED: FIN_WAIT1, CLOSE_WAIT, CLOSE (by a reset, a timeout or `ss -K`).";
    assert!(said.contains(ways), "{said}");
    // A closed socket is not reset.
    let said = text(&sockstate(&["explain", "CLOSE", "TIME_WAIT"]).stdout).replace("\n  ", " ");
    assert!(said.contains("Ways out of CLOSE: SYN_SENT, LISTEN. "), "{said}");
}

/// The states that have a line in a list.
fn listed(said: &str) -> Vec<&str> {
    let is_state = |word: &&str| word.starts_with(|c: char| c.is_ascii_uppercase()) && word.len() > 4;
    said.lines().filter_map(|line| line.split(' ').next()).filter(is_state).collect()
}

#[test]
fn every_page_lists_the_direct_ways_to_close() {
    let list = text(&sockstate(&["explain"]).stdout);
    let states = listed(&list);
    assert_eq!(states.len(), 12, "{states:?}");
    for state in states {
        let page = text(&sockstate(&["explain", "--lang", "en", state]).stdout);
        let next = page.split("\nWhat moves it on\n").nth(1).unwrap_or_default();
        let next = next.split("\n\n").next().unwrap_or_default();
        let ways: Vec<&str> = next.split("\n  -> ").filter(|way| way.contains("CLOSE  ")).collect();
        let by_reset = ways.iter().any(|way| way.contains("(RST)") || way.contains("by a reset"));
        // A closed socket has no connection, and a listener is closed.
        assert_eq!(by_reset, !["CLOSE", "LISTEN", "UNKNOWN"].contains(&state), "{state}: {next}");
        assert_eq!(ways.is_empty(), ["CLOSE", "UNKNOWN"].contains(&state), "{state}: {next}");
    }
    let step = text(&sockstate(&["explain", "--lang", "en", "LISTEN", "CLOSE"]).stdout);
    assert!(step.contains("the application calls close()"), "{step}");
}

#[test]
fn close_wait_is_bounded_by_keepalive_only() {
    let page = text(&sockstate(&["explain", "--lang", "en", "CLOSE_WAIT"]).stdout);
    let bounds = page.split("\nWhat bounds it\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let bounds = bounds.unwrap_or_else(|| panic!("{page}"));
    for words in [
        "no timer",
        "Without SO_KEEPALIVE",
        "tcp_keepalive_time",
        "tcp_keepalive_intvl",
        "tcp_keepalive_probes",
    ] {
        assert!(bounds.contains(words), "{words}: {bounds}");
    }
}

/// `explain` lists the states that `--from` takes the group for.
#[test]
fn groups_of_states_are_explained() {
    use sockstate::model::{State, StateSet};
    for group in StateSet::GROUPS {
        let said = text(&sockstate(&["explain", "--lang", "en", &group.to_uppercase()]).stdout);
        let states = listed(&said);
        let set: StateSet = group.parse().expect("a group");
        for number in 0..=12 {
            let state = State::from_number(number);
            assert_eq!(states.contains(&state.name()), set.contains(state), "{group}: {state} in {said}");
        }
        assert!(said.starts_with(group) && said.contains("--from"), "{said}");
    }
    let help = text(&sockstate(&["trace", "--help"]).stdout);
    for words in ["connected", "synchronized", "bucket", "big"] {
        assert!(help.contains(words), "{words}");
    }
}
