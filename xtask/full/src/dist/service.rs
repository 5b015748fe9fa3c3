//! The service of the installed package: systemd starts, restarts and ends it in a virtual machine.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    REVISION, Release, names, packages,
    roots::{self, Root},
};
use crate::{
    arch::Arch,
    cross, kernels, setup,
    vm::machine::{Machine, last_lines, pack},
};

/// The suite, and the series of its kernel.
const SUITE: &str = "trixie";
const KERNEL: &str = "6.12";

/// The machine is emulated, and needs three minutes of a processor. With a load of 12 on two processors, these took 14 to
/// 17 minutes.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// What runs in the machine.
const STEPS: &str = include_str!("service/steps.sh");
const SOCKETS: &str = include_str!("service/sockets.pl");
const UNIT: &str = include_str!("service/steps.service");

/// systemd's own units that a test of one service needs; the others would take minutes in an emulated machine.
const WANTED: [&str; 7] = [
    "sys-kernel-tracing.mount",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-journald-audit.socket",
    "systemd-tmpfiles-setup.service",
    "tmp.mount",
];

/// systemd's parameters: it is the init process, and the console shows the steps only.
const PARAMETERS: &str =
    "nosoftlockup rdinit=/lib/systemd/systemd systemd.show_status=0 systemd.unit=multi-user.target";

/// Fails if a step of the service's life fails.
pub(super) fn check(release: &Release, arches: &[Arch]) -> Result<()> {
    let Some(arch) = roots::own(arches) else { return Ok(()) };
    setup::virtual_machines()?;
    let kernel = kernels::get(arch, KERNEL)?.with_context(|| format!("Debian has no kernel {KERNEL}"))?;
    let root = Root::new(release, SUITE)?;
    slim(root.path())?;
    let test = root.path().join("test");
    fs::create_dir_all(test.join("modules"))?;
    for module in &kernel.modules {
        fs::copy(module, test.join("modules").join(module.file_name().context("a module has a name")?))?;
    }
    fs::copy(cross::busybox(arch)?, test.join("busybox"))?;
    fs::copy(roots::older_deb(release, arch)?, test.join("old.deb"))?;
    fs::copy(release.out().join(packages::deb_name(arch, REVISION)), test.join("new.deb"))?;
    fs::write(test.join("steps.sh"), STEPS)?;
    fs::write(test.join("sockets.pl"), SOCKETS)?;
    let units = root.path().join("etc/systemd/system");
    fs::write(units.join("steps.service"), UNIT)?;
    symlink("../steps.service", units.join("multi-user.target.wants/steps.service"))?;

    let initramfs = release.stage().join("service.initramfs");
    pack(root.path(), &initramfs)?;
    fs::remove_dir_all(root.path())?;
    let machine =
        Machine { arch, kernel: &kernel, initramfs: &initramfs, memory: "2G", parameters: PARAMETERS };
    let text = machine.run(&release.stage().join("service.log"), LIMIT)?;
    fs::remove_file(&initramfs)?;
    println!("systemd on Debian {SUITE} with Linux {}:\n{}", kernel.release, steps(&text)?);
    Ok(())
}

/// Removes what would make the initramfs large or its start slow.
fn slim(root: &Path) -> Result<()> {
    for directory in
        ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"]
    {
        let directory = root.join(directory);
        fs::remove_dir_all(&directory)?;
        fs::create_dir(&directory)?;
    }
    let systemd = root.join("usr/lib/systemd");
    for name in names(&systemd.join("system-generators"))? {
        fs::remove_file(systemd.join("system-generators").join(name))?;
    }
    for units in [systemd.join("system"), root.join("etc/systemd/system")] {
        for wants in names(&units)?.iter().filter(|name| name.ends_with(".target.wants")) {
            let unwanted = names(&units.join(wants))?.into_iter().filter(|name| !WANTED.contains(&&**name));
            unwanted.map(|name| units.join(wants).join(name)).try_for_each(fs::remove_file)?;
        }
    }
    // The first boot of a system, and the first after an upgrade of systemd, do more than others.
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    for updated in ["etc/.updated", "var/.updated"] {
        fs::write(root.join(updated), "")?;
    }
    Ok(())
}

/// The lines of the steps that the machine has printed; an error if one has failed or is missing.
fn steps(printed: &str) -> Result<String> {
    let all = |kind: &str| -> Vec<&str> { printed.lines().filter(|line| line.starts_with(kind)).collect() };
    let failed = all("  NO  ");
    if !failed.is_empty() {
        bail!("{}\n{}", failed.join("\n"), last_lines(printed));
    }
    if !printed.lines().any(|line| line == "PASSED") {
        bail!("the machine has not come to its end:\n{}", last_lines(printed));
    }
    Ok(all("  ok  ").join("\n"))
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn every_step_must_succeed_and_the_last_line_must_come() {
        let ok = "[0.1] boot\n  ok  start\n  ok  stop\nPASSED\n";
        assert_eq!(steps(ok).expect("passed"), "  ok  start\n  ok  stop");
        assert!(steps("  ok  start\n").is_err(), "the machine ended early");
        let error = steps("  ok  start\n  NO  stop: it runs\nmore\n").expect_err("a step failed").to_string();
        assert!(error.starts_with("  NO  stop: it runs\n"), "{error}");
    }
}
