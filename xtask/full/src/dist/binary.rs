//! The binary of one architecture: statically linked with musl, stripped, its debug symbols in a file of their own.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectKind};

use super::{FEATURES, Release};
use crate::{arch::Arch, command, output, setup, toolchain};

/// What a stripped binary may have.
const LIMIT: usize = 15 << 20;

/// Crates that are large, and that neither a record nor its delivery waits for: they are optimised for size.
const SMALL: [&str; 21] = [
    "aho-corasick",
    "async-nats",
    "aya",
    "aya-obj",
    "blazesym",
    "clap_builder",
    "clap_complete",
    "clap_mangen",
    "cpp_demangle",
    "crossterm",
    "idna",
    "inferno",
    "ratatui-core",
    "ratatui-widgets",
    "regex-automata",
    "regex-syntax",
    "rustc-demangle",
    "rustls-webpki",
    "toml",
    "toml_parser",
    "url",
];

/// Builds the binary and its debug symbols into the directory of staged files.
pub(super) fn build(release: &Release, arch: Arch) -> Result<()> {
    let target = arch.static_target();
    let mut cargo = setup::with_zig(release.command(setup::zigbuild()))?;
    cargo.args(["zigbuild", "--locked", "--release", "--package", "sockstate", "--bin", "sockstate"]);
    cargo.args(["--features", FEATURES, "--target", &target]);
    for small in SMALL {
        cargo.args(["--config", &format!("profile.release.package.{small}.opt-level = \"s\"")]);
    }
    // zig would link without position independence, so zig only compiles C; lld and musl come with Rust's target.
    let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    cargo.env(linker, "rust-lld");
    // The same code as `cargo build --release`, with the lines for a debugger.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only").env("CARGO_PROFILE_RELEASE_STRIP", "none");
    cargo.env("CARGO_TARGET_DIR", release.source.join("target"));
    // Most relocations of a position-independent program are relative; packed, they take a fraction of the space.
    let packed = "-Clink-arg=-zpack-relative-relocs";
    cargo.env("RUSTFLAGS", format!("{} {packed}", toolchain::without_paths(&release.source)));
    cargo.env("CFLAGS", c_flags(&release.source));
    // xtask's own variables must not change the build.
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        cargo.env_remove(variable);
    }
    command(&mut cargo)?;
    let built = release.source.join("target").join(&target).join("release/sockstate");
    let staged = release.staged(arch);
    fs::create_dir_all(&staged)?;
    let (binary, debug) = (staged.join("sockstate"), staged.join("sockstate.debug"));
    command(objcopy()?.arg("--only-keep-debug").args([&built, &debug]))?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    command(objcopy()?.args(["--strip-all", &link]).args([&built, &binary]))?;
    verify(&binary, arch).with_context(|| binary.display().to_string())
}

/// Fails if the binary needs a library, is too large, or is loaded at a fixed address.
fn verify(binary: &Path, arch: Arch) -> Result<()> {
    let bytes = fs::read(binary)?;
    let file = object::File::parse(&*bytes)?;
    ensure!(file.section_by_name(".interp").is_none(), "needs a dynamic linker");
    ensure!(bytes.len() <= LIMIT, "has {} bytes, more than {LIMIT}", bytes.len());
    let independent = file.kind() == ObjectKind::Dynamic;
    // Rust's target for aarch64 links no static program that is position-independent.
    ensure!(independent || arch == Arch::Aarch64, "is not position-independent");
    println!("{}: {:.1} MB, static", binary.display(), bytes.len() as f64 / 1e6);
    Ok(())
}

/// Assertions of C code name files: without the directories of this machine. Its lines would name those of zig's headers.
/// mimalloc would have the time of its compilation, and cargo keeps its object for later commits, so that time is empty.
fn c_flags(source: &Path) -> String {
    toolchain::replaced_paths(source)
        .iter()
        .map(|(from, to)| format!("-ffile-prefix-map={from}={to} "))
        .chain([r#"-g0 -Wno-builtin-macro-redefined -D__DATE__="" -D__TIME__="""#.to_owned()])
        .collect()
}

/// LLVM's objcopy, which comes with rustc and knows every architecture.
fn objcopy() -> Result<Command> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let libraries = Path::new(sysroot.trim()).join("lib");
    let program = libraries.join("rustlib").join(host.trim()).join("bin/rust-objcopy");
    ensure!(program.exists(), "this rustc comes without rust-objcopy: install rustup's");
    let mut objcopy = Command::new(program);
    objcopy.env("LD_LIBRARY_PATH", libraries);
    Ok(objcopy)
}
