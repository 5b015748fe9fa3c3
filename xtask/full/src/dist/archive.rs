//! Archives of a release, and the checksums of its files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Release, VERSION, names};
use crate::{arch::Arch, command, output};

/// What the archive of a binary has from the repository: each with its name in the archive.
const FILES: [(&str, &str); 10] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-GPL-2.0", "LICENSE-GPL-2.0"),
    ("packaging/sockstate.toml", "sockstate.toml"),
    ("packaging/man", "man"),
    ("packaging/completions", "completions"),
    ("packaging/prometheus", "prometheus"),
    ("packaging/grafana", "grafana"),
];

fn stem(arch: Arch) -> String {
    format!("sockstate-{VERSION}-{}-linux", arch.name())
}

/// The archive for any distribution: the binary, its documents, completions and licences.
pub(super) fn binary(release: &Release, arch: Arch) -> Result<()> {
    let stem = stem(arch);
    let tree = release.stage().join("archives").join(&stem);
    fs::create_dir_all(&tree)?;
    for (from, to) in FILES {
        copy(&release.source.join(from), &tree.join(to))?;
    }
    for name in ["sockstate", "licences.txt"] {
        copy(&release.staged(arch).join(name), &tree.join(name))?;
    }
    pack(release, &tree)
}

/// The archive of the debug symbols.
pub(super) fn debug(release: &Release, arch: Arch) -> Result<()> {
    let tree = release.stage().join("archives").join(format!("{}-debug", stem(arch)));
    fs::create_dir_all(&tree)?;
    copy(&release.staged(arch).join("sockstate.debug"), &tree.join("sockstate.debug"))?;
    pack(release, &tree)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    command(Command::new("cp").args(["-r", "--no-preserve=timestamps"]).args([from, to]))
}

/// Packs a directory.
fn pack(release: &Release, tree: &Path) -> Result<()> {
    let name = tree.file_name().context("a directory with a name")?;
    let mut archive: PathBuf = release.out().join(name);
    archive.as_mut_os_string().push(".tar.gz");
    let mut tar = tar(release, &archive, tree.parent().context("a parent")?);
    command(tar.arg("--use-compress-program=gzip -9n").arg(name))
}

/// Packs what a directory has, without compression.
pub(super) fn pack_content(release: &Release, tree: &Path, archive: &Path) -> Result<()> {
    command(tar(release, archive, tree).args(names(tree)?))
}

/// tar without what remains to be packed: names sorted, one time, no owner.
fn tar(release: &Release, archive: &Path, directory: &Path) -> Command {
    let mut tar = release.command("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", release.epoch)]);
    tar.arg("--file").arg(archive).arg("--directory").arg(directory);
    tar
}

/// Writes SHA256SUMS, for `sha256sum --check`.
pub(super) fn sums(release: &Release) -> Result<()> {
    let files = names(&release.out())?;
    let sums = output(Command::new("sha256sum").args(&files).current_dir(release.out()))?;
    Ok(fs::write(release.out().join("SHA256SUMS"), sums)?)
}
