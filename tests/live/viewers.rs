//! Screens and pages, with a real kernel, a real terminal and a real browser.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use socket2::Socket;
use sockstate::model::State;

use crate::{
    Test,
    daemon::connections,
    documents,
    lab::{Story, in_lab, sockstate, wait_until},
    observer, skip,
    sockets::{Kind, fresh_port},
    test,
    tools::{self, Running},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("people: a recording holds what bpftrace saw", recording),
        test("people: a recording is on the disk while nothing happens, and survives a kill", killed),
        test("people: the live diagram counts what happened", diagram),
        test("people: top in a terminal", top),
        test("people: top shows who holds a socket that was stuck before the start", top_of_old_sockets),
        test("people: top shows the bytes of a socket, and their rates", top_of_traffic),
        test("people: top fits terminals of 60 to 200 columns", top_in_every_size),
        test("people: top ends with its terminal, and by a signal", hang_up),
        test("people: a trace follows the width of its terminal", trace_after_a_resize),
        test("people: graphviz accepts the diagrams", graphviz),
        test("people: Mermaid accepts the diagrams", mermaid),
        test("people: Mermaid accepts the documents' pictures", mermaid_of_documents),
        test("people: a browser runs the pages", browser),
    ]
}

/// Starts `sockstate record` for this namespace and port.
fn record(netns: u64, port: u16, path: &Path, more: &[&str]) -> Running {
    observer::watch();
    let mut command = sockstate();
    command.args([
        "record",
        "--alongside",
        "--tier",
        "none",
        "--netns",
        &netns.to_string(),
        "--port",
        &port.to_string(),
    ]);
    let recorder = Running::start(command.args(more).arg(path).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_until("it records", || !replay(path).is_empty());
    recorder
}

fn replay(path: &Path) -> Vec<Value> {
    let output = sockstate().args(["replay", "--format", "json"]).arg(path).output().expect("replay");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn recording() {
    if observer::is_in_vm() {
        return skip("needs bpftrace");
    }
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("r.zst");
        let port = fresh_port();
        let mut recorder = record(netns, port, &path, &[]);
        connections(20, port);
        let seen = observer::paths(port, 20 * 11);
        recorder.signal(libc::SIGINT);
        assert!(recorder.0.wait().expect("wait").success());
        let story = Story::new(replay(&path));
        let mut paths: Vec<Vec<String>> =
            story.connections().iter().map(|connection| crate::lab::path(connection)).collect();
        paths.sort();
        assert!(paths.len() > 40, "{paths:?}");
        assert_eq!(paths, seen);
    });
}

fn killed() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("r.zst");
        let port = fresh_port();
        let mut recorder = record(netns, port, &path, &[]);
        let (_listener, client, server) = Kind::V4.pair(port);
        // The recording has no end yet, and nothing happens.
        wait_until("it is on the disk", || {
            replay(&path).iter().filter(|record| record["to"] == "ESTABLISHED").count() == 2
        });
        recorder.0.kill().and_then(|()| recorder.0.wait()).expect("kill");
        drop((client, server));
        let said = sockstate().args(["timeline", "--format", "text"]).arg(&path).output().expect("timeline");
        assert!(said.status.success());
        assert!(String::from_utf8_lossy(&said.stdout).contains(&port.to_string()));
    });
}

fn diagram() {
    in_lab(|netns| {
        let port = fresh_port();
        let mut command = sockstate();
        let netns = netns.to_string();
        command.args([
            "diagram",
            "--live",
            "--alongside",
            "--duration",
            "3s",
            "--format",
            "mermaid",
            "--netns",
            &netns,
        ]);
        let mut diagram = command.stdout(Stdio::piped()).spawn().expect("diagram");
        // The test does not know when the recording begins, so it makes connections until the recording has ended.
        let mut made = 0;
        while diagram.try_wait().expect("wait").is_none() {
            connections(10, port);
            made += 10;
        }
        let output = diagram.wait_with_output().expect("output");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = |way: &str| -> u64 {
            let line = text
                .lines()
                .find(|line| line.trim().starts_with(way))
                .unwrap_or_else(|| panic!("{way}: {text}"));
            let word = line.split_whitespace().find(|word| word.ends_with('x')).unwrap_or("0x");
            let number = word.trim_end_matches('x');
            let thousand = number.trim_end_matches('k').parse::<f64>().expect("number");
            if number.ends_with('k') { (thousand * 1000.0) as u64 } else { thousand as u64 }
        };
        let (opened, closed) = (count("CLOSE --> SYN_SENT"), count("CLOSE_WAIT --> LAST_ACK"));
        assert!(opened > 20 && opened <= made && closed > 20 && closed <= made, "{opened} {closed} {made}");
    });
}

/// A terminal (tmux), which is closed at the end of the test.
struct Tmux(String);

