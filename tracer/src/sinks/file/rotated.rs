//! Rotated files of a sink's file NAME: NAME.TIME, and NAME.TIME.zst if compressed.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::files::{self, RECORDS_MODE};

/// zstd's own default.
const LEVEL: i32 = 3;
const COMPRESSED: &str = "zst";
/// The suffix of a compressed file that is not complete yet.
const PART: &str = "zst.part";

/// Bytes that are compared at once.
const STEP: u64 = 64 << 10;

/// The time of the rotation, in jiff's strftime format; [`is_rotated`] reads it.
const TIME: &str = "%Y%m%dT%H%M%S%.6fZ";

/// The name for the file `name` that is rotated now.
pub(super) fn name(name: &OsStr) -> OsString {
    let time = jiff::Timestamp::now().strftime(TIME).to_string();
    [name, OsStr::new("."), OsStr::new(&time)].into_iter().collect()
}

/// Replaces `path` by a compressed file, which is complete and on the disk before `path` is removed. If a file
/// already has the compressed file's name but another content, for example because a program was killed while it
/// wrote the file, that file gets another name. Does nothing while another thread compresses `path`.
pub(super) fn compress(path: &Path) -> io::Result<()> {
    let file = open(path)?;
    if file.try_lock().is_err() {
        return Ok(());
    }
    let (target, part) = (path.with_added_extension(COMPRESSED), path.with_added_extension(PART));
    let mut is_done = false;
    if fs::symlink_metadata(&target).is_ok() {
        is_done = expands_to(&target, &file);
        if !is_done {
            let (name, aside) = (target.display(), files::set_aside(&target)?);
            message!(
                "{name} does not have the content of {}: its name is {} now",
                path.display(),
                aside.display()
            );
        }
    }
    if !is_done {
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let compressed = OpenOptions::new().write(true).create_new(true).mode(RECORDS_MODE).open(&part)?;
        zstd::stream::copy_encode(from_start(&file)?, &compressed, LEVEL)?;
        compressed.sync_all()?;
        fs::rename(&part, target)?;
    }
    fs::remove_file(path)
}

/// Whether the compressed file at `target` is whole, on the disk, and has the content of `file`.
fn expands_to(target: &Path, file: &File) -> bool {
    let compare = || {
        let compressed = open(target)?;
        if !compressed.metadata()?.is_file() {
            return Ok(false);
        }
        let expanded = zstd::Decoder::new(&compressed)?;
        let is_same = have_same_bytes(expanded, from_start(file)?)?;
        compressed.sync_all()?;
        Ok::<_, io::Error>(is_same)
    };
    compare().unwrap_or(false)
}

fn have_same_bytes(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut one).take(STEP).read_to_end(&mut left)?;
        (&mut other).take(STEP).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}

fn from_start(mut file: &File) -> io::Result<&File> {
    file.rewind().map(|()| file)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Removes incomplete compressed files of `path` whose rotated file is gone. Returns the rotated files whose
/// compression was interrupted.
pub(super) fn clean_up_interrupted(path: &Path) -> io::Result<Vec<PathBuf>> {
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

/// Regular files with the names that a rotation of `path` gives, oldest first.
fn all(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut rotated = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name();
        if is_rotated(name, &file) && entry.file_type()?.is_file() {
            rotated.push(directory.join(file));
        }
    }
    rotated.sort_unstable();
    Ok(rotated)
}

/// Whether `file` is a name of a rotated file of `name`: with a time, and perhaps with a suffix of the compression.
fn is_rotated(name: &OsStr, file: &OsStr) -> bool {
    let rest = file.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
    let Some((time, suffix)) = rest.and_then(|rest| rest.split_at_checked(b"20261126T013000.000000Z".len()))
    else {
        return false;
    };
    let is_time = std::str::from_utf8(time).is_ok_and(|text| {
        // strptime also accepts a sign and missing zeros: only the very text of the time is ours.
        jiff::civil::DateTime::strptime(TIME, text).is_ok_and(|time| time.strftime(TIME).to_string() == text)
    });
    let is_suffix = |suffix: &[u8]| [COMPRESSED, PART].iter().any(|known| suffix == known.as_bytes());
    is_time && (suffix.is_empty() || suffix.strip_prefix(b".").is_some_and(is_suffix))
}

fn without_part(path: &Path) -> Option<&Path> {
    let whole = path.as_os_str().as_bytes().strip_suffix(PART.as_bytes())?.strip_suffix(b".")?;
    Some(Path::new(OsStr::from_bytes(whole)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn only_names_of_rotations_are_rotated_files() {
        let base = OsStr::new("events.json");
        let given = name(base);
        assert!(is_rotated(base, &given), "{given:?}");
        let own =
            ["20261126T013000.123456Z", "20261126T013000.123456Z.zst", "20261126T013000.123456Z.zst.part"];
        for suffix in own {
            assert!(is_rotated(base, OsStr::new(&format!("events.json.{suffix}"))), "{suffix}");
        }
        let foreign = [
            "",
            "1",
            "1-important-Z.bak",
            "2020-01-01T00:00:00Z.gz",
            "2Zoo",
            "20261126T013000.123456Z.gz",
            "20261126T013000.123456Z.zst.",
            "20261126T013000.123456Z-2",
            "20261126T013000.12345Z",
            "20261126T013000Z",
            "20261326T013000.123456Z",
            "20261126T253000.123456Z",
            "+0261126T013000.123456Z",
            "-0261126T013000.123456Z",
            " 0261126T013000.123456Z",
            "2026112 T013000.123456Z",
            "20261126t013000.123456Z",
        ];
        for suffix in foreign {
            assert!(!is_rotated(base, OsStr::new(&format!("events.json.{suffix}"))), "{suffix}");
        }
        assert!(!is_rotated(base, OsStr::new("other.json.20261126T013000.123456Z")));
        let odd = OsString::from_vec(b"events.json.2026\xff126T013000.123456Z".to_vec());
        assert!(!is_rotated(base, &odd));
    }
}
