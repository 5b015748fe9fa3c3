//! What `cargo xtask dist` needs, below target/tools/dist: a C compiler for every architecture, and what makes packages.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{debian, pip_install};
use crate::{arch::Arch, command, root};

/// zig compiles C for any architecture, and brings musl. Both as packages of PyPI.
const ZIG: [&str; 2] = ["cargo-zigbuild==0.24.0", "ziglang==0.17.1"];

/// Programs that cargo builds.
const TOOLS: [&str; 4] =
    ["cargo-deb@3.8.0", "cargo-generate-rpm@0.21.1", "cargo-about@0.9.3", "cargo-cyclonedx@0.5.9"];

/// Packages that make images for containers.
const IMAGES: [(&str, &str); 2] = [("buildah", "buildah"), ("update-ca-certificates", "ca-certificates")];

/// Packages that check packages and images.
const CHECKS: [(&str, &str); 6] = [
    ("lintian", "lintian"),
    ("rpmlint", "rpmlint"),
    ("rpm", "rpm"),
    ("debootstrap", "debootstrap"),
    ("podman", "podman"),
    ("runc", "runc"),
];

fn directory() -> PathBuf {
    root().join("target/tools/dist")
}

/// Installs Rust's targets of static programs.
pub fn static_targets() -> Result<()> {
    let targets = Arch::ALL.map(Arch::static_target);
    command(Command::new("rustup").args(["--quiet", "target", "add"]).args(targets))
}

/// Installs what building a release needs.
pub fn distribution() -> Result<()> {
    static_targets()?;
    pip_install(&directory().join("python"), &ZIG)?;
    for tool in TOOLS {
        let mut install = crate::cargo();
        // Without optimisation, they are built in a third of the time, and fast enough.
        install.args(["install", "--quiet", "--locked", "--debug", tool, "--root"]).arg(directory());
        install.env("CARGO_PROFILE_DEV_DEBUG", "0");
        if tool.starts_with("cargo-about") {
            // It compares each file with the texts of all licences, which takes minutes without optimisation.
            install.args(["--features", "cli"]).env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
        }
        command(&mut install)?;
    }
    Ok(())
}

/// Installs what building images for containers needs.
pub fn images() -> Result<()> {
    debian::install(&debian::missing(&IMAGES))
}

/// Installs what checking packages and images needs.
pub fn package_checks() -> Result<()> {
    debian::install(&debian::missing(&CHECKS))
}

/// The path of a program that [`distribution`] has installed.
pub fn distribution_tool(name: &str) -> PathBuf {
    directory().join("bin").join(name)
}

/// The path of cargo-zigbuild.
pub fn zigbuild() -> PathBuf {
    directory().join("python/bin/cargo-zigbuild")
}

/// A command that finds zig, with its cache below target.
pub fn with_zig(mut command: Command) -> Result<Command> {
    let programs = directory().join("python/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)));
    command.env("PATH", path.context("a directory of PATH has a colon")?);
    command.env("CARGO_ZIGBUILD_CACHE_DIR", directory().join("zig"));
    Ok(command)
}
