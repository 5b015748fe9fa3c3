//! The packages, from the binary that is already built. `tracer/Cargo.toml` says what they have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{REVISION, Release, VERSION, names};
use crate::{arch::Arch, command, setup};

/// Debian's package.
pub(super) fn deb(release: &Release, arch: Arch) -> Result<()> {
    deb_into(release, arch, REVISION, &release.out().join(deb_name(arch, REVISION)))
}

/// Debian's package as another revision, in another place.
pub(super) fn deb_into(release: &Release, arch: Arch, revision: &str, file: &Path) -> Result<()> {
    let mut deb = release.command(setup::distribution_tool("cargo-deb"));
    deb.args(["deb", "--locked", "--no-build", "--no-strip", "--package", "sockstate"]);
    deb.args(["--target", &arch.static_target(), "--deb-revision", revision, "--output"]);
    command(deb.arg(file).env("CARGO_TARGET_DIR", release.stage()))
}

pub(super) fn deb_name(arch: Arch, revision: &str) -> String {
    format!("sockstate_{VERSION}-{revision}_{}.deb", arch.debian())
}

/// The package for distributions with RPM.
pub(super) fn rpm(release: &Release, arch: Arch) -> Result<()> {
    rpm_into(release, arch, REVISION, &release.out().join(rpm_name(arch)))
}

/// The package for distributions with RPM as another revision, in another place.
pub(super) fn rpm_into(release: &Release, arch: Arch, revision: &str, file: &Path) -> Result<()> {
    compress_pages(release, arch)?;
    let mut rpm = release.command(setup::distribution_tool("cargo-generate-rpm"));
    rpm.current_dir(rpm_sources(release)?);
    rpm.args(["generate-rpm", "--package", "tracer", "--auto-req", "disabled"]);
    rpm.args(["--target", &arch.static_target(), "--set-metadata", &format!("release = \"{revision}\"")]);
    // RHEL 8 can read gzip, too.
    rpm.args(["--payload-compress", "gzip", "--target-dir"]).arg(release.stage());
    command(rpm.arg("--output").arg(file))
}

/// What the package has from the repository, as new files: cargo-generate-rpm keeps times before that of the commit, and
/// they differ from clone to clone.
fn rpm_sources(release: &Release) -> Result<PathBuf> {
    let tree = release.stage().join("rpm");
    fs::create_dir_all(&tree)?;
    let mut copy = release.command("cp");
    copy.args(["--recursive", "--parents", "Cargo.toml", "tracer/Cargo.toml", "README.md", "CHANGELOG.md"]);
    command(copy.args(["LICENSE-APACHE", "LICENSE-MIT", "packaging"]).arg(&tree))?;
    Ok(tree)
}

/// Compresses the manual pages: cargo-generate-rpm does not.
fn compress_pages(release: &Release, arch: Arch) -> Result<()> {
    let man = release.staged(arch).join("man");
    fs::create_dir_all(&man)?;
    let pages = release.source.join("packaging/man");
    for name in names(&pages)? {
        fs::copy(pages.join(&name), man.join(&name))?;
        command(Command::new("gzip").arg("-9nf").arg(man.join(&name)))?;
    }
    Ok(())
}

pub(super) fn rpm_name(arch: Arch) -> String {
    format!("sockstate-{VERSION}-{REVISION}.{}.rpm", arch.name())
}
