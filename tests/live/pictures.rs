//! Pictures and pages as people see them: in a browser at two widths, light and dark, and in a viewer that knows no CSS
//! variables.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use sockstate::{
    display::palette,
    format::{Format, HuntReport, HuntStyle},
    model::{Record, Stop},
    wire::Parser,
};

use crate::{Test, lab::sockstate, test, tools, viewers::rendered};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("pictures: no text is cut, overlaps, or is pale in a browser", layout),
        test("pictures: a browser finds what is wrong with a page", bad_layout),
        test("pictures: a viewer without CSS variables draws no black boxes", without_variables),
    ]
}

const RECORDING: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/recordings/sockstate-1.ndjson");
const CONNECTIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/recordings/connections-1.ndjson");
const LAYOUT: &str = include_str!("../programs/layout.js");

/// A recording with forty connections for each of its own, half of them with long names and addresses.
fn crowded(recording: &str, directory: &Path) -> PathBuf {
    let text = fs::read_to_string(recording).expect("recording");
    let mut out = String::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let Some(conn) = record["conn"].as_str() else {
            writeln!(out, "{record}").expect("a string");
            continue;
        };
        let conn = u64::from_str_radix(conn, 16).expect("an id");
        for copy in 0..40 {
            let mut record = record.clone();
            record["conn"] = json!(format!("{:016x}", conn + copy * 0x1000));
            if copy % 2 == 1 {
                for end in ["local", "remote"] {
                    record[end]["address"] = json!("2001:db8:1234:5678:9abc:def0:1234:5678");
                }
                record["network"]["type"] = json!("ipv6");
                record["owner"]["comm"] = json!("a-long-<name>&1");
                record["owner"]["pid"] = json!(4_194_000);
                if record.get("bytes").is_some() {
                    // Each has a peer of its own, and the largest numbers.
                    record["remote"]["address"] =
                        json!(format!("2001:db8:1234:5678:9abc:def0:1234:{copy:x}"));
                    record["bytes"] = json!({"sent": u64::MAX / 64, "received": u64::MAX / 64});
                    record["segments"] = json!({"sent": u32::MAX, "received": u32::MAX});
                    record["retransmits"] = json!(u32::MAX / 3);
                }
            }
            writeln!(out, "{record}").expect("a string");
        }
    }
    let name = Path::new(recording).file_stem().expect("a name").display();
    let path = directory.join(format!("{name}-with-a-long-name-that-has-no-spaces-at-all.ndjson"));
    fs::write(&path, out).expect("write");
    path
}

/// The flame graph of a hunt, in a page as wide as its window. The stuck sockets are those of the recording; of each, the path
/// is known, and `missing` is why the paths of as many others are not.
fn flame_graph(missing: &[&str]) -> String {
    let text = fs::read_to_string(RECORDING).expect("recording");
    let mut report = HuntReport::new(HuntStyle::Svg);
    let mut out = Vec::new();
    let mut parser = Parser::default();
    let stuck = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let stuck = stuck.filter(|record| record["kind"] == "stuck" && record["times"] == 1);
    for (number, record) in stuck.enumerate() {
        for (at, opening) in ["seen"].iter().chain(missing).enumerate() {
            let mut record = record.clone();
            record["conn"] = json!(format!("{:016x}", number * 100 + at + 1));
            record["opening"] = json!(opening);
            let handler = format!("handle_a_request_of_kind_{}", number % 2);
            let functions = ["accept4", &handler, "serve_forever", "main", "_start"];
            let frame =
                |function: &str| json!({"function": function, "file": "server.c", "line": 7, "offset": 1});
            record["opened"] = json!({
                "by": "accept", "comm": "server", "complete": true, "path": format!("{:016x}", number % 2),
                "frames": functions.map(frame),
            });
            let record = parser.parse(record.to_string().as_bytes()).expect("record").expect("a known kind");
            report.record(0, &record, &mut out);
        }
    }
    let stop = Stop { time_ns: 0, reason: "signal", transitions: 0, lost: Vec::new(), illegal: 0 };
    report.record(0, &Record::Stop(stop), &mut out);
    let svg = String::from_utf8(out).expect("UTF-8");
    let svg = &svg[svg.find("<svg").expect("a picture")..];
    format!("<!doctype html><style>body{{margin:0}}body>svg{{width:100%}}</style><body>{svg}")
}

