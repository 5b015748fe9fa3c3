//! Debian's kernels of several suites, fetched with apt from where this machine's own packages come from, into a cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{apt::Apt, arch::Arch, output, root};

/// What is tested: the newest of each series.
pub(crate) const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7"];

/// Modules that tests use, with what they need.
const MODULES: [&str; 8] = [
    "sctp",
    "libcrc32c",
    "crc32c_generic",
    "crc32c-cryptoapi",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "inet_diag",
    "tcp_diag",
];

/// A kernel that can be booted.
pub(crate) struct Kernel {
    /// `uname -r`.
    pub(crate) release: String,
    /// The image.
    pub(crate) image: PathBuf,
    /// Modules, uncompressed.
    pub(crate) modules: Vec<PathBuf>,
}

/// The newest kernel of a series, from the cache or fetched.
pub(crate) fn get(arch: Arch, series: &str) -> Result<Kernel> {
    let cache = root().join("target/vm").join(arch.debian());
    let marker = cache.join(format!("{series}.release"));
    let release = match fs::read_to_string(&marker) {
        Ok(release) => release,
        Err(_) => {
            let release =
                fetch(arch, series, &cache).with_context(|| format!("cannot fetch a kernel {series}"))?;
            fs::write(&marker, &release)?;
            release
        }
    };
    let directory = cache.join(&release);
    let modules = fs::read_dir(directory.join("modules"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    Ok(Kernel { image: directory.join("vmlinuz"), modules, release })
}

fn fetch(arch: Arch, series: &str, cache: &Path) -> Result<String> {
    let apt = Apt::new(arch, cache)?;
    let image =
        newest(&plain_kernels(&apt, arch, &format!("linux-image-{series}."))?).context("no such package")?;
    let release = image.trim_start_matches("linux-image-").to_owned();
    // Since 7.2 image and modules are packages of their own.
    let mut packages = vec![image.clone()];
    let split = [format!("linux-binary-{release}"), format!("linux-modules-{release}")];
    if !plain_kernels(&apt, arch, &split[0])?.is_empty() {
        packages = split.to_vec();
    }
    let unpacked = cache.join("unpacked");
    apt.unpack(&packages, &unpacked)?;
    let directory = cache.join(&release);
    fs::create_dir_all(directory.join("modules"))?;
    let find = |name: &str| -> Result<Option<PathBuf>> {
        let found = output(Command::new("find").arg(&unpacked).args(["-type", "f", "-name", name]))?;
        Ok(found.lines().next().map(PathBuf::from))
    };
    fs::copy(find("vmlinuz*")?.context("the package has no vmlinuz")?, directory.join("vmlinuz"))?;
    for module in MODULES {
        // Built in, on some.
        let Some(file) = find(&format!("{module}.ko*"))? else { continue };
        let to = directory.join("modules").join(format!("{module}.ko"));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => {
                let text = Command::new("xz").arg("-dc").arg(&file).output()?;
                fs::write(&to, text.stdout)?;
            }
            _ => drop(fs::copy(&file, &to)?),
        }
    }
    fs::remove_dir_all(&unpacked)?;
    Ok(release)
}

/// Kernels' packages that begin so; neither the cloud's nor real-time ones, nor debug symbols.
fn plain_kernels(apt: &Apt, arch: Arch, prefix: &str) -> Result<Vec<String>> {
    let plain = |name: &String| {
        name.ends_with(&format!("-{}", arch.debian()))
            && !["-cloud-", "-rt-", "deb11"].iter().any(|other| name.contains(other))
    };
    Ok(apt.names(prefix)?.into_iter().filter(plain).collect())
}

/// The one with the highest version.
fn newest(names: &[String]) -> Option<String> {
    let numbers = |name: &str| -> Vec<u32> {
        let parts = name.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    names.iter().max_by_key(|name| numbers(name)).cloned()
}
