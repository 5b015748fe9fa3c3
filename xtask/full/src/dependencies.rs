//! The crates that the manifests name, compared with the list in docs/dependencies.md.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cargo, output, root};

const LIST: &str = "docs/dependencies.md";

/// Fails if the list lacks a crate, or has one that no manifest names.
pub(crate) fn check() -> Result<()> {
    let mut named = BTreeSet::new();
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let metadata = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest];
        named.extend(foreign(&serde_json::from_str(&output(cargo().args(metadata))?)?)?);
    }
    let text = fs::read_to_string(root().join(LIST))?;
    let listed = listed(&text);
    let lacking: Vec<_> = named.difference(&listed).collect();
    ensure!(lacking.is_empty(), "{LIST} has no reason for {lacking:?}");
    let extra: Vec<_> = listed.difference(&named).collect();
    ensure!(extra.is_empty(), "{LIST} has {extra:?}, which no manifest names");
    println!("{} direct dependencies: each has its reason in {LIST}", named.len());
    Ok(())
}

/// The crates of others that the packages of a workspace depend on.
fn foreign(metadata: &Value) -> Result<BTreeSet<String>> {
    let packages = metadata["packages"].as_array().context("no packages")?;
    let dependencies = packages.iter().filter_map(|package| package["dependencies"].as_array()).flatten();
    let foreign = dependencies.filter(|dependency| !dependency["source"].is_null());
    Ok(foreign.filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned).collect())
}

/// The crates in the first column of the tables, and in the sentences that begin with "The kernel programs use".
fn listed(text: &str) -> BTreeSet<String> {
    let column =
        |line: &str| line.strip_prefix("| ").and_then(|rest| rest.split(" | ").next()).map(str::to_owned);
    let sentence = |line: &str| line.starts_with("The kernel programs use").then(|| line.to_owned());
    let places = text.lines().filter_map(|line| column(line).or_else(|| sentence(line)));
    places
        .flat_map(|place| place.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_first_column_and_the_sentence_about_the_kernel_programs() {
        let text =
            "`no`\n| crate | what |\n| --- | --- |\n| `a`, `b` | not `c` |\n\nThe kernel programs use `d`.\n";
        let listed: Vec<String> = listed(text).into_iter().collect();
        assert_eq!(listed, ["a", "b", "d"]);
    }

    #[test]
    fn only_crates_of_others_need_a_reason() {
        let metadata = serde_json::json!({"packages": [{"dependencies": [
            {"name": "serde", "source": "registry"}, {"name": "sockstate-ebpf", "source": null},
        ]}]});
        assert_eq!(foreign(&metadata).expect("names").into_iter().collect::<Vec<_>>(), ["serde"]);
    }
}
