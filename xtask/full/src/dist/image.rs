//! The image for containers: an index of one image for each architecture, as an archive of the OCI layout.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Release, VERSION, archive, names};
use crate::{arch::Arch, command, output, setup};

/// The name that the manifests for Kubernetes use, too, with the version behind it.
const NAME: &str = "sockstate";
const DESCRIPTION: &str =
    "Live TCP state transitions of a Linux host, with the process that owns each socket";
/// The program, and Mozilla's certificates.
const LICENCES: &str = "(MIT OR Apache-2.0) AND MPL-2.0";

/// What the image has from the repository: each with its path in the image.
const FILES: [(&str, &str); 4] = [
    ("packaging/oci/config.toml", "etc/sockstate/config.toml"),
    ("LICENSE-APACHE", "usr/share/licenses/sockstate/LICENSE-APACHE"),
    ("LICENSE-MIT", "usr/share/licenses/sockstate/LICENSE-MIT"),
    ("LICENSE-GPL-2.0", "usr/share/licenses/sockstate/LICENSE-GPL-2.0"),
];
/// What the image has of the files that are made for its architecture.
const STAGED: [(&str, &str); 2] =
    [("sockstate", "usr/bin/sockstate"), ("licences.txt", "usr/share/licenses/sockstate/licences.txt")];

/// Debian's package of Mozilla's certificates. The bundle in /etc/ssl may also have those of this machine's
/// administrator, which have no place in an image.
const CERTIFICATES: &str = "/usr/share/ca-certificates/mozilla";
const CERTIFICATES_LICENCE: &str = "/usr/share/doc/ca-certificates/copyright";

/// Builds the image from the binaries that are already built. Nothing runs in it, so it needs no emulation. Other files
/// of a release can also be built where buildah is missing.
pub(super) fn build(release: &Release, arches: &[Arch]) -> Result<()> {
    if let Err(reason) = setup::images() {
        println!("SKIPPED: the image for containers: {reason:#}");
        return Ok(());
    }
    let index = name();
    let storage = release.stage().join("containers");
    let annotations = annotations(release)?;
    for &arch in arches {
        let context = release.stage().join("image").join(arch.name());
        lay_out(release, arch, &context.join("root"))?;
        let mut build = stored(release, "buildah", &storage);
        build.args(["build", "--quiet", "--isolation", "chroot", "--arch", arch.debian()]);
        // Without it, the image would name the version of buildah.
        build.args(["--identity-label=false", "--timestamp", &release.epoch, "--manifest", &index]);
        for annotation in &annotations {
            build.args(["--annotation", annotation, "--label", annotation]);
        }
        command(build.args(["--file", "packaging/oci/Containerfile"]).arg(&context))?;
    }
    let tree = release.stage().join("image/layout");
    let layout = format!("oci:{}:{index}", tree.display());
    let mut push = stored(release, "buildah", &storage);
    command(push.args(["manifest", "push", "--quiet", "--all", &index, &layout]))?;
    archive::pack_content(release, &tree, &file(release))
}

/// The image with its tag, as `podman load` names it.
pub(super) fn name() -> String {
    format!("{NAME}:{VERSION}")
}

pub(super) fn file(release: &Release) -> PathBuf {
    release.out().join(format!("{NAME}-{VERSION}-oci.tar"))
}

/// buildah, podman or another program with this storage, and not that of the machine.
pub(super) fn stored(release: &Release, program: &str, storage: &Path) -> Command {
    let mut command = release.command(program);
    command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
    // This driver works on any file system, and in a container.
    command.args(["--storage-driver", "vfs"]);
    command
}

/// Makes the root directory of the image.
fn lay_out(release: &Release, arch: Arch, root: &Path) -> Result<()> {
    let staged = release.staged(arch);
    let repository = FILES.map(|(from, to)| (release.source.join(from), to));
    let made = STAGED.map(|(from, to)| (staged.join(from), to));
    let licence = (PathBuf::from(CERTIFICATES_LICENCE), "usr/share/licenses/ca-certificates/copyright");
    for (from, to) in repository.into_iter().chain(made).chain([licence]) {
        let to = root.join(to);
        fs::create_dir_all(to.parent().context("a directory")?)?;
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }
    let bundle = root.join("etc/ssl/certs/ca-certificates.crt");
    fs::create_dir_all(bundle.parent().context("a directory")?)?;
    fs::write(bundle, certificates(Path::new(CERTIFICATES))?)?;
    // The modes must not depend on the umask of this process, nor on that of the clone.
    command(Command::new("chmod").args(["--recursive", "u=rwX,go=rX"]).arg(root))
}

/// The certificates of a directory, sorted by their names, as one file.
fn certificates(directory: &Path) -> Result<String> {
    let mut bundle = String::new();
    for name in names(directory)?.iter().filter(|name| name.ends_with(".crt")) {
        let certificate = fs::read_to_string(directory.join(name)).with_context(|| name.clone())?;
        bundle += certificate.trim_end();
        bundle.push('\n');
    }
    ensure!(!bundle.is_empty(), "{} has no certificate", directory.display());
    Ok(bundle)
}

/// What registries and scanners show, each as `KEY=VALUE`.
fn annotations(release: &Release) -> Result<Vec<String>> {
    let revision = output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&release.source))?;
    let created = jiff::Timestamp::from_second(release.epoch.parse()?)?.to_string();
    let values = [
        ("title", NAME),
        ("description", DESCRIPTION),
        ("version", VERSION),
        ("revision", revision.trim()),
        ("created", &created),
        ("licenses", LICENCES),
    ];
    Ok(values.map(|(key, value)| format!("org.opencontainers.image.{key}={value}")).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    fn text(path: &str) -> String {
        fs::read_to_string(root().join(path)).expect(path)
    }

    #[test]
    fn the_manifests_and_the_chart_name_this_image() {
        assert!(text("packaging/kubernetes/sockstate.yaml").contains(&format!("image: {}\n", name())));
        assert!(text("packaging/helm/sockstate/values.yaml").contains(&format!("repository: {NAME}\n")));
        assert!(text("packaging/helm/sockstate/Chart.yaml").contains(&format!("appVersion: {VERSION}\n")));
    }

    #[test]
    fn the_image_describes_itself_as_the_packages_do() {
        assert!(text("Cargo.toml").contains(&format!("description = \"{DESCRIPTION}\"\n")));
    }

    #[test]
    fn the_image_has_only_files_that_exist() {
        for (from, _) in FILES {
            assert!(root().join(from).is_file(), "{from}");
        }
    }

    #[test]
    fn sockstate_takes_the_configuration_of_the_image() {
        let config = root().join(FILES[0].0);
        let arguments =
            ["sockstate".into(), "run".into(), "--check".into(), "--config".into(), config.into()];
        let code = sockstate::cmd::main(arguments);
        assert_eq!(code, std::process::ExitCode::SUCCESS);
    }

    #[test]
    fn a_bundle_has_each_certificate_once_in_the_order_of_the_names() {
        let directory = tempfile::tempdir().expect("directory");
        for (name, content) in [("b.crt", "B"), ("a.crt", "A\n\n"), ("c.pem", "C\n")] {
            fs::write(directory.path().join(name), content).expect("file");
        }
        assert_eq!(certificates(directory.path()).expect("certificates"), "A\nB\n");
        let empty = tempfile::tempdir().expect("directory");
        certificates(empty.path()).expect_err("a bundle without certificates");
    }
}
