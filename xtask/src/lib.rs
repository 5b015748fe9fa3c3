//! What `cargo xtask` and its second program, `xtask-full`, share: the setup, the tests, the committed objects.

pub mod arch;
pub mod setup;
pub mod sums;
pub mod testing;
pub mod toolchain;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sums::Sums;
use toolchain::Toolchain;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The cargo that runs this program, in the root of the repository.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // These variables of cargo describe the package of this program. ring's build script depends on them: with other values
    // it runs again, and most of the workspace is built again.
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        cargo.env_remove(name);
    }
    cargo
}

/// Runs a command to its end, showing what it prints.
pub fn command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// What a command prints; an error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command runs and succeeds.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The commands of `xtask-full`. They need many more crates than `run` and `test`, which therefore are built without them.
pub const FULL: [&str; 10] =
    ["check", "book", "generate", "build-ebpf", "vm", "turn", "bench", "fuzz", "soak", "dist"];

/// `xtask-full`, which cargo builds first if it has to.
pub fn full() -> Command {
    let mut full = cargo();
    full.args(["run", "--package", "xtask-full", "--"]);
    full
}

/// Builds the committed objects again if they do not match the sources. Fails if they cannot be built, and in CI, which
/// must test the committed objects.
pub fn refresh_objects() -> Result<()> {
    if Sums::read(&root())?.are_current(&root())? {
        return Ok(());
    }
    let stale = "the objects in tracer/bpf were built of other sources than those in tracer-ebpf";
    if std::env::var_os("CI").is_some() {
        bail!("{stale}: run `cargo xtask build-ebpf`, and commit tracer/bpf");
    }
    if Toolchain::find().is_none() || !setup::has_linker() {
        bail!("{stale}, and no Rust that can build for BPF is installed: run `cargo xtask setup`");
    }
    eprintln!("{stale}: building them again");
    // Standard output belongs to the program that `cargo xtask run` starts after this.
    command(full().arg("build-ebpf").stdout(std::io::stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_builds_do_not_depend_on_this_package() {
        let removed: Vec<String> = cargo()
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect();
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(removed.iter().any(|removed| removed == name), "{name}: {removed:?}");
        }
    }
}
