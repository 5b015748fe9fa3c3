//! Debian packages, fetched with apt from the sources of this machine, and unpacked without being installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{arch::Arch, command, output};

/// Suites; the flag says whether a suite is in the archive of security updates.
const SUITES: [(&str, bool); 5] = [
    ("bullseye-security", true),
    ("bookworm", false),
    ("bookworm-security", true),
    ("trixie", false),
    ("trixie-backports", false),
];

/// apt with lists of its own, so that the lists of the machine do not change.
pub(crate) struct Apt {
    state: PathBuf,
    arch: Arch,
}

impl Apt {
    /// An apt for packages of `arch`, with its lists in `cache`.
    pub(crate) fn new(arch: Arch, cache: &Path) -> Result<Self> {
        let state = cache.join("apt");
        let apt = Self { state: state.clone(), arch };
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
                format!("deb [arch={}] {mirror} {suite} main", arch.debian())
            })
            .collect();
        fs::write(state.join("sources.list"), lines.join("\n") + "\n")?;
        command(apt.command("apt-get").args(["-q", "update"]))?;
        fs::write(state.join("ready"), "")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let state = self.state.display();
        for option in [
            format!("Dir::Etc::SourceList={state}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={state}/lists"),
            format!("Dir::Cache={state}/cache"),
            // apt's own user may not be allowed to read the directory.
            "APT::Sandbox::User=root".to_owned(),
            format!("APT::Architecture={}", self.arch.debian()),
            format!("APT::Architectures={}", self.arch.debian()),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// The packages whose names begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Whether there is a package of this name.
    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        Ok(self.names(name)?.iter().any(|found| found == name))
    }

    /// Fetches packages (`name` or `name=version`) and unpacks them into `directory`; installs nothing.
    pub(crate) fn unpack(&self, packages: &[String], directory: &Path) -> Result<()> {
        let download = self.state.join("download");
        // A failed unpacking may have left files.
        let _ = fs::remove_dir_all(&download);
        fs::create_dir_all(&download)?;
        command(self.command("apt-get").args(["-q", "download"]).args(packages).current_dir(&download))?;
        for package in fs::read_dir(&download)? {
            command(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(directory))?;
        }
        Ok(fs::remove_dir_all(&download)?)
    }
}

/// The URLs from which this machine gets Debian packages and security updates.
pub(crate) fn mirrors() -> Result<(String, String)> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path()),
    );
    let (mut archive, mut security) = (None, None);
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        let urls = text
            .split_whitespace()
            .filter(|word| word.starts_with("http"))
            .map(|word| word.trim_end_matches('/'));
        // Older URLs may be in comments.
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
