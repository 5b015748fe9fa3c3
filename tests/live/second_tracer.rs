//! One daemon traces at a time, also if it does not run as root. What a user runs traces beside it.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    Test,
    lab::{Tracer, in_lab, sockstate},
    restart::DaemonFiles,
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
