//! What around this process may refuse or hide what sockstate needs: lockdown, sysctls, security modules, containers, and
//! systems with limits of their own. Only files are read, below a root that tests replace.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::finding::Finding;
use crate::procfs::text::lines;

/// The variable of UEFI: four bytes of attributes, then one byte.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Types of SELinux that confine nothing.
const UNCONFINED: [&str; 4] = ["unconfined_t", "unconfined_service_t", "spc_t", "kernel_t"];

/// A security module that confines this process.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Confinement {
    AppArmor(String),
    SeLinux(String),
}

/// A system with limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Talos,
    Wsl,
}

/// What the files show; `None` if a file is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    lockdown: Option<String>,
    secure_boot: Option<bool>,
    kptr_restrict: Option<u8>,
    /// /proc/kallsyms shows addresses to this process.
    shows_addresses: Option<bool>,
    /// The value of the sysctl; `None` if the kernel has no such file.
    pub(super) unprivileged_bpf_disabled: Option<u8>,
    confinement: Option<Confinement>,
    /// /sys is read-only, and no BPF file system at /sys/fs/bpf can be written to.
    cannot_pin: bool,
    system: Option<System>,
}

/// What the attempts have shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<'a> {
    pub(super) traces: bool,
    pub(super) tier: Option<&'a str>,
    /// The capabilities for loading programs are missing.
    pub(super) lacks_bpf: bool,
    /// Something was refused although this process has the capability for it.
    pub(super) is_refused: bool,
}

impl Surroundings {
    pub(super) fn below(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let number = |path: &str| text(path)?.trim().parse().ok();
        Self {
            lockdown: text("sys/kernel/security/lockdown").and_then(|modes| active_mode(&modes)),
            secure_boot: fs::read(root.join(SECURE_BOOT)).ok().and_then(|bytes| Some(*bytes.get(4)? == 1)),
            kptr_restrict: number("proc/sys/kernel/kptr_restrict"),
            shows_addresses: shows_addresses(&root.join("proc/kallsyms")),
            unprivileged_bpf_disabled: number("proc/sys/kernel/unprivileged_bpf_disabled"),
            confinement: confinement(&text),
            cannot_pin: text("proc/self/mountinfo").is_some_and(|mounts| cannot_pin(&mounts)),
            system: system(root),
        }
    }

