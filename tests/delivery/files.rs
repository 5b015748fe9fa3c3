//! Sinks for files and pipes: they rotate, compress and open their files again, and never change another program's
//! file.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sockstate::sinks::FileSettings;
use testkit::skipping::print_skipped;

use crate::{
    all,
    collector::{self, Feeder, settings},
};

fn file(path: &Path) -> FileSettings {
    FileSettings { path: path.to_owned(), rotate_bytes: None, rotate_every: None, keep: None, zstd: false }
}

fn lines_of(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).expect("file");
    let is_zstd = path.extension().is_some_and(|extension| extension == "zst");
    let bytes = if is_zstd { zstd::decode_all(&bytes[..]).expect("zstd") } else { bytes };
    String::from_utf8(bytes).expect("UTF-8").lines().map(collector::seq).collect()
}

/// The rotated files, oldest first.
fn rotated(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).expect("directory").map(|entry| entry.expect("entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.file_name().is_some_and(|name| name != "out.json")).collect();
    files.sort();
    files
}

#[test]
fn a_file_is_rotated_compressed_and_kept_as_asked() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    let settings_of = FileSettings { rotate_bytes: Some(50_000), zstd: true, ..file(&path) };
    let mut feeder = Feeder::start(&settings(settings_of.clone()), None);
    for _ in 0..10 {
        feeder.push(100);
    }
    feeder.wait_until("all is written", |status| status.delivered() == 1000);
    feeder.end(Duration::from_secs(5));
    let mut seqs = Vec::new();
    let files = rotated(directory.path());
    assert!(files.len() >= 3, "{files:?}");
    for old in &files {
        assert_eq!(old.extension().and_then(|extension| extension.to_str()), Some("zst"));
        seqs.extend(lines_of(old));
    }
    assert!(fs::metadata(&path).expect("file").len() <= 50_000);
    seqs.extend(lines_of(&path));
    assert_eq!(seqs, all(1000));

    let mut feeder = Feeder::start(&settings(FileSettings { keep: Some(2), ..settings_of }), None);
    feeder.push(1000);
    feeder.wait_until("all is written", |status| status.delivered() == 1000);
    feeder.end(Duration::from_secs(5));
    assert_eq!(rotated(directory.path()).len(), 2);
}

#[test]
fn what_a_killed_one_was_compressing_is_compressed_once() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    let name = |suffix: &str| directory.path().join(format!("out.json.20261125T10000{suffix}"));
    let line = |seq: u64| format!("{{\"seq\":{seq}}}\n");
    let zst = |seq| zstd::encode_all(line(seq).as_bytes(), 3).expect("zstd");
    let files: [(&str, Vec<u8>); 9] = [
        // The compression had begun.
        ("1.000000Z", line(1).into()),
        ("1.000000Z.zst.part", zst(1)[..7].to_vec()),
        // The compression had ended, and only the removal of the file was missing.
        ("2.000000Z", line(2).into()),
        ("2.000000Z.zst", zst(2)),
        // The file that was compressed has been removed.
        ("3.000000Z.zst.part", zst(3)[..7].to_vec()),
        // This file was rotated without compression.
        ("4.000000Z", line(4).into()),
        ("5.000000Z.zst", zst(5)),
        // Somebody is at it.
        ("6.000000Z", line(6).into()),
        ("6.000000Z.zst.part", zst(6)),
    ];
    for (suffix, bytes) in &files {
        fs::write(name(suffix), bytes).expect("what a killed one left");
    }
    let at_work = fs::File::open(name("6.000000Z")).expect("file");
    at_work.lock().expect("lock");
    let mut feeder = Feeder::start(&settings(file(&path)), None);
    feeder.push(1);
    feeder.end(Duration::from_secs(5));
    let mut kept = rotated(directory.path());
    assert_eq!(kept.split_off(4), ["6.000000Z", "6.000000Z.zst.part"].map(name));
    assert_eq!(kept, ["1.000000Z.zst", "2.000000Z.zst", "4.000000Z", "5.000000Z.zst"].map(name));
    assert_eq!(kept.iter().flat_map(|file| lines_of(file)).collect::<Vec<_>>(), [1, 2, 4, 5]);
}

#[test]
fn a_file_is_opened_again_and_mended() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    Feeder::start(&settings(file(&path)), None).end(Duration::from_secs(5));
    let long = "x".repeat(200_000);
    let mut killed = fs::OpenOptions::new().append(true).open(&path).expect("file");
    write!(killed, "{{\"seq\":99}}\n{{\"seq\":1,\"long\":\"{long}").expect("what a killed one left");
    let mut feeder = Feeder::start(&settings(file(&path)), None);
    feeder.push(10);
    feeder.wait_until("it is written", |status| status.delivered() == 10);
    let moved = directory.path().join("out.json.1");
    fs::rename(&path, &moved).expect("rename");
    feeder.queue.reopen();
    feeder.push(10);
    feeder.wait_until("it is written", |status| status.delivered() == 20);
    assert_eq!(lines_of(&moved), [&[99][..], &all(10)].concat());
    assert_eq!(lines_of(&path), (11..=20).collect::<Vec<_>>());
}