impl Tmux {
    fn start(size: (u16, u16), command: &str) -> Option<Self> {
        tools::find("tmux", "tmux")?;
        let tmux = Self(format!("sockstate-{}", fresh_port()));
        let (width, height) = (size.0.to_string(), size.1.to_string());
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, command]);
        Some(tmux)
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.0]).args(args).output().expect("tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &str) {
        self.run(&["send-keys", keys]);
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    fn wait_for(&self, what: &str) -> String {
        self.wait_until(what, |screen| screen.contains(what))
    }

    /// Waits for a screen. A terminal may show a part of it before the rest is written, so all that a test expects belongs into
    /// `is_drawn`.
    fn wait_until(&self, what: &str, is_drawn: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        wait_until(&format!("{what} in {}", self.screen()), || {
            screen = self.screen();
            is_drawn(&screen)
        });
        screen
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

fn top() {
    in_lab(|netns| {
        let port = fresh_port();
        let binary = env!("CARGO_BIN_EXE_sockstate");
        let command = format!(
            "{binary} top --alongside --netns {netns} --port {port} --threshold CLOSE_WAIT=200ms; echo ended $?; sleep 60"
        );
        let Some(tmux) = Tmux::start((120, 40), &command) else { return };
        tmux.wait_for("NEW/S");
        let (_listener, client, _server) = Kind::V4.pair(port);
        connections(5, fresh_port());
        drop(client);
        tmux.wait_for("STUCK the peer");
        let mine = format!("({})", std::process::id());
        let is_row = |line: &str| line.starts_with("CLOSE_WAIT") && line.contains(&mine);
        tmux.wait_until("the row of the stuck socket", |screen| screen.lines().any(is_row));
        tmux.keys("c");
        tmux.wait_for("search: close_wait");
        tmux.keys("Enter");
        tmux.wait_until("what happened, and what to do", |detail| {
            ["What to do", "ESTABLISHED -> CLOSE_WAIT", &mine].iter().all(|text| detail.contains(text))
        });
        tmux.keys("d");
        tmux.wait_for("1 STUCK");
        // The window becomes smaller, and the screen is drawn again.
        tmux.run(&["resize-window", "-x", "60", "-y", "20"]);
        tmux.keys("d");
        wait_until("it fits", || {
            tmux.screen().lines().count() <= 20 && tmux.screen().contains("CLOSE_WAIT 1(1 stuck)")
        });
        tmux.keys("q");
        tmux.wait_for("ended 0");
    });
}

/// The threshold is a minute, and the age of the socket is a lower bound: no record says yet that it is stuck.
fn top_of_old_sockets() {
    in_lab(|netns| {
        let port = fresh_port();
        let (_listener, client, _server) = Kind::V4.pair(port);
        drop(client);
        let command = format!(
            "{} top --alongside --netns {netns} --local-port {port}; sleep 60",
            env!("CARGO_BIN_EXE_sockstate")
        );
        let Some(tmux) = Tmux::start((80, 24), &command) else { return };
        let is_row = |line: &str| line.starts_with("CLOSE_WAIT ") && line.contains(&format!(":{port}"));
        let screen = tmux.wait_until("the row", |screen| screen.lines().any(is_row));
        assert!(!screen.contains("CLOSE_WAIT!"), "{screen}");
        tmux.keys("Enter");
        let mine = format!("({}), fd ", std::process::id());
        let explained = "the peer has closed, and the application has not";
        tmux.wait_until("the holder, and what to do", |detail| {
            ["held by", &mine, "What to do", explained].iter().all(|text| detail.contains(text))
        });
        // The other socket of the table, the listener, is not stuck, and has holders, too.
        tmux.keys("Right");
        tmux.wait_until("the holder of the listener", |detail| {
            ["LISTEN  for", &mine].iter().all(|text| detail.contains(text)) && !detail.contains("What to do")
        });
        tmux.keys("q");
    });
}

/// The numbers behind a title in the view of a socket: the total and the rate.
fn numbers<'a>(screen: &'a str, title: &str) -> Option<(&'a str, &'a str)> {
    let line = screen.lines().find_map(|line| line.split(title).nth(1))?;
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?))
}

