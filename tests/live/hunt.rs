//! The places in the code where programs open stuck connections, compared with the source of these programs.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{Tracer, in_lab, signal, sockstate, wait_until},
    look_test,
    observer::wait_for_states,
    schema, skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("hunt: the paths of connect and of accept", paths),
        look_test("hunt: stuck sockets are counted by path", grouped),
        test("hunt: only connections that the named process opens", whose),
        test("hunt: stacks above the rate are lost, and reported as lost", rate),
        test("hunt: C without frame pointers, to the line", || c(&["-fomit-frame-pointer"])),
        test("hunt: C with frame pointers and no tables", || {
            c(&["-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]);
        }),
        test("hunt: Rust, optimised, with what was inlined", rust),
        test("hunt: Go", go),
        test("hunt: Python, down to the interpreter", python),
        test("hunt: Java, by a perf map", java),
    ]
}

/// Whether the kernel can show stacks. If not, the test is skipped.
pub(crate) fn can_hunt(netns: u64) -> bool {
    let netns = netns.to_string();
    let args = ["hunt", "--alongside", "--netns", &netns, "--duration", "0.1", "--output", "/dev/null"];
    let output = sockstate().args(args).output().expect("sockstate");
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(3) && errors.contains("bpf_task_pt_regs") {
        skip("this kernel has no bpf_task_pt_regs (5.15)");
        return false;
    }
    assert!(output.status.success(), "{errors}");
    true
}

/// Runs `work` in a network namespace, if a hunt is possible: with the inode of the namespace, a port, and a listener
/// on the port.
fn with_listener(work: impl FnOnce(u64, u16, Socket) + Send) {
    in_lab(|netns| {
        if can_hunt(netns) {
            let port = fresh_port();
            work(netns, port, Kind::V4.listen(port));
        }
    });
}

pub(crate) fn command(netns: u64, args: &[&str]) -> Command {
    let mut command = sockstate();
    command.args(["hunt", "--alongside", "--format", "json", "--threshold", "CLOSE_WAIT=1s", "--netns"]);
    command.arg(netns.to_string()).args(args);
    command
}

fn hunt(netns: u64, args: &[&str]) -> Tracer {
    Tracer::spawn(&mut command(netns, args))
}

#[inline(never)]
fn leaks_by_accept(listener: &Socket) -> Socket {
    std::hint::black_box(listener).accept().expect("accept").0
}

#[inline(never)]
fn leaks_by_connect(port: u16) -> Socket {
    std::hint::black_box(Kind::V4).connect(port).expect("connect")
}

/// The names of the functions of the call path, the innermost first.
pub(crate) fn functions(record: &Value) -> Vec<String> {
    let frames = record["opened"]["frames"].as_array().unwrap_or_else(|| panic!("no path: {record}"));
    let name = |frame: &Value| frame["function"].as_str().unwrap_or("?").to_owned();
    frames.iter().map(name).collect()
}

/// Whether this is the first record about a stuck connection. On a slow machine there are reminders, too.
/// Whether this is a record of a stuck connection whose stack is unwound, or never will be. On a busy machine, the first
/// record of a connection may come before that.
pub(crate) fn is_stuck(record: &Value) -> bool {
    record["kind"] == "stuck" && record["opening"] != "not_unwound"
}

/// The first of these records of each connection.
pub(crate) fn stuck(records: &[Value]) -> Vec<&Value> {
    let mut known = HashSet::new();
    records.iter().filter(|record| is_stuck(record) && known.insert(record["conn"].as_str())).collect()
}

/// Waits until `count` connections have such a record.
pub(crate) fn wait_for_stuck(tracer: &mut Tracer, count: usize) {
    while stuck(tracer.seen()).len() < count {
        tracer.wait_for(is_stuck);
    }
}

fn paths() {
    with_listener(|netns, port, listener| {
        let mut tracer = hunt(netns, &[]);
        let mut kept = Vec::new();
        // The compiler must not unroll this loop, because each copy of the call would be another place.
        for _ in 0..std::hint::black_box(3) {
            let client = Kind::V4.connect(port).expect("connect");
            kept.push(leaks_by_accept(&listener));
            drop(client);
        }
        let client = leaks_by_connect(port);
        drop(listener.accept().expect("accept").0);
        wait_for_states(&[&["LISTEN"][..], &["CLOSE_WAIT"; 4], &["FIN_WAIT2"; 4]].concat());
        wait_for_stuck(&mut tracer, 4);
        drop((client, kept));
        let story = tracer.stop();
        assert_eq!(story.of("transition").count(), 0, "a hunt tells what is stuck only");
        let lost: Vec<&Value> = story.of("lost").collect();
        assert!(lost.is_empty(), "{lost:?}");
        let mut paths = Vec::new();
        for record in stuck(&story.records) {
            schema::check(record);
            let (by, wanted) = if record["remote"]["port"] == port {
                ("connect", "leaks_by_connect")
            } else {
                ("accept", "leaks_by_accept")
            };
            assert_eq!(record["opened"]["by"], by);
            let found = functions(record);
            assert!(found.iter().any(|name| name.contains(wanted)), "{wanted} is not in {found:#?}");
            paths.push((by, record["opened"]["path"].clone()));
        }
        paths.sort_by_key(|(by, path)| (*by, path.to_string()));
        assert_eq!(paths.len(), 4);
        paths.dedup();
        assert_eq!(paths.len(), 2, "one path for each of the two places: {paths:?}");
    });
}

