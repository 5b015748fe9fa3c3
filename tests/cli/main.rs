//! The command line, without privileges: help, bad arguments, exit codes.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod check;
mod foreign;
mod helm;
mod help;
mod kubectl;
mod manifests;
mod service_unit;
mod widths;

use std::process::{Command, Output};

use check::ConfigDirectory;
use testkit::documents;

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
        (&["--remote", "10.0.0.0/33"], "not an address or prefix"),
        (&["--local", "10.1.2.3/8"], "did you mean 10.0.0.0/8"),
        (&["--from", "ESTABLISHD"], "unknown state 'ESTABLISHD'; known are ESTABLISHED"),
        (&["--to", "close-wiat"], "unknown state 'close-wiat'; known are ESTABLISHED"),
        (&["--count", "0"], "0 is not in 1.."),
        (&["--duration", "soon"], "is not a duration"),
        (&["--ring-size", "3M"], "not a power of two; the next is 4194304"),
        (&["--ring-size", "1"], "between 4K and 1G"),
        (&["-4", "-6"], "cannot be used with"),
        (&["--pid", "worker"], "'worker' is not a number; --comm worker?"),
        (&["--pid", "0"], "no process has the id 0"),
        (&["--comm", "a-name-of-18-bytes"], "keeps 15 bytes of a name; use 'a-name-of-18-by'"),
        (&["--metrics", "localhost:9435"], "is not an address with a port (examples: 9435, 127.0.0.1:9435"),
        (&["trace", "--state", "CLOSE_WAIT"], "tip: '--from STATES' and '--to STATES' select transitions"),
        (&["trace", "port", "80"], "tip: a flag has two hyphens: '--port'"),
        (&["trace", "--interface", "eth0"], "tip: '--local PREFIX' selects connections by the addresses"),
        (&["tcp"], "tip: 'sockstate' alone traces TCP"),
        (&["man", "trase"], "there is no command 'trase'"),
        (&["explain", "FOOO"], "'FOOO' is not a TCP state; `sockstate explain` lists them"),
        (&["explain", "LISTEN", "bucket"], "is a group of states: name one of them (SYN_RECV, TIME_WAIT)"),
        (&["stuck", "--netns", "no-such-namespace"], "no network namespace 'no-such-namespace'"),
        (&["--netns", "/proc/0/ns/net"], "no network namespace '/proc/0/ns/net'"),
        (&["--netns", "/proc/self/ns/uts"], "is not a network namespace"),
        (&["--netns", "/dev/null"], "is not a network namespace"),
        (&["--netns", "/dev/null/x"], "there cannot be a network namespace at /dev/null/x"),
        (&["stuck", "--cgroup", "/no/such/cgroup"], "no cgroup /no/such/cgroup: No such file"),
        (&["--cgroup", "/no/../such"], "no cgroup /no/../such: No such file"),
        (&["--format", "xml"], "[possible values: table, json, csv, ecs, otlp, syslog]"),
        (&["trace", "--escape-formulas"], "--escape-formulas needs --format csv"),
        (&["replay", "--escape-formulas", "--format", "table", "x"], "--escape-formulas needs --format csv"),
        (&["--workload", "web"], "only `sockstate run` with [kubernetes] knows the workload of a pod"),
        (&["stuck", "--workload", "web"], "only `sockstate run` with [kubernetes] knows"),
        (&["stuck", "--group-by", "workload"], "--group-by workload needs --from FILE"),
        (&["trace", "--records", "stuck,lots"], "no records of the kind 'lots'; there are start, snapshot"),
        (
            &["--metrics-by", "pod,node"],
            "there are comm, unit, namespace, workload, pod, container, local_port, peer",
        ),
        (&["--metrics-by-limit", "5"], "were not provided:\n  --metrics-by <LABELS>"),
        (&["--records", "aggregates"], "a sink of `sockstate run` with the key 'aggregate' has them"),
        (
            &["record", "--records", "aggregates", "x"],
            "a sink of `sockstate run` with the key 'aggregate' has",
        ),
        (
            &["trace", "--format", "csv", "--records", "stuck"],
            "either transitions or connections, and the kinds of records have neither: name one of the two with",
        ),
        (
            &["replay", "x", "--format", "csv", "--records", "transitions,connections"],
            "either transitions or connections, and the kinds of records have both",
        ),
        (&["trace", "--colour"], "a similar argument exists: '--color'"),
        (&["dcotor"], "a similar subcommand exists: 'doctor'"),
        (&["stuck", "--threshold", "60"], "is not a threshold"),
        (&["stuck", "--threshold", "=60"], "give a state, a port or a process name"),
        (&["stuck", "--threshold", "connected=60"], "more than one state"),
        (&["stuck", "--threshold", "CLOSE_WAIT:0=60"], "'0' is not a port"),
        (&["stuck", "--threshold", "CLOSE_WAIT=soon"], "is not a duration"),
        (&["stuck", "--warn", "3"], "were not provided:\n  --check\n"),
        (&["stuck", "--watch", "--check"], "cannot be used with"),
        (&["explain", "CLOSED_WAIT"], "did you mean CLOSE_WAIT"),
        (&["diagram", "--conn", "1"], "were not provided:\n  --from <FILE>\n"),
        (&["diagram", "--from", "a", "--live"], "cannot be used with"),
        (&["diagram", "--live"], "--live without a terminal needs --duration"),
        (&["replay"], "were not provided:\n  <FILE>\n"),
        (&["replay", "--speed", "0", "x"], "'0' is not a factor"),
        (&["stuck", "--from", "x", "--watch"], "cannot be used with"),
        (&["top"], "needs a terminal"),
        (&["sockets", "--sort", "size"], "[possible values: age, state, local, remote, process, unread]"),
    ] {
        assert_bad(args, words);
    }
}