/// This program writes a number of bytes, and the screen shows it, and then a rate that goes back to zero.
fn top_of_traffic() {
    const SENT: usize = 70_001;
    const ANSWER: usize = 3_003;
    in_lab(|netns| {
        let port = fresh_port();
        let command = format!(
            "{} top --alongside --netns {netns} --remote-port {port}; sleep 60",
            env!("CARGO_BIN_EXE_sockstate")
        );
        let Some(tmux) = Tmux::start((80, 40), &command) else { return };
        tmux.wait_for("NEW/S");
        let (_listener, mut client, mut server) = Kind::V4.pair(port);
        let is_row = |line: &str| line.starts_with("ESTABLISHED ") && line.contains(&format!(":{port}"));
        tmux.wait_until("the row", |screen| screen.lines().any(is_row));
        tmux.keys("Enter");
        tmux.wait_until("no bytes, and no rate", |screen| {
            numbers(screen, "bytes sent") == Some(("0", "0/s"))
        });
        let exchange = |from: &mut Socket, to: &mut Socket, bytes: usize| {
            from.write_all(&vec![7; bytes]).expect("write");
            to.read_exact(&mut vec![0; bytes]).expect("read");
        };
        exchange(&mut client, &mut server, SENT);
        exchange(&mut server, &mut client, ANSWER);
        let (sent, answer) = (SENT.to_string(), ANSWER.to_string());
        tmux.wait_until("the bytes", |screen| {
            numbers(screen, "bytes sent").is_some_and(|(total, _)| total == sent)
                && numbers(screen, "bytes received").is_some_and(|(total, _)| total == answer)
                && numbers(screen, "retransmits") == Some(("0", "0/s"))
        });
        // The rate is known as long as bytes are sent in each interval, and zero when none is.
        let mut all = SENT;
        wait_until("a rate", || {
            exchange(&mut client, &mut server, 1000);
            all += 1000;
            let screen = tmux.screen();
            numbers(&screen, "bytes sent").is_some_and(|(_, rate)| rate.ends_with("/s") && rate != "0/s")
        });
        let all = all.to_string();
        tmux.wait_until("nothing more", |screen| numbers(screen, "bytes sent") == Some((&all, "0/s")));
        let rtt = numbers(&tmux.screen(), "RTT, least RTT").map(|(smoothed, _)| smoothed.to_owned());
        assert!(rtt.is_some_and(|rtt| rtt.ends_with("us") || rtt.ends_with("ms")), "{}", tmux.screen());
        tmux.keys("q");
    });
}

fn top_in_every_size() {
    for (width, height) in [(60, 20), (80, 24), (120, 40), (200, 50)] {
        let command = format!("{} top --from {RECORDING}; sleep 60", env!("CARGO_BIN_EXE_sockstate"));
        let Some(tmux) = Tmux::start((width, height), &command) else { return };
        let is_title = |line: &str| ["LOCAL", "REMOTE", "PROCESS"].iter().all(|text| line.contains(text));
        let is_row = |line: &str| line.starts_with("CLOSE_WAIT!") && line.contains("127.0.0.1:8080 ");
        // The counts are refreshed when the recording has ended.
        let screen = tmux.wait_until(&format!("{width} columns"), |screen| {
            screen.contains("the end")
                && screen.lines().any(|line| line.starts_with("STATE ") && is_title(line))
                && screen.lines().any(is_row)
                && screen.lines().last().is_some_and(|line| line.ends_with("? help  q quit"))
        });
        assert!(screen.lines().all(|line| line.chars().count() <= width.into()), "{width}: {screen}");
    }
}

fn trace_after_a_resize() {
    in_lab(|netns| {
        let port = fresh_port();
        let binary = env!("CARGO_BIN_EXE_sockstate");
        let command = format!("{binary} trace --alongside --netns {netns} --port {port}; sleep 60");
        let Some(tmux) = Tmux::start((120, 30), &command) else { return };
        tmux.wait_for("LASTED");
        connections(1, port);
        tmux.wait_for("ESTABLISHED -> ");
        tmux.run(&["resize-window", "-x", "60", "-y", "50"]);
        connections(1, port);
        // The titles of the columns for 60 columns, then their rows.
        let is_row = |line: &str| line.contains(&format!(":{port}")) && line.ends_with("ESTABLISHED");
        let screen = tmux.wait_until("the columns and a row", |screen| {
            screen.contains("REMOTE                STATE") && screen.lines().any(is_row)
        });
        assert!(screen.lines().all(|line| line.chars().count() <= 60), "{screen}");
    });
}

fn hang_up() {
    in_lab(|netns| {
        for source in [format!("--alongside --netns {netns}"), format!("--from {RECORDING}")] {
            for is_signal in [false, true] {
                let command = format!("exec {} top {source}", env!("CARGO_BIN_EXE_sockstate"));
                let Some(tmux) = Tmux::start((80, 24), &command) else { return };
                tmux.wait_for("Enter detail");
                let pid = tmux.run(&["list-panes", "-F", "#{pane_pid}"]);
                let process = format!("/proc/{}", pid.trim());
                let comm = fs::read_to_string(format!("{process}/comm")).expect("a process");
                assert_eq!(comm, "sockstate\n");
                if is_signal {
                    crate::lab::signal(pid.trim().parse().expect("pid"), libc::SIGTERM);
                } else {
                    drop(tmux);
                }
                wait_until("it ends", || !fs::exists(&process).expect("/proc"));
            }
        }
    });
}

