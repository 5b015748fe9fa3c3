//! One daemon traces at a time, also if it does not run as root. What a user runs traces beside it.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, in_lab, sockstate, wait_until},
    restart::{DaemonFiles, check_numbers, end, reported_pair, state_files_in},
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("second: a trace and a daemon run beside each other, in either order", beside),
        test("second: a trace and a daemon with pins run beside each other", beside_pins),
        test(
            "second: a daemon of a user with capabilities uses the lock, and a trace of that user does not",
            users,
        ),
        test(
            "second: daemons with different locks run beside each other, and with the same lock they do not",
            locks,
        ),
        test("second: two pods of a node hand over by the files that they share", pods),
    ]
}

/// Gives this thread, and the processes that it starts, an own /run: another program may hold the lock of the host.
fn own_run() -> io::Result<()> {
    // SAFETY: takes a number; only this thread moves.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for arguments in
        [&["--make-rprivate", "/"][..], &["-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs", "/run"]]
    {
        if !Command::new("mount").args(arguments).status()?.success() {
            return Err(io::Error::other("mount failed"));
        }
    }
    Ok(())
}

const CONFIG: &str = "/run/config.toml";

/// Writes the configuration of a daemon that traces this namespace.
fn configure(top: &str, netns: &str) {
    let sink = "[sinks.out]\ntype = \"stdout\"\nbatch-time = \"1ms\"\n";
    fs::write(CONFIG, format!("{top}[filter]\nnetns = {netns}\n{sink}")).expect("config");
    fs::set_permissions(CONFIG, PermissionsExt::from_mode(0o644)).expect("mode");
}

fn daemon(mut command: Command) -> Command {
    command.args(["run", "--config", CONFIG]);
    command
}

fn trace(mut command: Command, netns: &str) -> Command {
    command.args(["trace", "--format", "json", "--netns", netns]);
    command
}

