//! The files that the process of the sinks can reach (Landlock).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};
use serde::{Deserialize, Serialize};

/// What every process of sinks reads: names and addresses, certificates of authorities, time zones, and the libraries
/// by which the C library looks up names.
const SYSTEM: [&str; 12] = [
    "/etc",
    "/lib",
    "/lib64",
    "/nix/store",
    "/run/nscd",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/share/ca-certificates",
    "/usr/share",
    "/var/lib/ca-certificates",
];
/// Variables that name other certificates of authorities.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// The newest rights that are restricted. Later versions restrict the connection to unix sockets.
const RIGHTS: ABI = ABI::V6;

/// Directories and files of sinks, beside those of the system.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Reach {
    pub read: Vec<PathBuf>,
    pub write: Vec<PathBuf>,
}

impl Reach {
    /// What this has and `other` has not.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Vec<PathBuf> {
        let covers = |known: &[PathBuf], path: &Path| known.iter().any(|known| path.starts_with(known));
        let read = self.read.iter().filter(|path| !covers(&other.read, path) && !covers(&other.write, path));
        let write = self.write.iter().filter(|path| !covers(&other.write, path));
        let is_of_system = |path: &&PathBuf| SYSTEM.iter().any(|known| path.starts_with(known));
        read.filter(|path| !is_of_system(path)).chain(write).cloned().collect()
    }

    /// Restricts this thread, and all that it starts, to these files and to those of the system; whether this kernel
    /// has Landlock.
    ///
    /// # Errors
    /// The kernel has Landlock, and refuses.
    pub fn restrict(&self) -> Result<bool, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write: BitFlags<AccessFs> = AccessFs::from_all(RIGHTS)
            & !(AccessFs::Execute
                | AccessFs::MakeBlock
                | AccessFs::MakeChar
                | AccessFs::MakeSock
                | AccessFs::MakeSym);
        let certificates = CERTIFICATES.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let system = SYSTEM.iter().map(PathBuf::from).chain(certificates);
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(RIGHTS))?
            .scope(Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(system.chain(self.read.iter().cloned()), read))?
            .add_rules(path_beneath_rules(&self.write, write))?
            .restrict_self()?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind, thread};

    use super::*;

    #[test]
    fn other_files_are_out_of_reach() {
        let root = tempfile::tempdir().expect("directory");
        let [own, keys, other] = ["own", "keys", "other"].map(|name| root.path().join(name));
        for directory in [&own, &keys, &other] {
            fs::create_dir(directory).expect("directory");
            fs::write(directory.join("file"), "text").expect("file");
        }
        let reach = Reach { read: vec![keys.clone()], write: vec![own.clone()] };
        // Rights are for a thread, and those that it starts.
        let restricted = thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("no new privileges");
            if !reach.restrict().expect("rights") {
                eprintln!("SKIPPED: this kernel has no Landlock");
                return;
            }
            fs::write(own.join("new"), "text").expect("its own directory");
            fs::rename(own.join("new"), own.join("old")).expect("its own directory");
            assert_eq!(fs::read_dir(&own).expect("its own directory").count(), 2);
            fs::read(keys.join("file")).expect("a file to read");
            fs::read("/etc/passwd").expect("a file of the system");
            let refused = [
                fs::write(keys.join("new"), "text"),
                fs::remove_file(keys.join("file")),
                fs::read(other.join("file")).map(drop),
                fs::read_dir(&other).map(drop),
                fs::write(other.join("file"), "other text"),
                fs::write("/etc/sockstate-test", "text"),
                fs::read("/proc/1/status").map(drop),
                std::os::unix::fs::symlink(&other, own.join("link")),
            ];
            for (at, result) in refused.into_iter().enumerate() {
                let error = result.expect_err(&format!("number {at}"));
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "number {at}: {error}");
            }
        });
        restricted.join().expect("a thread");
        fs::read(root.path().join("other/file")).expect("another thread");
    }

    #[test]
    fn what_another_configuration_needs_in_addition() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let first = Reach { read: paths(&["/srv/keys"]), write: paths(&["/var/log/sockstate"]) };
        let second = Reach {
            read: paths(&["/srv/keys/new", "/var/log/sockstate", "/etc/keys", "/opt/keys"]),
            write: paths(&["/var/log/sockstate/old", "/srv/keys"]),
        };
        assert_eq!(second.beyond(&first), paths(&["/opt/keys", "/srv/keys"]));
        assert!(first.beyond(&first).is_empty());
    }
}