const RECORDING: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/recordings/sockstate-1.ndjson");

fn graphviz() {
    let Some(_) = tools::find("dot", "graphviz") else { return };
    for args in [&[][..], &["--from", RECORDING]] {
        let dot = sockstate().args(["diagram", "--format", "dot"]).args(args).output().expect("diagram");
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("d.dot");
        fs::write(&path, &dot.stdout).expect("write");
        let output = Command::new("dot").arg("-Tsvg").arg(&path).output().expect("dot");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        let svg = String::from_utf8_lossy(&output.stdout).into_owned();
        // The picture has twelve boxes, because CLOSE is at both ends.
        assert_eq!(svg.matches("class=\"node\"").count(), 12);
    }
}

/// The page in a file, as a browser renders it.
fn dom(path: &Path) -> String {
    rendered(path, &["--virtual-time-budget=2000"])
}

/// The page in a file, as a browser with these options renders it.
pub(crate) fn rendered(path: &Path, options: &[&str]) -> String {
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]).args(options);
    chromium.arg(format!("--user-data-dir={}", path.with_extension("profile").display()));
    let output = chromium.arg(format!("file://{}", path.display())).output().expect("chromium");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The Mermaid library, as a script of a page. `None`, and the test is skipped, if it is not installed.
fn mermaid_script() -> Option<String> {
    tools::find("chromium", "chromium")?;
    let library = tools::below("mermaid/package/dist/mermaid.min.js");
    if !Path::new(&library).exists() {
        skip("needs Mermaid: cargo xtask setup, with npm");
        return None;
    }
    let start = "<script>mermaid.initialize({startOnLoad: true})</script>";
    Some(format!("<script src=\"{library}\"></script>{start}"))
}

/// A diagram, as a browser renders it with Mermaid.
fn draw(text: &str, script: &str) -> String {
    let directory = tempfile::tempdir().expect("directory");
    let page = directory.path().join("m.html");
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    fs::write(&page, format!("<pre class=\"mermaid\">{text}</pre>{script}")).expect("write");
    dom(&page)
}

fn mermaid() {
    let Some(script) = mermaid_script() else { return };
    for (args, stuck) in [(&[][..], 0), (&["--from", RECORDING], 2)] {
        let text = sockstate().args(["diagram", "--format", "mermaid"]).args(args).output().expect("diagram");
        let drawn = draw(&String::from_utf8(text.stdout).expect("UTF-8"), &script);
        // The picture has eleven boxes with names, and the initial dot.
        for name in (1..=11).map(|number| State::from_number(number).name()) {
            assert_eq!(drawn.matches(&format!("<p>{name}<")).count(), 1, "{name}: {drawn}");
        }
        assert_eq!(drawn.matches("statediagram-state\"").count(), 11, "{drawn}");
        assert_eq!(drawn.matches("class=\"node stuck").count(), stuck);
    }
}

fn mermaid_of_documents() {
    let Some(script) = mermaid_script() else { return };
    let mut count = 0;
    for (name, text) in documents::documents() {
        for block in text.split("```mermaid\n").skip(1) {
            let drawn = draw(block.split("```").next().expect("a block"), &script);
            // For an invalid diagram, Mermaid draws an error message.
            assert!(
                drawn.contains("class=\"flowchart\"") && !drawn.contains("Syntax error"),
                "{name}: {drawn}"
            );
            count += 1;
        }
    }
    assert!(count >= 2, "{count}");
}

fn browser() {
    let Some(_) = tools::find("chromium", "chromium") else { return };
    let directory = tempfile::tempdir().expect("directory");
    let dom = |args: &[&str], name: &str| {
        let path = directory.path().join(name);
        let done = sockstate().args(args).args(["-o"]).arg(&path).status().expect("sockstate");
        assert!(done.success());
        dom(&path)
    };
    let page = dom(&["timeline", RECORDING, "--format", "html"], "t.html");
    // The script of the page draws the axis.
    let ticks: BTreeSet<&str> = page
        .split("<b style=\"left:")
        .skip(1)
        .map(|part| part.split('"').next().unwrap_or_default())
        .collect();
    assert!(ticks.len() >= 4, "{} ticks", ticks.len());
    assert!(page.matches("class=\"lane stuck\"").count() >= 2, "{page}");
    let report = dom(&["report", RECORDING], "r.html");
    assert!(report.contains("What was stuck") && report.matches("<svg").count() >= 5, "{report}");
    let svg = dom(&["diagram", "--from", RECORDING, "--format", "svg"], "d.svg");
    assert!(svg.contains("STUCK") || svg.contains("stuck"), "{svg}");
    assert!(!svg.contains("parsererror") && !report.contains("parsererror"));
}
