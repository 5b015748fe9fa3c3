//! Tables in terminals of several widths: no line is wider than the terminal, and no word is cut.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use testkit::{
    golden,
    terminal::{Terminal, output_in_terminal},
};

const RECORDING: &str = "fixtures/recordings/sockstate-1.ndjson";
const WIDTHS: [u16; 4] = [60, 80, 100, 120];
/// What stands before a path: `  exe   `.
const INDENT: usize = 8;

fn sockstate(args: &[&str]) -> Command {
    let mut sockstate = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    sockstate.env("TZ", "UTC").env("LC_ALL", "C").env("NO_COLOR", "1");
    sockstate.args(args).current_dir(golden::file(""));
    sockstate
}

/// What a command writes where no terminal shows it, as a table.
fn piped(args: &[&str]) -> String {
    let output = sockstate(&[args, &["--format", "table"]].concat()).output().expect("sockstate");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn assert_fits(text: &str, width: u16) {
    for line in text.lines() {
        // A word is never broken, and the paths of this host's programs may be long.
        let longest = line.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
        let is_one_word = longest + INDENT > usize::from(width);
        assert!(is_one_word || line.chars().count() <= usize::from(width), "{width} columns: {line:?}");
        assert!(!line.contains('\u{1b}') && !line.ends_with(' '), "{line:?}");
    }
}

/// Every word is one of the wide table, or a shorter form of one: a time without milliseconds, a duration, or a port.
fn assert_whole_words(text: &str, wide: &str) {
    const MORE: [&str; 11] =
        ["\\", "STATE", "LASTED", "existing", "-", "count", "more", "sockets;", "lists", "of", "them"];
    let words: BTreeSet<&str> = wide.split_whitespace().collect();
    let is_duration = |word: &str| {
        let word = word.trim_start_matches('>');
        word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with(['s', 'm', 'h'])
    };
    for word in text.split_whitespace() {
        let is_short = words.iter().any(|whole| {
            word.starts_with(':') && whole.ends_with(word)
                || word.len() == 8 && whole.starts_with(&format!("{word}."))
        });
        let is_whole = words.contains(word) || MORE.contains(&word) || is_duration(word);
        assert!(is_whole || is_short, "{word:?} in {text}");
    }
}

#[test]
fn tables_fit_every_terminal() {
    for (name, args) in [
        ("replay", &["replay", RECORDING][..]),
        ("stuck", &["stuck", "--from", RECORDING]),
        ("stuck-groups", &["stuck", "--from", RECORDING, "--group-by", "process"]),
    ] {
        let wide = piped(args);
        for width in WIDTHS {
            let text = output_in_terminal(&mut sockstate(args), width);
            assert_fits(&text, width);
            assert_whole_words(&text, &wide);
            golden::check(&format!("widths/{name}-{width}.txt"), &text);
        }
    }
}

#[test]
fn a_timeline_fits_every_terminal() {
    let one = ["timeline", RECORDING, "--conn", "dd3277000000000a"];
    for (name, args, bar) in [("timeline", &one[..2], 'W'), ("timeline-one", &one, '█')] {
        for width in [40, 60, 72, 73, 80, 100, 120] {
            let text = output_in_terminal(&mut sockstate(args), width);
            assert_fits(&text, width);
            for word in ["127.0.0.1:8080", "127.0.0.1:50778", "ESTABLISHED", "CLOSE_WAIT"] {
                assert!(text.split_whitespace().any(|whole| whole.trim_end_matches(',') == word), "{text}");
            }
            // One state lasts for most of the recording. Its bar has most of the width, and is whole.
            let bars = text.split(|c| c != bar).map(|bar| bar.chars().count());
            let plot = match (bar, width) {
                ('█', _) => 20,
                (_, 0..73) => width,
                _ => width - 53,
            };
            assert!(bars.max() >= Some(usize::from(plot) * 8 / 10), "{width}: {text}");
            golden::check(&format!("widths/{name}-{width}.txt"), &text);
        }
    }
}

/// The sockets of this host, whichever they are.
#[test]
fn a_look_fits_every_terminal() {
    for width in WIDTHS {
        for args in [&["sockets"][..], &["stuck", "--older-than", "0s"], &["sockets", "--state", "LISTEN"]] {
            let text = output_in_terminal(&mut sockstate(args), width);
            let table: Vec<&str> = text.lines().filter(|line| !line.starts_with("sockstate: ")).collect();
            // A single word may be longer than a line: a long address, or a path.
            let table = table.into_iter().filter(|line| line.trim().contains(' '));
            assert_fits(&table.collect::<Vec<_>>().join("\n"), width);
        }
    }
}

/// Writes a recording in which `count` processes have a stuck socket each, all for the same reason.
fn stuck_processes(count: u64, path: &Path) {
    let text = fs::read_to_string(golden::file(RECORDING)).expect("recording");
    let lines = || text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let start = lines().find(|record| record["kind"] == "start").expect("a start");
    let transition = lines().find(|record| record["to"] == "CLOSE_WAIT").expect("a transition");
    let stuck = lines()
        .find(|record| {
            record["kind"] == "stuck" && record["state"] == "CLOSE_WAIT" && !record["why"].is_null()
        })
        .expect("a stuck connection");
    let mut out = format!("{start}\n");
    for number in 0..count {
        let mut record = stuck.clone();
        let mut before = transition.clone();
        record["conn"] = format!("{:016x}", 0x00aa_0000_0000_0000 + number).into();
        record["remote"]["port"] = (20_000 + number).into();
        for key in ["conn", "remote", "local"] {
            before[key] = record[key].clone();
        }
        record["holders"][0]["pid"] = (30_000 + number).into();
        out.push_str(&format!("{before}\n{record}\n"));
    }
    fs::write(path, out).expect("written");
}

#[test]
fn many_sockets_stuck_for_one_reason_are_one_group() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("many.ndjson");
    let args = ["stuck", "--from", path.to_str().expect("a path")];
    let blocks = |text: &str| text.matches("STATE ").count();
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("CLOSE_WAIT")).count();

    stuck_processes(169, &path);
    let text = output_in_terminal(&mut sockstate(&args), 80);
    assert_fits(&text, 80);
    assert_eq!((blocks(&text), rows(&text)), (1, 5), "{text}");
    assert!(
        text.contains("count 169 sockets of python3 (169); what follows is about the first one"),
        "{text}"
    );
    assert!(
        text.contains("more  164 more sockets; `sockstate stuck --format json` lists all of them"),
        "{text}"
    );
    assert!(text.ends_with("169 stuck: 169 in CLOSE_WAIT\n"), "{text}");
    // Where no terminal shows it, every socket is listed, and JSON has each with its own reason.
    let wide = piped(&args);
    assert_eq!((blocks(&wide), rows(&wide)), (1, 169), "{wide}");
    let json = sockstate(&args).output().expect("sockstate").stdout;
    assert_eq!(String::from_utf8_lossy(&json).matches("\"advice\":").count(), 169);

    // A few processes have a text each.
    stuck_processes(3, &path);
    assert_eq!(blocks(&output_in_terminal(&mut sockstate(&args), 80)), 3);
}

