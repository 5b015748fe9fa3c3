//! Debian roots in which the package of this machine's architecture is installed, upgraded, removed and purged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{REVISION, Release, packages, trace};
use crate::{apt, arch::Arch, command, output};

const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// A revision before [`REVISION`], which is upgraded.
const OLDER: &str = "0";

pub(super) fn all(release: &Release, arches: &[Arch]) -> Result<()> {
    let Some(&arch) = arches.iter().find(|arch| arch.name() == std::env::consts::ARCH) else {
        println!("SKIPPED: this machine cannot run the programs of the packages");
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: not root, so debootstrap and chroot do not work");
        return Ok(());
    }
    let older = release.stage().join("older.deb");
    packages::deb_into(release, arch, OLDER, &older)?;
    let newer = release.out().join(packages::deb_name(arch, REVISION));
    for suite in SUITES {
        println!("{suite}:");
        Root::new(release, suite)?.life(&older, &newer).with_context(|| format!("on {suite}"))?;
    }
    Ok(())
}

/// A Debian system without what is not essential.
struct Root(PathBuf);

impl Root {
    /// A fresh copy of the suite, which is fetched once.
    fn new(release: &Release, suite: &str) -> Result<Self> {
        let pristine = release.source.join("target/roots").join(suite);
        if !pristine.exists() {
            let unfinished = pristine.with_extension("unfinished");
            fs::create_dir_all(&unfinished)?;
            let (mirror, _) = apt::mirrors()?;
            // Without systemd, its helpers for packages would not be tested.
            let options = ["--variant=minbase", "--include=systemd"];
            command(Command::new("debootstrap").args(options).arg(suite).arg(&unfinished).arg(&mirror))?;
            fs::rename(&unfinished, &pristine)?;
        }
        let copy = pristine.with_extension("copy");
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        command(Command::new("cp").arg("-a").args([&pristine, &copy]))?;
        Ok(Self(copy))
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        output(Command::new("chroot").arg(&self.0).args(args).env("DEBIAN_FRONTEND", "noninteractive"))
    }

    fn install(&self, package: &Path) -> Result<()> {
        fs::copy(package, self.0.join("tmp/package.deb"))?;
        print!("{}", self.run(&["dpkg", "--install", "/tmp/package.deb"])?);
        Ok(())
    }

    /// The files below this root whose name contains ours.
    fn ours(&self) -> Result<String> {
        self.run(&["find", "/", "-xdev", "-name", "*sockstate*"])
    }

    fn life(&self, older: &Path, newer: &Path) -> Result<()> {
        self.install(older)?;
        let version = self.run(&["sockstate", "--version"])?;
        ensure!(version.starts_with("sockstate "), "the installed program prints {version}");
        ensure!(!self.is_enabled()?, "the package has enabled the service");
        let config = self.0.join("etc/sockstate/config.toml");
        let changed = fs::read_to_string(&config)? + "# changed\n";
        fs::write(&config, &changed)?;
        self.run(&["systemctl", "enable", "sockstate"])?;

        self.install(newer)?;
        ensure!(fs::read_to_string(&config)? == changed, "the upgrade has changed the configuration");
        ensure!(self.is_enabled()?, "the upgrade has disabled the service");
        trace::one_connection(&self.0)?;
        for kept in ["var/lib/sockstate", "var/log/sockstate"] {
            fs::create_dir_all(self.0.join(kept))?;
        }

        self.run(&["dpkg", "--remove", "sockstate"])?;
        ensure!(!self.0.join("usr/bin/sockstate").exists(), "the program is there after the removal");
        ensure!(config.exists(), "the removal has removed the configuration");
        self.run(&["dpkg", "--purge", "sockstate"])?;
        let left = self.ours()?;
        ensure!(left.is_empty(), "after the purge there is still\n{left}");
        fs::remove_dir_all(&self.0)?;
        println!("installed, upgraded, traced, removed, purged");
        Ok(())
    }

    fn is_enabled(&self) -> Result<bool> {
        let links = self.run(&["find", "/etc/systemd/system", "-path", "*.wants/sockstate.service"])?;
        Ok(!links.is_empty())
    }
}
