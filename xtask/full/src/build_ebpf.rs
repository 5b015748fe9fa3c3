//! Builds the kernel programs. The object is committed, so that users need not build it.

use std::fs;

use anyhow::{Context, Result, bail};
use xtask::{
    arch::Arch,
    command, root,
    sums::{self, Sums, object},
    toolchain::{TARGET, Toolchain},
};

const BUILD: [&str; 6] = ["--locked", "--release", "--package", "sockstate-ebpf", "--target", TARGET];

fn target_dir(arch: Arch) -> String {
    format!("target/bpf/{}", arch.name())
}

/// Builds the programs; returns the object's bytes.
fn build(arch: Arch) -> Result<Vec<u8>> {
    let toolchain = Toolchain::find().context("no Rust that can build for BPF; run cargo xtask setup")?;
    command(xtask::cargo().args(["fetch", "--locked"]))?;
    let directory = target_dir(arch);
    command(toolchain.command("build", &BUILD, arch).args(["--target-dir", &directory]))?;
    let built = root().join(directory).join(TARGET).join("release/sockstate-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    without_dwarf(&bytes)
}

/// Lints the programs.
pub(crate) fn lint() -> Result<()> {
    let toolchain = Toolchain::find().context("no Rust that can lint for BPF; run cargo xtask setup")?;
    for arch in Arch::ALL {
        let mut clippy = toolchain.command("clippy", &BUILD, arch);
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
