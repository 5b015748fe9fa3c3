//! Tests on the running kernel. Each makes its own network namespace; the truth comes from outside: bpftrace,
//! /proc/net/tcp, and what the test's own processes know of themselves.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ages;
mod already_stuck;
mod bounds;
mod burst;
mod causes;
mod collectors;
mod configured;
mod connections;
mod destroy;
mod duration;
mod ending;
mod exhausted;
mod existing;
mod fake_python;
mod fallback;
mod faults;
mod filters;
mod fleet;
mod frozen;
mod handed_on;
mod harmless;
mod holders;
mod hostile;
mod hunt;
mod hunt_truth;
mod identity;
mod in_doubt;
mod interims;
mod interpreters;
#[cfg(feature = "kafka")]
mod kafka;
mod kernel_closes;
mod kernel_sockets;
mod kinds;
mod kubernetes;
mod left_open;
mod lifecycle;
mod local_drop;
mod lost_period;
mod metrics;
mod mptcp;
mod names;
mod nat;
#[cfg(feature = "nats")]
mod nats;
mod not_entered;
mod otlp;
mod owner_truth;
mod owners;
mod pictures;
mod port_filter;
mod pressure;
mod protocols;
mod python;
mod python_memory;
mod queues;
mod reasons;
mod reliability;
mod resets;
mod resolving;
mod restart;
mod resync;
mod second_tracer;
mod service;
mod sinks_service;
mod split;
mod starting;
mod stuck;
mod time_namespaces;
mod timewait;
mod traffic;
mod transparent;
mod tutorial;
mod unusual_ends;
mod upgrade;
mod user_space_stacks;
mod viewers;
mod visibility;
mod watchdog;
mod windows;
mod workloads;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use libtest_mimic::{Arguments, Completion, Trial};
// The modules of this test program use the modules of the testkit by the path `crate`.
use testkit::{
    blind::{self, Blind},
    daemon, documents, lab, load, netns, observer, pythons,
    roles::{self, Role, number},
    schema,
    skipping::{self, skip, take_reason},
    sockets, tools, tun,
};

/// The roles that only the live tests need.
const ROLES: &[Role] = &[
    ("ring client", |value| kernel_closes::ring_client(number(value))),
    ("namespace leaver", kernel_closes::leave_namespace),
    ("hand on", handed_on::hand_on),
    ("leave open", left_open::leave_open),
    ("listen and exec", left_open::listen_and_exec),
    ("leaker", |value| hunt_truth::leaker(number(value))),
    ("passing thread", |value| hunt_truth::connect_in_a_thread(number(value))),
    ("connect and exec", |value| hunt_truth::connect_and_exec(number(value))),
    ("fake python", fake_python::play),
    ("code generator", |value| time_namespaces::generate(number(value))),
    ("connector", bounds::connector),
    ("namespace mounter", |value| visibility::mount_namespace(number(value))),
    ("confined", visibility::confined),
];

fn main() -> ExitCode {
    lab::use_binary(env!("CARGO_BIN_EXE_sockstate"));
    if roles::play(ROLES) {
        return ExitCode::SUCCESS;
    }
    let reason = why_not();
    // In the virtual machines, BPF programs run in every context.
    let can_hide = reason.is_none() && !observer::is_in_vm();
    let blind = Arc::new(if can_hide { Blind::watch_tcp().ok() } else { None });
    let trials = tests().into_iter().map(|test| trial(test, &blind, reason.as_deref())).collect();
    // The tests run one after another. A process that one test starts would otherwise hold another test's sockets
    // between fork and exec, and would be the process that closes them.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let conclusion = libtest_mimic::run(&arguments, trials);
    observer::stop_watching();
    if let Some(reason) = &reason {
        (0..conclusion.num_ignored).for_each(|_| skipping::count(reason));
    }
    conclusion.exit_code()
}