/// A command that runs sockstate as another user with only these capabilities.
fn as_user(binary: &Path, capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    for set in ["--inh-caps", "--ambient-caps"] {
        command.arg(set).arg(capabilities);
    }
    command.arg(binary);
    command
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn run(mut command: Command) -> (Option<i32>, String) {
    said(&command.output().expect("sockstate"))
}

/// Waits until each of them has reported a new connection to its end.
fn assert_both_trace(tracers: [&mut Tracer; 2]) {
    let port = fresh_port();
    drop(Kind::V4.pair(port));
    for tracer in tracers {
        tracer.wait_for(|record| {
            record["from"] == "LISTEN" && record["to"] == "CLOSE" && record["local"]["port"] == port
        });
    }
}

/// Root's second daemon does not start, because of this one.
fn assert_second_daemon_is_refused(first: &Tracer) {
    let (code, error) = run(daemon(sockstate()));
    assert_eq!(code, Some(5), "{error}");
    // setpriv executes sockstate in the same process.
    let words = format!("another sockstate daemon (pid {}) is tracing", first.pid());
    assert!(error.contains(&words) && error.contains("alongside"), "{error}");
}

/// The daemon of a configuration of its own, with this lock.
fn daemon_with_lock(name: &str, lock: &str, netns: &str) -> Command {
    let config = format!("/run/{name}.toml");
    let sections = format!("[filter]\nnetns = {netns}\n[kernel]\nlock = \"{lock}\"\n");
    let sink = "[sinks.out]\ntype = \"stdout\"\nbatch-time = \"1ms\"\n";
    fs::write(&config, sections + sink).expect("config");
    let mut command = sockstate();
    command.args(["run", "--config", &config]);
    command
}

fn locks() {
    in_lab(|netns| {
        own_run().expect("a /run of its own");
        let netns = netns.to_string();
        let start = |name, lock| Tracer::spawn(&mut daemon_with_lock(name, lock, &netns));
        let (mut first, mut second) = (start("a", "/run/a.lock"), start("b", "/run/b.lock"));
        assert_both_trace([&mut first, &mut second]);
        for (lock, holder) in [("/run/a.lock", &first), ("/run/b.lock", &second)] {
            let (code, error) = run(daemon_with_lock("c", lock, &netns));
            assert_eq!(code, Some(5), "{error}");
            assert!(error.contains(&format!("another sockstate daemon (pid {})", holder.pid())), "{error}");
            let mut beside = trace(sockstate(), &netns);
            beside.args(["--lock", lock, "--duration", "100ms"]);
            let (code, error) = run(beside);
            assert_eq!(code, Some(0), "{error}");
            assert!(
                error.contains(&format!("a sockstate daemon (pid {}) is tracing", holder.pid())),
                "{error}"
            );
        }
        // Nobody has the lock of the default.
        let mut beside = trace(sockstate(), &netns);
        beside.args(["--duration", "100ms"]);
        let (code, error) = run(beside);
        assert!(code == Some(0) && !error.contains("daemon"), "{error}");
        first.stop();
        start("c", "/run/a.lock").stop();
        // A daemon must not trace without its lock.
        symlink("a.lock", "/run/d.lock").expect("symlink");
        let (code, error) = run(daemon_with_lock("d", "/run/d.lock", &netns));
        assert_eq!(code, Some(4), "{error}");
        assert!(error.contains("cannot lock /run/d.lock: Too many levels"), "{error}");
        second.stop();
    });
}

/// A daemon with a /run of its own, as in a pod: it shares only the files of its configuration with others.
fn pod() -> Command {
    let script = "mount -t tmpfs -o mode=0755 tmpfs /run && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(sockstate().get_program());
    command
}

fn pods() {
    in_lab(|netns| {
        own_run().expect("a /run of its own");
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        let node = files.config().parent().expect("a directory").join("node");
        fs::create_dir(&node).expect("mkdir");
        let (runtime, lock) = (node.join("run"), node.join("lock"));
        files.write(&format!(
            "runtime-dir = \"{}\"\n[filter]\nport = {port}\nnetns = {netns}\n[kernel]\nlock = \"{}\"",
            runtime.display(),
            lock.display()
        ));
        let first = files.spawn(pod());
        wait_until("it traces", || files.starts() == 1);
        let (listener, client, server) = reported_pair(&files, port);
        // The next pod starts too early, as with maxSurge.
        let (code, error) = said(&files.spawn(pod()).wait_with_output().expect("sockstate"));
        assert_eq!(code, Some(5), "{error}");
        assert!(error.contains(&format!("another sockstate daemon (pid {})", first.id())), "{error}");
        end(first);
        // No pod runs now.
        drop(client);
        let second = files.spawn(pod());
        wait_until("it traces", || files.starts() == 2);
        drop((server, listener));
        let is_end = |record: &Value| record["from"] == "LISTEN" && record["to"] == "CLOSE";
        wait_until("the end is recorded", || files.records().iter().any(is_end));
        end(second);
        let records = files.records();
        let starts: Vec<&Value> = records.iter().filter(|record| record["kind"] == "start").collect();
        assert_eq!(starts[1]["adopted"]["instance"], starts[0]["instance"], "{records:#?}");
        check_numbers(&records);
        let close_wait =
            records.iter().find(|record| record["to"] == "CLOSE_WAIT").expect("while no pod ran");
        assert_eq!(close_wait["role"], "server", "{close_wait}");
        assert!(
            close_wait["in_state_ns"].is_u64() && close_wait["in_state_at_least"].is_null(),
            "{close_wait}"
        );
        for kind in ["lost", "resync"] {
            assert!(!records.iter().any(|record| record["kind"] == kind), "{kind}: {records:#?}");
        }
        assert_eq!(state_files_in(&runtime, &files.pin, ".state").len(), 1);
        assert!(runtime.join("files").is_dir(), "the notes of the file sink");
        assert!(!Path::new("/run/sockstate").exists(), "nothing is left in the /run of the node");
        let mut detach = sockstate();
        detach.arg("detach").arg("--pin").arg(&files.pin).arg("--runtime-dir").arg(&runtime);
        let (code, error) = run(detach);
        assert_eq!(code, Some(0), "{error}");
        for extension in [".state", ".ledger"] {
            assert!(state_files_in(&runtime, &files.pin, extension).is_empty(), "{extension}");
        }
    });
}

/// A trace first, then a daemon.
fn trace_then_daemon(netns: &str) {
    let mut tracer = Tracer::spawn(&mut trace(sockstate(), netns));
    let mut first = Tracer::spawn(&mut daemon(sockstate()));
    assert_both_trace([&mut tracer, &mut first]);
    assert_second_daemon_is_refused(&first);
    tracer.stop();
    // The end of the trace has no effect on the lock.
    assert_second_daemon_is_refused(&first);
    first.stop();
}

/// A daemon first, then a trace.
fn daemon_then_trace(netns: &str) {
    let mut first = Tracer::spawn(&mut daemon(sockstate()));
    let mut tracer = Tracer::spawn(&mut trace(sockstate(), netns));
    assert_both_trace([&mut tracer, &mut first]);
    assert_second_daemon_is_refused(&first);
    first.stop();
    tracer.stop();
}

fn beside() {
    in_lab(|netns| {
        own_run().expect("a /run of its own");
        let netns = netns.to_string();
        configure("", &netns);
        trace_then_daemon(&netns);
        daemon_then_trace(&netns);
        // What a user runs attaches its own programs, and says what that costs.
        let first = Tracer::spawn(&mut daemon(sockstate()));
        let words = format!("a sockstate daemon (pid {}) is tracing", first.pid());
        for command in [
            &["trace", "--format", "json"][..],
            &["record", "/run/r.zst"],
            &["hunt", "--format", "json"],
            &["diagram", "--live"],
        ] {
            let mut beside = sockstate();
            beside.args(command).args(["--netns", &netns, "--duration", "100ms"]);
            let (code, error) = run(beside);
            assert_eq!(code, Some(0), "{error}");
            assert_eq!(error.matches(&words).count(), 1, "{error}");
            assert!(error.contains("every transition costs twice while both run"), "{error}");
        }
        first.stop();
        // No daemon, no message.
        let mut alone = trace(sockstate(), &netns);
        alone.args(["--duration", "100ms"]);
        let (code, error) = run(alone);
        assert!(code == Some(0) && !error.contains("daemon"), "{error}");
    });
}

fn beside_pins() {
    in_lab(|netns| {
        own_run().expect("a /run of its own");
        let Some(files) = DaemonFiles::new(fresh_port()) else { return };
        let (netns, pin) = (netns.to_string(), files.pin.display().to_string());
        configure(&format!("pin = \"{pin}\"\n"), &netns);
        for both in [trace_then_daemon, daemon_then_trace] {
            both(&netns);
            let mut detach = sockstate();
            detach.args(["detach", "--pin", &pin]);
            let (code, error) = run(detach);
            assert_eq!(code, Some(0), "{error}");
        }
    });
}

const TRACE: &str = "+bpf,+perfmon,+net_admin,+sys_ptrace";
const TRACE_AND_READ: &str = "+bpf,+perfmon,+net_admin,+sys_ptrace,+dac_read_search";

/// An executable that every user may run, and what the user may do.
struct User<'a> {
    binary: &'a Path,
    capabilities: &'a str,
    netns: &'a str,
}

