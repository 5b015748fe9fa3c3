//! The image in a container that has the rights of the pods of packaging/kubernetes.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{Release, VERSION, image, roots, trace};
use crate::{arch::Arch, command, output};

const MANIFEST: &str = "packaging/kubernetes/sockstate.yaml";
/// What a trace reads of the host.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/fs/cgroup"];
/// The exit status of podman if podman itself has failed, and not the program in the container.
const PODMAN_FAILED: i32 = 125;
/// What sockstate answers without capabilities, and its exit status for that (docs/operations.md).
const REFUSAL: (i32, &str) = (4, "CAP_BPF and CAP_PERFMON are missing");
/// A configuration whose sink needs certificates of authorities.
const TLS: &str =
    "[sinks.collector]\ntype = \"http\"\nurl = \"https://collector.example\"\nformat = \"json\"\n";
/// Any user without a name.
const USER: &str = "65532:65532";

/// Loads the image and traces in it, with the capabilities of the manifest. Without them, it must say what is missing.
pub(super) fn check(release: &Release, arches: &[Arch]) -> Result<()> {
    let archive = image::file(release);
    ensure!(archive.exists(), "there is no {}", archive.display());
    if roots::own(arches).is_none() {
        return Ok(());
    }
    let podman = Podman::new(release)?;
    command(podman.command().args(["load", "--quiet", "--input"]).arg(&archive))?;
    let version = podman.container(&[]).arg("--version").output()?;
    if version.status.code() == Some(PODMAN_FAILED) {
        let reason = String::from_utf8_lossy(&version.stderr).into_owned();
        println!("SKIPPED: podman runs no container here: {}", reason.trim());
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&version.stdout).into_owned();
    ensure!(printed.trim_end() == format!("sockstate {VERSION}"), "the program prints {printed:?}");
    podman.refuses_without_capabilities()?;
    podman.takes_configurations()?;
    let manifest = fs::read_to_string(release.source.join(MANIFEST))?;
    let capabilities = capabilities(&manifest).join(",");
    trace::one_connection(podman.container(&["--cap-add", &capabilities]))?;
    // podman gives the capabilities to other users, too.
    trace::one_connection(podman.container(&["--cap-add", &capabilities, "--user", USER]))?;
    println!("traced with {capabilities}, as user 0 and as {USER}");
    Ok(())
}

/// podman with a storage of its own, which is removed at the end. podman refuses a long path for its state, such as one
/// in the directory of a release may be.
struct Podman<'a> {
    release: &'a Release,
    storage: TempDir,
}

impl<'a> Podman<'a> {
    fn new(release: &'a Release) -> Result<Self> {
        Ok(Self { release, storage: tempfile::Builder::new().prefix("sockstate-").tempdir()? })
    }

    fn command(&self) -> Command {
        image::stored(self.release, "podman", self.storage.path())
    }

    /// A container to which only arguments of sockstate are added.
    fn container(&self, options: &[&str]) -> Command {
        let mut podman = self.command();
        // Unlike podman's defaults, runc and cgroupfs need neither systemd nor one hierarchy of cgroups.
        podman.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--pid", "host"]);
        podman.args(["--network", "none", "--read-only"]);
        podman.args(["--security-opt", "no-new-privileges", "--cap-drop", "all"]);
        // podman's defaults are higher than a process in a container may set them.
        podman.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        for path in MOUNTS {
            podman.args(["--volume", &format!("{path}:{path}:ro")]);
        }
        podman.args(options).arg(image::name());
        podman
    }

    fn refuses_without_capabilities(&self) -> Result<()> {
        let refused = self.container(&[]).args(["trace", "--duration", "1s"]).output()?;
        let message = String::from_utf8_lossy(&refused.stderr);
        let (status, words) = REFUSAL;
        ensure!(
            refused.status.code() == Some(status) && message.contains(words),
            "without capabilities: {}, {message}",
            refused.status
        );
        println!("without capabilities: {}", message.trim());
        Ok(())
    }

    /// sockstate takes the configuration in the image, and finds the certificates in the image.
    fn takes_configurations(&self) -> Result<()> {
        let tls = self.storage.path().join("tls.toml");
        fs::write(&tls, TLS)?;
        let volume = format!("{}:/tls.toml:ro", tls.display());
        let mut with_tls = self.container(&["--volume", &volume]);
        print!("{}", output(self.container(&[]).args(["run", "--check"]))?);
        print!("{}", output(with_tls.args(["run", "--check", "--config", "/tls.toml"]))?);
        Ok(())
    }
}

/// The capabilities that the manifest gives to its containers.
fn capabilities(manifest: &str) -> Vec<&str> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != "add:").skip(1);
    lines.take_while(|line| line.starts_with(['-', '#'])).filter_map(|line| line.strip_prefix("- ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    #[test]
    fn the_capabilities_are_those_of_the_list() {
        let manifest = "drop: [\"ALL\"]\nadd:\n  - BPF\n  # Why.\n  - SYSLOG\nseccompProfile:\n  - other\n";
        assert_eq!(capabilities(manifest), ["BPF", "SYSLOG"]);
        assert!(capabilities("drop: [\"ALL\"]\n").is_empty());
    }

    #[test]
    fn the_manifest_has_the_capabilities_and_mounts_of_a_trace() {
        let manifest = fs::read_to_string(root().join(MANIFEST)).expect(MANIFEST);
        let capabilities = capabilities(&manifest);
        assert!(["BPF", "PERFMON"].iter().all(|needed| capabilities.contains(needed)), "{capabilities:?}");
        for path in MOUNTS {
            assert!(manifest.contains(&format!("mountPath: {path}, readOnly: true }}")), "{path}");
        }
    }
}
