//! Builds the kernel programs. The object is committed, so that users need not build it.

mod sums;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use sums::{Sums, object};

use crate::{arch::Arch, command, output, root, setup, succeeds};

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
    /// The installed toolchain. Debian's comes first, because it builds the committed object.
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

    /// A cargo command with everything that a build for BPF needs; `verb` is build or clippy.
    fn cargo(self, verb: &str, args: &[&str], arch: Arch) -> Command {
        let mut cargo = match self {
            Self::Debian => {
                let mut cargo = Command::new("/usr/bin/cargo");
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                // PATH finds Debian's clippy and rustc before rustup's.
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
        // bpf-linker uses the LLVM of a rustup toolchain.
        if let Ok(sysroot) =
            output(Command::new("rustup").args(["run", "stable", "rustc", "--print", "sysroot"]))
        {
            cargo.env("LD_LIBRARY_PATH", Path::new(sysroot.trim()).join("lib"));
        }
        // Cargo's variables of the host's build do not apply to this build.
        for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo.env("RUSTFLAGS", rustflags(arch)).current_dir(root()).args(args);
        cargo
    }
}

/// Flags that make the object independent of the paths of the repository and of cargo's home.
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
    // The name of a registry's directory depends on how cargo reaches the registry.
    for registry in fs::read_dir(Path::new(&home).join("registry/src")).into_iter().flatten().flatten() {
        flags.push(format!("--remap-path-prefix={}=/cargo", registry.path().display()));
    }
    flags.join(" ")
}

const BUILD: [&str; 6] = ["--locked", "--release", "--package", "tracer-ebpf", "--target", TARGET];

fn target_dir(arch: Arch) -> String {
    format!("target/bpf/{}", arch.name())
}

/// Builds the programs; returns the object's bytes.
fn build(arch: Arch) -> Result<Vec<u8>> {
    let toolchain = Toolchain::find().context("no Rust that can build for BPF; run cargo xtask setup")?;
    command(crate::cargo().args(["fetch", "--locked"]))?;
    let directory = target_dir(arch);
    command(toolchain.cargo("build", &BUILD, arch).args(["--target-dir", &directory]))?;
    let built = root().join(directory).join(TARGET).join("release/sockstate-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    without_dwarf(&bytes)
}

/// Lints the programs.
pub(crate) fn lint() -> Result<()> {
    let toolchain = Toolchain::find().context("no Rust that can lint for BPF; run cargo xtask setup")?;
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
    // LLVM keeps the names of sections and of symbols in one table; this writer keeps them in two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut out = Vec::new();
    builder.write(&mut out).context("cannot write the object")?;
    Ok(out)
}

/// Builds the committed objects and their checksums.
pub(crate) fn commit() -> Result<()> {
    let toolchain = Toolchain::find().context("no Rust that can build for BPF; run cargo xtask setup")?;
    let mut objects = Vec::new();
    for arch in Arch::ALL {
        let bytes = build(arch)?;
        let path = object(&root(), arch);
        // If a file is written again, cargo builds the tracer again.
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            fs::write(&path, &bytes)?;
        }
        // Standard output belongs to the program that `cargo xtask run` starts after this.
        eprintln!("{}: {} bytes", path.display(), bytes.len());
        objects.push((arch, bytes));
    }
    sums::write(&root(), &toolchain.version()?, &objects)
}

/// Builds the committed objects again if they do not match the sources. Fails if they cannot be built, and in CI, which
/// must test the committed objects.
pub(crate) fn refresh() -> Result<()> {
    if Sums::read(&root())?.are_current(&root())? {
        return Ok(());
    }
    let stale = "the objects in tracer/bpf were built of other sources than those in tracer-ebpf";
    if std::env::var_os("CI").is_some() {
        bail!("{stale}: run `cargo xtask build-ebpf`, and commit tracer/bpf");
    }
    if Toolchain::find().is_none() || !setup::has_linker() {
        bail!("{stale}, and no Rust that can build for BPF is installed: run `cargo xtask setup`");
    }
    eprintln!("{stale}: building them again");
    commit()
}

/// Fails if a committed object does not match the sources: by the checksums, and by a new build if the compiler is the
/// same.
pub(crate) fn verify() -> Result<()> {
    let sums = Sums::read(&root())?;
    if !sums.are_current(&root())? {
        bail!("the committed object does not match the sources; run cargo xtask build-ebpf");
    }
    let toolchain = Toolchain::find().context("no Rust that can build for BPF; run cargo xtask setup")?;
    for arch in Arch::ALL {
        let committed = fs::read(object(&root(), arch)).context("no committed object")?;
        let built = build(arch)?;
        if toolchain.version()? != sums.compiler() {
            println!("object: matches its sources; the compiler differs, so the bytes are not compared");
        } else if built == committed {
            println!("object: built again for {}, the same {} bytes", arch.name(), built.len());
        } else {
            bail!("a new build differs from the committed object; run cargo xtask build-ebpf");
        }
    }
    Ok(())
}
