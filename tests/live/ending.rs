//! How sockstate ends, and how it refuses to start.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Test,
    lab::{Tracer, in_lab, own_netns, signal, sockstate, wait_until},
    netns::in_new_netns,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("ending: a count", count),
        test("ending: a duration", duration),
        test("ending: SIGTERM", terminate),
        test("ending: a closed pipe is success", closed_pipe),
        test("output: another file after SIGHUP, without a gap", rotated),
        test("output: SIGHUP when no new file can be opened", not_rotated),
        test("ending: a reader that reads nothing", stuck_reader),
        test("ending: a full disk", full_disk),
        test("beginning: an output that cannot be written", unwritable),
        test("beginning: no such BTF", no_btf),
        test("beginning: without privileges", without_privileges),
        test("beginning: a ring that is too small", tiny_ring),
        test("doctor: with privileges", doctor),
        test("doctor: without privileges", doctor_without_privileges),
        test("doctor: with some capabilities", doctor_with_some_capabilities),
        test("doctor: in a container", doctor_in_a_container),
        test("capabilities: only those that are still needed are kept", capabilities),
    ]
}

/// Makes some transitions in this namespace.
fn some() {
    drop(Kind::V4.pair(fresh_port()));
}

fn traced(args: &[&str]) -> Command {
    traced_as("json", args)
}

fn traced_as(format: &str, args: &[&str]) -> Command {
    let mut command = sockstate();
    command.args(["--alongside", "--format", format, "--netns", &own_netns().to_string()]).args(args);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn count() {
    in_lab(|_| {
        let mut child = traced(&["--count", "3"]).stdout(Stdio::piped()).spawn().expect("tracer");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        lines.next().expect("start").expect("line");
        some();
        assert!(child.wait().expect("wait").success());
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        assert_eq!(rest.iter().filter(|line| line.contains("\"kind\":\"transition\"")).count(), 3);
        assert!(rest.last().is_some_and(|line| line.contains("\"reason\":\"count\"")), "{rest:?}");
    });
}

fn duration() {
    in_lab(|_| {
        let start = Instant::now();
        let output = traced(&["--duration", "300ms"]).output().expect("tracer");
        assert!(output.status.success());
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert!(text(&output.stdout).contains("\"reason\":\"duration\""));
    });
}

fn terminate() {
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        some();
        signal(tracer.pid(), libc::SIGTERM);
        // The second signal, from stop(), must not lose records, because the reader still reads.
        let story = tracer.stop();
        assert!(story.transitions().count() >= 8);
        assert_eq!(story.records.last().map(|record| &record["reason"]), Some(&"signal".into()));
    });
}

fn closed_pipe() {
    in_lab(|_| {
        let mut child = traced(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tracer");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        lines.next().expect("start").expect("line");
        // The tracer notices that its reader has gone, although it has nothing to write.
        drop(lines);
        let status = child.wait().expect("wait");
        let mut error = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut error).expect("read");
        assert!(status.success(), "{error}");
        // The messages at the start name what this kernel lacks.
        let complaints: Vec<&str> =
            error.lines().filter(|line| !line.ends_with("see `sockstate doctor`")).collect();
        assert!(complaints.is_empty(), "{error}");
    });
}

/// Starts a tracer that writes into this file, and waits until it traces.
fn into_file(path: &std::path::Path, format: &str) -> std::process::Child {
    let mut command = traced_as(format, &[]);
    let child = command.arg("--output").arg(path).stderr(Stdio::piped()).spawn().expect("tracer");
    wait_until("the first record", || !fs::read_to_string(path).unwrap_or_default().is_empty());
    child
}

/// Does what logrotate does: renames the file, sends the signal, and reads the old file when it no longer grows.
fn rotated() {
    in_lab(|_| {
        let directory = tempfile::tempdir().expect("directory");
        let name = |number: usize| directory.path().join(format!("log.{number}"));
        let path = name(0);
        let mut child = into_file(&path, "json");
        let sequence = |path: &std::path::Path| -> Vec<u64> {
            let text = fs::read_to_string(path).expect("file");
            assert!(text.ends_with('\n'), "a record is cut");
            let records = text.lines().map(serde_json::from_str::<serde_json::Value>);
            records.map(|record| record.expect("JSON")["seq"].as_u64().expect("seq")).collect()
        };
        for number in 1..4 {
            some();
            let is_there = || fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
            wait_until("a record in it", is_there);
            fs::rename(&path, name(number)).expect("rename");
            some();
            signal(child.id(), libc::SIGHUP);
            wait_until("a new file", || path.exists());
        }
        some();
        signal(child.id(), libc::SIGTERM);
        assert!(child.wait().expect("wait").success());
        let all: Vec<u64> = [1, 2, 3, 0].into_iter().flat_map(|number| sequence(&name(number))).collect();
        assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
        assert!(all.len() > 7 * 8, "{}", all.len());
    });
}