#[test]
fn a_file_that_another_program_wrote_is_not_cut() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    fs::write(&path, "another program's\nunfinished line").expect("file");
    let mut feeder = Feeder::start(&settings(file(&path)), None);
    feeder.push(2);
    feeder.wait_until("it is written", |status| status.delivered() == 2);
    let text = fs::read_to_string(&path).expect("file");
    let rest = text.strip_prefix("another program's\nunfinished line\n").expect("what was there");
    assert_eq!(rest.lines().map(collector::seq).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_foreign_file_with_the_inode_of_a_removed_one_is_not_cut() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    let write = |count| {
        let mut feeder = Feeder::start(&settings(file(&path)), None);
        feeder.push(count);
        feeder.end(Duration::from_secs(5));
    };
    write(2);
    let inode = fs::metadata(&path).expect("file").ino();
    fs::remove_file(&path).expect("remove");
    // Most file systems give a free inode away soon.
    let made = (0..1000).map(|at| directory.path().join(at.to_string())).find(|path| {
        fs::write(path, "another program's\nunfinished line").expect("file");
        fs::metadata(path).expect("file").ino() == inode
    });
    let Some(made) = made.filter(|path| fs::metadata(path).is_ok_and(|file| file.created().is_ok())) else {
        return print_skipped("this file system uses no inode again, or notes no time of birth");
    };
    fs::rename(made, &path).expect("rename");
    write(2);
    let text = fs::read_to_string(&path).expect("file");
    let rest = text.strip_prefix("another program's\nunfinished line\n").expect("what was there");
    assert_eq!(rest.lines().map(collector::seq).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_file_sink_follows_no_link_and_uses_no_directory_of_others() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().expect("directory");
    let foreign = directory.path().join("foreign");
    fs::write(&foreign, "precious").expect("file");
    let link = directory.path().join("link.json");
    symlink(&foreign, &link).expect("symlink");
    let refused = |path: &Path, reason: &str| {
        let started = sockstate::sinks::start(
            &settings(file(path)),
            Vec::new(),
            None,
            sockstate::sinks::Inherited::default(),
        );
        let error = started.err().expect("refused").to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(&link, "symbolic link");
    refused(directory.path(), "");
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).expect("directory");
    for mode in [0o777, 0o1777] {
        fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).expect("mode");
        refused(&shared.join("out.json"), "other users");
    }
    assert_eq!(fs::read_to_string(&foreign).expect("file"), "precious");
    assert_eq!(fs::read_dir(&shared).expect("directory").count(), 0);
}

#[test]
fn a_rotation_counts_and_removes_only_files_of_its_own() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    let foreign = [
        "out.json.1-important-Z.bak",
        "out.json.2020-01-01T00:00:00Z.gz",
        "out.json.2Zoo",
        "out.json.20201Z",
    ];
    for name in foreign {
        fs::write(directory.path().join(name), name).expect("file");
    }
    let target = FileSettings { rotate_bytes: Some(300), keep: Some(2), ..file(&path) };
    let mut feeder = Feeder::start(&settings(target), None);
    for pushed in 1..=40 {
        feeder.push(1);
        feeder.wait_until("it is written", |status| status.delivered() == pushed);
    }
    feeder.end(Duration::from_secs(5));
    for name in foreign {
        assert_eq!(fs::read_to_string(directory.path().join(name)).expect("still there"), name);
    }
    let names =
        fs::read_dir(directory.path()).expect("directory").map(|entry| entry.expect("entry").file_name());
    assert_eq!(names.count(), foreign.len() + 3, "the file and two rotated ones");
}

fn make_pipe(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
}

#[test]
fn a_pipe_is_waited_for_and_never_blocks_the_sink() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("pipe");
    make_pipe(&path);
    let mut feeder = Feeder::start(&settings(file(&path)), None);
    feeder.push(50);
    feeder.wait_until("nobody reads", |status| status.failures() > 0);
    let mut reader = fs::File::open(&path).expect("pipe");
    feeder.wait_until("it is written", |status| status.delivered() == 50);
    let mut text = vec![0; 64 << 10];
    let count = reader.read(&mut text).expect("read");
    assert_eq!(
        String::from_utf8_lossy(&text[..count]).lines().map(collector::seq).collect::<Vec<_>>(),
        all(50)
    );
    // A reader that stands still: the sink still ends in time, and counts.
    for _ in 0..40 {
        feeder.push(100);
        thread::sleep(Duration::from_millis(1));
    }
    let begin = Instant::now();
    feeder.end(Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let status = feeder.queue.status();
    assert_eq!(status.delivered() + status.lost(), feeder.pushed(), "{} lost", status.lost());
    assert!(status.lost() > 0);
}

