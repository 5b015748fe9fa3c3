//! Recordings of unknown origin: a small file may expand to any size, and contain anything. The kernel reports the
//! memory that a command took when its process has ended.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::skipping::print_skipped;

/// The memory limit of a process that reads a recording, in KiB. The program itself takes 20 to 30 MiB, and the window
/// of zstd 2 MiB.
const MOST_KIB: i64 = 96 << 10;

/// A recording of these bytes, compressed.
fn compressed(directory: &TempDir, write: impl FnOnce(&mut dyn Write)) -> PathBuf {
    let path = directory.path().join("recording.zst");
    let mut file = zstd::Encoder::new(File::create(&path).expect("a file"), 3).expect("zstd");
    write(&mut file);
    file.finish().expect("zstd");
    path
}

/// Runs a command. Returns its exit status, its output, and its peak memory in KiB.
fn run(arguments: &[&str]) -> (ExitStatus, String, i64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    measure(command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))
}

#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it took")]
fn measure(command: &mut Command) -> (ExitStatus, String, i64) {
    let mut child = command.spawn().expect("sockstate");
    let mut said = String::new();
    let stderr = child.stderr.take();
    let mut stdin = child.stdin.take();
    let ended = Arc::new(AtomicBool::new(false));
    let keys = Arc::clone(&ended);
    let typist = thread::spawn(move || {
        // A screen ends with the key `q`, as soon as it is drawn.
        while !keys.load(Ordering::Relaxed)
            && stdin.as_mut().is_some_and(|stdin| stdin.write_all(b"q").is_ok())
        {
            thread::sleep(Duration::from_millis(100));
        }
    });
    stderr.map(|mut stderr| stderr.read_to_string(&mut said).expect("standard error"));
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both are there to be written to, and nobody else waits for the child.
    let pid = unsafe { libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, usage.as_mut_ptr()) };
    ended.store(true, Ordering::Relaxed);
    typist.join().expect("typist");
    assert_eq!(pid, child.id() as libc::pid_t);
    // SAFETY: the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    (ExitStatus::from_raw(status), said, usage.ru_maxrss)
}

/// Every command that reads a recording, each with its memory measured. The commands run at the same time: without
/// optimisation, each takes seconds.
fn each_command(recording: &Path, check: impl Fn(&str, ExitStatus, &str) + Sync) {
    let path = recording.to_str().expect("a path");
    let commands = [
        &["replay", path, "--format", "json"][..],
        &["replay", path, "--format", "table"],
        &["report", path],
        &["timeline", path],
        &["diagram", "--from", path],
        &["stuck", "--from", path, "--format", "json"],
    ];
    thread::scope(|scope| {
        for arguments in commands {
            let check = &check;
            scope.spawn(move || {
                let (status, said, kib) = run(arguments);
                assert!(kib < MOST_KIB, "{}: {kib} KiB", arguments[0]);
                println!("{}: {kib} KiB", arguments[0]);
                check(arguments[0], status, &said);
            });
        }
    });
    // `top` wants a terminal.
    let mut script = Command::new("script");
    let line = format!("{} top --from {path}", env!("CARGO_BIN_EXE_sockstate"));
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::null());
    if Command::new("script")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        let (_, _, kib) = measure(&mut script);
        assert!(kib < MOST_KIB, "top: {kib} KiB");
        println!("top: {kib} KiB");
    } else {
        print_skipped("top's memory: there is no `script`");
    }
}

fn transition(conn: u64, from: &str, to: &str) -> Value {
    json!({
        "schema": "sockstate/1", "kind": "transition", "seq": 1, "time": "2026-11-26T00:00:00.000000001Z",
        "conn": format!("{conn:016x}"), "from": from, "to": to, "in_state_ns": null, "role": "client",
        "network": {"transport": "tcp", "type": "ipv4", "community_id": null},
        "local": {"address": "127.0.0.1", "port": 1}, "remote": {"address": "127.0.0.1", "port": 2},
        "owner": null, "netns": 1, "cgroup": null, "exact": true,
    })
}

#[test]
fn one_line_without_an_end_takes_no_memory() {
    let directory = tempfile::tempdir().expect("directory");
    let recording = compressed(&directory, |file| {
        writeln!(file, "{}", transition(1, "CLOSE", "SYN_SENT")).expect("write");
        let zeros = vec![0; 1 << 20];
        (0..1024).for_each(|_| file.write_all(&zeros).expect("write"));
        writeln!(file, "\n{}", transition(1, "SYN_SENT", "ESTABLISHED")).expect("write");
    });
    assert!(recording.metadata().expect("file").len() < 200_000, "a gigabyte in little room");
    each_command(&recording, |name, status, said| {
        assert!(status.success(), "{name}: {said}");
        assert!(said.contains("skipped 1 lines"), "{name}: {said}");
    });
}