fn not_rotated() {
    in_lab(|_| {
        let directory = tempfile::tempdir().expect("directory");
        let (path, moved) = (directory.path().join("log"), directory.path().join("old"));
        let mut child = into_file(&path, "csv");
        fs::rename(&path, &moved).expect("rename");
        // No process can open this path for writing.
        fs::create_dir(&path).expect("directory");
        signal(child.id(), libc::SIGHUP);
        let mut errors = BufReader::new(child.stderr.take().expect("stderr")).lines().map_while(Result::ok);
        let error = errors.find(|line| line.contains("going on")).expect("it says so");
        assert!(error.contains("cannot open"), "{error}");
        some();
        // Each new file begins with a header.
        fs::remove_dir(&path).expect("remove");
        signal(child.id(), libc::SIGHUP);
        wait_until("a header", || fs::read_to_string(&path).is_ok_and(|text| text.starts_with("SKADDR,")));
        signal(child.id(), libc::SIGTERM);
        assert!(child.wait().expect("wait").success());
        let header = |text: String| text.lines().filter(|line| line.starts_with("SKADDR,")).count();
        assert_eq!(header(fs::read_to_string(&moved).expect("file")), 1);
        // A pipe cannot be opened again, so SIGHUP ends the tracer.
        let mut piped = traced(&[]).stdout(Stdio::piped()).spawn().expect("tracer");
        let mut lines = BufReader::new(piped.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        lines.next().expect("start");
        signal(piped.id(), libc::SIGHUP);
        assert!(lines.any(|line| line.contains("\"reason\":\"signal\"")));
        assert!(piped.wait().expect("wait").success());
    });
}

fn stuck_reader() {
    in_lab(|_| {
        let mut child = traced(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tracer");
        let mut first = [0; 1];
        let mut stdout = child.stdout.take().expect("stdout");
        stdout.read_exact(&mut first).expect("start");
        // The load makes more records than a pipe can hold, and no process reads the pipe.
        for _ in 0..40 {
            some();
        }
        signal(child.id(), libc::SIGINT);
        // The second signal ends the wait.
        std::thread::sleep(Duration::from_millis(300));
        signal(child.id(), libc::SIGINT);
        let start = Instant::now();
        assert!(child.wait().expect("wait").success());
        assert!(start.elapsed() < Duration::from_secs(4));
        let mut error = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut error).expect("read");
        assert!(error.contains("(output)"), "the message counts what was not delivered: {error}");
    });
}

fn full_disk() {
    in_lab(|_| {
        let output = traced(&["--output", "/dev/full"]).output().expect("tracer");
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.contains("cannot write to /dev/full: No space left on device"), "{error}");
        assert!(error.contains("bytes of records were not written"), "{error}");
    });
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.starts_with("sockstate: "), "{error}");
    for word in words {
        assert!(error.contains(word), "{word} in {error}");
    }
    assert_eq!(text(&output.stdout), "");
}

fn unwritable() {
    let output = sockstate().args(["--alongside", "--output", "/nonexistent/file"]).output().expect("tracer");
    refused(&output, 1, &["cannot open /nonexistent/file for writing", "No such file"]);
}

fn no_btf() {
    let output = sockstate().args(["--alongside", "--btf", "/nonexistent"]).output().expect("tracer");
    refused(&output, 3, &["cannot use the BTF given with --btf", "/nonexistent"]);
    let output = sockstate().args(["--alongside", "--btf", "/proc/self/exe"]).output().expect("tracer");
    refused(&output, 3, &["is not valid BTF"]);
}

/// Runs the command as the user nobody.
fn unprivileged(args: &[&str]) -> Output {
    // The user nobody may not be able to read the directories of the test.
    let directory = tempfile::tempdir().expect("directory");
    let binary = directory.path().join("sockstate");
    fs::copy(env!("CARGO_BIN_EXE_sockstate"), &binary).expect("copy");
    use std::os::unix::process::CommandExt;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    Command::new(&binary).args(args).current_dir("/").uid(65534).gid(65534).output().expect("sockstate")
}

fn without_privileges() {
    refused(&unprivileged(&["trace"]), 4, &["CAP_BPF", "CAP_PERFMON", "run as root", "sockstate doctor"]);
}

fn tiny_ring() {
    let output = sockstate().args(["--ring-size", "5000"]).output().expect("tracer");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the next is 8192"));
}

