//! The functions of Python programs, compared with what the programs print themselves.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use serde_json::{Value, json};
use socket2::Socket;

use crate::{
    Test,
    hunt::{can_hunt, command, functions, has, is_stuck, programs},
    lab::{Lines, Tracer, in_lab},
    pythons, schema, skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("python: functions, files and lines as the program says them", truth),
        test("python: a program that begins during the hunt", late),
        test("python: 3.12 does not say where its frames are, and is folded", older),
        test("python: without the section of its runtime it is folded", unsectioned),
        test("python: in a C program", embedded),
    ]
}

/// The versions of CPython that describe the layout of their frames.
const SAYS: &str =
    "(3, 13) <= sys.version_info[:2] <= (3, 14) and not sysconfig.get_config_var('Py_GIL_DISABLED')";

const WAYS: [&str; 13] = [
    "plain",
    "nested",
    "recursive",
    "deep",
    "generator",
    "comprehension",
    "through_c",
    "constructor",
    "threaded",
    "with_asyncio",
    "interpreter",
    "executed",
    "plain",
];

/// A running tests/programs/python_paths.py.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    said: Lines,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program");
        let input = child.stdin.take();
        let mut said = Lines::of(child.stdout.take().expect("stdout"));
        said.wait_for("ready");
        Self { child, input, said }
    }

    fn of(python: &str) -> Self {
        Self::start(Command::new(python).arg(programs().join("python_paths.py")))
    }

    /// Tells the program to connect to the listener in this way, and closes the accepted connection. Returns what the
    /// program prints about its connection.
    fn open(&mut self, way: &str, listener: &Socket, port: u16) -> Value {
        let input = self.input.as_mut().expect("stdin");
        writeln!(input, "{way} {port}").expect("write");
        drop(listener.accept().expect("accept"));
        serde_json::from_str(&self.said.wait_for("port")).expect("JSON")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The records of the hunt about the connections of this program.
fn hunt(netns: u64, program: &Program) -> Tracer {
    Tracer::spawn(&mut command(netns, &["--pid", &program.child.id().to_string()]))
}

/// The record about this connection.
fn of(tracer: &mut Tracer, said: &Value) -> Value {
    let is = |record: &Value| is_stuck(record) && record["local"]["port"] == said["port"];
    let record = match tracer.seen().iter().find(|record| is(record)) {
        Some(record) => record.clone(),
        None => tracer.wait_for(is),
    };
    schema::check(&record);
    record
}

fn frames(record: &Value) -> &Vec<Value> {
    record["opened"]["frames"].as_array().unwrap_or_else(|| panic!("no path: {record}"))
}

/// The functions in this language, in the form in which the program prints them.
pub(crate) fn python_functions(record: &Value) -> Vec<Value> {
    let is_python = |frame: &&Value| frame["language"] == "python";
    let triple = |frame: &Value| json!([frame["function"], frame["file"], frame["line"]]);
    frames(record).iter().filter(is_python).map(triple).collect()
}

/// Runs `work` with each Python that describes the layout of its frames.
fn with_each(work: impl Fn(u64, &str) + Send + Sync) {
    let pythons = pythons::all(SAYS);
    if pythons.is_empty() {
        return skip("needs Python 3.13 or 3.14");
    }
    in_lab(|netns| {
        if can_hunt(netns) {
            pythons.iter().for_each(|python| work(netns, python));
        }
    });
}

fn truth() {
    with_each(|netns, python| {
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut program = Program::of(python);
        let mut tracer = hunt(netns, &program);
        let said = WAYS.map(|way| (way, program.open(way, &listener, port)));
        for (way, said) in said {
            let record = of(&mut tracer, &said);
            let found = python_functions(&record);
            let wanted = said["path"].as_array().expect("path");
            if way == "deep" {
                assert!(found.len() > 50 && wanted.starts_with(&found), "{python}: {way}: {found:#?}");
                assert_eq!(record["opened"]["complete"], false, "{record}");
                continue;
            }
            assert_eq!(&found, wanted, "{python}: {way}: {record:#}");
            // CPython's own frames surround them: connect() is before, and its main() behind.
            let all = frames(&record);
            assert!(all.first().is_some_and(|frame| frame["language"].is_null()), "{record}");
            if way == "plain" {
                assert_eq!(record["opened"]["complete"], true, "{record}");
                assert!(all.last().is_some_and(|frame| frame["language"].is_null()), "{record}");
            }
        }
        tracer.stop();
    });
}

fn late() {
    with_each(|netns, python| {
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut tracer = Tracer::spawn(&mut command(netns, &[]));
        let mut program = Program::of(python);
        // The hunt knows the process from its first opening on, or before. The record of the first opening has correct
        // names, or none.
        let first = program.open("nested", &listener, port);
        let record = of(&mut tracer, &first);
        let found = python_functions(&record);
        assert!(found.is_empty() || Some(&found) == first["path"].as_array(), "{record}");
        let second = program.open("nested", &listener, port);
        let record = of(&mut tracer, &second);
        assert_eq!(Some(&python_functions(&record)), second["path"].as_array(), "{record}");
        tracer.stop();
    });
}

/// Checks that the record of one opening has no Python function, and that the frames of the interpreter are folded.
fn is_folded(netns: u64, python: &mut Command, label: &str) {
    let port = fresh_port();
    let listener = Kind::V4.listen(port);
    let mut program = Program::start(python.arg(programs().join("python_paths.py")));
    let mut tracer = hunt(netns, &program);
    let said = program.open("nested", &listener, port);
    let record = of(&mut tracer, &said);
    assert!(python_functions(&record).is_empty(), "{record}");
    let of_interpreter = |frame: &&Value| frame["interpreter"] == label;
    assert!(frames(&record).iter().filter(of_interpreter).count() > 5, "{record:#}");
    tracer.stop();
}

fn older() {
    let Some(python) = pythons::all("sys.version_info[:2] == (3, 12)").pop() else {
        return skip("needs Python 3.12");
    };
    in_lab(|netns| {
        if can_hunt(netns) {
            is_folded(netns, &mut Command::new(&python), "python 3.12");
        }
    });
}

/// The executable or library that contains the runtime.
fn runtime_file(python: &str) -> PathBuf {
    let code = "import os, sys, sysconfig as config\nlib = os.path.join(config.get_config_var('LIBDIR'), config.get_config_var('INSTSONAME') or '-')\nprint(os.path.realpath(lib if config.get_config_var('Py_ENABLE_SHARED') else sys.executable))";
    let output = Command::new(python).args(["-c", code]).output().expect("python");
    PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim())
}