#[test]
fn a_table_follows_the_width_of_its_terminal() {
    let recording = fs::read_to_string(golden::file(RECORDING)).expect("recording");
    let lines: Vec<&str> = recording.lines().collect();
    let is_transition = |(_, line): &(usize, &&str)| line.contains("\"kind\":\"transition\"");
    let second =
        lines.iter().enumerate().filter(is_transition).nth(1).map(|(at, _)| at).expect("a transition");
    let mut command = sockstate(&["replay", "-", "--speed", "1000"]);
    let mut terminal = Terminal::start(command.stdin(Stdio::piped()), 120);
    let mut input = terminal.input();
    let mut feed = |lines: &[&str]| writeln!(input, "{}", lines.join("\n")).expect("written");
    // Each record writes the row of the one before.
    feed(&lines[..=second]);
    let wide = terminal.read_until("->");
    assert!(wide.starts_with("TIME") && wide.contains("LASTED"), "{wide}");
    terminal.resize(60);
    feed(&lines[second + 1..]);
    drop(input);
    let titles = terminal.read_until("STATE\n");
    let titles = titles.lines().last().expect("titles");
    assert!(!titles.contains("LASTED") && titles.contains("COMM"), "{titles}");
    let rows = terminal.read_until("STUCK for");
    assert!(rows.lines().count() > 10, "{rows}");
    assert_fits(rows.trim_end(), 60);
}

#[test]
fn a_repeated_table_follows_the_width_of_its_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let client = TcpStream::connect(address).expect("connect");
    let _server = listener.accept().expect("accept");
    client.shutdown(Shutdown::Write).expect("shutdown");
    let port = address.port().to_string();
    let state = ["--state", "CLOSE_WAIT", "--older-than", "0s", "--local-port", &port];
    let mut command =
        sockstate(&[&["stuck", "--watch", "100ms", "--group-by", "process"][..], &state].concat());
    let mut terminal = Terminal::start(&mut command, 120);
    let clear = "\u{1b}[H\u{1b}[2J";
    let wide = terminal.read_until("eof_unread 1");
    assert!(wide.contains("UNREAD"), "{wide}");
    terminal.resize(60);
    // The table that is being written may have the old width.
    terminal.read_until(clear);
    terminal.read_until(clear);
    let narrow = terminal.read_until("eof_unread 1");
    assert!(narrow.contains("OLDEST") && !narrow.contains("UNREAD"), "{narrow}");
    assert_fits(&narrow, 60);
}

#[test]
fn a_look_that_finds_nothing_says_so() {
    for (args, said) in [
        (&["sockets"][..], "no such sockets\n"),
        (&["stuck"], "nothing is stuck\n"),
        (&["close-wait", "--group-by", "process"], "nothing is stuck\n"),
    ] {
        let nothing = ["--local", "203.0.113.77", "--format", "table"];
        let output = sockstate(&[args, &nothing].concat()).output().expect("sockstate");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with(said), "{args:?}: {text}");
    }
}

#[test]
fn a_pipe_gets_no_escape_sequences() {
    let mut command = sockstate(&["stuck", "--state", "CLOSING", "--format", "table", "--watch", "100ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("sockstate");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut tables = 0;
    for line in lines {
        let line = line.expect("UTF-8");
        assert!(!line.contains('\u{1b}'), "{line:?}");
        // Each table begins with its time.
        tables += usize::from(line.starts_with("20") && line.ends_with('Z'));
        if tables == 3 {
            break;
        }
    }
    child.kill().and_then(|()| child.wait()).expect("end");
    assert_eq!(tables, 3);
}
