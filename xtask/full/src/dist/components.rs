//! What the binary consists of: a bill of materials for scanners, and the licences that must accompany it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::{FEATURES, Release, VERSION};
use crate::{arch::Arch, command, setup};

/// The licences of all crates in the binary, with their texts.
pub(super) fn licences(release: &Release) -> Result<PathBuf> {
    let file = release.out().join(format!("sockstate-{VERSION}-licences.txt"));
    // cargo-about reads the manifests of all crates of the lock file, also those of other systems, which no build fetches.
    command(release.command("cargo").args(["fetch", "--locked"]))?;
    let mut about = release.command(setup::distribution_tool("cargo-about"));
    // Without network, so that the text depends only on the crates: a crate without a file gets SPDX's text.
    about.args(["about", "generate", "--fail", "--frozen", "--manifest-path", "tracer/Cargo.toml"]);
    about.args(["--features", &features(), "--config", "packaging/licences/about.toml", "--output-file"]);
    command(about.arg(&file).arg("packaging/licences/licences.hbs"))?;
    Ok(file)
}

/// A bill of materials (CycloneDX) of the crates that are linked into the binary.
pub(super) fn bill(release: &Release) -> Result<()> {
    let mut cyclonedx = release.command(setup::distribution_tool("cargo-cyclonedx"));
    let name = format!("sockstate-{VERSION}.cdx");
    cyclonedx.args(["cyclonedx", "--quiet", "--manifest-path", "tracer/Cargo.toml", "--format", "json"]);
    cyclonedx.args(["--spec-version", "1.5", "--features", &features(), "--no-build-deps"]);
    cyclonedx.args(["--target", &Arch::X86_64.static_target(), "--override-filename", &name]);
    command(&mut cyclonedx)?;
    // The tool writes a file beside the manifest of each package of the workspace.
    let file = format!("{name}.json");
    let text =
        fs::read_to_string(release.source.join("tracer").join(&file)).context("no bill of materials")?;
    for package in ["tracer", "tracer-ebpf", "tests/testkit", "xtask", "xtask/full"] {
        let _ = fs::remove_file(release.source.join(package).join(&file));
    }
    let source = release.source.display().to_string();
    Ok(fs::write(release.out().join(&file), text.replace(&source, "/sockstate"))?)
}

/// [`FEATURES`], as its own manifest names them.
fn features() -> String {
    FEATURES.replace("sockstate/", "")
}