#[test]
fn what_is_stuck_in_a_recording_is_counted_by_workload() {
    let recording = testkit::golden::file("fixtures/recordings/sockstate-1.ndjson");
    let text = std::fs::read_to_string(recording).expect("recording");
    let pod = r#""pod":{"uid":"x","namespace":"shop","workload":{"kind":"Deployment","name":"web"}},"netns""#;
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), text.replace("\"netns\"", pod)).expect("recording");
    let path = file.path().to_string_lossy();
    let output = sockstate(&["stuck", "--from", &path, "--group-by", "workload", "--format", "json"]);
    let groups = self::text(&output.stdout);
    assert!(groups.contains("\"key\":\"shop/deployment/web\"") && groups.lines().count() == 1, "{groups}");
}

#[test]
fn flags_that_do_not_fit_a_stream_of_connections_are_refused() {
    for (args, words) in [
        (&["trace", "--interim", "5m"][..], "reports connections that go on: it needs --records connections"),
        (&["record", "--interim", "5m", "--records", "stuck", "x"], "it needs --records connections"),
        (&["trace", "--records", "connections", "--interim", "10ms"], "is too short: use 1s or more"),
        (&["trace", "--sample", "0"], "0 is not in 1.."),
    ] {
        assert_bad(args, words);
    }
}