fn doctor() {
    let output = sockstate().args(["doctor", "--format", "json"]).output().expect("doctor");
    assert!(output.status.success());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["works"], true);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
    assert_eq!(found["kernel"]["release"], release.trim());
    let hooks = found["hooks"].as_array().expect("hooks");
    assert!(!hooks.is_empty(), "{found}");
    for hook in hooks {
        assert_eq!(hook["works"], hook["error"].is_null());
    }
    assert_limits_have_remedies(&found);
    let output = sockstate().arg("doctor").output().expect("doctor");
    assert!(text(&output.stdout).contains("verdict        tracing works (hook "));
}

/// A tier that is not the best one, and what `hunt` does not see, are findings with their cost and a remedy.
fn assert_limits_have_remedies(found: &serde_json::Value) {
    let findings = found["findings"].as_array().expect("findings");
    let about = |words: &str| {
        let is_it =
            |finding: &&serde_json::Value| finding["what"].as_str().is_some_and(|what| what.contains(words));
        findings.iter().filter(is_it).collect::<Vec<_>>()
    };
    let tier = about("the tier `");
    let words = match found["tier"].as_str() {
        Some("timers") => "a program runs at every timer of the kernel",
        Some("estimate") => "half-open connections are not seen",
        _ => "",
    };
    assert_eq!(tier.len(), usize::from(!words.is_empty()), "{found}");
    for finding in tier.into_iter().chain(about("hunt: ")) {
        let has = |key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(has("cost") && has("todo"), "{finding}");
    }
    let has_cost =
        |finding: &serde_json::Value| finding["cost"].as_str().is_some_and(|cost| cost.contains(words));
    assert!(about("the tier `").into_iter().all(has_cost), "{found}");
    let works = |prefix: &str| {
        let hooks = found["hooks"].as_array().expect("hooks");
        hooks.iter().any(|hook| {
            hook["works"] == true && hook["hook"].as_str().is_some_and(|hook| hook.starts_with(prefix))
        })
    };
    assert_eq!(about("hunt: ").is_empty(), works("kprobe/inet_csk_accept"), "{found}");
}

fn doctor_without_privileges() {
    // The namespace of the other processes is one that this doctor cannot enter.
    let output = in_new_netns(|| unprivileged(&["doctor"])).expect("namespace");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    for words in [
        "NO   CAP_BPF",
        "finding        CAP_BPF and CAP_PERFMON are missing: no trace, ",
        "; run as root, or grant what is missing with setcap",
        "verdict        tracing does not work here",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    // Which map is created first, and what the kernel answers, is no reason that helps.
    for words in ["map `", "os error", "see `sockstate doctor`"] {
        assert!(!said.contains(words), "{words} in {said}");
    }
    // The root of these tests may read tracefs, or it is not there.
    let is_mounted = std::path::Path::new("/sys/kernel/tracing/events").exists();
    assert_eq!(said.contains("tracefs is not mounted"), !is_mounted, "{said}");
    let is_open = fs::metadata("/sys/kernel/tracing").is_ok_and(|dir| dir.permissions().mode() & 0o005 != 0);
    if is_mounted && !is_open {
        assert!(said.contains("tracefs        tracefs is mounted at /sys/kernel/tracing, but"), "{said}");
    }
    let output = unprivileged(&["doctor", "--format", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = found["findings"].as_array().expect("findings");
    assert_eq!(findings[0]["what"], "CAP_BPF and CAP_PERFMON are missing", "{found}");
    for finding in findings {
        assert!(finding["what"].as_str().is_some_and(|what| !what.contains('\n')), "{finding}");
    }
}

/// What `script` leaves of a container's surroundings: `doctor` names each by a finding with a remedy.
fn doctor_in_a_container() {
    let found = |namespaces: &[&str], script: &str| -> serde_json::Value {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", &format!("{script}; exec \"$0\" doctor --format json")]);
        let output = command.arg(env!("CARGO_BIN_EXE_sockstate")).output().expect("unshare");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    let about = |found: &serde_json::Value, words: &str| -> Vec<serde_json::Value> {
        let findings = found["findings"].as_array().expect("findings");
        let is_it =
            |finding: &&serde_json::Value| finding["what"].as_str().is_some_and(|what| what.contains(words));
        findings.iter().filter(is_it).cloned().collect()
    };
    let (processes, sys) = ("a pid namespace of its own", "/sys is read-only");
    let host = found(&["--mount"], "true");
    assert!(about(&host, processes).is_empty(), "{host}");
    let inside = found(&["--mount", "--pid", "--fork", "--mount-proc"], "true");
    let finding = &about(&inside, processes)[0];
    assert!(finding["todo"].as_str().is_some_and(|todo| todo.contains("hostPID")), "{finding}");
    assert!(finding["cost"].as_str().is_some_and(|cost| cost.contains("who holds")), "{finding}");
    // As container runtimes mount it.
    let read_only = "umount --lazy /sys/fs/bpf 2>/dev/null; mount -o remount,bind,ro /sys";
    let inside = found(&["--mount"], read_only);
    let finding = &about(&inside, sys)[0];
    assert!(finding["todo"].as_str().is_some_and(|todo| todo.contains("/sys/fs/bpf")), "{finding}");
    assert_eq!(inside["surroundings"]["can_pin"], false);
    let inside = found(&["--mount"], &format!("{read_only}; mount -t bpf bpf /sys/fs/bpf"));
    assert!(about(&inside, sys).is_empty(), "{inside}");
}

/// A refusal is a missing capability only if the capability is missing.
fn doctor_with_some_capabilities() {
    if !Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return crate::skip("needs setpriv");
    }
    let directory = tempfile::tempdir().expect("directory");
    let binary = directory.path().join("sockstate");
    fs::copy(env!("CARGO_BIN_EXE_sockstate"), &binary).expect("copy");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    for (capabilities, missing) in [
        ("+bpf", Some("CAP_PERFMON is missing")),
        ("+perfmon", Some("CAP_BPF is missing")),
        ("+bpf,+perfmon", None),
        ("+sys_admin", None),
    ] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        let output = command.arg(&binary).args(["doctor", "--format", "json"]).current_dir("/").output();
        let found: serde_json::Value = serde_json::from_slice(&output.expect("doctor").stdout).expect("JSON");
        assert_eq!(found["works"], missing.is_none(), "{capabilities}: {found}");
        if missing.is_none() {
            assert_limits_have_remedies(&found);
        }
        let findings = found["findings"].as_array().expect("findings");
        let says = |what: &str| findings.iter().any(|finding| finding["what"] == what);
        for what in ["CAP_PERFMON is missing", "CAP_BPF is missing"] {
            assert_eq!(says(what), missing == Some(what), "{capabilities}: {found}");
        }
    }
}

