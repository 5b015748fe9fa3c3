//! `tracer/bpf/sockstate.bpf.sum`: the checksums of the sources that the committed objects were built from, and the
//! version of the compiler.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::arch::Arch;

/// The path of the committed object. Each architecture has its own object, because kprobes read registers.
pub fn object(root: &Path, arch: Arch) -> PathBuf {
    root.join(format!("tracer/bpf/sockstate-{}.bpf.o", arch.name()))
}

fn file(root: &Path) -> PathBuf {
    root.join("tracer/bpf/sockstate.bpf.sum")
}

/// The committed file of checksums.
pub struct Sums(String);

impl Sums {
    pub fn read(root: &Path) -> Result<Self> {
        let path = file(root);
        fs::read_to_string(&path).map(Self).with_context(|| format!("cannot read {}", path.display()))
    }

    fn field(&self, name: &str) -> &str {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_default()
    }

    /// The version of the compiler that built the objects.
    pub fn compiler(&self) -> &str {
        self.field("compiler")
    }

    /// Whether the checksums match the sources and the committed objects.
    pub fn are_current(&self, root: &Path) -> Result<bool> {
        let is_same = |arch: Arch| {
            fs::read(object(root, arch)).is_ok_and(|bytes| self.field(arch.name()) == digest(&bytes))
        };
        Ok(self.field("sources") == sources(root)? && Arch::ALL.into_iter().all(is_same))
    }
}

/// Writes the checksums of `objects`, which `compiler` has built.
pub fn write(root: &Path, compiler: &str, objects: &[(Arch, Vec<u8>)]) -> Result<()> {
    let mut sums = format!("sources {}\ncompiler {compiler}\n", sources(root)?);
    for (arch, bytes) in objects {
        sums += &format!("{} {}\n", arch.name(), digest(bytes));
    }
    Ok(fs::write(file(root), sums)?)
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum of everything that the objects are built from.
fn sources(root: &Path) -> Result<String> {
    let mut files = vec![root.join("tracer-ebpf/Cargo.toml")];
    let mut directories = vec![root.join("tracer-ebpf/src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // Editors may leave files of their own beside the sources.
                files.push(path);
            }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        hash.update(name.as_bytes());
        hash.update(fs::read(&file)?);
    }
    // The versions of aya's crates.
    for package in locked(root, "aya")? {
        hash.update(package.as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// Name and version of the packages in the lock file whose names begin with `prefix`.
fn locked(root: &Path, prefix: &str) -> Result<Vec<String>> {
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let lines: Vec<&str> = lock.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with(&format!("name = \"{prefix}")));
    Ok(pairs.map(|pair| pair.concat()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with a program, its objects and their checksums.
    fn repository() -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("directory");
        let root = place.path();
        fs::create_dir_all(root.join("tracer-ebpf/src/probes")).expect("directory");
        fs::create_dir_all(root.join("tracer/bpf")).expect("directory");
        for (name, text) in [
            ("Cargo.lock", "[[package]]\nname = \"aya\"\nversion = \"0.14.0\"\n"),
            ("tracer-ebpf/Cargo.toml", "[package]\n"),
            ("tracer-ebpf/src/main.rs", "mod probes;\n"),
            ("tracer-ebpf/src/probes/mod.rs", "// nothing\n"),
        ] {
            fs::write(root.join(name), text).expect("file");
        }
        let objects = Arch::ALL.map(|arch| (arch, arch.name().as_bytes().to_vec()));
        for (arch, bytes) in &objects {
            fs::write(object(root, *arch), bytes).expect("object");
        }
        write(root, "rustc 1", &objects).expect("sums");
        place
    }

    fn is_current(root: &Path) -> bool {
        Sums::read(root).expect("sums").are_current(root).expect("sources")
    }

    #[test]
    fn objects_are_current_until_something_that_they_are_built_of_changes() {
        let place = repository();
        assert!(is_current(place.path()));
        assert_eq!(Sums::read(place.path()).expect("sums").compiler(), "rustc 1");
        let edits: [(&str, &str); 6] = [
            ("tracer-ebpf/src/main.rs", "mod probes; // edited\n"),
            ("tracer-ebpf/src/probes/mod.rs", "// edited\n"),
            ("tracer-ebpf/src/probes/new.rs", ""),
            ("tracer-ebpf/Cargo.toml", "[package]\nedition = \"2024\"\n"),
            ("Cargo.lock", "[[package]]\nname = \"aya\"\nversion = \"0.14.1\"\n"),
            ("tracer/bpf/sockstate-x86_64.bpf.o", "another"),
        ];
        for (name, text) in edits {
            let place = repository();
            fs::write(place.path().join(name), text).expect("file");
            assert!(!is_current(place.path()), "{name} was edited");
        }
        fs::remove_file(place.path().join("tracer-ebpf/src/probes/mod.rs")).expect("removed");
        assert!(!is_current(place.path()), "a file was removed");
    }

    #[test]
    fn an_editors_own_files_are_no_sources() {
        let place = repository();
        fs::write(place.path().join("tracer-ebpf/src/.main.rs.swp"), "text").expect("file");
        assert!(is_current(place.path()));
    }
}
