//! The committed numbers, and what fails when it grows.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Built, rows::Row, version};
use crate::root;

/// The share by which a row may grow, and the instructions that it may always grow by.
const SHARE: f64 = 0.03;
const INSTRUCTIONS: f64 = 500.0;

/// What was added to a connection, and with what it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    kernel: String,
    rustc: String,
    qemu: String,
    profile: String,
    /// Instructions for each connection, by the name of the row.
    added: BTreeMap<String, u64>,
}

impl Baseline {
    pub(super) fn new(kernel: &str, built: &Built, rows: &[Row]) -> Result<Self> {
        let traced = rows.iter().filter(|row| !row.run.is_untraced());
        let added = |row: &Row| Some((row.name(), row.added(rows)?.round() as u64));
        Ok(Self {
            kernel: kernel.to_owned(),
            rustc: version("rustc")?,
            qemu: version("qemu-system-x86_64")?,
            profile: built.profile.to_owned(),
            added: traced.filter_map(added).collect(),
        })
    }

    /// What the numbers were measured with.
    pub(super) fn made_with(&self) -> String {
        let Self { kernel, rustc, qemu, profile, .. } = self;
        format!("kernel {kernel}, rustc {rustc}, QEMU {qemu}, profile {profile}")
    }

    /// Fails if a row costs more than committed. Without a committed baseline of the same versions, prints it.
    pub(super) fn judge(&self) -> Result<()> {
        let committed = committed()?;
        let Some(old) = committed.iter().find(|old| old.made_with() == self.made_with()) else {
            println!(
                "WARNING: {FILE} has no numbers for {}, so nothing was compared. `cargo xtask bench --instructions \
                 --gate --update` adds them:\n{}",
                self.made_with(),
                serde_json::to_string_pretty(self)?
            );
            return Ok(());
        };
        let (lines, grown) = self.compared(old);
        print!("{lines}");
        if grown > 0 {
            bail!(
                "{grown} rows cost more than {FILE} says; if that is intended, run `cargo xtask bench --instructions \
                 --gate --update`, and commit the file with the reason"
            );
        }
        Ok(())
    }

    /// A line for each row, and how many rows have grown by too much.
    fn compared(&self, old: &Self) -> (String, usize) {
        let mut lines = String::new();
        let mut grown = 0;
        for (name, &new) in &self.added {
            let Some(&old) = old.added.get(name) else {
                lines += &format!("NEW      {name}: {new}; not committed\n");
                continue;
            };
            let word = match change(old, new) {
                Change::Grown => "MORE    ",
                Change::Shrunk => "LESS    ",
                Change::Same => "the same",
            };
            grown += usize::from(change(old, new) == Change::Grown);
            let percent = (new as f64 / old as f64 - 1.0) * 100.0;
            lines += &format!("{word} {name}: {new}, committed {old} ({percent:+.1} %)\n");
        }
        for name in old.added.keys().filter(|name| !self.added.contains_key(*name)) {
            lines += &format!("MISSING  {name}: committed, and not measured\n");
            grown += 1;
        }
        (lines, grown)
    }

    /// Writes the numbers into the file, over those of the same versions.
    pub(super) fn commit(self) -> Result<()> {
        let mut all = committed()?;
        all.retain(|old| old.made_with() != self.made_with());
        all.push(self);
        let text = serde_json::to_string_pretty(&all)? + "\n";
        fs::write(file(), text).with_context(|| format!("cannot write {FILE}"))?;
        println!("{FILE} is written: commit it");
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
enum Change {
    Grown,
    Same,
    /// By so much that a new baseline should be committed.
    Shrunk,
}

fn change(old: u64, new: u64) -> Change {
    let (old, new) = (old as f64, new as f64);
    let margin = (old * SHARE).max(INSTRUCTIONS);
    if new > old + margin {
        Change::Grown
    } else if new < old - margin {
        Change::Shrunk
    } else {
        Change::Same
    }
}

const FILE: &str = ".ci/instructions.json";

fn file() -> PathBuf {
    root().join(FILE)
}

fn committed() -> Result<Vec<Baseline>> {
    let text = fs::read_to_string(file()).with_context(|| format!("cannot read {FILE}"))?;
    serde_json::from_str(&text).with_context(|| format!("{FILE} is not as expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(added: &[(&str, u64)]) -> Baseline {
        Baseline {
            kernel: "6.12".to_owned(),
            rustc: "1.95.0".to_owned(),
            qemu: "7.2.22".to_owned(),
            profile: "checked".to_owned(),
            added: added.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    #[test]
    fn a_row_may_grow_by_three_per_cent_or_500_instructions() {
        assert_eq!(change(40_000, 41_200), Change::Same);
        assert_eq!(change(40_000, 41_201), Change::Grown);
        assert_eq!(change(40_000, 38_800), Change::Same);
        assert_eq!(change(40_000, 38_799), Change::Shrunk);
        assert_eq!(change(3_000, 3_500), Change::Same);
        assert_eq!(change(3_000, 3_501), Change::Grown);
        assert_eq!(change(0, 501), Change::Grown);
    }

    #[test]
    fn a_row_that_grew_or_is_missing_fails_and_a_new_one_does_not() {
        let old = baseline(&[("a", 10_000), ("b", 10_000), ("c", 10_000)]);
        let (lines, grown) = baseline(&[("a", 10_501), ("b", 9_000), ("d", 1)]).compared(&old);
        let expected = "MORE     a: 10501, committed 10000 (+5.0 %)
LESS     b: 9000, committed 10000 (-10.0 %)
NEW      d: 1; not committed
MISSING  c: committed, and not measured
";
        assert_eq!((lines.as_str(), grown), (expected, 2));
        assert_eq!(old.compared(&old).1, 0);
    }

    #[test]
    fn the_committed_file_has_one_entry_for_each_set_of_versions() {
        let all = committed().expect("the file");
        for one in &all {
            assert_eq!(all.iter().filter(|other| other.made_with() == one.made_with()).count(), 1);
            assert!(!one.added.is_empty());
        }
    }
}