/// What a script of `page` reports, in a light or dark browser.
fn browse(page: &str, directory: &Path, dark: bool) -> Value {
    let path = directory.join("page.html");
    fs::write(&path, page).expect("write");
    let mut options =
        vec!["--virtual-time-budget=20000", "--window-size=1400,1000", "--allow-file-access-from-files"];
    if dark {
        options.push("--blink-settings=preferredColorScheme=0");
    }
    let dom = rendered(&path, &options);
    let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("no report: {dom}"));
    serde_json::from_str(&percent_decoded(found)).expect("JSON")
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).expect("two digits"));
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(out).expect("UTF-8")
}

/// What is wrong with the layout of a page that is this many pixels wide. A script that fits the page to its window later, by a
/// timer, does it at once after a change of the size.
fn measure(content: &str, width: u32, directory: &Path, dark: bool) -> Value {
    let quoted = content.replace('&', "&amp;").replace('"', "&quot;");
    let page = format!(
        "<!doctype html><meta charset=\"utf-8\"><body><script>{LAYOUT}</script>\
         <iframe style=\"width:{width}px;height:900px;border:0\" srcdoc=\"{quoted}\"></iframe>\
         <script>const frame=document.querySelector('iframe');\
         frame.addEventListener('load',()=>{{frame.contentWindow.dispatchEvent(new Event('resize'));\
         report(layout(frame,{width}))}})</script>"
    );
    browse(&page, directory, dark)
}

/// The output of a command; an SVG inside a page that scales it as far as its window is narrower.
fn page(args: &[&str]) -> String {
    let output = sockstate().args(args).output().expect("sockstate");
    assert!(output.status.success(), "{args:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    if !text.starts_with("<svg") {
        return text;
    }
    format!("<!doctype html><style>body{{margin:0}}svg{{max-width:100%;height:auto}}</style><body>{text}")
}

