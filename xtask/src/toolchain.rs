//! The compilers that can build the kernel programs.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use crate::{arch::Arch, output, root, succeeds};

/// The target of the kernel programs.
pub const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A Rust that can build for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Debian's, with its precompiled core library for BPF.
    Debian,
    /// rustup's nightly, which builds the core library from rust-src.
    Nightly,
}

impl Toolchain {
    /// The installed toolchain. Debian's comes first, because it builds the committed object.
    pub fn find() -> Option<Self> {
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
                    && succeeds(&mut self.command("clippy", &["--version"], Arch::X86_64))
            }
            Self::Nightly => rustlib.join("src/rust/library/core").is_dir(),
        }
    }

    /// `rustc --version`.
    pub fn version(self) -> Result<String> {
        let text = match self {
            Self::Debian => output(Command::new(DEBIAN_RUSTC).arg("--version")),
            Self::Nightly => output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])),
        };
        Ok(text?.trim().to_owned())
    }

    /// A cargo command with everything that a build for BPF needs; `verb` is build or clippy.
    pub fn command(self, verb: &str, args: &[&str], arch: Arch) -> Command {
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

/// Flags of the kernel programs.
fn rustflags(arch: Arch) -> String {
    let arch = arch.name();
    let paths = without_paths(&root());
    format!(r#"--cfg=bpf_target_arch="{arch}" -Cdebuginfo=2 -Clink-arg=--btf {paths}"#)
}

/// Flags of rustc that make what it builds independent of the paths of the sources and of cargo's home.
pub fn without_paths(source: &Path) -> String {
    let flag = |(from, to): (String, &str)| format!("--remap-path-prefix={from}={to}");
    replaced_paths(source).into_iter().map(flag).collect::<Vec<_>>().join(" ")
}

/// The directories of sources on this machine, each with what stands for it in a program.
pub fn replaced_paths(source: &Path) -> Vec<(String, &'static str)> {
    let mut paths = vec![(source.display().to_string(), "/sockstate")];
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    // The name of a registry's directory depends on how cargo reaches the registry.
    for registry in fs::read_dir(Path::new(&home).join("registry/src")).into_iter().flatten().flatten() {
        paths.push((registry.path().display().to_string(), "/cargo"));
    }
    paths
}
