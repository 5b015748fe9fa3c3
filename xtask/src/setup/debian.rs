//! Debian's packages: installed, or only unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::{command, output, root};

/// Packages, each with a program that shows whether the package is installed.
pub(super) type Packages = [(&'static str, &'static str)];

/// The packages whose program is missing.
pub(super) fn missing(wanted: &Packages) -> Vec<&'static str> {
    wanted.iter().filter(|(program, _)| find(program).is_none()).map(|wanted| wanted.1).collect()
}

/// The packages whose program is neither installed nor unpacked.
pub(super) fn not_unpacked(wanted: &Packages) -> Vec<&'static str> {
    let tools = root().join("target/tools");
    let is_there = |program: &str| {
        let below = ["usr/bin", "usr/sbin"].map(|place| tools.join(place).join(program));
        below.iter().any(|path| path.exists()) || find(program).is_some()
    };
    wanted.iter().filter(|(program, _)| !is_there(program)).map(|wanted| wanted.1).collect()
}

/// Installs packages that are missing.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    can_install(packages)?;
    update()?;
    command(apt().args(["install", "--no-install-recommends"]).args(packages))
        .context("Debian 12 with its security updates has these")
}

/// Fetches packages with the dependencies that the machine lacks, and unpacks them below target/tools: one after another,
/// because some cannot be installed together.
pub(super) fn unpack(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    can_install(packages)?;
    update()?;
    let tools = root().join("target/tools");
    let archives = tools.join("archives");
    // The directory may be closed to apt's own user.
    let options = ["APT::Sandbox::User=root", &format!("Dir::Cache::archives={}", archives.display())];
    for package in packages {
        fs::create_dir_all(archives.join("partial"))?;
        let mut download = apt();
        download.args(options.iter().flat_map(|option| ["-o", option]));
        download.args(["--download-only", "--no-install-recommends", "install", package]);
        command(&mut download)?;
        for file in fs::read_dir(&archives)?.flatten().filter(|entry| entry.path().is_file()) {
            if file.path().extension() == Some("deb".as_ref()) {
                command(Command::new("dpkg-deb").arg("-x").arg(file.path()).arg(&tools))?;
            }
        }
        fs::remove_dir_all(&archives)?;
    }
    Ok(())
}

/// Updates apt's lists, once for each run of this program.
fn update() -> Result<()> {
    static UPDATED: AtomicBool = AtomicBool::new(false);
    if !UPDATED.load(Ordering::Relaxed) {
        output(apt().arg("update"))?;
        UPDATED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// What apt would have to fetch for `packages`, and the space that they then take, in apt's words. apt's lists are
/// updated for the answer.
pub(super) fn size(packages: &[&str]) -> Result<String> {
    update()?;
    let mut plan = Command::new("apt-get");
    plan.env("LC_ALL", "C").args(["--assume-no", "--no-install-recommends", "install"]).args(packages);
    // With --assume-no, apt ends with an error after its plan.
    let plan = plan.output().context("cannot run apt-get")?;
    Ok(sizes(&String::from_utf8_lossy(&plan.stdout)))
}

/// The lines of apt's plan that have the number of packages and the sizes.
fn sizes(plan: &str) -> String {
    let parts = plan.lines().filter_map(|line| {
        if let Some((_, rest)) = line.split_once(" upgraded, ") {
            return Some(format!("{} packages", rest.split_once(" newly installed")?.0));
        }
        if let Some(rest) = line.strip_prefix("Need to get ") {
            return Some(format!("{} to fetch", rest.split_once(" of archives")?.0));
        }
        let rest = line.strip_prefix("After this operation, ")?;
        Some(format!("{} on disk", rest.split_once(" of additional disk space")?.0))
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]);
    apt
}

/// Fails, with the reason, if this process cannot install `packages`.
fn can_install(packages: &[&str]) -> Result<()> {
    if !is_debian() {
        bail!("install by hand what your distribution calls {}", packages.join(", "));
    }
    if !is_root() {
        bail!("not root: apt-get install {}", packages.join(" "));
    }
    Ok(())
}

pub(super) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && find("apt-get").is_some()
}

/// Whether this process may install packages.
fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Finds a program in PATH, or in the directories that a user's PATH may lack.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::sizes;

    #[test]
    fn the_sizes_are_those_of_apts_plan() {
        let plan = "Reading package lists...\nThe following NEW packages will be installed:\n  bpftrace libllvm14\n\
                    0 upgraded, 2 newly installed, 0 to remove and 7 not upgraded.\nNeed to get 23.4 MB/24.1 MB of \
                    archives.\nAfter this operation, 118 MB of additional disk space will be used.\nAbort.\n";
        assert_eq!(sizes(plan), "2 packages, 23.4 MB/24.1 MB to fetch, 118 MB on disk");
        assert_eq!(sizes("E: Unable to locate package bpftrace\n"), "");
    }
}