fn whose() {
    with_listener(|netns, port, listener| {
        let own = std::process::id().to_string();
        let mut ours = hunt(netns, &["--pid", &own]);
        let others = hunt(netns, &["--pid", "1"]);
        let mut both = hunt(netns, &["--pid", "1", "--pid", &own]);
        let nobody = hunt(netns, &["--comm", "no such name"]);
        let client = Kind::V4.connect(port).expect("connect");
        let kept = leaks_by_accept(&listener);
        drop(client);
        // One connection in each second.
        ours.wait_for(is_stuck);
        both.wait_for(is_stuck);
        drop(kept);
        ours.wait_for(|record| record["kind"] == "resolved");
        for (story, wanted) in [(ours.stop(), 1), (both.stop(), 1), (others.stop(), 0), (nobody.stop(), 0)] {
            let stuck = stuck(&story.records);
            assert!(stuck.iter().all(|record| !record["opened"].is_null()), "{stuck:?}");
            assert_eq!((stuck.len(), story.of("resolved").count()), (wanted, wanted));
        }
    });
}

fn rate() {
    with_listener(|netns, port, listener| {
        let mut tracer = hunt(netns, &["--rate", "1"]);
        // This process opens both ends: ten openings in much less than ten seconds.
        let kept: Vec<Socket> = (0..5)
            .map(|_| {
                drop(Kind::V4.connect(port).expect("connect"));
                listener.accept().expect("accept").0
            })
            .collect();
        wait_for_stuck(&mut tracer, 5);
        drop(kept);
        let story = tracer.stop();
        let lost: u64 = story
            .of("lost")
            .filter(|record| record["place"] == "stack")
            .filter_map(|record| record["count"].as_u64())
            .sum();
        let stuck = stuck(&story.records);
        let seen = stuck.iter().filter(|record| record["opening"] == "seen").count();
        assert!(
            stuck.iter().all(|record| {
                ["seen", "not_seen"].contains(&record["opening"].as_str().unwrap_or("none"))
            })
        );
        assert!((1..=9).contains(&lost), "{lost}");
        assert!(seen as u64 <= 10 - lost, "{seen} with a path, {lost} lost, of 10");
    });
}

/// Starts a program of tests/programs, and waits until it prints that it is ready.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

pub(crate) fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

pub(crate) fn programs() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs"))
}

/// `stuck` names the same place, from the output of a hunt that still runs.
fn grouped() {
    with_listener(|netns, port, listener| {
        let file = tempfile::NamedTempFile::new().expect("file");
        let name = file.path().to_str().expect("UTF-8");
        let number = netns.to_string();
        let mut writer =
            command(netns, &["--output", name]).stderr(Stdio::null()).spawn().expect("sockstate");
        let written = |kind: &str| {
            let text = std::fs::read_to_string(name).expect("file");
            text.contains(&format!("\"kind\":\"{kind}\""))
        };
        wait_until("the hunt begins", || written("start"));
        drop(Kind::V4.connect(port).expect("connect"));
        let kept = leaks_by_accept(&listener);
        wait_until("the hunt says what is stuck", || written("stuck"));
        let args = ["close-wait", "--older-than", "0", "--format", "json", "--netns", &number];
        let output =
            sockstate().args(args).args(["--group-by", "stack", "--hunt", name]).output().expect("sockstate");
        let record: Value = serde_json::from_slice(&output.stdout).expect("one record");
        schema::check(&record);
        assert_eq!(record["count"], 1);
        assert!(record["key"].as_str().is_some_and(|key| key.starts_with("accept at ")), "{record}");
        drop(kept);
        signal(writer.id(), libc::SIGINT);
        assert!(writer.wait().expect("end").success());
        let alone = sockstate().args(["stuck", "--group-by", "stack"]).output().expect("sockstate");
        assert_eq!(alone.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&alone.stderr).contains("--hunt FILE"));
    });
}

/// The record of a hunt about the only connection that the program leaks. The program gets the connection after
/// `prepare`.
fn leaked_by(netns: u64, port: u16, command: &mut Command, prepare: impl FnOnce(&Program)) -> Option<Value> {
    if !can_hunt(netns) {
        return None;
    }
    let mut tracer = hunt(netns, &[]);
    let program = Program::start(command.arg(port.to_string()));
    prepare(&program);
    drop(Kind::V4.connect(port).expect("connect"));
    let record = tracer.wait_for(is_stuck);
    assert_eq!(record["owner"]["pid"], program.0.id());
    drop(program);
    let story = tracer.stop();
    assert_eq!(story.of("resolved").count(), 1, "the end of the program is the end of it");
    Some(record)
}

