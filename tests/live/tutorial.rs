//! Runs what the documents tell their readers to run: docs/first-look.md word for word, and every other command of the
//! documents.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    Test, documents,
    lab::{in_lab, signal, sockstate, wait_until},
    observer, skip, test,
    tools::{self, Running},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("tutorial: every command of the first look", first_look),
        test("tutorial: every command that a document or --help names", everything),
    ]
}

/// The blocks of shell commands in a document.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    for part in text.split("```sh\n").skip(1) {
        blocks.push(part.split("```").next().unwrap_or_default().to_owned());
    }
    blocks
}

fn first_look() {
    if tools::find("bash", "bash").is_none() || tools::find("python3", "python3").is_none() {
        return;
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = fs::read_to_string(format!("{root}/docs/first-look.md")).expect("docs");
    let binary = Path::new(env!("CARGO_BIN_EXE_sockstate"));
    let path =
        format!("{}:{}", binary.parent().expect("directory").display(), std::env::var("PATH").expect("PATH"));
    let blocks = blocks(&text);
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    // Each block prints a mark at its beginning, which separates its output from that of other blocks.
    let mut script = String::from("set -e\ntrap 'kill $server $visitors 2> /dev/null || true' EXIT\n");
    for (at, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo \"== {at}\"\n{block}"));
    }
    let directory = tempfile::tempdir().expect("directory");
    std::os::unix::fs::symlink(format!("{root}/docs"), directory.path().join("docs")).expect("link");
    let output = in_lab(|netns| {
        // Another tracer and other leaking programs on this machine must not affect the test.
        let trace = format!("--alongside --netns {netns}");
        let script = script
            .replace("sockstate --", &format!("sockstate {trace} --"))
            .replace("sockstate record", &format!("sockstate record {trace}"))
            .replace("sockstate hunt", &format!("sockstate hunt {trace}"))
            .replace("sockstate close-wait", &format!("sockstate close-wait --netns {netns}"));
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(directory.path()).env("PATH", path).stdin(Stdio::null());
        bash.output().expect("bash")
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{errors}");
    let parts: Vec<&str> = said.split("== ").skip(1).collect();
    let part = |word: &str| {
        let at = blocks.iter().position(|block| block.contains(word)).expect(word);
        parts[at]
    };
    // Three of nine connections are left, and the output names the server.
    let found = part("close-wait --older-than 1ms\n");
    assert_eq!(
        found.matches("\"state\":\"CLOSE_WAIT\"").count() + found.matches("CLOSE_WAIT  ").count(),
        3,
        "{found}"
    );
    assert!(found.contains("python3"), "{found}");
    let explained = part("explain CLOSE_WAIT").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(explained.contains("The kernel has no timer for CLOSE_WAIT"), "{explained}");
    // The number of connections in this time depends on the load of the machine, but there is at least one.
    assert!(part("--duration 2s").contains("ESTABLISHED -> CLOSE_WAIT"), "{said}");
    assert!(part("grep").matches("\"kind\":\"stuck\"").count() >= 2, "{said}");
    let hunted = part("sockstate hunt");
    assert!(hunted.contains("opened by python3") && hunted.contains("by accept in python3"), "{hunted}");
    assert!(hunted.contains("opened before the hunt") && !hunted.contains("was not seen"), "{hunted}");
    assert!(errors.contains("the hunt has begun"), "{errors}");
    assert!(part("replay").contains("python3"), "{said}");
}

/// The subject of the examples: a server that leaks, and a recording of it.
struct ExampleHost {
    directory: tempfile::TempDir,
    server: Running,
    /// A connection of the recording.
    conn: String,
}

impl ExampleHost {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let example = || {
            let mut python = Command::new("python3");
            python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/leaky_server.py"));
            python.stdout(Stdio::null()).stderr(Stdio::null());
            python
        };
        let server = Running::start(example().arg("serve"));
        wait_until("it listens", || std::net::TcpStream::connect("127.0.0.1:8080").is_ok());
        let mut host = Self { directory, server, conn: String::new() };
        let visitors = Running::start(example().args(["visit", "100000"]));
        let record = ["record", "--alongside", "--duration", "2s", "night.zst"];
        assert!(host.run(&record).status.success());
        let hunt = ["hunt", "--alongside", "--duration", "1s", "--format", "json", "--output", "hunt.json"];
        assert!(host.run(&hunt).status.success());
        drop(visitors);
        let records = host.run(&["replay", "--format", "json", "night.zst"]).stdout;
        let records = String::from_utf8(records).expect("UTF-8");
        let mut records = records.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let opened = records.find(|record| record["kind"] == "transition").expect("a transition");
        host.conn = opened["conn"].as_str().expect("conn").to_owned();
        host.configure();
        host
    }

    fn configure(&self) {
        let (here, port) = (self.directory.path(), "[filter]\nport = 8080\n[kernel]\nalongside = true\n");
        let sink = format!("[sinks.all]\ntype = \"file\"\npath = \"{}\"\n", here.join("all").display());
        fs::write(here.join("config.toml"), format!("{port}{sink}")).expect("config");
    }

    /// Replaces placeholders. Limits commands that would run for ever or leave something behind.
    fn words(&self, command: &str) -> Vec<String> {
        let (pid, here) = (self.server.0.id().to_string(), self.directory.path().display().to_string());
        let mut words: Vec<String> = command
            .split_whitespace()
            .skip(1)
            .map(|word| match word.trim_end_matches(',') {
                "FILE" => "hunt.json".into(),
                "1234" => pid.clone(),
                "004f020000000025" => self.conn.clone(),
                "leak.zst" => "night.zst".into(),
                word if word.starts_with("/sys/fs/bpf") => format!("{word}-{}", std::process::id()),
                word => word.replace("/var/log", &here),
            })
            .collect();
        let kind = words.first().filter(|word| !word.starts_with('-')).cloned().unwrap_or_default();
        let has = |word: &str| words.iter().any(|given| given == word);
        let more: &[&str] = match kind.as_str() {
            "" | "trace" | "hunt" | "record" if !has("--help") => &["--alongside", "--duration", "1s"],
            "diagram" if has("--live") => &["--alongside", "--duration", "1s"],
            "top" if !has("--from") => &["--alongside"],
            "run" if !has("--config") && !has("--example") => &["--config", "config.toml"],
            "detach" if !has("--pin") => &["--pin", "/sys/fs/bpf/sockstate-of-no-one"],
            // No daemon has the lock; every process has threads.
            "doctor" if has("--privileges") => &["1"],
            _ => &[],
        };
        if let Some(at) = words.iter().position(|word| word == "--duration") {
            words.drain(at..at + 2);
        }
        if kind == "record" {
            // The other commands read the output of the first one.
            words.iter_mut().filter(|word| *word == "night.zst").for_each(|word| *word = "next.zst".into());
        }
        words.extend(more.iter().map(|&word| word.to_owned()));
        words
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = sockstate();
        command.args(words).current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("sockstate")
    }

    /// Starts a daemon, and ends it with a signal.
    fn serve(&self, words: &[&str]) -> Output {
        let daemon = self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let daemon = daemon.expect("sockstate");
        let all = self.directory.path().join("all");
        wait_until("it traces", || fs::metadata(&all).is_ok_and(|metadata| metadata.len() > 0));
        signal(daemon.id(), libc::SIGTERM);
        let output = daemon.wait_with_output().expect("wait");
        fs::remove_file(all).expect("what it has written");
        output
    }

    /// Runs a command in a terminal, and presses `q` as soon as the command shows something.
    fn show(&self, words: &[&str]) -> Output {
        let mut script = Command::new("script");
        let line = format!("{} {}", env!("CARGO_BIN_EXE_sockstate"), words.join(" "));
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.current_dir(self.directory.path()).env("TERM", "xterm").stdin(Stdio::piped());
        let mut script = script.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("script");
        let mut shown = [0; 64];
        script.stdout.as_mut().expect("stdout").read_exact(&mut shown).expect("a screen");
        script.stdin.as_mut().expect("stdin").write_all(b"q").expect("a key");
        script.wait_with_output().expect("wait")
    }

    /// Runs the command and checks its output. Returns what is wrong.
    fn try_out(&self, command: &str) -> Option<String> {
        let words = self.words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let is = |word: &str| words.contains(&word);
        let output = match words[0] {
            "top" => self.show(&words),
            "run" if !is("--check") && !is("--example") => self.serve(&words),
            _ => self.run(&words),
        };
        let what = format!("{command}: {words:?}: {output:?}");
        // The exit code of a monitoring plugin is its result.
        let most = if is("--check") && words[0] != "run" { 2 } else { 0 };
        if output.status.code().is_none_or(|code| code > most) || what.contains("panicked") {
            return Some(what);
        }
        if let Some(at) = words.iter().position(|word| ["-o", "--output"].contains(word)) {
            let written = fs::metadata(self.directory.path().join(words[at + 1]));
            return (!written.is_ok_and(|metadata| metadata.len() > 0))
                .then(|| format!("writes nothing: {what}"));
        }
        // In one second, possibly nothing happens, and no socket is stuck for long enough. No process is named nginx.
        let may_be_silent =
            ["record", "run", "hunt", "stuck", "close-wait", "--comm"].iter().any(|record| is(record))
                || words[0].starts_with("--");
        (output.stdout.is_empty() && !may_be_silent).then(|| format!("says nothing: {what}"))
    }
}

