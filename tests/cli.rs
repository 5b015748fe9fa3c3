//! The command line, without privileges: help, bad arguments, exit codes.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn sockstate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sockstate")).args(args).output().expect("sockstate")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bad_arguments_are_named_and_refused() {
    for (args, words) in [
        (&["--port", "0"][..], "'0' is not a port (1 to 65535)"),
        (&["--port", "65536"], "'65536' is not a port"),
        (&["--local-port", "http"], "'http' is not a port"),
        (&["--remote-port", "90-80"], "ends before it begins"),
        (&["--remote", "10.0.0.0/33"], "no address or prefix"),
        (&["--local", "10.1.2.3/8"], "did you mean 10.0.0.0/8"),
        (&["--from", "ESTABLISHD"], "unknown state 'ESTABLISHD'; known are ESTABLISHED"),
        (&["--to", "close-wiat"], "CLOSE_WAIT"),
        (&["--count", "0"], "0"),
        (&["--duration", "soon"], "no length of time"),
        (&["--ring-size", "3M"], "not a power of two; the next is 4194304"),
        (&["--ring-size", "1"], "between 4K and 1G"),
        (&["-4", "-6"], "cannot be used with"),
        (&["--pid", "self"], "invalid"),
        (&["--netns", "no-such-namespace"], "no network namespace 'no-such-namespace'"),
        (&["--cgroup", "/no/such/cgroup"], "cgroup"),
        (&["--format", "xml"], "[possible values: table, json, csv]"),
        (&["trace", "--colour"], "--color"),
        (&["dcotor"], "doctor"),
        (&["stuck", "--threshold", "60"], "is no threshold"),
        (&["stuck", "--threshold", "=60"], "use --older-than"),
        (&["stuck", "--threshold", "connected=60"], "more than one state"),
        (&["stuck", "--threshold", "CLOSE_WAIT:0=60"], "'0' is not a port"),
        (&["stuck", "--threshold", "CLOSE_WAIT=soon"], "no length of time"),
        (&["stuck", "--warn", "3"], "--check"),
        (&["stuck", "--watch", "--check"], "cannot be used with"),
        (&["sockets", "--sort", "size"], "[possible values: age, state, local, remote, process, unread]"),
    ] {
        let output = sockstate(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {words} in {error}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
}

#[test]
fn help_and_version() {
    for args in [&["--help"][..], &["trace", "--help"]] {
        let help = text(&sockstate(args).stdout);
        for word in ["--format", "--local-port", "--cmdline", "--snapshot", "Examples:", "Exit status:"] {
            assert!(help.contains(word), "{word} in {help}");
        }
    }
    assert_eq!(
        text(&sockstate(&["--version"]).stdout).trim(),
        concat!("sockstate ", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(sockstate(&["doctor", "--help"]).status.code(), Some(0));
}

#[test]
fn a_look_at_nothing_is_no_good_news() {
    let output = sockstate(&["sockets", "--netns", "7"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("no such network namespace"), "{output:?}");
    let output = sockstate(&["stuck", "--check", "--netns", "7"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).starts_with("SOCKSTATE UNKNOWN - "), "{output:?}");
}