/// All tests, in the order in which they run.
fn tests() -> Vec<Test> {
    [
        lifecycle::tests(),
        owners::tests(),
        workloads::tests(),
        owner_truth::tests(),
        left_open::tests(),
        handed_on::tests(),
        traffic::tests(),
        transparent::tests(),
        time_namespaces::tests(),
        filters::tests(),
        port_filter::tests(),
        kinds::tests(),
        existing::tests(),
        burst::tests(),
        ending::tests(),
        resync::tests(),
        not_entered::tests(),
        starting::tests(),
        timewait::tests(),
        causes::tests(),
        kernel_closes::tests(),
        unusual_ends::tests(),
        upgrade::tests(),
        pressure::tests(),
        stuck::tests(),
        already_stuck::tests(),
        reasons::tests(),
        queues::tests(),
        local_drop::tests(),
        holders::tests(),
        visibility::tests(),
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
        in_doubt::tests(),
        exhausted::tests(),
        harmless::tests(),
        hostile::tests(),
        configured::tests(),
        connections::tests(),
        second_tracer::tests(),
        service::tests(),
        bounds::tests(),
        resolving::tests(),
        lost_period::tests(),
        duration::tests(),
        otlp::tests(),
        fleet::tests(),
        restart::tests(),
        split::tests(),
        reliability::tests(),
        #[cfg(feature = "nats")]
        nats::tests(),
        #[cfg(feature = "kafka")]
        kafka::tests(),
        pictures::tests(),
        viewers::tests(),
        tutorial::tests(),
        protocols::tests(),
        identity::tests(),
        ages::tests(),
        mptcp::tests(),
        destroy::tests(),
        names::tests(),
        nat::tests(),
        user_space_stacks::tests(),
        kernel_sockets::tests(),
        fallback::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A test as libtest-mimic runs it. If this machine lacks something that all tests need, the test is counted as
/// ignored, with the reason before its name.
fn trial((name, test): Test, blind: &Arc<Option<Blind>>, lacking: Option<&str>) -> Trial {
    let blind = Arc::clone(blind);
    let trial = Trial::ignorable_test(name, move || {
        unless_hidden(test, blind.as_ref().as_ref());
        Ok(take_reason().map_or(Completion::Completed, Completion::ignored_with))
    });
    match lacking {
        Some(reason) => trial.with_kind(format!("SKIPPED: {reason}")).with_ignored_flag(true),
        None => trial,
    }
}

/// Runs a test. If the test fails and this kernel has hidden transitions of the test's ports from all BPF programs, the
/// failure proves nothing, and the test is skipped.
fn unless_hidden(test: Box<dyn FnOnce() + Send>, blind: Option<&Blind>) {
    let first = sockets::next_port();
    let is_hidden = || {
        let own = first..sockets::next_port();
        let hidden = blind.and_then(|blind| blind.ports().ok()).unwrap_or_default();
        hidden.iter().any(|port| own.contains(port))
    };
    skip_if(
        is_hidden,
        test,
        "it failed, and this kernel hid a transition of it from every BPF program, as ftrace shows",
    );
}

/// Names a test that needs the event of a mini-socket's timer. If the test fails and such a timer expired where this kernel
/// hides it from all BPF programs, the failure proves nothing, and the test is skipped.
pub(crate) fn timer_test(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Test {
    test(name, || {
        // In the virtual machines, BPF programs run in every context.
        let blind = if observer::is_in_vm() { None } else { Blind::watch_all().ok() };
        let is_hidden = || blind.is_some_and(|blind| blind.mini_timers().unwrap_or(0) > 0);
        skip_if(
            is_hidden,
            run,
            "it failed, and this kernel hid the timer of a mini-socket from every BPF program, as ftrace shows",
        );
    })
}

/// Runs a test. If the test fails, `is_hidden` decides whether the test is skipped instead, for `reason`.
fn skip_if(is_hidden: impl FnOnce() -> bool, test: impl FnOnce(), reason: &str) {
    let Err(failure) = catch_unwind(AssertUnwindSafe(test)) else { return };
    if is_hidden() { skip(reason) } else { resume_unwind(failure) }
}

/// A test and its name.
pub(crate) type Test = (String, Box<dyn FnOnce() + Send>);

/// Names a test.
pub(crate) fn test(name: impl Into<String>, test: impl FnOnce() + Send + 'static) -> Test {
    (name.into(), Box::new(test))
}

/// Names a test that needs the kernel's list of sockets. Without this list, `sockstate stuck` and `sockets` fail.
pub(crate) fn look_test(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Test {
    test(name, || if sockets::has_tcp_diag() { run() } else { skip("this kernel has no tcp_diag") })
}

/// What all live tests need and this machine lacks.
fn why_not() -> Option<String> {
    // SAFETY: takes nothing, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    if observer::is_in_vm() {
        // In virtual machines, /proc/net/tcp is the only other observer.
        return None;
    }
    if !Command::new("bpftrace")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        return Some("needs bpftrace: cargo xtask setup".into());
    }
    if !std::path::Path::new("/sys/kernel/tracing/events").is_dir() {
        // bpftrace reads the format of the tracepoint in tracefs.
        let mounted =
            Command::new("mount").args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"]).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return Some("needs tracefs, and it cannot be mounted".into());
        }
    }
    None
}
