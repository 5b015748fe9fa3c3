//! What must hold before a version is published. Every item is looked at, and listed with its result.

use std::{fs, process::Command};

use anyhow::{Result, bail, ensure};

use super::{REVISION, Release, VERSION, container, contents, names, packages, roots, service};
use crate::{arch::Arch, command, output, setup};

/// Fails if one of the items does not hold.
pub(super) fn all(release: &Release, arches: &[Arch]) -> Result<()> {
    setup::package_checks()?;
    let items: [(&str, &dyn Fn() -> Result<()>); 13] = [
        ("the work tree has no change that is not committed", &|| is_clean(release)),
        ("CHANGELOG.md has this version with a date", &|| is_in_changelog(release)),
        ("packaging/deb/changelog begins with this version", &|| is_in_debian_changelog(release)),
        ("the tag of this version, if it exists, is this commit", &|| is_tag_here(release)),
        ("the packages have the files of their lists", &|| contents::check(release, arches)),
        ("the published crates build from their packages", &|| crates(release)),
        ("lintian accepts the .deb", &|| lintian(release, arches)),
        ("rpmlint accepts the .rpm", &|| rpmlint(release, arches)),
        ("the .deb can be installed, upgraded, removed and purged", &|| roots::deb(release, arches)),
        ("the .rpm can be installed, upgraded and removed", &|| roots::rpm(release, arches)),
        ("the image runs with just the capabilities that it needs", &|| container::check(release, arches)),
        ("systemd starts, reloads, restarts, upgrades and stops the service", &|| {
            service::check(release, arches)
        }),
        ("a clone in another directory gives the same bytes", &|| is_reproducible(release, arches)),
    ];
    let mut failed = 0;
    let mut list = String::new();
    for (name, check) in items {
        println!("==== {name}");
        let line = match check() {
            Ok(()) => format!("  ok  {name}"),
            Err(error) => {
                failed += 1;
                format!("  NO  {name}: {error:#}")
            }
        };
        list += &line;
        list.push('\n');
    }
    print!("\nrelease {VERSION}:\n{list}");
    ensure!(failed == 0, "{failed} items of the checklist do not hold");
    println!("what remains by hand: `cargo xtask check` and .ci/run at this commit, then the tag v{VERSION}");
    Ok(())
}

/// Packs the crates that are published, and builds them from these packages alone.
fn crates(release: &Release) -> Result<()> {
    let mut package = release.command("cargo");
    package.args(["package", "--locked", "--package", "sockstate", "--package", "sockstate-ebpf"]);
    // cargo unpacks a dependency once for each path of this directory and each version, and would take the sources of an
    // earlier commit with the same version.
    let target = tempfile::Builder::new().prefix("package-").tempdir_in(release.source.join("target"))?;
    command(package.env("CARGO_TARGET_DIR", target.path()))
}

fn git(release: &Release, args: &[&str]) -> Result<String> {
    output(Command::new("git").args(args).current_dir(&release.source))
}

fn is_clean(release: &Release) -> Result<()> {
    let changes = git(release, &["status", "--porcelain"])?;
    ensure!(changes.is_empty(), "git status lists\n{changes}");
    Ok(())
}

fn is_in_changelog(release: &Release) -> Result<()> {
    let text = fs::read_to_string(release.source.join("CHANGELOG.md"))?;
    ensure!(has_dated_section(&text, VERSION), "no heading `## [{VERSION}] - YYYY-MM-DD`");
    Ok(())
}

/// Whether the change log has a heading with the version and a date, by the form of keepachangelog.
fn has_dated_section(changelog: &str, version: &str) -> bool {
    let heading = format!("## [{version}] - ");
    let dates = changelog.lines().filter_map(|line| line.strip_prefix(&heading));
    let is_date = |text: &str| {
        let parts: Vec<&str> = text.trim().split('-').collect();
        parts.iter().map(|part| part.len()).eq([4, 2, 2])
            && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    dates.into_iter().any(is_date)
}

fn is_in_debian_changelog(release: &Release) -> Result<()> {
    let text = fs::read_to_string(release.source.join("packaging/deb/changelog"))?;
    let first = text.lines().next().unwrap_or_default();
    let wanted = format!("sockstate ({VERSION}-{REVISION}) ");
    ensure!(first.starts_with(&wanted), "it begins with `{first}`");
    Ok(())
}

fn is_tag_here(release: &Release) -> Result<()> {
    let tag = format!("v{VERSION}");
    if git(release, &["tag", "--list", &tag])?.is_empty() {
        return Ok(());
    }
    let (tagged, head) = (git(release, &["rev-list", "-n1", &tag])?, git(release, &["rev-parse", "HEAD"])?);
    ensure!(tagged == head, "{tag} is {}", tagged.trim());
    Ok(())
}

fn lintian(release: &Release, arches: &[Arch]) -> Result<()> {
    let files = arches.iter().map(|&arch| packages::deb_name(arch, REVISION));
    let mut lintian = release.command("lintian");
    lintian.args([
        "--allow-root",
        "--fail-on",
        "error,warning",
        "--display-info",
        "--tag-display-limit",
        "0",
    ]);
    command(lintian.args(files).current_dir(release.out()))
}

fn rpmlint(release: &Release, arches: &[Arch]) -> Result<()> {
    let files = arches.iter().map(|&arch| release.out().join(packages::rpm_name(arch)));
    let mut rpmlint = release.command("rpmlint");
    let text = output(rpmlint.args(["--config", "packaging/rpm/rpmlint.toml"]).args(files))?;
    print!("{text}");
    ensure!(text.contains(" 0 errors, 0 warnings"), "rpmlint reports something");
    Ok(())
}

/// Builds the release once more from a clone, in another directory, with another time zone, and compares the checksums.
fn is_reproducible(release: &Release, arches: &[Arch]) -> Result<()> {
    let place = tempfile::Builder::new().prefix("sockstate-").tempdir()?;
    let clone = place.path().join("another/directory");
    command(Command::new("git").args(["clone", "--quiet"]).arg(&release.source).arg(&clone))?;
    let again = Release::new(clone)?;
    again.build(arches)?;
    let files = names(&release.out())?;
    ensure!(files == names(&again.out())?, "the clone gives other files: {:?}", names(&again.out())?);
    let mut different = Vec::new();
    for name in files {
        if fs::read(release.out().join(&name))? != fs::read(again.out().join(&name))? {
            different.push(name);
        }
    }
    if !different.is_empty() {
        let kept = place.keep();
        bail!("{} differ; the other build is in {}", different.join(", "), kept.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::has_dated_section;

    #[test]
    fn a_released_version_has_a_date() {
        let log = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n## [0.1.0] - soon\n";
        assert!(has_dated_section(log, "0.2.0"));
        for version in ["0.1.0", "0.2", "Unreleased", "0.3.0"] {
            assert!(!has_dated_section(log, version), "{version}");
        }
    }
}