fn layout() {
    let Some(_) = tools::find("chromium", "chromium") else { return };
    let directory = tempfile::tempdir().expect("directory");
    let [crowded, numbers] = [RECORDING, CONNECTIONS].map(|recording| crowded(recording, directory.path()));
    let (crowded, numbers) = (crowded.to_str().expect("UTF-8"), numbers.to_str().expect("UTF-8"));
    let one = ["--conn", "dd3278000000001f", "--format"];
    let mut failures = String::new();
    let mut pages = Vec::new();
    for (args, least) in [
        (&["diagram", "--format", "svg"][..], 30),
        (&["diagram", "--from", RECORDING, "--format", "svg"], 35),
        (&["diagram", "--from", crowded, "--format", "svg"], 35),
        (&["diagram", "--from", RECORDING, "--conn", "dd3277000000000a", "--format", "svg"], 35),
        (&["timeline", RECORDING, "--format", "svg"], 40),
        (&["timeline", crowded, "--format", "svg", "--most", "50"], 100),
        (&["timeline", crowded, "--format", "html", "--most", "50"], 100),
        (&["report", RECORDING], 150),
        (&["report", crowded], 300),
        (&["report", CONNECTIONS], 200),
        (&["report", numbers], 400),
        (&[&["timeline", CONNECTIONS][..], &one, &["svg"]].concat(), 20),
        (&[&["timeline", CONNECTIONS][..], &one, &["html"]].concat(), 15),
    ] {
        pages.push((args.join(" "), page(args), least));
    }
    pages.push(("flame graph".to_owned(), flame_graph(&["before_hunt", "stack_gone", "not_seen"]), 10));
    for (name, page, least) in pages {
        for (width, dark) in [(1280, false), (1280, true), (400, false), (400, true)] {
            let found = measure(&page, width, directory.path(), dark);
            assert_eq!(found["dark"], dark, "{name}");
            let texts = found["texts"].as_u64().expect("a number");
            let problems = found["problems"].as_array().expect("a list");
            if texts < least || !problems.is_empty() {
                let _ = writeln!(failures, "{name}, {width}, dark {dark}, {texts} texts: {problems:#?}");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// The checks themselves: each kind of fault is found.
fn bad_layout() {
    let Some(_) = tools::find("chromium", "chromium") else { return };
    let directory = tempfile::tempdir().expect("directory");
    let bad = "<!doctype html><html style=\"--paper:#fff\"><body style=\"margin:0;color:#000\">\
        <div style=\"width:30px;overflow:hidden;white-space:nowrap\">a text that is cut</div>\
        <div style=\"white-space:nowrap;width:10px\">a text that is far too long for a window which is only four hundred pixels wide</div>\
        <div style=\"position:absolute;top:100px\">one</div><div style=\"position:absolute;top:104px\">two</div>\
        <div style=\"position:absolute;top:150px;color:#999\">pale</div>\
        <div style=\"position:absolute;top:170px;font-size:6px\">tiny</div>\
        <div style=\"position:absolute;top:310px;opacity:.3\">faint</div>\
        <div><svg style=\"position:absolute;top:340px\"><g><rect width=\"90\" height=\"30\" fill=\"#444\"/><text x=\"9\" y=\"19\">on grey</text></g></svg></div>\
        <main><svg style=\"position:absolute;top:200px;--paper:#fff\" class=\"x\" width=\"300\" height=\"100\">\
        <g data-edge=\"A B\"><path d=\"M0 10H100\"/><text x=\"10\" y=\"14\">crossed</text><text x=\"10\" y=\"80\">lost</text></g>\
        <g data-state=\"A\"><rect x=\"200\" y=\"0\" width=\"50\" height=\"50\" fill=\"none\"/></g><text x=\"210\" y=\"20\">foreign</text></svg></main>";
    let found = measure(bad, 400, directory.path(), false);
    let problems: Vec<&str> =
        found["problems"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let says = |what: &str| problems.iter().any(|problem| problem.contains(what));
    for what in [
        "wide",
        "cut: a text that is cut",
        "outside of the window: a text that is far",
        "overlap: one / two",
        ": pale",
        ": faint",
        ": on grey",
        "small: tiny",
        "a line crosses crossed",
        "lost is",
        "in a box: foreign",
    ] {
        assert!(says(what), "{what}: {problems:#?}");
    }
    assert!(!says("lost / ") && !says("contrast 21"), "{problems:#?}");
}

/// Shares of the colours of an SVG's picture.
fn colours(svg: &str, directory: &Path) -> BTreeMap<String, f64> {
    let (from, to) = (directory.join("in.svg"), directory.join("out.png"));
    fs::write(&from, svg).expect("write");
    let output = Command::new("rsvg-convert").arg(&from).arg("-o").arg(&to).output().expect("rsvg-convert");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = format!(
        "<!doctype html><body><script>{LAYOUT}</script><img src=\"out.png\"><script>\
         const image=document.querySelector('img');image.addEventListener('load',()=>report(colours(image)))</script>"
    );
    serde_json::from_value(browse(&page, directory, false)).expect("shares")
}

fn without_variables() {
    let Some(_) = tools::find("chromium", "chromium") else { return };
    let Some(_) = tools::find("rsvg-convert", "librsvg2-bin") else { return };
    let directory = tempfile::tempdir().expect("directory");
    let black = |shares: &BTreeMap<String, f64>| -> f64 {
        let is_black =
            |colour: &str| colour.as_bytes()[1] == b'0' && colour[3..4] == *"0" && colour[5..6] == *"0";
        shares
            .iter()
            .filter(|(colour, _)| colour.starts_with('#') && is_black(colour))
            .map(|(_, share)| share)
            .sum()
    };
    let share = |shares: &BTreeMap<String, f64>, colour: &str| shares.get(colour).copied().unwrap_or(0.0);
    for (args, seen) in [
        (&["diagram", "--format", "svg"][..], vec![palette::BOX, palette::LINE]),
        (
            &["diagram", "--from", RECORDING, "--format", "svg"],
            vec![palette::BOX, palette::LINE, palette::STUCK],
        ),
        (
            &["timeline", RECORDING, "--format", "svg"],
            vec![
                palette::of(sockstate::model::State::CloseWait).shade,
                palette::of(sockstate::model::State::TimeWait).shade,
            ],
        ),
    ] {
        let output = sockstate().args(args).output().expect("sockstate");
        let svg = String::from_utf8(output.stdout).expect("UTF-8");
        let shares = colours(&svg, directory.path());
        assert!(black(&shares) < 0.005, "{args:?}: {shares:?}");
        assert!(share(&shares, palette::PAPER.light) > 0.5, "{args:?}: {shares:?}");
        assert_eq!(share(&shares, "transparent"), 0.0, "{args:?}");
        for shade in seen {
            assert!(share(&shares, shade.light) > 0.001, "{args:?}: no {}: {shares:?}", shade.name);
        }
    }
    // A picture with variables only, as it was once.
    let bad = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100\" height=\"100\">\
               <style>rect{fill:var(--box)}</style><rect width=\"50\" height=\"100\"/></svg>";
    assert!(black(&colours(bad, directory.path())) > 0.4);
}