impl User<'_> {
    fn daemon(&self) -> Command {
        daemon(as_user(self.binary, self.capabilities))
    }

    fn trace(&self) -> Command {
        trace(as_user(self.binary, self.capabilities), self.netns)
    }

    /// A trace of a moment.
    fn moment(&self) -> Command {
        let mut trace = self.trace();
        trace.args(["--duration", "200ms"]);
        trace
    }
}

fn users() {
    if !Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return crate::skip("needs setpriv");
    }
    in_lab(|netns| {
        own_run().expect("a /run of its own");
        let binary = PathBuf::from("/run/sockstate");
        fs::copy(sockstate().get_program(), &binary).expect("a copy");
        let netns = netns.to_string();
        configure("", &netns);
        let user = |capabilities| User { binary: &binary, capabilities, netns: &netns };
        // The user cannot create the lock file, which a trace does not need.
        let (code, error) = run(user(TRACE).moment());
        assert!(code == Some(0) && !error.contains("lock"), "{error}");
        assert_not_locked(&user(TRACE));
        // Without any capability, the message names the missing capabilities.
        let (_, error) = run(user("-all").daemon());
        assert!(!error.contains("cannot lock"), "{error}");
        for capabilities in [TRACE, TRACE_AND_READ] {
            assert_roots_daemon_is_seen(&user(capabilities));
        }
        // No process has the lock now, and this user cannot take it.
        assert_not_locked(&user(TRACE));
        // A user who may read the file locks it, and root notices the lock.
        assert_seen(&user(TRACE_AND_READ));
        // The owner of the file can lock it, too, as the message says.
        let lock = Path::new("/run/sockstate.lock");
        chown(lock, Some(65_534), None).expect("chown");
        assert_seen(&user(TRACE));
        assert_eq!(fs::metadata(lock).expect("lock").permissions().mode() & 0o777, 0o600);
    });
}

/// The daemon of this user ends, because it cannot lock the file.
fn assert_not_locked(user: &User<'_>) {
    let (code, error) = run(user.daemon());
    assert_eq!(code, Some(4), "{error}");
    for words in ["cannot lock /run/sockstate.lock", "run as root", "alongside = true", "chown 65534"] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

/// This user's trace runs beside root's daemon, started before or after it, and this user's daemon does not start.
fn assert_roots_daemon_is_seen(user: &User<'_>) {
    let mut before = Tracer::spawn(&mut user.trace());
    let mut first = Tracer::spawn(&mut daemon(sockstate()));
    assert_both_trace([&mut before, &mut first]);
    before.stop();
    let (code, error) = run(user.moment());
    assert_eq!(code, Some(0), "{error}");
    assert!(error.contains(&format!("a sockstate daemon (pid {}) is tracing", first.pid())), "{error}");
    let (code, error) = run(user.daemon());
    assert_eq!(code, Some(5), "{error}");
    assert!(error.contains(&format!("another sockstate daemon (pid {})", first.pid())), "{error}");
    let mut silent = user.moment();
    silent.arg("--alongside");
    let (code, error) = run(silent);
    assert!(code == Some(0) && !error.contains("daemon"), "{error}");
    first.stop();
}

/// While a daemon of this user runs, root's daemon does not start, and root's trace does.
fn assert_seen(user: &User<'_>) {
    let mut first = Tracer::spawn(&mut user.daemon());
    let mut tracer = Tracer::spawn(&mut trace(sockstate(), user.netns));
    assert_both_trace([&mut tracer, &mut first]);
    assert_second_daemon_is_refused(&first);
    tracer.stop();
    first.stop();
}