fn capabilities() {
    // The numbers of linux/capability.h.
    const DAC_READ_SEARCH: u64 = 1 << 2;
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_PTRACE: u64 = 1 << 19;
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    const KEPT: u64 = DAC_READ_SEARCH | SYS_PTRACE | BPF;
    const LOOK: u64 = KEPT | NET_ADMIN | SYS_ADMIN | PERFMON;
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &["--metrics", "127.0.0.1:0", "--nat"]);
        let pid = tracer.pid();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
        let mut held = BTreeMap::new();
        for thread in threads {
            let thread = thread.expect("thread");
            let status = fs::read_to_string(thread.path().join("status")).expect("status");
            let field =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
            let set = |name: &str| u64::from_str_radix(field(name), 16).expect("hex");
            let name = field("Name:");
            let allowed = match name {
                "sockstate" | "names" => KEPT,
                "namespaces" | "visit" | "examiner" | "holders" | "nat" => LOOK,
                "messages" | "metrics" => 0,
                other => panic!("a thread that the documents do not name: {other}"),
            };
            assert_eq!(set("CapPrm:") & !allowed, 0, "{name}");
            assert_eq!(set("CapEff:"), set("CapPrm:"), "{name}");
            assert_eq!(set("CapInh:"), 0, "{name}");
            assert_eq!(field("NoNewPrivs:"), "1", "{name}");
            held.insert(field("Pid:").parse::<u64>().expect("a number"), (name.to_owned(), set("CapPrm:")));
        }
        for name in ["sockstate", "names", "namespaces", "examiner", "holders", "nat", "messages", "metrics"]
        {
            assert!(held.values().any(|(held_by, _)| held_by == name), "{name}: {held:?}");
        }

        let doctor = |format| {
            let mut doctor = sockstate();
            doctor.args(["doctor", "--privileges", &pid.to_string(), "--format", format]);
            let output = doctor.output().expect("doctor");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).expect("text")
        };
        let report: serde_json::Value = serde_json::from_str(&doctor("json")).expect("JSON");
        let threads = report["threads"].as_array().expect("threads");
        let mut same = 0;
        for thread in threads {
            let purpose = thread["purpose"].as_str().expect("a purpose");
            assert!(!purpose.contains("not a thread"), "{thread}");
            let count = thread["capabilities"].as_array().expect("capabilities").len();
            // A short-lived thread may have begun meanwhile.
            if let Some((name, set)) = held.get(&thread["tid"].as_u64().expect("a number")) {
                assert_eq!(thread["name"], name.as_str());
                assert_eq!(count, set.count_ones() as usize, "{thread}");
                same += 1;
            }
        }
        assert!(same >= 7, "{report}");
        let text = doctor("text");
        assert!(text.contains("messages        no capability: writes standard error\n"), "{text}");
        assert!(text.ends_with("\nuser           0\nno_new_privs   yes\nseccomp        NO\n"), "{text}");
        tracer.stop();
    });
}