#[test]
fn lines_of_garbage_are_refused_or_cost_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let garbage = compressed(&directory, |file| {
        let lines = b"x\n".repeat(1 << 19);
        (0..256).for_each(|_| file.write_all(&lines).expect("write"));
    });
    each_command(&garbage, |name, status, said| {
        assert_eq!(status.code(), Some(2), "{name}: {said}");
        assert!(said.contains("line 1: not a record of sockstate"), "{name}: {said}");
    });
    // A kind that a later version may have.
    let unknown = compressed(&directory, |file| {
        for at in 0..50_000 {
            let time = "2026-11-26T00:00:00.000000001Z";
            writeln!(
                file,
                "{{\"schema\":\"sockstate/1\",\"kind\":\"later\",\"time\":\"{time}\",\"x\":{at}}}"
            )
            .expect("write");
        }
    });
    each_command(&unknown, |name, status, said| assert!(status.success(), "{name}: {said}"));
}

#[test]
fn records_with_fields_without_end_are_kept_in_part() {
    let directory = tempfile::tempdir().expect("directory");
    let recording = compressed(&directory, |file| {
        let huge = "y".repeat(100_000);
        let exe = |at: u64| format!("/{at}/{huge}");
        let place = json!({"id": "7", "path": huge});
        for at in 1..=100 {
            let owner = json!({
                "pid": at, "comm": exe(at), "exe": exe(at), "uid": 0, "source": "connect", "cmdline": exe(at),
            });
            let mut record = transition(at, "ESTABLISHED", "CLOSE_WAIT");
            (record["owner"], record["cgroup"], record["unit"]) = (owner, place.clone(), exe(at).into());
            record["reset_why"] = exe(at).into();
            writeln!(file, "{record}").expect("write");
            record["kind"] = "stuck".into();
            record["state"] = "CLOSE_WAIT".into();
            for (key, value) in [("age_ns", json!(1)), ("age_at_least", json!(false)), ("times", json!(1))] {
                record[key] = value;
            }
            let holder = |fd| json!({"pid": at, "fd": fd, "comm": "y", "exe": null, "epoll": null});
            record["holders"] = (0..2000).map(holder).collect();
            (record["reason"], record["why"], record["advice"]) =
                ("not_closed".into(), exe(at).into(), exe(at).into());
            record["commands"] = json!([exe(at), "ss -K"]);
            writeln!(file, "{record}").expect("write");
        }
    });
    each_command(&recording, |name, status, said| {
        assert!(status.success(), "{name}: {said}");
    });
    let mut stuck = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    let output = stuck.args(["stuck", "--format", "json", "--from"]).arg(&recording).output().expect("stuck");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 100);
    let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    let cuts = first["truncated"].as_array().expect("truncated");
    assert!(cuts.contains(&json!({"field": "holders", "total": 2000})), "{cuts:?}");
    assert!(cuts.contains(&json!({"field": "why"})), "{cuts:?}");
    assert_eq!(first["commands"], json!(["ss -K"]), "a part of a command is another command");
}

#[test]
fn a_hunt_of_others_is_bounded() {
    let directory = tempfile::tempdir().expect("directory");
    let recording = compressed(&directory, |file| {
        let zeros = vec![0; 1 << 20];
        (0..512).for_each(|_| file.write_all(&zeros).expect("write"));
    });
    let arguments = ["stuck", "--netns", "1", "--group-by", "stack", "--hunt"];
    let mut look = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    let own = std::fs::metadata("/proc/self/ns/net").expect("namespace");
    let own = std::os::unix::fs::MetadataExt::ino(&own).to_string();
    let arguments = arguments.map(|word| if word == "1" { own.as_str() } else { word });
    let look = look
        .args(arguments)
        .arg(&recording)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let (status, said, kib) = measure(look);
    assert!(status.code().is_some_and(|code| code < 4), "{status}: {said}");
    assert!(kib < MOST_KIB, "{kib} KiB");
    let file = directory.path().join("garbage");
    std::fs::write(&file, "x\n".repeat(100_000)).expect("write");
    let mut look = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    let look =
        look.args(arguments).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (status, said, _) = measure(look);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("line 1: not a record of `sockstate hunt"), "{said}");
}

#[test]
fn a_configuration_without_an_end_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let hole = directory.path().join("hole.toml");
    File::create(&hole).and_then(|file| file.set_len(3 << 30)).expect("a hole");
    for (path, why) in
        [(hole.as_path(), "it has more than 4 MiB"), (Path::new("/dev/zero"), "it is not a regular file")]
    {
        let (status, said, kib) = run(&["run", "--check", "--config", path.to_str().expect("a path")]);
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(kib < MOST_KIB, "{kib} KiB");
    }
    // The same for certificates and secrets.
    let error = sockstate::files::read_text(&hole, sockstate::files::MOST_SETTINGS).expect_err("too long");
    assert!(error.to_string().contains("it has more than 4 MiB"), "{error}");
}
