//! Roots of Debian in which the packages of this machine's architecture are installed, upgraded and removed.

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
/// The file of the configuration, below a root.
const CONFIG: &str = "etc/sockstate/config.toml";

/// The life of the .deb in each suite.
pub(super) fn deb(release: &Release, arches: &[Arch]) -> Result<()> {
    let Some(arch) = own(arches) else { return Ok(()) };
    let older = older_deb(release, arch)?;
    let newer = release.out().join(packages::deb_name(arch, REVISION));
    for suite in SUITES {
        println!("{suite}:");
        Root::new(release, suite)?.deb(&older, &newer).with_context(|| format!("on {suite}"))?;
    }
    Ok(())
}

/// The .deb as a revision that [`REVISION`] upgrades.
pub(super) fn older_deb(release: &Release, arch: Arch) -> Result<PathBuf> {
    let older = release.stage().join("older.deb");
    packages::deb_into(release, arch, OLDER, &older)?;
    Ok(older)
}

/// The life of the .rpm. rpm of this machine works on a root of Debian, where it keeps its database and runs the
/// scripts of the package.
pub(super) fn rpm(release: &Release, arches: &[Arch]) -> Result<()> {
    let Some(arch) = own(arches) else { return Ok(()) };
    let older = release.stage().join("older.rpm");
    packages::rpm_into(release, arch, OLDER, &older)?;
    Root::new(release, SUITES[0])?.rpm(&older, &release.out().join(packages::rpm_name(arch)))
}

/// The architecture whose programs run here, if this process may make roots and containers.
pub(super) fn own(arches: &[Arch]) -> Option<Arch> {
    let own = arches.iter().copied().find(|arch| arch.name() == std::env::consts::ARCH);
    if own.is_none() {
        println!("SKIPPED: this machine cannot run the programs of the release");
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("SKIPPED: not root, so neither chroot nor a container works");
    }
    own.filter(|_| is_root)
}

/// A Debian system without what is not essential.
pub(super) struct Root(PathBuf);

impl Root {
    /// A fresh copy of the suite, which is fetched once.
    pub(super) fn new(release: &Release, suite: &str) -> Result<Self> {
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

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        output(Command::new("chroot").arg(&self.0).args(args).env("DEBIAN_FRONTEND", "noninteractive"))
    }

    fn install(&self, package: &Path) -> Result<()> {
        let copy = self.0.join("tmp/package.deb");
        fs::copy(package, &copy)?;
        print!("{}", self.run(&["dpkg", "--install", "/tmp/package.deb"])?);
        Ok(fs::remove_file(copy)?)
    }

    fn deb(&self, older: &Path, newer: &Path) -> Result<()> {
        self.install(older)?;
        let changed = self.installed()?;
        ensure!(!self.is_enabled()?, "the package has enabled the service");
        self.run(&["systemctl", "enable", "sockstate"])?;

        self.install(newer)?;
        self.upgraded(&changed)?;
        ensure!(self.is_enabled()?, "the upgrade has disabled the service");

        self.run(&["dpkg", "--remove", "sockstate"])?;
        ensure!(self.0.join(CONFIG).exists(), "the removal has removed the configuration");
        ensure!(!self.0.join("usr/bin/sockstate").exists(), "the program is there after the removal");
        self.run(&["dpkg", "--purge", "sockstate"])?;
        self.left("after the purge", &[])?;
        fs::remove_dir_all(&self.0)?;
        println!("installed, upgraded, traced, removed, purged");
        Ok(())
    }

    fn rpm(&self, older: &Path, newer: &Path) -> Result<()> {
        // Debian's rpm has no package for the dependency on /bin/sh.
        self.rpm_command(&["--nodeps", "--install"], older)?;
        let changed = self.installed()?;
        self.rpm_command(&["--nodeps", "--upgrade"], newer)?;
        self.upgraded(&changed)?;
        self.rpm_command(&["--erase"], Path::new("sockstate"))?;
        ensure!(
            self.0.join(CONFIG).with_extension("toml.rpmsave").exists(),
            "the changed configuration is lost"
        );
        self.left("after the removal", &["/etc/sockstate", "/var/lib/sockstate", "/var/log/sockstate"])?;
        fs::remove_dir_all(&self.0)?;
        println!("installed, upgraded, traced, removed");
        Ok(())
    }

    fn rpm_command(&self, args: &[&str], package: &Path) -> Result<()> {
        command(Command::new("rpm").arg("--root").arg(&self.0).args(args).arg(package))
    }

    /// Checks the program after an installation, and changes the configuration. Returns what is then in its file.
    fn installed(&self) -> Result<String> {
        let version = self.run(&["sockstate", "--version"])?;
        ensure!(version.starts_with("sockstate "), "the installed program prints {version}");
        let config = self.0.join(CONFIG);
        let changed = fs::read_to_string(&config)? + "# changed\n";
        fs::write(&config, &changed)?;
        Ok(changed)
    }

    /// Checks the changed configuration and the program after an upgrade, and makes what the service would write.
    fn upgraded(&self, changed: &str) -> Result<()> {
        ensure!(
            fs::read_to_string(self.0.join(CONFIG))? == changed,
            "the upgrade has changed the configuration"
        );
        trace::one_connection(trace::in_root(&self.0))?;
        for written in ["var/lib/sockstate", "var/log/sockstate"] {
            fs::create_dir_all(self.0.join(written))?;
        }
        Ok(())
    }

    /// Fails if other paths than these have our name.
    fn left(&self, when: &str, expected: &[&str]) -> Result<()> {
        let paths = self.run(&["find", "/", "-xdev", "-name", "*sockstate*"])?;
        let mut paths: Vec<&str> = paths.lines().collect();
        paths.sort_unstable();
        ensure!(paths == expected, "{when} there are {paths:?}");
        Ok(())
    }

    fn is_enabled(&self) -> Result<bool> {
        let links = self.run(&["find", "/etc/systemd/system", "-path", "*.wants/sockstate.service"])?;
        Ok(!links.is_empty())
    }
}