    /// One line of text.
    pub(super) fn line(&self) -> String {
        let mut parts = vec![format!("lockdown {}", self.lockdown.as_deref().unwrap_or("not known"))];
        parts.extend(
            self.secure_boot.map(|is_on| format!("Secure Boot {}", if is_on { "on" } else { "off" })),
        );
        parts.extend(self.kptr_restrict.map(|value| format!("kptr_restrict {value}")));
        parts
            .extend(self.unprivileged_bpf_disabled.map(|value| format!("unprivileged_bpf_disabled {value}")));
        parts.extend(self.confinement.as_ref().map(Confinement::name));
        parts.join(", ")
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "lockdown": self.lockdown,
            "secure_boot": self.secure_boot,
            "kptr_restrict": self.kptr_restrict,
            "kernel_addresses": self.shows_addresses,
            "confined_by": self.confinement.as_ref().map(Confinement::name),
            "can_pin": !self.cannot_pin,
            "system": self.system.map(|system| match system {
                System::Talos => "talos",
                System::Wsl => "wsl",
            }),
        })
    }

    /// What costs something here.
    pub(super) fn findings(&self, evidence: Evidence<'_>) -> Vec<Finding> {
        let all = [
            self.of_lockdown(evidence),
            self.of_addresses(evidence),
            self.of_unprivileged_bpf(evidence),
            self.confinement.as_ref().filter(|_| evidence.is_refused).map(Confinement::finding),
            self.cannot_pin.then(|| {
                Finding::new(
                    "/sys is read-only here, and no BPF file system at /sys/fs/bpf can be written to",
                    "the key `pin` does not work, and a restart loses transitions",
                    "mount /sys/fs/bpf of the host (Kubernetes: hostPath; docker and podman: --volume /sys/fs/bpf:/sys/fs/bpf)",
                )
            }),
            (self.system == Some(System::Wsl)).then(|| {
                Finding::new(
                    "this is WSL2",
                    "only connections of Linux programs are seen, because Windows has a TCP of its own",
                    "for Windows programs, run netstat -ano in Windows",
                )
            }),
        ];
        all.into_iter().flatten().collect()
    }

    fn of_lockdown(&self, evidence: Evidence<'_>) -> Option<Finding> {
        self.lockdown.as_deref().filter(|mode| *mode == "confidentiality")?;
        let secure_boot = if self.secure_boot == Some(true) { ", and Secure Boot is on" } else { "" };
        let what = format!("the kernel is locked down (confidentiality){secure_boot}");
        let cost = if evidence.traces {
            "kprobes, perf events and reads of kernel memory are refused"
        } else {
            "programs may not read the kernel's memory, so nothing can be traced"
        };
        let todo = match (self.system, self.secure_boot) {
            (Some(System::Talos), _) => {
                "replace lockdown=confidentiality by lockdown=integrity in machine.install.extraKernelArgs, and reboot the node"
            }
            (_, Some(true)) => "boot with lockdown=integrity, which Secure Boot allows",
            _ => "boot with lockdown=integrity",
        };
        Some(Finding::new(what, cost, todo))
    }

    /// Addresses matter where no better tier works.
    fn of_addresses(&self, evidence: Evidence<'_>) -> Option<Finding> {
        if self.shows_addresses != Some(false) || evidence.tier != Some("estimate") {
            return None;
        }
        let cost = "the tier `timers`, which would be exact, does not work";
        Some(match (self.kptr_restrict, self.system) {
            (Some(2..), Some(System::Talos)) => Finding::new(
                "kernel.kptr_restrict hides addresses from every process",
                cost,
                "set kernel.kptr_restrict: \"1\" in machine.sysctls, and grant CAP_SYSLOG",
            ),
            (Some(2..), _) => Finding::new(
                "kernel.kptr_restrict hides addresses from every process",
                cost,
                "sysctl kernel.kptr_restrict=1, and grant CAP_SYSLOG",
            ),
            _ => Finding::new("/proc/kallsyms hides addresses from this process", cost, "grant CAP_SYSLOG"),
        })
    }

    /// Without the capabilities, users try the sysctl, which would not help.
    fn of_unprivileged_bpf(&self, evidence: Evidence<'_>) -> Option<Finding> {
        let value = self.unprivileged_bpf_disabled.filter(|value| evidence.lacks_bpf && *value > 0)?;
        let cost = "bpf() is refused to processes without CAP_BPF";
        let todo = "leave it: programs that trace need CAP_BPF and CAP_PERFMON with each value of it";
        Some(Finding::new(format!("kernel.unprivileged_bpf_disabled is {value}"), cost, todo))
    }
}

impl Confinement {
    fn name(&self) -> String {
        match self {
            Self::AppArmor(profile) => format!("AppArmor profile {profile}"),
            Self::SeLinux(domain) => format!("SELinux domain {domain}"),
        }
    }

