//! Interpreters whose frames are folded, and one that compiles at run time. The tests use those that this machine has.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    Test,
    hunt::{Program, can_hunt, command, has, is_stuck, programs},
    lab::{Lines, Tracer, in_lab, signal, sockstate},
    schema, skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("interpreters: Perl is one line", || is_folded("perl", "leak.pl")),
        test("interpreters: Ruby is one line", || is_folded("ruby", "leak.rb")),
        test("interpreters: Node without a perf map has no JavaScript names", node),
    ]
}

/// A program in this language leaks a connection. The text has one line for the interpreter, and none of the
/// interpreter's functions.
fn is_folded(interpreter: &str, source: &str) {
    if !has(interpreter) {
        return skip(&format!("needs {interpreter}"));
    }
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let mut program = Command::new(interpreter);
        let program = Program::start(program.arg(programs().join(source)).arg(port.to_string()));
        let mut hunt = sockstate();
        hunt.args(["hunt", "--alongside", "--format", "text", "--threshold", "CLOSE_WAIT=1s", "--netns"]);
        hunt.arg(netns.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut hunt = hunt.spawn().expect("sockstate");
        Lines::of(hunt.stderr.take().expect("stderr")).wait_for("the hunt has begun");
        drop(Kind::V4.connect(port).expect("connect"));
        let mut text = Lines::of(hunt.stdout.take().expect("stdout"));
        let stuck = text.wait_for("CLOSE_WAIT");
        let opened = format!("opened by {interpreter} at [{interpreter}");
        assert!(stuck.contains(&opened) && stuck.contains(" interpreter, "), "{stuck}");
        signal(hunt.id(), libc::SIGINT);
        assert!(hunt.wait().expect("end").success());
        let rest = text.rest();
        let folded = rest.lines().filter(|line| line.contains(&format!("[{interpreter}"))).count();
        assert_eq!(folded, 1, "{rest}");
        for function in ["runops", "pp_", "rb_", "vm_exec"] {
            assert!(!rest.contains(function), "{rest}");
        }
        drop(program);
    });
}

/// The call path of a connect has functions of Node itself. Functions in JavaScript belong to the interpreter, or are
/// compiled and have no name.
fn node() {
    if !has("node") {
        return skip("needs node");
    }
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut node = Command::new("node");
        let mut program = Program::start(node.arg(programs().join("leak.js")).arg(port.to_string()));
        let mut tracer = Tracer::spawn(&mut command(netns, &["--pid", &program.0.id().to_string()]));
        program.0.stdin.as_mut().expect("stdin").write_all(b"\n").expect("write");
        drop(listener.accept().expect("accept"));
        let record = tracer.wait_for(|record| is_stuck(record) && record["opening"] == "seen");
        schema::check(&record);
        tracer.stop();
        let frames = record["opened"]["frames"].as_array().expect("frames");
        let is_nodes = |frame: &&Value| {
            frame["module"].as_str().is_some_and(|module| module.ends_with("/node"))
                && frame["function"].is_string()
        };
        assert!(frames.iter().filter(is_nodes).count() > 1, "{record:#}");
        let is_interpreter = |frame: &&Value| frame["function"] == "Builtins_InterpreterEntryTrampoline";
        let is_compiled = |frame: &&Value| frame["module"].is_null();
        assert!(frames.iter().any(|frame| is_interpreter(&frame) || is_compiled(&frame)), "{record:#}");
        for frame in frames.iter().filter(is_compiled) {
            assert!(frame["function"].is_null() && frame["unnamed"] == "generated", "{frame}");
        }
        assert!(!record.to_string().contains("connectOne"), "{record:#}");
        drop(program);
    });
}
