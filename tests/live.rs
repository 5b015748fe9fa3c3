//! Tests on the running kernel. Each makes its own network namespace; the truth comes from outside: bpftrace,
//! /proc/net/tcp, and what the test's own processes know of themselves.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/blind.rs"]
mod blind;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/documents.rs"]
mod documents;
#[path = "support/fake_python.rs"]
mod fake_python;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/load.rs"]
mod load;
#[path = "support/netns.rs"]
mod netns;
#[path = "support/observer.rs"]
mod observer;
#[path = "support/pythons.rs"]
mod pythons;
#[path = "support/roles.rs"]
mod roles;
#[path = "support/schema.rs"]
mod schema;
#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/tools.rs"]
mod tools;
#[path = "support/tun.rs"]
mod tun;

#[path = "live/ages.rs"]
mod ages;
#[path = "live/bounds.rs"]
mod bounds;
#[path = "live/burst.rs"]
mod burst;
#[path = "live/causes.rs"]
mod causes;
#[path = "live/collectors.rs"]
mod collectors;
#[path = "live/configured.rs"]
mod configured;
#[path = "live/destroy.rs"]
mod destroy;
#[path = "live/doubt.rs"]
mod doubt;
#[path = "live/duration.rs"]
mod duration;
#[path = "live/ending.rs"]
mod ending;
#[path = "live/exhausted.rs"]
mod exhausted;
#[path = "live/existing.rs"]
mod existing;
#[path = "live/fallback.rs"]
mod fallback;
#[path = "live/faults.rs"]
mod faults;
#[path = "live/filters.rs"]
mod filters;
#[path = "live/fleet.rs"]
mod fleet;
#[path = "live/frozen.rs"]
mod frozen;
#[path = "live/handed_on.rs"]
mod handed_on;
#[path = "live/harmless.rs"]
mod harmless;
#[path = "live/hidden.rs"]
mod hidden;
#[path = "live/holders.rs"]
mod holders;
#[path = "live/hostile.rs"]
mod hostile;
#[path = "live/hunt.rs"]
mod hunt;
#[path = "live/hunt_truth.rs"]
mod hunt_truth;
#[path = "live/identity.rs"]
mod identity;
#[path = "live/interpreters.rs"]
mod interpreters;
#[cfg(feature = "kafka")]
#[path = "live/kafka.rs"]
mod kafka;
#[path = "live/kernel_closes.rs"]
mod kernel_closes;
#[path = "live/kernel_sockets.rs"]
mod kernel_sockets;
#[path = "live/left_open.rs"]
mod left_open;
#[path = "live/lifecycle/mod.rs"]
mod lifecycle;
#[path = "live/local_drop.rs"]
mod local_drop;
#[path = "live/metrics.rs"]
mod metrics;
#[path = "live/missing.rs"]
mod missing;
#[path = "live/mptcp.rs"]
mod mptcp;
#[path = "live/names.rs"]
mod names;
#[cfg(feature = "nats")]
#[path = "live/nats.rs"]
mod nats;
#[path = "live/otlp.rs"]
mod otlp;
#[path = "live/owner_truth.rs"]
mod owner_truth;
#[path = "live/owners.rs"]
mod owners;
#[path = "live/people.rs"]
mod people;
#[path = "live/pressure.rs"]
mod pressure;
#[path = "live/protocols.rs"]
mod protocols;
#[path = "live/python.rs"]
mod python;
#[path = "live/python_memory.rs"]
mod python_memory;
#[path = "live/queues.rs"]
mod queues;
#[path = "live/reasons.rs"]
mod reasons;
#[path = "live/reliability.rs"]
mod reliability;
#[path = "live/resolving.rs"]
mod resolving;
#[path = "live/restart.rs"]
mod restart;
#[path = "live/resync.rs"]
mod resync;
#[path = "live/second.rs"]
mod second;
#[path = "live/sight.rs"]
mod sight;
#[path = "live/stacks.rs"]
mod stacks;
#[path = "live/starting.rs"]
mod starting;
#[path = "live/stuck.rs"]
mod stuck;
#[path = "live/time_namespaces.rs"]
mod time_namespaces;
#[path = "live/timewait.rs"]
mod timewait;
#[path = "live/transparent.rs"]
mod transparent;
#[path = "live/tutorial.rs"]
mod tutorial;
#[path = "live/unusual_ends.rs"]
mod unusual_ends;
#[path = "live/watchdog.rs"]
mod watchdog;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
};

use blind::Blind;
use libtest_mimic::{Arguments, Completion, Trial};