fn assert_bad(args: &[&str], words: &str) {
    // An error quotes the arguments: words of them would always be found.
    assert!(args.iter().all(|arg| !arg.contains(words)), "{args:?} contain {words}");
    let output = sockstate(args);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
    assert!(error.contains(words), "{args:?}: {words} in {error}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
}

/// The exit code and the output of `run --check` for a configuration.
fn check(config: &str) -> (Option<i32>, String) {
    ConfigDirectory::new().check(config)
}

/// Checks that a configuration is refused, with these words about this position.
fn assert_refused(config: &str, position: &str, words: &str) {
    let (code, said) = check(config);
    assert_eq!(code, Some(2), "{config}: {said}");
    let head = format!("sockstate: c.toml:{position}: ");
    assert!(said.starts_with(&head) && said.contains(words), "{config}: {said}");
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_its_place() {
    const SINK: &str = "\n[sinks.a]\ntype = \"stdout\"\n";
    for (config, position, words) in [
        ("", "1:1", "there is no sink"),
        ("snapshot = ", "1:12", "string values must be quoted"),
        ("snapshot = 3", "1:12", "'snapshot' must be true or false"),
        ("snapshoot = true", "1:1", "unknown key 'snapshoot'; did you mean 'snapshot'?"),
        ("count = 0", "1:9", "0 is not in"),
        ("metrics-by = [\"pod\", \"node\"]", "1:14", "metrics have no label 'node'"),
        ("metrics = \"9435x\"", "1:11", "is not an address with a port (examples: 9435"),
        ("filter = 3", "1:1", "'filter' must be a table"),
        ("[filter]\n\nport = [80, 0]", "3:8", "'0' is not a port"),
        ("[filter]\nport = 65536", "2:8", "'65536' is not a port"),
        ("[filter]\nport = true", "2:8", "must be a string or a number"),
        ("[filter]\nto = [\"close-wiat\"]", "2:6", "unknown state 'close-wiat'"),
        ("[filter]\nremote = \"10.1.2.3/8\"", "2:10", "did you mean 10.0.0.0/8"),
        ("[filter]\nipv4 = true\nipv6 = true", "1:1", "cannot be used with"),
        ("[kernel]\nring-size = \"3M\"", "2:13", "not a power of two"),
        ("[kernel]\nring_size = \"4M\"", "2:1", "did you mean 'ring-size'?"),
        ("[stuck]\nthreshold = [\"60\"]", "2:13", "is not a threshold"),
        ("[labels]\nenv = 3", "2:7", "'env' must be a string"),
        ("[colours]\nx = 1", "1:2", "unknown key 'colours'"),
    ] {
        let sink = if config.is_empty() { "" } else { SINK };
        assert_refused(&format!("{config}{sink}"), position, words);
    }
}

#[test]
fn what_is_wrong_with_a_sink_is_said_with_its_place() {
    for (sink, position, words) in [
        ("", "1:1", "'type' is missing"),
        ("type = \"kafkaesque\"", "2:8", "invalid value 'kafkaesque'"),
        ("type = \"file\"", "1:1", "'path' is missing"),
        ("type = \"socket\"", "1:1", "'address' is missing"),
        ("type = \"syslog\"", "1:1", "'address' is missing"),
        ("type = \"http\"", "1:1", "'url' is missing"),
        ("type = \"otlp\"", "1:1", "'url' is missing"),
        ("type = \"otlp-metrics\"", "1:1", "'url' is missing"),
        ("type = \"nats\"", "1:1", "'url' is missing"),
        ("type = \"kafka\"", "1:1", "'url' is missing"),
        (
            "type = \"file\"\npath = \"x\"\nurl = \"http://x\"",
            "4:1",
            "'url' is for sinks of type http, otlp, otlp-metrics, nats, kafka",
        ),
        (
            "type = \"otlp-metrics\"\nurl = \"http://x\"\naggregate = \"1s\"",
            "1:1",
            "'records', 'aggregate', 'interim' and 'sample' apply to records",
        ),
        (
            "type = \"otlp\"\nurl = \"http://x\"\ninterval = \"1s\"",
            "4:1",
            "is for sinks of type otlp-metrics",
        ),
        ("type = \"otlp\"\nurl = \"http://x\"\njson = true\ngrpc = true", "1:1", "cannot be used with"),
        (
            "type = \"http\"\nurl = \"http://x\"\n[sinks.a.properties]\nx = \"y\"",
            "4:10",
            "is for sinks of type kafka",
        ),
        (
            "type = \"otlp-metrics\"\nurl = \"http://x\"\n[sinks.a.filter]\nport = 1",
            "4:10",
            "'filter' applies to records",
        ),
        (
            "type = \"file\"\npath = \"x\"\nkeap = 3",
            "4:1",
            "unknown key 'keap' in [sinks.a]; did you mean 'keep'?",
        ),
        // The nearest key of all would be another type's.
        (
            "type = \"stdout\"\nsubjekt = \"x\"",
            "3:1",
            "unknown key 'subjekt' in [sinks.a]; there are type, format",
        ),
        ("type = \"tape\"\nkeep = \"many\"", "2:8", "c.toml:3:8: invalid digit"),
        ("keep = 3\nurl = \"http://x\"\nkeap = 3", "1:1", "c.toml:4:1: unknown key 'keap'"),
        ("type = \"socket\"\naddress = \"host\"", "3:11", "'host' is no address"),
        ("type = \"socket\"\naddress = \"udp://host:1\"", "1:1", "must be tcp, tls or unix"),
        ("type = \"stdout\"\nqueue = \"lots\"", "3:9", "'lots' is not a size"),
        ("type = \"stdout\"\nformat = \"xml\"", "3:10", "invalid value 'xml'"),
        ("type = \"stdout\"\nformat = \"table\"", "3:10", "[possible values: json, ecs, otlp, csv]"),
        (
            "type = \"journald\"\nformat = \"json\"",
            "3:1",
            "is for sinks of type stdout, file, socket, http, nats",
        ),
        ("type = \"stdout\"\nspool-size = \"1G\"", "1:1", "spool"),
        ("type = \"stdout\"\n[sinks.a.headers]\nx = \"y\"", "3:10", "is for sinks of type http, otlp"),
        ("type = \"stdout\"\n[sinks.a.filter]\nfrom = \"x\"", "4:8", "unknown state 'x'"),
        ("type = \"http\"\nurl = \"http://x\"\ntls-key = \"k\"", "1:1", "tls-cert"),
    ] {
        assert_refused(&format!("[sinks.a]\n{sink}\n"), position, words);
    }
    let (_, said) = check("[sinks.\"a/b\"]\ntype = \"stdout\"");
    assert!(said.contains("'a/b' is no name for a sink"), "{said}");
    let output = sockstate(&["run", "--config", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/no/such/file"), "{}", text(&output.stderr));
}

#[test]
fn kinds_of_records_that_a_sink_cannot_have_are_refused() {
    for (sink, position, words) in [
        ("type = \"stdout\"\nrecords = [\"stuk\"]", "3:11", "no records of the kind 'stuk'; there are start"),
        (
            "type = \"stdout\"\nformat = \"csv\"\nrecords = [\"stuck\"]",
            "4:1",
            "have neither: name one of the two in 'records', or set another 'format'",
        ),
        (
            "type = \"stdout\"\nrecords = [\"stuck\", \"aggregates\"]",
            "3:1",
            "set 'aggregate' to the length of the windows, such as \"1m\", or name \"transitions\"",
        ),
    ] {
        assert_refused(&format!("[sinks.a]\n{sink}\n"), position, words);
    }
}

#[test]
fn kinds_of_records_that_a_sink_has_are_right() {
    for sink in [
        "records = [\"aggregates\"]\naggregate = \"1m\"",
        "records = [\"transitions\"]\naggregate = \"1m\"",
        "records = [\"stuck\", \"transitions\"]\nformat = \"csv\"",
        "records = [\"connections\"]\nformat = \"csv\"",
        "records = [\"stuck\"]\nformat = \"ecs\"",
    ] {
        let (code, said) = check(&format!("[sinks.a]\ntype = \"stdout\"\n{sink}\n"));
        assert_eq!(code, Some(0), "{sink}: {said}");
    }
}

/// As on the command line: `--format JSON`.
#[test]
fn names_of_values_in_a_configuration_have_no_case() {
    let config = "[filter]\nfrom = [\"close_wait\"]\nto = [\"connected\"]\n[stuck]\nthreshold = [\"last_ack=never\"]\n\
                  [kernel]\nhook = \"tp-btf\"\ntier = \"timers\"\n\
                  [sinks.http]\ntype = \"http\"\nurl = \"http://127.0.0.1/\"\nformat = \"json\"\n\
                  records = [\"stuck\"]\ntemplate = \"splunk\"\ncompression = \"gzip\"\n\
                  spool = \"/tmp\"\nspool-sync = \"always\"\n[sinks.csv]\ntype = \"stdout\"\nformat = \"csv\"\n";
    let names = [
        "close_wait",
        "connected",
        "last_ack",
        "never",
        "tp-btf",
        "timers",
        "\"http\"",
        "json",
        "stuck\"",
        "splunk",
        "gzip",
        "always",
        "stdout",
        "\"csv\"",
    ];
    let upper = names.iter().fold(config.to_owned(), |text, name| text.replace(name, &name.to_uppercase()));
    let read = |text: &str| {
        let reading = sockstate::settings::parse("c.toml", text);
        assert_eq!(reading.problems, [], "{text}");
        format!("{:?}", reading.settings.expect("settings"))
    };
    assert_ne!(upper, config);
    assert_eq!(read(&upper), read(config));
}

#[test]
fn the_journal_gets_the_priority_of_a_message() {
    use std::os::unix::fs::MetadataExt;
    for is_journal in [true, false] {
        let stderr = tempfile::NamedTempFile::new().expect("file");
        let place = stderr.as_file().metadata().expect("metadata");
        // systemd names the device and the inode of the journal's socket.
        let stream = format!("{}:{}", place.dev(), place.ino() + u64::from(!is_journal));
        let status = Command::new(env!("CARGO_BIN_EXE_sockstate"))
            .args(["run", "--config", "/no/such/file"])
            .env("JOURNAL_STREAM", stream)
            .stderr(stderr.reopen().expect("file"))
            .status();
        assert_eq!(status.expect("sockstate").code(), Some(2));
        let said = std::fs::read_to_string(stderr.path()).expect("messages");
        let head = if is_journal { "<3>/no/such/file" } else { "sockstate: /no/such/file" };
        assert!(said.starts_with(head), "{said}");
    }
}

/// A missing key hides no other problem of the sink.
#[test]
fn a_sink_without_a_required_key_is_checked_nevertheless() {
    for (sink, problems) in [
        (
            "type = \"http\"\nauthorization-file = \"/no/such\"\ntemplate = \"splunk\"\nformat = \"csv\"\nkeap = 3",
            &[
                "1:1: 'url' is missing",
                "1:1: Elasticsearch and Splunk take JSON only",
                "3:22: ",
                "6:1: unknown key",
            ][..],
        ),
        (
            "type = \"file\"\nescape-formulas = true\nspool = \"/dev/null/x\"",
            &["1:1: 'path' is missing", "1:1: 'escape-formulas' is for", "4:9: sink a: cannot use the spool"],
        ),
        // The value is wrong, so the key is not missing.
        (
            "type = \"socket\"\naddress = \"host\"\nescape-formulas = true",
            &["1:1: 'escape-", "3:11: 'host' is no"],
        ),
        ("type = \"file\"\naggregate-keys = 4", &["1:1: 'path', 'aggregate' is missing"]),
        // Which keys are required is not known without a type.
        ("keep = 3", &["1:1: 'type' is missing"]),
    ] {
        let (code, said) = check(&format!("[sinks.a]\n{sink}\n"));
        assert_eq!(code, Some(2), "{sink}: {said}");
        let lines: Vec<&str> = said.lines().map(|line| line.trim_start_matches("sockstate: ")).collect();
        assert_eq!(lines.len(), problems.len(), "{sink}: {said}");
        for (line, problem) in lines.iter().zip(problems) {
            assert!(line.starts_with(&format!("c.toml:{problem}")), "{sink}: {line} instead of {problem}");
        }
    }
}

#[test]
fn what_the_binary_was_built_without_is_named() {
    for (is_there, name, sink) in [
        (cfg!(feature = "nats"), "NATS", "type = \"nats\"\nurl = \"nats://x\""),
        (cfg!(feature = "kafka"), "Kafka", "type = \"kafka\"\nurl = \"x:9092\""),
        (cfg!(feature = "grpc"), "gRPC", "type = \"otlp\"\nurl = \"http://x\"\ngrpc = true"),
        (cfg!(feature = "grpc"), "gRPC", "type = \"otlp-metrics\"\nurl = \"http://x\"\ngrpc = true"),
    ] {
        let (code, said) = check(&format!("[sinks.a]\n{sink}\n"));
        let lacks = format!("sockstate: c.toml:1:1: this sockstate was built without {name}: cargo install");
        assert_eq!(code, Some(if is_there { 0 } else { 2 }), "{sink}: {said}");
        assert_eq!(said.starts_with(&lacks), !is_there, "{sink}: {said}");
        let (_, said) = check(&format!("[sinks.a]\n{}\n", sink.replace("url", "# url")));
        assert!(said.contains("c.toml:1:1: 'url' is missing"), "{sink}: {said}");
    }
}

#[test]
fn the_packaged_configuration_is_the_example_and_right() {
    let example = text(&sockstate(&["run", "--example"]).stdout);
    let packaged = include_str!("../../packaging/sockstate.toml");
    assert_eq!(example, packaged, "make it again: sockstate run --example > packaging/sockstate.toml");
    let (code, said) = check(&example);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn configurations_in_the_documents_are_right() {
    let documents = [
        include_str!("../../docs/configuration.md"),
        include_str!("../../docs/collectors.md"),
        include_str!("../../docs/fleet.md"),
    ];
    let mut count = 0;
    for text in documents.iter().flat_map(|document| document.split("```toml\n").skip(1)) {
        let block = text.split("```").next().expect("a block");
        let lacks =
            [("\"nats\"", cfg!(feature = "nats"), "NATS"), ("\"kafka\"", cfg!(feature = "kafka"), "Kafka")];
        if let Some((_, _, name)) = lacks.iter().find(|(word, is_there, _)| block.contains(word) && !is_there)
        {
            assert!(check(block).1.contains(&format!("built without {name}")));
            continue;
        }
        let block = ["/var/log/sockstate", "/var/lib/sockstate", "/etc/sockstate"]
            .iter()
            .zip(["DIR/log", "DIR/lib", "DIR/etc"])
            .fold(block.to_owned(), |block, (path, own)| block.replace(path, own))
            // Where there is a BPF file system is another matter.
            .replace("pin = ", "# pin = ");
        let (code, said) = check(&block);
        assert_eq!(code, Some(0), "{said}\n{block}");
        count += 1;
    }
    assert!(count > 9, "{count}");
}

#[test]
fn every_flag_of_trace_has_a_key() {
    let help = text(&sockstate(&["trace", "--help"]).stdout);
    let example = include_str!("../../packaging/sockstate.toml");
    let lines = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
    let flags = lines.filter_map(|line| line.split_once("--")).map(|(_, rest)| rest);
    let mut count = 0;
    for flag in flags.filter(|flag| flag.starts_with(|c: char| c.is_ascii_lowercase())) {
        let name: String = flag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        // Where it goes, and in which colours, is a sink's business.
        if !["output", "color", "help"].contains(&name.as_str()) {
            assert!(
                example.contains(&format!("\n# {name} = ")) || example.contains(&format!("\n{name} = ")),
                "{name}"
            );
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
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
fn the_privileges_of_no_process_are_an_error() {
    // Larger than any process id (PID_MAX_LIMIT in the kernel's linux/threads.h).
    let output = sockstate(&["doctor", "--privileges", "4194305"]);
    assert_eq!(output.status.code(), Some(1));
    let message = "cannot read the threads of process 4194305: No such file or directory";
    assert!(text(&output.stderr).contains(message), "{output:?}");
}

#[test]
fn a_look_at_nothing_is_no_good_news() {
    let output = sockstate(&["sockets", "--netns", "7"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("there is no network namespace 7"), "{output:?}");
    let output = sockstate(&["stuck", "--check", "--netns", "7"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).starts_with("SOCKSTATE UNKNOWN - "), "{output:?}");
}

#[test]
fn kernel_arguments_have_the_defaults_of_their_flags() {
    use clap::Parser;
    let plain = sockstate::cmd::Cli::try_parse_from(["sockstate"]).expect("no arguments");
    assert_eq!(plain.trace.kernel, sockstate::cli::KernelArgs::default());
}

/// Every command in the documents is one: a flag that was renamed, or never was, is found here.
#[test]
fn the_documents_commands_are_commands() {
    use clap::Parser;
    let mut count = 0;
    for (name, text) in documents::documents() {
        for command in documents::commands(&text) {
            let words = command.split_whitespace().map(|word| word.trim_end_matches(','));
            let result = sockstate::cmd::Cli::try_parse_from(words);
            let is_help = |error: &clap::Error| !error.use_stderr();
            let problem = result.err().filter(|error| !is_help(error));
            assert!(
                problem.is_none(),
                "{name}: {command}: {}",
                problem.map(|problem| problem.to_string()).unwrap_or_default()
            );
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}
