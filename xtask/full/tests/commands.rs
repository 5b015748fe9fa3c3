//! The command line of `xtask-full`.
//!
//! CI also needs this test for another reason: cargo builds the program for it, together with the tests, and `.ci/run` uses
//! that program.

use std::process::Command;

use xtask::FULL;

#[test]
fn cargo_xtask_passes_on_every_command() {
    let help =
        Command::new(env!("CARGO_BIN_EXE_xtask-full")).arg("--help").output().expect("xtask-full runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let commands = help.split("Commands:\n").nth(1).expect("commands");
    let lines = commands.lines().take_while(|line| !line.is_empty());
    // The description of a command may continue in lines that are indented more.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split_once(' ')).map(|(name, _)| name);
    let names: Vec<&str> = names.filter(|name| !["", "help"].contains(name)).collect();
    assert_eq!(names, FULL);
}
