//! The files of a release in `target/dist`: static binaries with their debug symbols, packages, an image for containers,
//! what they consist of, and checksums. Each file has the same bytes whenever and wherever it is built from one commit.

mod archive;
mod binary;
mod checklist;
mod components;
mod container;
mod contents;
mod image;
mod packages;
mod roots;
mod service;
mod trace;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{arch::Arch, output, root, setup};

/// What `cargo xtask dist` builds.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only for this architecture; repeatable
    #[arg(long)]
    arch: Vec<Arch>,
    /// The checklist of a release: what the repository must have, what lintian and rpmlint report, and whether a clone
    /// in another directory gives the same bytes
    #[arg(long)]
    check: bool,
}

/// The version of everything in this workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The revision of the packages of one version.
const REVISION: &str = "1";
/// The features of the binaries. `kafka` would need OpenSSL for each architecture.
pub(crate) const FEATURES: &str = "sockstate/grpc,sockstate/nats";

/// Builds the files, and checks them if asked to.
pub(crate) fn all(args: &Args) -> Result<()> {
    setup::distribution()?;
    let arches = if args.arch.is_empty() { Arch::ALL.to_vec() } else { args.arch.clone() };
    let release = Release::new(root())?;
    release.build(&arches)?;
    println!("{}", release.out().display());
    if args.check { checklist::all(&release, &arches) } else { Ok(()) }
}

/// A release that is built from one directory of sources.
struct Release {
    source: PathBuf,
    /// The time of the last commit, in seconds: the time of every file in an archive.
    epoch: String,
}

impl Release {
    fn new(source: PathBuf) -> Result<Self> {
        let time = output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(&source));
        let epoch = time.context("a release is built from a git repository")?.trim().to_owned();
        Ok(Self { source, epoch })
    }

    /// The files for users.
    fn out(&self) -> PathBuf {
        self.source.join("target/dist")
    }

    /// What only the building of packages needs, laid out as a directory of cargo's artifacts.
    fn stage(&self) -> PathBuf {
        self.source.join("target/stage")
    }

    /// The files of the packages of one architecture: the binary, and what is made for it.
    fn staged(&self, arch: Arch) -> PathBuf {
        self.stage().join(arch.static_target()).join("release")
    }

    /// A command in the directory of the sources, which takes the time from the last commit.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.source).env("SOURCE_DATE_EPOCH", &self.epoch).env("LC_ALL", "C");
        command
    }

    fn build(&self, arches: &[Arch]) -> Result<()> {
        for directory in [self.out(), self.stage()] {
            if directory.exists() {
                fs::remove_dir_all(&directory)?;
            }
            fs::create_dir_all(&directory)?;
        }
        let licences = components::licences(self)?;
        components::bill(self)?;
        for &arch in arches {
            binary::build(self, arch)?;
            fs::copy(&licences, self.staged(arch).join("licences.txt"))?;
            archive::binary(self, arch)?;
            archive::debug(self, arch)?;
            packages::deb(self, arch)?;
            packages::rpm(self, arch)?;
        }
        image::build(self, arches)?;
        archive::sums(self)
    }
}

/// The names of the files in a directory, sorted.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
