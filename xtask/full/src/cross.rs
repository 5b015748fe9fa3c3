//! Programs for another architecture than this machine's, statically linked: Debian's Rust with the other architecture's
//! standard library, and Debian's cross linker.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{apt::Apt, arch::Arch, output, root, setup};

/// `cargo test` of the tracer with everything that a static build for `arch`, which is not this machine's, needs.
pub(crate) fn tests(arch: Arch) -> Result<Command> {
    setup::cross()?;
    let sysroot = sysroot(arch)?;
    let mut cargo = Command::new("/usr/bin/cargo");
    let linker = format!("CARGO_TARGET_{}_LINKER", arch.target().to_uppercase().replace('-', "_"));
    cargo
        .env("RUSTC", "/usr/bin/rustc")
        .args(["test", "--package", "sockstate", "--profile", "checked", "--target", &arch.target()])
        .args(["--target-dir", "target/vm/build"])
        .env("RUSTFLAGS", format!("--sysroot {} -Ctarget-feature=+crt-static", sysroot.display()))
        .env(linker, format!("{}-linux-gnu-gcc", arch.name()))
        .current_dir(root());
    for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER"] {
        cargo.env_remove(variable);
    }
    Ok(cargo)
}

/// busybox, statically linked.
pub(crate) fn busybox(arch: Arch) -> Result<PathBuf> {
    if arch == Arch::X86_64 {
        return Ok("/bin/busybox".into());
    }
    let place = foreign(arch, "busybox-static", None)?;
    let found = ["bin/busybox", "usr/bin/busybox"].map(|path| place.join(path));
    found.into_iter().find(|path| path.exists()).context("the package has no busybox")
}

/// A sysroot with Debian's standard libraries of `arch` and of this machine, both of the version of Debian's compiler.
fn sysroot(arch: Arch) -> Result<PathBuf> {
    let package = "libstd-rust-web-dev";
    let version = output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]))?;
    let place = foreign(arch, package, Some(version.trim()))?;
    let own = output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))?;
    let sysroot = place.join("sysroot");
    let rustlib = sysroot.join("lib/rustlib");
    if !rustlib.exists() {
        fs::create_dir_all(&rustlib)?;
        for (arch, from) in [(Arch::X86_64, Path::new(own.trim()).join("lib")), (arch, place.join("usr/lib"))]
        {
            symlink(from.join("rustlib").join(arch.target()), rustlib.join(arch.target()))?;
        }
    }
    Ok(sysroot)
}

/// A package of `arch`, unpacked.
fn foreign(arch: Arch, package: &str, version: Option<&str>) -> Result<PathBuf> {
    let cache = root().join("target/vm").join(arch.debian());
    let place = cache.join(package);
    if !place.exists() {
        let wanted = version.map_or_else(|| package.to_owned(), |version| format!("{package}={version}"));
        let unpacked = cache.join("unpacked");
        Apt::new(arch, &cache)?.unpack(&[wanted], &unpacked)?;
        fs::rename(unpacked, &place)?;
    }
    Ok(place)
}