#[test]
fn the_end_cuts_no_record_in_a_pipe_that_is_not_longer_than_its_writes() {
    let directory = tempfile::tempdir().expect("directory");
    for (name, long) in [("short", 0), ("long", 9000)] {
        let path = directory.path().join(name);
        make_pipe(&path);
        let convert: sockstate::sinks::Convert = Box::new(move |line, out| {
            out.extend_from_slice(line.trim_ascii_end());
            out.extend(std::iter::repeat_n(b' ', long));
            out.push(b'\n');
        });
        let mut feeder = Feeder::start(&settings(file(&path)), Some(convert));
        let mut reader =
            fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("pipe");
        feeder.push(1000);
        collector::wait_until("the pipe is full", || {
            rustix::io::ioctl_fionread(&reader).is_ok_and(|bytes| bytes > 40_000)
        });
        // More than a pipe holds: nobody reads the rest before the end.
        feeder.end(Duration::from_millis(300));
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("text");
        let text = String::from_utf8(text).expect("UTF-8");
        let (whole, cut) = text.rsplit_once('\n').expect("a line");
        let status = feeder.queue.status();
        let seqs: Vec<u64> = whole.lines().map(collector::seq).collect();
        assert_eq!(seqs, all(status.delivered()), "{name}: what is whole is delivered");
        assert_eq!(status.delivered() + status.lost(), 1000, "{name}: the others are counted");
        assert!(status.lost() > 0);
        assert_eq!(cut.is_empty(), long == 0, "{name}: {} bytes of a record", cut.len());
    }
}

/// A full disk, which is unmounted at the end of the test. `None` if this process may not mount.
struct FullDisk(tempfile::TempDir);

impl FullDisk {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=128k,mode=0755", "tmpfs"]).arg(directory.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_file_on_a_full_disk_is_opened_again_at_sighup() {
    let Some(disk) = FullDisk::new() else {
        return print_skipped("this process may not mount a file system");
    };
    let elsewhere = tempfile::tempdir().expect("directory");
    let (path, moved) = (disk.0.path().join("out.json"), elsewhere.path().join("out.json"));
    let mut feeder = Feeder::start(&settings(file(&path)), None);
    feeder.push(1000);
    feeder.wait_until("the disk is full", |status| status.failures() > 1);
    let written = feeder.queue.status().delivered();
    // This is what `mv` to another disk does: the disk space is free only when the sink has closed the file.
    fs::copy(&path, &moved).expect("copy");
    fs::remove_file(&path).expect("remove");
    feeder.queue.reopen();
    feeder.wait_until("it goes on in the new file", |status| status.delivered() > written);
    assert_eq!(lines_of(&path).first(), Some(&(written + 1)));
    assert_eq!(lines_of(&moved), all(written));
    feeder.end(Duration::ZERO);
    let status = feeder.queue.status();
    assert_eq!(status.delivered() + status.lost(), 1000);
}

/// A rotated file with one hundred records, and what another program has left beside it.
fn half_compressed(directory: &Path, beside: &[u8]) -> (std::path::PathBuf, Vec<u8>) {
    let old = directory.join("out.json.20261126T013000.123456Z");
    let bytes = collector::batch(1, 100).bytes;
    fs::write(&old, &bytes).expect("file");
    fs::write(old.with_added_extension("zst"), beside).expect("file");
    (old, bytes)
}

#[test]
fn a_compressed_file_that_is_not_whole_replaces_nothing() {
    let whole = zstd::encode_all(&collector::batch(1, 100).bytes[..], 3).expect("zstd");
    let shorter = zstd::encode_all(&collector::batch(1, 99).bytes[..], 3).expect("zstd");
    let other = zstd::encode_all(&collector::batch(2, 100).bytes[..], 3).expect("zstd");
    let longer = [&whole[..], &shorter].concat();
    let cases = [
        ("cut", &whole[..whole.len() / 2], false),
        ("cut at its end", &whole[..whole.len() - 1], false),
        ("empty", b"", false),
        ("garbage", b"this is no zstd", false),
        ("shorter", &shorter, false),
        ("longer", &longer, false),
        ("of the same length", &other, false),
        ("whole", &whole, true),
    ];
    for (name, beside, is_whole) in cases {
        let directory = tempfile::tempdir().expect("directory");
        let (old, bytes) = half_compressed(directory.path(), beside);
        let target = FileSettings { zstd: true, ..file(&directory.path().join("out.json")) };
        let mut feeder = Feeder::start(&settings(target), None);
        feeder.push(1);
        feeder.end(Duration::from_secs(5));
        let compressed = old.with_added_extension("zst");
        assert!(!old.exists(), "{name}");
        let found = fs::read(&compressed).expect("compressed");
        assert!(zstd::decode_all(&found[..]).expect("zstd") == bytes, "{name}");
        let aside = compressed.with_added_extension("unusable");
        assert_eq!(aside.exists(), !is_whole, "{name}");
        if !is_whole {
            assert!(fs::read(aside).expect("aside") == beside, "{name}");
        }
    }
}
