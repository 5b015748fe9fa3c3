//! The files beside a sink's file: it with the time of its rotation behind its name, then `.zst` where it is compressed.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// zstd's own default.
const LEVEL: i32 = 3;
const COMPRESSED: &str = "zst";
/// Is being compressed.
const PART: &str = "zst.part";

/// Gives the file at `path` its name for later.
pub(super) fn rename(path: &Path) -> io::Result<PathBuf> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ").to_string();
    let rotated = path.with_added_extension(time);
    fs::rename(path, &rotated)?;
    Ok(rotated)
}

/// Puts a compressed file in the place of `path`. Whoever finds the compressed one finds all of it; until `path` is gone, it is the
/// whole one. Where another sink, which a reload has ended, is at it still, nothing is done.
pub(super) fn compress(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    if file.try_lock().is_err() {
        return Ok(());
    }
    let (target, part) = (path.with_added_extension(COMPRESSED), path.with_added_extension(PART));
    if !target.exists() {
        let compressed =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&part)?;
        zstd::stream::copy_encode(&file, &compressed, LEVEL)?;
        compressed.sync_all()?;
        fs::rename(&part, target)?;
    }
    fs::remove_file(path)
}

/// The rotated files of `path` whose compression was begun and not ended; a part without its whole is removed.
pub(super) fn interrupted(path: &Path) -> io::Result<Vec<PathBuf>> {
    let files: BTreeSet<PathBuf> = all(path)?.into_iter().collect();
    for part in &files {
        if without_part(part).is_some_and(|whole| !files.contains(whole)) {
            fs::remove_file(part)?;
        }
    }
    let has = |file: &Path, suffix: &str| files.contains(&file.with_added_extension(suffix));
    Ok(files.iter().filter(|file| has(file, PART) || has(file, COMPRESSED)).cloned().collect())
}

/// Removes all rotated files of `path` but the newest `keep`.
pub(super) fn remove_old(path: &Path, keep: usize) -> io::Result<()> {
    let rotated = all(path)?;
    let old = rotated.len().saturating_sub(keep);
    rotated.iter().take(old).try_for_each(fs::remove_file)
}

/// Oldest first.
fn all(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let is_rotated = |file: &str| {
        let rest = name.to_str().and_then(|name| file.strip_prefix(name)?.strip_prefix('.'));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('Z'))
    };
    let mut rotated = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.file_name();
        if file.to_str().is_some_and(is_rotated) {
            rotated.push(path.with_file_name(file));
        }
    }
    rotated.sort_unstable();
    Ok(rotated)
}

fn without_part(path: &Path) -> Option<&Path> {
    let whole = path.as_os_str().as_bytes().strip_suffix(PART.as_bytes())?.strip_suffix(b".")?;
    Some(Path::new(OsStr::from_bytes(whole)))
}
