//! What the packages must have, by the lists of assets in tracer/Cargo.toml.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{REVISION, Release, names, packages};
use crate::{arch::Arch, cargo, output};

/// What cargo-deb adds to its list by other keys.
const ADDED: [&str; 3] = [
    "usr/lib/systemd/system/sockstate.service",
    "usr/share/doc/sockstate/changelog.Debian",
    "usr/share/doc/sockstate/copyright",
];

/// Fails if a package lacks a file of its list, or has another one.
pub(super) fn check(release: &Release, arches: &[Arch]) -> Result<()> {
    let metadata = metadata()?;
    let mut deb = expected(&release.source, &deb_assets(&metadata)?)?;
    deb.extend(ADDED.map(str::to_owned));
    let rpm = expected(&release.source, &rpm_assets(&metadata)?)?;
    for &arch in arches {
        let list = format!("dpkg-deb --fsys-tarfile {} | tar --list", packages::deb_name(arch, REVISION));
        let found = output(Command::new("sh").args(["-c", &list]).current_dir(release.out()))?;
        compare(&deb, &found).with_context(|| packages::deb_name(arch, REVISION))?;
        let mut rpm_list = Command::new("rpm");
        rpm_list.args(["--query", "--list", "--package"]).arg(packages::rpm_name(arch));
        let found = output(rpm_list.current_dir(release.out()))?;
        compare(&rpm, &found).with_context(|| packages::rpm_name(arch))?;
    }
    Ok(())
}

/// Compares with a list of paths, one a line; those of directories end with a slash.
fn compare(expected: &BTreeSet<String>, found: &str) -> Result<()> {
    let files = found.lines().filter(|path| !path.ends_with('/'));
    let found: BTreeSet<String> = files.map(|path| plain(path.trim_start_matches("./"))).collect();
    let lacking: Vec<_> = expected.difference(&found).collect();
    ensure!(lacking.is_empty(), "lacks {lacking:?}");
    let extra: Vec<_> = found.difference(expected).collect();
    ensure!(extra.is_empty(), "has {extra:?}, which its list does not name");
    Ok(())
}

/// A path without the slash before it, and without the end of a compressed file: the tools compress documents.
fn plain(path: &str) -> String {
    let path = path.trim_start_matches('/');
    path.strip_suffix(".gz").unwrap_or(path).to_owned()
}

/// A file, or the files of a directory by a pattern, and where a package has them.
struct Asset {
    source: String,
    dest: String,
}

fn metadata() -> Result<Value> {
    let all = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let all: Value = serde_json::from_str(&all)?;
    let packages = all["packages"].as_array().context("no packages")?;
    let tracer = packages.iter().find(|package| package["name"] == "sockstate").context("no sockstate")?;
    Ok(tracer["metadata"].clone())
}

fn deb_assets(metadata: &Value) -> Result<Vec<Asset>> {
    // Relative to the manifest of the tracer.
    assets(&metadata["deb"], "0", "1", |source| source.strip_prefix("../").unwrap_or(source).to_owned())
}

fn rpm_assets(metadata: &Value) -> Result<Vec<Asset>> {
    assets(&metadata["generate-rpm"], "source", "dest", str::to_owned)
}

fn assets(package: &Value, source: &str, dest: &str, from_root: fn(&str) -> String) -> Result<Vec<Asset>> {
    let list = package["assets"].as_array().context("no assets")?;
    let field = |asset: &Value, key: &str| {
        let value = key.parse::<usize>().map_or(&asset[key], |index| &asset[index]);
        value.as_str().map(str::to_owned).with_context(|| format!("an asset without {key}: {asset}"))
    };
    list.iter()
        .map(|asset| Ok(Asset { source: from_root(&field(asset, source)?), dest: field(asset, dest)? }))
        .collect()
}

/// The paths in a package. Fails if an asset has no file in the repository.
fn expected(root: &Path, assets: &[Asset]) -> Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for asset in assets {
        for file in files(root, &asset.source)? {
            let name = if asset.dest.ends_with('/') { file.as_str() } else { "" };
            paths.insert(plain(&format!("{}{name}", asset.dest)));
        }
    }
    Ok(paths)
}

/// The names of the files that an asset's source means.
fn files(root: &Path, source: &str) -> Result<Vec<String>> {
    // The compressed pages are made of these.
    let source = source.replace("target/release/man/", "packaging/man/");
    let (directory, pattern) = source.rsplit_once('/').unwrap_or((".", &source));
    if directory == "target/release" {
        return Ok(vec![pattern.to_owned()]);
    }
    let (begin, end) = pattern.split_once('*').unwrap_or((pattern, ""));
    let mut found = names(&root.join(directory))?;
    if pattern.contains('*') {
        found.retain(|name| name.starts_with(begin) && name.ends_with(end));
    } else {
        found.retain(|name| name == pattern);
    }
    ensure!(!found.is_empty(), "{source} is not in the repository");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    #[test]
    fn every_listed_file_exists() {
        let metadata = metadata().expect("metadata");
        for list in [deb_assets(&metadata), rpm_assets(&metadata)] {
            let paths = expected(&root(), &list.expect("assets")).expect("files");
            for needed in [
                "usr/bin/sockstate",
                "etc/sockstate/config.toml",
                "usr/share/man/man1/sockstate.1",
                "usr/lib/sysusers.d/sockstate.conf",
            ] {
                assert!(paths.contains(needed), "no {needed} in {paths:?}");
            }
        }
    }

    #[test]
    fn both_packages_have_the_same_files_of_the_repository() {
        let metadata = metadata().expect("metadata");
        let sources = |list: Result<Vec<Asset>>| -> BTreeSet<String> {
            let sources = list.expect("assets").into_iter().map(|asset| asset.source);
            sources.filter(|source| source.starts_with("packaging/") && !source.contains("/man/")).collect()
        };
        let mut deb = sources(deb_assets(&metadata));
        assert!(deb.remove("packaging/deb/lintian-overrides"));
        // `systemd-units` adds it.
        deb.insert("packaging/systemd/sockstate.service".to_owned());
        assert_eq!(deb, sources(rpm_assets(&metadata)));
    }

    #[test]
    fn debians_package_keeps_the_changes_of_the_configuration() {
        let metadata = metadata().expect("metadata");
        let configuration = deb_assets(&metadata).expect("assets");
        let installed = configuration.iter().filter(|asset| asset.dest.starts_with("etc/"));
        let installed: Vec<String> = installed.map(|asset| format!("/{}", asset.dest)).collect();
        assert_eq!(metadata["deb"]["conf-files"], serde_json::json!(installed));
    }

    #[test]
    fn a_missing_or_unlisted_file_is_named() {
        let expected = BTreeSet::from(["usr/bin/a".to_owned(), "usr/share/doc/b".to_owned()]);
        compare(&expected, "./\n./usr/bin/\n./usr/bin/a\n./usr/share/doc/b.gz\n").expect("equal");
        let lacks = compare(&expected, "/usr/bin/a\n").expect_err("b").to_string();
        assert!(lacks.contains("usr/share/doc/b"), "{lacks}");
        let extra =
            compare(&expected, "/usr/bin/a\n/usr/bin/c\n/usr/share/doc/b\n").expect_err("c").to_string();
        assert!(extra.contains("usr/bin/c"), "{extra}");
    }
}