fn main() -> ExitCode {
    if let Some(code) = roles::play() {
        return code;
    }
    let arguments = Arguments::from_args();
    let reason = why_not();
    // In the virtual machines every context runs BPF programs.
    let can_hide = reason.is_none() && !observer::is_in_vm();
    let blind = Arc::new(if can_hide { Blind::watch_tcp().ok() } else { None });
    let mut trials = Vec::new();
    for (name, test) in [
        lifecycle::tests(),
        owners::tests(),
        owner_truth::tests(),
        left_open::tests(),
        handed_on::tests(),
        transparent::tests(),
        time_namespaces::tests(),
        filters::tests(),
        hidden::tests(),
        existing::tests(),
        burst::tests(),
        ending::tests(),
        resync::tests(),
        starting::tests(),
        timewait::tests(),
        causes::tests(),
        kernel_closes::tests(),
        unusual_ends::tests(),
        pressure::tests(),
        stuck::tests(),
        reasons::tests(),
        queues::tests(),
        local_drop::tests(),
        holders::tests(),
        sight::tests(),
        watchdog::tests(),
        hunt::tests(),
        hunt_truth::tests(),
        python::tests(),
        interpreters::tests(),
        python_memory::tests(),
        metrics::tests(),
        collectors::tests(),
        faults::tests(),
        frozen::tests(),
        doubt::tests(),
        exhausted::tests(),
        harmless::tests(),
        hostile::tests(),
        configured::tests(),
        second::tests(),
        bounds::tests(),
        resolving::tests(),
        missing::tests(),
        duration::tests(),
        otlp::tests(),
        fleet::tests(),
        restart::tests(),
        reliability::tests(),
        #[cfg(feature = "nats")]
        nats::tests(),
        #[cfg(feature = "kafka")]
        kafka::tests(),
        people::tests(),
        tutorial::tests(),
        protocols::tests(),
        identity::tests(),
        ages::tests(),
        mptcp::tests(),
        destroy::tests(),
        names::tests(),
        stacks::tests(),
        kernel_sockets::tests(),
        fallback::tests(),
    ]
    .into_iter()
    .flatten()
    {
        let blind = Arc::clone(&blind);
        let trial = Trial::ignorable_test(name, move || {
            unless_hidden(test, blind.as_ref().as_ref());
            let skipped = SKIPPED.lock().expect("lock").take();
            Ok(skipped.map_or(Completion::Completed, Completion::ignored_with))
        });
        trials.push(match &reason {
            // Ignored, and so in the count, with the reason in front.
            Some(reason) => trial.with_kind(format!("SKIPPED: {reason}")).with_ignored_flag(true),
            None => trial,
        });
    }
    // One after another: a process that one test starts would hold another's sockets between fork and exec, and so
    // truly be who closes them.
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    let conclusion = libtest_mimic::run(&arguments, trials);
    observer::stop_watching();
    conclusion.exit_code()
}

/// Runs a test. One that fails while this kernel hides a transition of its own ports from every BPF program shows nothing, and says so.
fn unless_hidden(test: Box<dyn FnOnce() + Send>, blind: Option<&Blind>) {
    let first = sockets::next_port();
    let Err(failure) = catch_unwind(AssertUnwindSafe(test)) else { return };
    let own = first..sockets::next_port();
    let hidden = blind.and_then(|blind| blind.ports().ok()).unwrap_or_default();
    if hidden.iter().any(|port| own.contains(port)) {
        skip("it failed, and this kernel hid a transition of it from every BPF program, as ftrace shows");
    } else {
        resume_unwind(failure);
    }
}

/// A test and its name.
pub(crate) type Test = (String, Box<dyn FnOnce() + Send>);

/// Names a test.
pub(crate) fn test(name: impl Into<String>, test: impl FnOnce() + Send + 'static) -> Test {
    (name.into(), Box::new(test))
}

/// Names a test that needs the kernel's list of sockets, without which `sockstate stuck` and `sockets` say that they cannot look.
pub(crate) fn look_test(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Test {
    test(name, || if sockets::has_tcp_diag() { run() } else { skip("this kernel has no tcp_diag") })
}

/// Why the test that runs cannot run here.
static SKIPPED: Mutex<Option<String>> = Mutex::new(None);

/// The running test counts as ignored, unless it fails.
pub(crate) fn skip(reason: &str) {
    *SKIPPED.lock().expect("lock") = Some(format!("SKIPPED: {reason}"));
}

/// What this machine lacks for all of these tests.
fn why_not() -> Option<String> {
    // SAFETY: takes nothing, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    if observer::is_in_vm() {
        // There /proc/net/tcp is the only other witness.
        return None;
    }
    if !Command::new("bpftrace").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success())
    {
        return Some("needs bpftrace: cargo xtask setup".into());
    }
    if !std::path::Path::new("/sys/kernel/tracing/events").is_dir() {
        // bpftrace reads the tracepoint's format there.
        let mounted =
            Command::new("mount").args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"]).status();
        if !mounted.is_ok_and(|it| it.success()) {
            return Some("needs tracefs, and it cannot be mounted".into());
        }
    }
    None
}