    fn finding(&self) -> Finding {
        let todo = match self {
            Self::AppArmor(_) => {
                "`journalctl --dmesg --grep apparmor` shows what was denied; run unconfined (Kubernetes: appArmorProfile.type \
                 Unconfined; docker and podman: --security-opt apparmor=unconfined)"
            }
            Self::SeLinux(_) => {
                "`ausearch -m AVC -c sockstate` shows what was denied; run in spc_t (Kubernetes: seLinuxOptions.type spc_t; docker and \
                 podman: --security-opt label=disable)"
            }
        };
        Finding::new(
            format!("this process is confined ({})", self.name()),
            "it may be why something is refused",
            todo,
        )
    }
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn active_mode(modes: &str) -> Option<String> {
    Some(modes.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// Whether any symbol has an address other than zero.
fn shows_addresses(path: &Path) -> Option<bool> {
    let mut symbols = lines(path).peekable();
    symbols.peek()?;
    Some(symbols.any(|symbol| symbol.bytes().take_while(|&byte| byte != b' ').any(|digit| digit != b'0')))
}

fn confinement(text: &dyn Fn(&str) -> Option<String>) -> Option<Confinement> {
    let attribute = |path| text(path).map(|text| text.trim_end_matches(['\0', '\n']).to_owned());
    let current =
        attribute("proc/self/attr/apparmor/current").or_else(|| attribute("proc/self/attr/current"))?;
    if current.ends_with(" (enforce)") {
        return Some(Confinement::AppArmor(current));
    }
    let domain = current.split(':').nth(2)?;
    let enforces = text("sys/fs/selinux/enforce").is_some_and(|value| value.trim() == "1");
    (enforces && !UNCONFINED.contains(&domain)).then(|| Confinement::SeLinux(domain.to_owned()))
}

/// Parses /proc/self/mountinfo (proc(5)); the last mount at a place covers the others.
fn cannot_pin(mounts: &str) -> bool {
    let last = |place: &str| mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
    let has = |line: &str, option: &str| {
        line.split(' ').nth(5).is_some_and(|options| options.split(',').any(|word| word == option))
    };
    let is_bpf = |line: &str| line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("bpf "));
    let is_read_only = last("/sys").is_some_and(|line| has(line, "ro"));
    is_read_only && !last("/sys/fs/bpf").is_some_and(|line| is_bpf(line) && has(line, "rw"))
}

fn system(root: &Path) -> Option<System> {
    // In a container with the host's processes, /proc/1/root is the host's root.
    let releases = ["etc/os-release", "proc/1/root/etc/os-release"];
    let is_talos = |text: String| text.lines().any(|line| line.trim_matches('"') == "ID=talos");
    if releases.iter().any(|path| fs::read_to_string(root.join(path)).is_ok_and(is_talos)) {
        return Some(System::Talos);
    }
    let of_wsl = ["proc/sys/fs/binfmt_misc/WSLInterop", "run/WSL", "dev/dxg"];
    of_wsl.iter().any(|path| root.join(path).exists()).then_some(System::Wsl)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKDOWN: (&str, &str) = ("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    const HIDDEN: (&str, &str) =
        ("proc/kallsyms", "0000000000000000 T tcp_close\n0000000000000000 T tcp_v4_rcv\n");
    const SYS: &str = "30 1 0:22 / /sys ro,nosuid - sysfs sysfs rw\n";
    const REFUSED: Evidence<'_> = Evidence { traces: false, tier: None, lacks_bpf: false, is_refused: true };
    const ESTIMATE: Evidence<'_> =
        Evidence { traces: true, tier: Some("estimate"), lacks_bpf: false, is_refused: false };
    const WORKS: Evidence<'_> =
        Evidence { traces: true, tier: Some("fentry"), lacks_bpf: false, is_refused: false };
    const LACKS: Evidence<'_> = Evidence { traces: false, tier: None, lacks_bpf: true, is_refused: false };

    fn findings(files: &[(&str, &str)], evidence: Evidence<'_>) -> Vec<String> {
        let root = tempfile::tempdir().expect("directory");
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
            fs::write(path, content).expect("file");
        }
        Surroundings::below(root.path()).findings(evidence).iter().map(ToString::to_string).collect()
    }

    /// The files, what was tried, and words of the only finding.
    fn assert_only(files: &[(&str, &str)], evidence: Evidence<'_>, words: &[&str]) {
        let found = findings(files, evidence);
        assert_eq!(found.len(), 1, "{files:?}: {found:?}");
        for word in words {
            assert!(found[0].contains(word), "{files:?}: {word} in {found:?}");
        }
    }

    #[test]
    fn lockdown_is_a_finding_where_it_refuses_reads() {
        assert_only(
            &[LOCKDOWN],
            REFUSED,
            &["locked down (confidentiality): ", "nothing can be traced", "lockdown=integrity"],
        );
        assert_only(&[LOCKDOWN], WORKS, &["kprobes, perf events"]);
        let secure = (SECURE_BOOT, "\x06\0\0\0\x01");
        assert_only(&[LOCKDOWN, secure], REFUSED, &[", and Secure Boot is on", "which Secure Boot allows"]);
        assert_only(&[LOCKDOWN, (SECURE_BOOT, "\x06\0\0\0\0")], REFUSED, &["(confidentiality): "]);
        assert!(findings(&[secure, (LOCKDOWN.0, "none [integrity] confidentiality\n")], REFUSED).is_empty());
        for release in ["etc/os-release", "proc/1/root/etc/os-release"] {
            assert_only(
                &[LOCKDOWN, (release, "NAME=\"Talos\"\nID=talos\n")],
                REFUSED,
                &["machine.install.extraKernelArgs"],
            );
        }
    }

    #[test]
    fn hidden_addresses_are_a_finding_where_the_tier_timers_would_be_used() {
        let kptr = |value| ("proc/sys/kernel/kptr_restrict", value);
        assert_only(
            &[HIDDEN, kptr("1\n")],
            ESTIMATE,
            &["hides addresses from this process", "grant CAP_SYSLOG"],
        );
        assert_only(
            &[HIDDEN, kptr("2\n")],
            ESTIMATE,
            &["from every process", "sysctl kernel.kptr_restrict=1"],
        );
        let talos = ("etc/os-release", "ID=talos\n");
        assert_only(&[HIDDEN, kptr("2\n"), talos], ESTIMATE, &["machine.sysctls"]);
        assert!(findings(&[HIDDEN, kptr("2\n")], WORKS).is_empty());
        let shown = (HIDDEN.0, "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\n");
        assert!(findings(&[shown, kptr("1\n")], ESTIMATE).is_empty());
        assert!(findings(&[kptr("2\n")], ESTIMATE).is_empty(), "kallsyms is not there");
    }

    #[test]
    fn the_sysctl_of_bpf_is_a_finding_without_the_capability_only() {
        let disabled = |value| ("proc/sys/kernel/unprivileged_bpf_disabled", value);
        assert_only(
            &[disabled("2\n")],
            LACKS,
            &["unprivileged_bpf_disabled is 2: ", "need CAP_BPF and CAP_PERFMON"],
        );
        for (value, evidence) in [("0\n", LACKS), ("2\n", WORKS), ("2\n", REFUSED)] {
            assert!(findings(&[disabled(value)], evidence).is_empty(), "{value} {evidence:?}");
        }
    }

    #[test]
    fn a_security_module_is_a_finding_where_something_is_refused() {
        let enforce = ("sys/fs/selinux/enforce", "1");
        let current = |text| ("proc/self/attr/current", text);
        let container = current("system_u:system_r:container_t:s0:c1,c2\0");
        assert_only(&[container, enforce], REFUSED, &["SELinux domain container_t", "ausearch", "spc_t"]);
        let profile = ("proc/self/attr/apparmor/current", "docker-default (enforce)\n");
        for file in [profile, current(profile.1)] {
            assert_only(
                &[file],
                REFUSED,
                &["AppArmor profile docker-default (enforce)", "apparmor=unconfined"],
            );
        }
        for files in [
            &[container][..],
            &[container, ("sys/fs/selinux/enforce", "0")],
            &[current("system_u:system_r:spc_t:s0"), enforce],
            &[current("unconfined\n")],
            &[current("docker-default (complain)\n")],
        ] {
            assert!(findings(files, REFUSED).is_empty(), "{files:?}");
        }
        assert!(findings(&[container, enforce], WORKS).is_empty());
    }

    #[test]
    fn a_read_only_sys_is_a_finding_without_a_bpf_file_system_that_can_be_written_to() {
        let bpf = |options: &str| format!("{SYS}31 30 0:30 / /sys/fs/bpf {options} - bpf bpf rw\n");
        for text in [SYS.to_owned(), bpf("ro,nosuid"), bpf("rw").replace(" - bpf", " - tmpfs")] {
            assert_only(
                &[("proc/self/mountinfo", &text)],
                WORKS,
                &["/sys is read-only", "the key `pin` does not work", "hostPath"],
            );
        }
        let covered = format!("{SYS}32 1 0:22 / /sys rw,nosuid - sysfs sysfs rw\n");
        for text in [bpf("rw,nosuid"), covered, String::new()] {
            assert!(findings(&[("proc/self/mountinfo", &text)], WORKS).is_empty(), "{text}");
        }
    }

    #[test]
    fn wsl_is_known_by_its_files() {
        for path in ["proc/sys/fs/binfmt_misc/WSLInterop", "run/WSL/1", "dev/dxg"] {
            assert_only(&[(path, "")], WORKS, &["this is WSL2: ", "netstat -ano"]);
        }
        assert!(findings(&[], REFUSED).is_empty());
    }
}
