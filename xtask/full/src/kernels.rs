//! Debian's kernels of several suites, fetched with apt from the sources of this machine into a cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{apt::Apt, arch::Arch, output, root};

/// The kernels that are tested on a machine: the newest kernel of each series, and of some of Debian's other flavours.
/// The command line can name others; this list has only kernels on which the tests have passed.
pub(crate) fn tested(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => {
            &["5.10", "6.1", "6.12", "6.18", "7", "6.17", "6.19-rt", "6.12-cloud", "7.1", "5.10-rt"]
        }
        Arch::Aarch64 => &["6.12", "7-16k"],
    }
}

/// Modules that tests use, with what they need.
const MODULES: [&str; 9] = [
    "sctp",
    "libcrc32c",
    "crc32c_generic",
    "crc32c-cryptoapi",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "inet_diag",
    "tcp_diag",
    "mptcp_diag",
];

/// Modules that a test loads itself, because they change every network namespace: those of RDS over TCP, the smallest
/// user of TCP in the kernel, which listens in each namespace.
const ON_DEMAND: [&str; 2] = ["rds", "rds_tcp"];

/// The file in a kernel's directory that lists the modules which were wanted when the directory was filled.
const WANTED: &str = "wanted";

fn wanted_modules() -> String {
    MODULES.iter().chain(&ON_DEMAND).map(|module| format!("{module}\n")).collect()
}

/// A kernel that can be booted.
pub(crate) struct Kernel {
    /// `uname -r`.
    pub(crate) release: String,
    /// The image.
    pub(crate) image: PathBuf,
    /// Modules, uncompressed.
    pub(crate) modules: Vec<PathBuf>,
    /// Modules that tests load themselves.
    pub(crate) on_demand: Vec<PathBuf>,
}

/// The newest kernel of a series, from the cache or the archive; `None` if the archive has no kernel of this series.
pub(crate) fn get(arch: Arch, series: &str) -> Result<Option<Kernel>> {
    let cache = root().join("target/vm").join(arch.debian());
    let marker = cache.join(format!("{series}.release"));
    // An older cache lacks modules that were added to the lists since.
    let is_whole = |release: &String| {
        fs::read_to_string(cache.join(release).join(WANTED)).is_ok_and(|wanted| wanted == wanted_modules())
    };
    let release = match fs::read_to_string(&marker).ok().filter(is_whole) {
        Some(release) => release,
        None => {
            let fetched = fetch(arch, series, &cache);
            let Some(release) = fetched.with_context(|| format!("cannot fetch a kernel {series}"))? else {
                return Ok(None);
            };
            fs::write(&marker, &release)?;
            release
        }
    };
    let directory = cache.join(&release);
    let (modules, on_demand) = (files(&directory.join("modules"))?, files(&directory.join("on-demand"))?);
    Ok(Some(Kernel { image: directory.join("vmlinuz"), modules, on_demand, release }))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

fn fetch(arch: Arch, series: &str, cache: &Path) -> Result<Option<String>> {
    let apt = Apt::new(arch, cache)?;
    let (version, flavour) = series.split_once('-').unwrap_or((series, ""));
    let images = apt.names(&format!("linux-image-{version}."))?;
    let wanted = arch.flavour(flavour);
    let releases = images.iter().filter_map(|name| name.strip_prefix("linux-image-"));
    let unpacked = cache.join("unpacked");
    let mut failed = None;
    // A mirror may list a package without having its file.
    for release in newest_first(releases.filter(|release| has_flavour(release, &wanted))) {
        match unpack(&apt, release, &unpacked) {
            Ok(()) => return keep(release, &unpacked, cache).map(|()| Some(release.to_owned())),
            Err(error) => {
                println!("cannot fetch kernel {release}, trying the previous release: {error:#}");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Since 6.19, image and modules are packages of their own; the archive keeps no modules of some releases.
fn unpack(apt: &Apt, release: &str, unpacked: &Path) -> Result<()> {
    let binary = format!("linux-binary-{release}");
    let mut packages = vec![format!("linux-image-{release}")];
    if apt.has(&binary)? {
        packages = vec![binary];
        let modules = format!("linux-modules-{release}");
        if apt.has(&modules)? {
            packages.push(modules);
        }
    }
    apt.unpack(&packages, unpacked)
}

/// Keeps the files of an unpacked kernel that a virtual machine needs.
fn keep(release: &str, unpacked: &Path, cache: &Path) -> Result<()> {
    let directory = cache.join(release);
    let [modules, on_demand] = ["modules", "on-demand"].map(|name| directory.join(name));
    fs::create_dir_all(&modules)?;
    fs::create_dir_all(&on_demand)?;
    let find = |name: &str| -> Result<Option<PathBuf>> {
        let found = output(Command::new("find").arg(unpacked).args(["-type", "f", "-name", name]))?;
        Ok(found.lines().next().map(PathBuf::from))
    };
    fs::copy(find("vmlinuz*")?.context("the package has no vmlinuz")?, directory.join("vmlinuz"))?;
    let wanted = MODULES.map(|module| (module, &modules)).into_iter();
    for (module, to) in wanted.chain(ON_DEMAND.map(|module| (module, &on_demand))) {
        // Some kernels have the module built in.
        let Some(file) = find(&format!("{module}.ko*"))? else { continue };
        let to = to.join(format!("{module}.ko"));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => {
                let text = Command::new("xz").arg("-dc").arg(&file).output()?;
                fs::write(&to, text.stdout)?;
            }
            _ => drop(fs::copy(&file, &to)?),
        }
    }
    fs::remove_dir_all(unpacked)?;
    Ok(fs::write(directory.join(WANTED), wanted_modules())?)
}

/// Whether a release such as `5.10.0-46-rt-amd64` has this flavour, which is what follows its numbers; backports to Debian 11 do
/// not count.
fn has_flavour(release: &str, flavour: &str) -> bool {
    let names = release.split('-').skip_while(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    names.eq(flavour.split('-')) && !release.contains("deb11")
}

/// The highest version first.
fn newest_first<'a>(releases: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let numbers = |release: &str| -> Vec<u32> {
        let parts = release.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    let mut releases: Vec<&str> = releases.collect();
    releases.sort_by_key(|release| std::cmp::Reverse(numbers(release)));
    releases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_its_newest_release_of_one_flavour() {
        let releases = [
            "5.10.0-9-amd64",
            "5.10.0-46-amd64",
            "5.10.0-46-amd64-unsigned",
            "5.10.0-47-rt-amd64",
            "5.10.0-48-cloud-amd64",
            "6.1.0-0.deb11.52-amd64",
            "6.12.118+deb13-arm64",
            "6.12.117+deb13-arm64-16k",
        ];
        let wanted = [
            (Arch::X86_64, "", Some("5.10.0-46-amd64")),
            (Arch::X86_64, "rt", Some("5.10.0-47-rt-amd64")),
            (Arch::X86_64, "cloud", Some("5.10.0-48-cloud-amd64")),
            (Arch::X86_64, "16k", None),
            (Arch::Aarch64, "", Some("6.12.118+deb13-arm64")),
            (Arch::Aarch64, "16k", Some("6.12.117+deb13-arm64-16k")),
        ];
        for (arch, flavour, release) in wanted {
            let flavour = arch.flavour(flavour);
            let found = newest_first(releases.into_iter().filter(|release| has_flavour(release, &flavour)));
            assert_eq!(found.first().copied(), release, "{arch:?} {flavour}");
        }
    }
}
