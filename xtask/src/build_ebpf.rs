//! The kernel programs, and the object that is committed so that nobody else needs to build them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{arch::Arch, command, output, root, succeeds};

const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A Rust that can build for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian's, with its precompiled core library for BPF.
    Debian,
    /// rustup's nightly, which builds the core library from rust-src.
    Nightly,
}

impl Toolchain {
    /// The one that is installed, Debian's first: the committed object is of that.
    pub(crate) fn find() -> Option<Self> {
        [Self::Debian, Self::Nightly].into_iter().find(|toolchain| toolchain.is_there())
    }

    fn is_there(self) -> bool {
        let sysroot = match self {
            Self::Debian => output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"])),
            Self::Nightly => {
                output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
            }
        };
        let Ok(sysroot) = sysroot else { return false };
        let rustlib = Path::new(sysroot.trim()).join("lib/rustlib");
        match self {
            Self::Debian => {
                rustlib.join(TARGET).is_dir()
                    && succeeds(&mut self.cargo("clippy", &["--version"], Arch::X86_64))
            }
            Self::Nightly => rustlib.join("src/rust/library/core").is_dir(),
        }
    }

    /// `rustc --version`.
    pub(crate) fn version(self) -> Result<String> {
        let text = match self {
            Self::Debian => output(Command::new(DEBIAN_RUSTC).arg("--version")),
            Self::Nightly => output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])),
        };
        Ok(text?.trim().to_owned())
    }

    /// cargo with all that a build for BPF needs; `verb` is build or clippy.
    fn cargo(self, verb: &str, args: &[&str], arch: Arch) -> Command {
        let mut cargo = match self {
            Self::Debian => {
                let mut cargo = Command::new("/usr/bin/cargo");
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                // Debian's clippy and rustc before rustup's of the same name.
                let path = std::env::var("PATH").unwrap_or_default();
                cargo.env("PATH", format!("/usr/bin:{path}"));
                cargo.arg(verb);
                cargo
            }
            Self::Nightly => {
                let mut cargo = Command::new("rustup");
                cargo.args(["run", "nightly", "cargo", verb, "-Z", "build-std=core"]);
                cargo
            }
        };
        // bpf-linker takes LLVM from a toolchain of rustup's.
        if let Ok(sysroot) =
            output(Command::new("rustup").args(["run", "stable", "rustc", "--print", "sysroot"]))
        {
            cargo.env("LD_LIBRARY_PATH", Path::new(sysroot.trim()).join("lib"));
        }
        // What cargo has told us about the host's build is not for this one.
        for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo.env("RUSTFLAGS", rustflags(arch)).current_dir(root()).args(args);
        cargo
    }
}

/// The same bytes wherever the repository and cargo's home are.
fn rustflags(arch: Arch) -> String {
    let mut flags = vec![
        format!(r#"--cfg=bpf_target_arch="{}""#, arch.name()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=/sockstate", root().display()),
    ];
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    // Each registry's sources lie in a directory whose name depends on how the registry is reached.
    for registry in fs::read_dir(Path::new(&home).join("registry/src")).into_iter().flatten().flatten() {
        flags.push(format!("--remap-path-prefix={}=/cargo", registry.path().display()));
    }
    flags.join(" ")
}

/// Where the committed object lies; the machine's registers, which kprobes read, are what differs.
fn object(arch: Arch) -> PathBuf {
    root().join(format!("tracer/bpf/sockstate-{}.bpf.o", arch.name()))
}

fn sum() -> PathBuf {
    root().join("tracer/bpf/sockstate.bpf.sum")
}

const BUILD: [&str; 6] = ["--locked", "--release", "--package", "tracer-ebpf", "--target", TARGET];

fn target_dir(arch: Arch) -> String {
    format!("target/bpf/{}", arch.name())
}

/// Builds the programs; returns the object's bytes.
fn build(arch: Arch) -> Result<Vec<u8>> {
    let toolchain = Toolchain::find().context("nothing to build with; run cargo xtask setup")?;
    command(crate::cargo().args(["fetch", "--locked"]))?;
    let directory = target_dir(arch);
    command(toolchain.cargo("build", &BUILD, arch).args(["--target-dir", &directory]))?;
    let built = root().join(directory).join(TARGET).join("release/sockstate-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    without_dwarf(&bytes)
}

/// Lints the programs.
pub(crate) fn lint() -> Result<()> {
    let toolchain = Toolchain::find().context("nothing to lint with; run cargo xtask setup")?;
    for arch in Arch::ALL {
        let mut clippy = toolchain.cargo("clippy", &BUILD, arch);
        clippy.args(["--target-dir", &target_dir(arch)]);
        command(clippy.args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// The object without debug sections but with its BTF.
fn without_dwarf(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(bytes).context("the linker wrote no ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.to_vec();
        if name.starts_with(b".debug") || name.starts_with(b".rel.debug") {
            section.delete = true;
        }
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and symbols in one table, this writer in two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut out = Vec::new();
    builder.write(&mut out).context("cannot write the object")?;
    Ok(out)
}

/// Builds, and puts objects and sum where they are committed.
pub(crate) fn commit() -> Result<()> {
    let toolchain = Toolchain::find().context("nothing to build with; run cargo xtask setup")?;
    let mut sums = format!("sources {}\ncompiler {}\n", sources()?, toolchain.version()?);
    for arch in Arch::ALL {
        let bytes = build(arch)?;
        fs::write(object(arch), &bytes)?;
        sums += &format!("{} {}\n", arch.name(), hex(&Sha256::digest(&bytes)));
        println!("{}: {} bytes", object(arch).display(), bytes.len());
    }
    Ok(fs::write(sum(), sums)?)
}

/// Fails where a committed object is not that of the sources: by their sum, and by building it again where the compiler
/// is the same.
pub(crate) fn verify() -> Result<()> {
    let committed = fs::read_to_string(sum()).context("no sum of the committed objects")?;
    let field = |name: &str| {
        let value = committed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_default().to_owned()
    };
    let toolchain = Toolchain::find().context("nothing to build with; run cargo xtask setup")?;
    for arch in Arch::ALL {
        let bytes = fs::read(object(arch)).context("no committed object")?;
        if field("sources") != sources()? || field(arch.name()) != hex(&Sha256::digest(&bytes)) {
            bail!("the committed object is not that of the sources; run cargo xtask build-ebpf");
        }
        let built = build(arch)?;
        if toolchain.version()? != field("compiler") {
            println!("object: of these sources; this compiler is another, so its bytes are not compared");
        } else if built == bytes {
            println!("object: built again for {}, the same {} bytes", arch.name(), bytes.len());
        } else {
            bail!("built again, the committed object is another; run cargo xtask build-ebpf");
        }
    }
    Ok(())
}

/// Sum over everything that the object is made of.
fn sources() -> Result<String> {
    let mut files = vec![root().join("tracer-ebpf/Cargo.toml")];
    let mut directories = vec![root().join("tracer-ebpf/src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        hash.update(name.as_bytes());
        hash.update(fs::read(&file)?);
    }
    // The versions of aya's crates.
    for package in locked("aya")? {
        hash.update(package.as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// Name and version of the packages in the lock file whose names begin with `prefix`.
fn locked(prefix: &str) -> Result<Vec<String>> {
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    let lines: Vec<&str> = lock.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with(&format!("name = \"{prefix}")));
    Ok(pairs.map(|pair| pair.concat()).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