/// The examples of every command's help.
fn examples() -> Vec<String> {
    let help = |args: &[&str]| {
        String::from_utf8(sockstate().args(args).output().expect("sockstate").stdout).expect("UTF-8")
    };
    let all = help(&["help"]);
    let commands = all.split("Commands:\n").nth(1).expect("commands").split("\n\n").next().expect("a list");
    let names = commands.lines().filter_map(|line| line.split_whitespace().next());
    let texts: Vec<String> = names.map(|name| help(&["help", name])).chain([all.clone()]).collect();
    let examples = texts.iter().filter_map(|text| text.split("Examples:\n").nth(1));
    let lines = examples.flat_map(str::lines).filter_map(|line| line.strip_prefix("  sockstate"));
    // Two spaces separate the command from its description.
    let own = |line: &str| documents::without_shell(line.split("  ").next().unwrap_or_default()).to_owned();
    lines.map(|line| format!("sockstate {}", own(line))).collect()
}

fn everything() {
    if observer::is_in_vm() {
        return skip("the documents are not there");
    }
    if ["python3", "script"].iter().any(|program| tools::find(program, program).is_none()) {
        return;
    }
    let named = documents::documents().into_iter().filter(|(name, _)| name != "first-look.md");
    let mut commands: BTreeSet<String> =
        named.flat_map(|(_, text)| documents::commands(&text)).chain(examples()).collect();
    // The recording of the first command exists.
    commands.insert("sockstate top --from night.zst".into());
    assert!(commands.len() > 60, "{commands:#?}");
    in_lab(|_| {
        let host = ExampleHost::new();
        let failures: Vec<String> = commands.iter().filter_map(|command| host.try_out(command)).collect();
        assert!(failures.is_empty(), "{failures:#?}");
    });
}