fn c(flags: &[&str]) {
    if !has("gcc") {
        return skip("needs gcc");
    }
    let source = programs().join("leak.c");
    let directory = tempfile::tempdir().expect("directory");
    let binary = directory.path().join("leak");
    let mut gcc = Command::new("gcc");
    gcc.args(["-g", "-O1", "-o"]).arg(&binary).args(flags).arg(&source);
    assert!(gcc.status().expect("gcc").success());
    compiled(&binary, "leak.c", "take_one", "main");
}

/// The call path names the function and the line that open the leaked connection, and the caller of this function.
fn compiled(binary: &Path, source: &str, function: &str, caller: &str) {
    in_lab(|netns| {
        let mut command = Command::new(binary);
        let Some(record) = leaked_by(netns, fresh_port(), &mut command, |_| {}) else { return };
        let frames = record["opened"]["frames"].as_array().expect("frames");
        let is = |frame: &Value, wanted: &str| {
            frame["function"].as_str().is_some_and(|name| name.contains(wanted))
        };
        let at = frames.iter().position(|frame| is(frame, function)).unwrap_or_else(|| panic!("{record}"));
        let text = std::fs::read_to_string(programs().join(source)).expect("source");
        let here = |line: &str| line.contains("/* here */") || line.contains("// here");
        let line = 1 + text.lines().position(here).expect("the line");
        assert_eq!(frames[at]["line"], line, "{record}");
        let file = frames[at]["file"].as_str().expect("file");
        assert!(file.ends_with(&format!("tests/programs/{source}")), "{file}");
        assert!(is(&frames[at + 1], caller), "{record}");
    });
}

fn rust() {
    if !has("rustc") {
        return skip("needs rustc");
    }
    let directory = tempfile::tempdir().expect("directory");
    let binary = directory.path().join("leak");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-g", "-O", "-o"]).arg(&binary).arg(programs().join("leak.rs"));
    assert!(rustc.status().expect("rustc").success());
    compiled(&binary, "leak.rs", "take_one", "serve");
}

fn go() {
    if !Command::new("go").arg("version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    {
        return skip("needs go");
    }
    let directory = tempfile::tempdir().expect("directory");
    let binary = directory.path().join("leak");
    let mut go = Command::new("go");
    go.env("HOME", directory.path()).env("GOFLAGS", "-modcacherw");
    go.args(["build", "-o"]).arg(&binary).arg(programs().join("leak.go"));
    assert!(go.status().expect("go").success());
    compiled(&binary, "leak.go", "main.takeOne", "main.main.func1");
}

/// All interpreted code has one name. The native functions that it calls, and those that call it, have their own names.
fn java() {
    if !["java", "javac", "jcmd"].iter().all(|program| has(program)) {
        return skip("needs java, javac and jcmd");
    }
    let directory = tempfile::tempdir().expect("directory");
    let classes = directory.path().to_str().expect("UTF-8");
    let javac = Command::new("javac").args(["-d", classes]).arg(programs().join("Leak.java")).status();
    assert!(javac.expect("javac").success());
    in_lab(|netns| {
        let mut command = Command::new("java");
        command.args(["-XX:+PreserveFramePointer", "-cp", classes, "Leak"]);
        let map = |program: &Program| {
            let pid = program.0.id().to_string();
            let jcmd = Command::new("jcmd").args([&pid, "Compiler.perfmap"]).stdout(Stdio::null()).status();
            assert!(jcmd.expect("jcmd").success());
        };
        let Some(record) = leaked_by(netns, fresh_port(), &mut command, map) else { return };
        let found = functions(&record);
        let native = found.iter().position(|name| name.starts_with("Java_sun_nio_ch_Net_accept"));
        let java = found.iter().position(|name| name == "Interpreter");
        assert!(native.is_some() && native < java, "{found:#?}");
        assert!(found.iter().any(|name| name.contains("JavaThread")), "{found:#?}");
    });
}

fn python() {
    if !has("python3") {
        return skip("needs python3");
    }
    in_lab(|netns| {
        let mut command = Command::new("python3");
        command.arg(programs().join("leak.py"));
        let Some(record) = leaked_by(netns, fresh_port(), &mut command, |_| {}) else { return };
        let found = functions(&record);
        assert!(found.iter().any(|name| name == "_PyEval_EvalFrameDefault"), "{found:#?}");
        let frames = record["opened"]["frames"].as_array().expect("frames");
        let of_interpreter =
            |frame: &&Value| frame["interpreter"].as_str().is_some_and(|name| name.starts_with("python"));
        let count = frames.iter().filter(of_interpreter).count();
        assert!(count > 5 && count < frames.len(), "{count} of {record}");
    });
}
