//! Debian's kernels of several suites, fetched with apt from where this machine's own packages come from, into a cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{command, output, root};

/// What is tested: the newest of each series.
pub(crate) const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7"];

/// Suites, by whether they lie in the archive of security updates.
const SUITES: [(&str, bool); 5] = [
    ("bullseye-security", true),
    ("bookworm", false),
    ("bookworm-security", true),
    ("trixie", false),
    ("trixie-backports", false),
];

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
pub(crate) fn get(series: &str) -> Result<Kernel> {
    let cache = root().join("target/vm/kernels");
    let marker = cache.join(format!("{series}.release"));
    let release = match fs::read_to_string(&marker) {
        Ok(release) => release,
        Err(_) => {
            let release = fetch(series, &cache).with_context(|| format!("cannot fetch a kernel {series}"))?;
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

fn fetch(series: &str, cache: &Path) -> Result<String> {
    let apt = Apt::new(cache)?;
    let image = newest(&apt.names(&format!("linux-image-{series}."))?).context("no such package")?;
    let release = image.trim_start_matches("linux-image-").to_owned();
    // Since 7.2 image and modules are packages of their own.
    let mut packages = vec![image.clone()];
    let split = [format!("linux-binary-{release}"), format!("linux-modules-{release}")];
    if !apt.names(&split[0])?.is_empty() {
        packages = split.to_vec();
    }
    let download = cache.join("download");
    fs::create_dir_all(&download)?;
    command(apt.command("apt-get").args(["-q", "download"]).args(&packages).current_dir(&download))?;
    let directory = cache.join(&release);
    fs::create_dir_all(directory.join("modules"))?;
    let unpacked = download.join("unpacked");
    for entry in fs::read_dir(&download)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            command(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        }
    }
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
    fs::remove_dir_all(&download)?;
    Ok(release)
}

/// apt with lists of its own, so that the machine's stay as they are.
struct Apt(PathBuf);

impl Apt {
    fn new(cache: &Path) -> Result<Self> {
        let state = cache.join("apt");
        let apt = Self(state.clone());
        if state.join("ready").exists() {
            return Ok(apt);
        }
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(directory))?;
        }
        let (archive, security) = mirrors()?;
        let lines: Vec<String> = SUITES
            .iter()
            .map(|(suite, is_security)| {
                let mirror = if *is_security { &security } else { &archive };
                format!("deb [arch=amd64] {mirror} {suite} main")
            })
            .collect();
        fs::write(state.join("sources.list"), lines.join("\n") + "\n")?;
        command(apt.command("apt-get").args(["-q", "update"]))?;
        fs::write(state.join("ready"), "")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let state = self.0.display();
        for option in [
            format!("Dir::Etc::SourceList={state}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={state}/lists"),
            format!("Dir::Cache={state}/cache"),
            // The directory may be closed to apt's own user.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// Kernels' packages that begin so; neither the cloud's nor real-time ones, nor debug symbols.
    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        let plain = |name: &&str| {
            name.ends_with("-amd64")
                && !name.contains("-cloud-")
                && !name.contains("-rt-")
                && !name.contains("deb11")
        };
        Ok(text.lines().filter(plain).map(str::to_owned).collect())
    }
}

/// The one with the highest version.
fn newest(names: &[String]) -> Option<String> {
    let numbers = |name: &str| -> Vec<u32> {
        let parts = name.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    names.iter().max_by_key(|name| numbers(name)).cloned()
}

/// Where this machine gets its Debian packages and their security updates.
fn mirrors() -> Result<(String, String)> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|it| it.path()));
    let (mut archive, mut security) = (None, None);
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        let urls = text
            .split_whitespace()
            .filter(|word| word.starts_with("http"))
            .map(|word| word.trim_end_matches('/'));
        // Comments keep older places.
        let plain: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        for url in urls.filter(|url| plain.iter().any(|line| line.contains(url))) {
            if url.ends_with("/debian") {
                archive.get_or_insert(url.to_owned());
            } else if url.ends_with("/debian-security") {
                security.get_or_insert(url.to_owned());
            }
        }
    }
    match (archive, security) {
        (Some(archive), Some(security)) => Ok((archive, security)),
        _ => bail!("this machine's apt names no Debian archive with its security updates"),
    }
}
