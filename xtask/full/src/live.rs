//! The program of the live tests, for commands that run more than the tests.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::output;

/// The program of the live tests, and the sockstate that it runs.
pub(crate) struct Live {
    pub(crate) tests: PathBuf,
    /// The tests know sockstate by this path.
    pub(crate) sockstate: PathBuf,
}

/// Builds both with `tests`, a command of `cargo test` that selects packages, profile and features.
pub(crate) fn build(tests: &mut Command) -> Result<Live> {
    let messages = output(tests.args(["--test", "live", "--no-run", "--message-format", "json"]))?;
    let built: Vec<(String, PathBuf)> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, message["executable"].as_str()?.into()))
        })
        .collect();
    let path = |name: &str| {
        let program = built.iter().find(|program| program.0 == name);
        program.map(|program| program.1.clone()).with_context(|| format!("cargo built no program {name}"))
    };
    Ok(Live { tests: path("live")?, sockstate: path("sockstate")? })
}
