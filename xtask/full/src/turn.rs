//! The part of the kernel matrix that CI runs: its turn. CI keeps nothing between runs, so the number of the turn is
//! committed: `.ci/turn`.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{output, root};

/// If HEAD is more than this many seconds newer than the last commit of `.ci/turn`, it is another change, which needs
/// the next turn.
const FRESH: u64 = 4 * 60 * 60;

fn file() -> PathBuf {
    root().join(".ci/turn")
}

/// The committed turn.
pub(crate) fn read() -> Result<usize> {
    let text = fs::read_to_string(file()).context("cannot read .ci/turn")?;
    text.trim().parse().with_context(|| format!(".ci/turn is '{}', and should be a number", text.trim()))
}

/// Increases the number.
pub(crate) fn advance() -> Result<()> {
    let next = read()? + 1;
    fs::write(file(), format!("{next}\n"))?;
    println!("turn {next}: commit .ci/turn");
    Ok(())
}

/// A turn boots every fourth kernel, each with one of the tiers; of fewer kernels, it boots one.
const STEP: usize = 4;

fn step(kernels: usize) -> usize {
    kernels.clamp(1, STEP)
}

/// How many turns in a row cover each of `tiers` on every kernel.
pub(crate) fn needed(kernels: usize, tiers: usize) -> usize {
    step(kernels) * tiers
}

/// The kernels of a turn, each with one of the tiers. The next turns have the other kernels, until a turn has these kernels
/// again, each with its next tier.
pub(crate) fn part<K: Copy, T: Copy>(kernels: &[K], tiers: &[T], turn: usize) -> Vec<(K, T)> {
    let step = step(kernels.len());
    let pair = |(index, kernel): (usize, &K)| {
        let turn = index + turn;
        let tier = (turn / step).checked_rem(tiers.len())?;
        turn.is_multiple_of(step).then_some((*kernel, *tiers.get(tier)?))
    };
    kernels.iter().enumerate().filter_map(pair).collect()
}

/// Fails if HEAD is so much younger than the last turn that it must be another change, for which CI would run the same
/// part again. In CI this is only a warning, because nothing is wrong with the code.
pub(crate) fn verify() -> Result<()> {
    let committed = |path: &[&str]| -> Result<u64> {
        let mut git = Command::new("git");
        let time = output(git.args(["log", "-1", "--format=%ct", "--"]).args(path).current_dir(root()))?;
        Ok(time.trim().parse()?)
    };
    let (Ok(head), Ok(turn)) = (committed(&[]), committed(&[".ci/turn"])) else {
        println!("SKIPPED: the age of .ci/turn: this is no git repository, or .ci/turn is not committed");
        return Ok(());
    };
    let hours = head.saturating_sub(turn) / 3600;
    if head.saturating_sub(turn) <= FRESH || is_taken()? {
        return Ok(());
    }
    let text = format!(
        "the turn of the kernel matrix is {hours} hours older than HEAD; run `cargo xtask turn` and commit .ci/turn"
    );
    if std::env::var_os("CI").is_some() {
        println!("WARNING: {text}");
        return Ok(());
    }
    bail!("{text}");
}

/// Whether the next turn was taken and is not committed yet.
fn is_taken() -> Result<bool> {
    let mut git = Command::new("git");
    let status = output(git.args(["status", "--porcelain", "--", ".ci/turn"]).current_dir(root()))?;
    Ok(!status.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_turns_that_are_needed_cover_every_pair_once() {
        let tiers = ["fentry", "kprobe", "timers", "estimate", "tracepoint"];
        for kernels in 0..12 {
            let kernels: Vec<usize> = (0..kernels).collect();
            for first in [0, 3, 41] {
                let turns = (first..first + needed(kernels.len(), tiers.len()))
                    .map(|turn| part(&kernels, &tiers, turn));
                let is_part = |part: &Vec<_>| {
                    (part.len() * STEP).abs_diff(kernels.len()) < STEP
                        && (part.is_empty() == kernels.is_empty())
                };
                let pairs: Vec<_> =
                    turns.inspect(|part| assert!(is_part(part), "{part:?}")).flatten().collect();
                let different: BTreeSet<_> = pairs.iter().collect();
                assert_eq!((pairs.len(), different.len()), (kernels.len() * 5, kernels.len() * 5));
            }
        }
        assert!(part(&[1, 2], &[""; 0], 7).is_empty());
    }

    #[test]
    fn the_committed_turn_is_a_number() {
        assert!(read().is_ok());
    }
}