fn unsectioned() {
    with_each(|netns, python| {
        let file = runtime_file(python);
        let directory = tempfile::tempdir().expect("directory");
        let copy = directory.path().join(file.file_name().expect("name"));
        let mut bytes = fs::read(&file).expect("the runtime");
        let name = b".PyRuntime\0";
        let at = bytes.windows(name.len()).rposition(|window| window == name).expect("the section's name");
        bytes[at + 1] = b'X';
        fs::write(&copy, bytes).expect("a copy");
        fs::set_permissions(&copy, fs::metadata(&file).expect("file").permissions()).expect("permissions");
        let is_library = copy.to_string_lossy().contains(".so");
        let mut command = if is_library { Command::new(python) } else { Command::new(&copy) };
        if is_library {
            command.env("LD_PRELOAD", &copy);
        }
        let version = Command::new(python)
            .args(["-c", "import sys; print('python %d.%d' % sys.version_info[:2])"])
            .output()
            .expect("python");
        let version = String::from_utf8(version.stdout).expect("UTF-8");
        is_folded(netns, &mut command, version.trim());
    });
}

/// Functions in C of the program surround its Python functions.
fn embedded() {
    if !has("gcc") {
        return skip("needs gcc");
    }
    with_each(|netns, python| {
        let said = |code: &str| {
            let output = Command::new(python).args(["-c", code]).output().expect("python");
            String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
        };
        let include = said("import sysconfig as config; print(config.get_path('include'))");
        let library = runtime_file(python);
        let is_library = library.to_string_lossy().contains(".so");
        if !is_library || !Path::new(&include).join("Python.h").exists() {
            return skip("needs Python's headers and its shared library");
        }
        let directory = tempfile::tempdir().expect("directory");
        let binary = directory.path().join("embeds");
        let mut gcc = Command::new("gcc");
        gcc.args(["-g", "-O1", "-o"]).arg(&binary).arg(programs().join("embeds.c"));
        gcc.arg(format!("-I{include}")).arg(&library);
        gcc.arg(format!("-Wl,-rpath,{}", library.parent().expect("directory").display()));
        assert!(gcc.status().expect("gcc").success());
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut command = Command::new(&binary);
        command
            .env("PYTHONHOME", said("import sys; print(sys.prefix)"))
            .arg(programs().join("python_paths.py"));
        let mut program = Program::start(&mut command);
        let mut tracer = hunt(netns, &program);
        let said = program.open("nested", &listener, port);
        let record = of(&mut tracer, &said);
        assert_eq!(Some(&python_functions(&record)), said["path"].as_array(), "{record}");
        let found = functions(&record);
        let at = |wanted: &str| found.iter().position(|name| name == wanted);
        assert!(at("plain") < at("runs_python") && at("runs_python") < at("main"), "{found:#?}");
        tracer.stop();
    });
}
