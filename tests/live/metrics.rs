//! The values of `/metrics`, compared with the records of the same stream and with the kernel's tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    Test,
    daemon::Daemon,
    lab::{Story, Tracer, in_lab, sockstate, wait_until},
    observer::wait_for_states,
    sockets::{Kind, fresh_port},
    test, tools,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("metrics: what the records say, and the kernel's tables", counts),
        test("metrics: labels that strangers choose have a limit", limited),
        test("metrics: promtool accepts the output", promtool),
        test("metrics: sinks, the ring, the programs and who leaks", daemon),
        test("metrics: the alerts fire when they should", alerts),
        test("metrics: the dashboard queries metrics that exist", dashboard),
        test("metrics: silent clients do not block others", silent),
        test("metrics: an address that is in use is named", taken),
    ]
}

/// The status and the body of an HTTP answer.
fn get(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    write!(stream, "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).expect("status").parse().expect("number"), body.to_owned())
}

/// The values of all samples by name and labels.
pub(crate) fn scrape(port: u16) -> BTreeMap<String, f64> {
    let (status, text) = get(port, "GET /metrics");
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("number"))
        })
        .collect()
}

/// Starts a tracer of this namespace. Its metrics server is in the same namespace, so it also traces the scrapes.
fn start(netns: u64, port: u16, args: &[&str]) -> Tracer {
    let address = format!("127.0.0.1:{port}");
    Tracer::start(netns, &[&["--metrics", &address], args].concat())
}

fn counts() {
    in_lab(|netns| {
        let (metrics, port) = (fresh_port(), fresh_port());
        let rule = format!("CLOSE_WAIT:{port}=1");
        // The comparison leaves out the scrapes.
        let filter = port.to_string();
        let args = ["--threshold", &rule, "--port", &filter, "--metrics-by", "local-port,peer"];
        let mut tracer = start(netns, metrics, &[&args[..], &["--records", ALL]].concat());
        let (listener, client, server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "LISTEN", "CLOSE_WAIT", "FIN_WAIT2"]);
        tracer.wait_for(|record| record["kind"] == "stuck");
        let now = scrape(metrics);
        let sockets = |state: &str| now[&format!("sockstate_sockets{{state=\"{state}\"}}")];
        assert_eq!((sockets("CLOSE_WAIT"), sockets("FIN_WAIT2")), (1.0, 1.0));
        assert_eq!(now["sockstate_stuck_sockets{state=\"CLOSE_WAIT\"}"], 1.0);
        assert_eq!(now["sockstate_stuck_sockets{state=\"FIN_WAIT2\"}"], 0.0);
        assert_eq!(now["sockstate_illegal_transitions_total"], 0.0);
        let labels = format!("{{state=\"CLOSE_WAIT\",local_port=\"{port}\",peer=\"127.0.0.0/24\"}}");
        for name in ["sockets_by", "stuck_sockets_by"] {
            assert_eq!(now[&format!("sockstate_{name}{labels}")], 1.0, "{name}: {now:?}");
        }
        assert_eq!(now["sockstate_local_ports_used"], 1.0, "the client's");
        drop(server);
        tracer.wait_for(|record| record["kind"] == "resolved");
        drop(listener);
        tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        let last = scrape(metrics);
        let story = tracer.stop();
        let mut said: BTreeMap<String, f64> = BTreeMap::new();
        let mut times: BTreeMap<String, f64> = BTreeMap::new();
        for record in story.transitions() {
            let (from, to) = (record["from"].as_str().expect("from"), record["to"].as_str().expect("to"));
            let name = format!("sockstate_transitions_total{{from=\"{from}\",to=\"{to}\"}}");
            *said.entry(name).or_default() += 1.0;
            if let (Some(ns), None) = (record["in_state_ns"].as_u64(), record.get("in_state_at_least")) {
                let name = format!("sockstate_state_duration_seconds_sum{{state=\"{from}\"}}");
                *times.entry(name).or_default() += ns as f64 / 1e9;
            }
        }
        let shown = |prefix: &str| -> BTreeMap<String, f64> {
            let mine = last.iter().filter(|(name, _)| name.starts_with(prefix));
            mine.map(|(name, value)| (name.clone(), *value)).collect()
        };
        let total: f64 = said.values().sum();
        assert!(total >= 10.0, "{said:?}");
        assert_eq!(shown("sockstate_transitions_total"), said);
        for (name, seconds) in &times {
            assert!((last[name] - seconds).abs() < 1e-6, "{name}: {} and {seconds}", last[name]);
        }
        assert!(!times.is_empty(), "{said:?}");
        assert_eq!(shown("sockstate_state_duration_seconds_sum").len(), times.len());
        let counts = shown("sockstate_state_duration_seconds_count");
        assert_eq!(counts.len(), times.len());
        for (name, count) in counts {
            let all = name.replace("_count{", "_bucket{le=\"+Inf\",");
            assert_eq!(last[&all], count, "{name}");
        }
        let lost: f64 = shown("sockstate_lost_total").values().sum();
        assert_eq!(lost, 0.0);
        check_connections(&story, &last);
    });
}

/// The default of `--records` has no connections.
const ALL: &str = "transitions,connections,stuck,resolved";

/// Compares the numbers with the records of whole connections, which other code makes of the transitions.
fn check_connections(story: &Story, last: &BTreeMap<String, f64>) {
    let mut said: BTreeMap<String, f64> = BTreeMap::new();
    let mut add = |name: &str, labels: String, value: f64| {
        *said.entry(format!("sockstate_{name}{{{labels}}}")).or_default() += value;
    };
    let mut number = 0;
    for record in story.of("connection") {
        number += 1;
        let role = format!("role=\"{}\"", record["role"].as_str().expect("role"));
        let cause = record["cause"].as_str().unwrap_or("unknown");
        add("connections_closed_total", format!("{role},cause=\"{cause}\""), 1.0);
        add("connection_duration_seconds_count", role.clone(), 1.0);
        if let Some(retransmits) = record["retransmits"].as_f64() {
            add("connection_retransmits_count", role.clone(), 1.0);
            add("connection_retransmits_sum", role.clone(), retransmits);
        }
        let seconds = |key: &str| record[key].as_f64().map(|ns| ns / 1e9);
        add("connection_duration_seconds_sum", role.clone(), seconds("duration_ns").expect("a time"));
        if let Some(handshake) = seconds("handshake_ns") {
            add("handshake_seconds_count", role.clone(), 1.0);
            add("handshake_seconds_sum", role.clone(), handshake);
            add("connections_opened_total", role, 1.0);
        }
    }
    assert_eq!(number, 2, "both sides");
    for (name, value) in said {
        assert!((last[&name] - value).abs() < 1e-6, "{name}: {} and {value}", last[&name]);
    }
}

/// Clients choose their addresses, so the number of networks has a limit, and no socket is left out.
fn limited() {
    const NETWORKS: u8 = 30;
    in_lab(|netns| {
        let (metrics, port) = (fresh_port(), fresh_port());
        let filter = port.to_string();
        let args = ["--port", &filter, "--metrics-by", "peer", "--metrics-by-limit", "4"];
        let tracer = start(netns, metrics, &args);
        let listener = Kind::V4.listen_for(port, 1024);
        let mut sockets = Vec::new();
        for network in 1..=NETWORKS {
            // The first network has the most sockets, and one client uses more and more ports for this listener.
            for _ in 0..=u8::from(network == 1) * 7 {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
                client.bind(&SocketAddr::from(([127, 0, network, 1], 0)).into()).expect("bind");
                client.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("connect");
                sockets.push((client, listener.accept().expect("accept").0));
            }
        }
        let mut now = BTreeMap::new();
        wait_until("all are counted", || {
            now = scrape(metrics);
            now["sockstate_sockets{state=\"ESTABLISHED\"}"] == 2.0 * sockets.len() as f64
        });
        let by = |name: &String| name.starts_with("sockstate_sockets_by{state=\"ESTABLISHED\"");
        let series: Vec<(&String, &f64)> = now.iter().filter(|(name, _)| by(name)).collect();
        let labels =
            now.keys().filter_map(|name| name.strip_prefix("sockstate_sockets_by{state=")?.split_once(','));
        let labels: BTreeSet<&str> = labels.map(|(_, labels)| labels).collect();
        assert_eq!(
            labels.len(),
            5,
            "three networks, a listener without a peer, and all others together: {labels:?}"
        );
        assert_eq!(series.iter().map(|(_, count)| **count).sum::<f64>(), 2.0 * sockets.len() as f64);
        // All clients see the listener's network.
        assert_eq!(
            now["sockstate_sockets_by{state=\"ESTABLISHED\",peer=\"127.0.0.0/24\"}"],
            sockets.len() as f64
        );
        assert_eq!(now["sockstate_sockets_by{state=\"ESTABLISHED\",peer=\"127.0.1.0/24\"}"], 8.0);
        assert!(series.iter().any(|(name, _)| name.contains("peer=\"\",other=\"true\"")), "{series:?}");
        assert_eq!(now["sockstate_local_ports_used"], 8.0);
        tracer.stop();
    });
}

fn alerts() {
    let Some(mut promtool) = tools::find("promtool", "prometheus") else { return };
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus/sockstate.rules.test.yml");
    let output = promtool.args(["test", "rules", tests]).output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("SUCCESS"), "{said}{output:?}");
}

fn promtool() {
    let Some(mut promtool) = tools::find("promtool", "prometheus") else { return };
    in_lab(|netns| {
        let metrics = fresh_port();
        let mut tracer = start(netns, metrics, &[]);
        drop(Kind::V6.pair(fresh_port()));
        tracer.wait_for(|record| record["to"] == "CLOSE");
        let (_, text) = get(metrics, "GET /metrics");
        promtool_takes(&mut promtool, &text);
        tracer.stop();
    });
}

fn promtool_takes(promtool: &mut Command, text: &str) {
    let mut promtool = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    promtool.stdin.take().expect("stdin").write_all(older(text).as_bytes()).expect("write");
    let output = promtool.wait_with_output().expect("promtool");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{text}");
}

/// Enables the kernel's statistics of BPF programs for a while.
struct Counting(String);

impl Counting {
    const SYSCTL: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn start() -> Self {
        let before = std::fs::read_to_string(Self::SYSCTL).expect("sysctl");
        std::fs::write(Self::SYSCTL, "1").expect("sysctl");
        Self(before)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::SYSCTL, &self.0);
    }
}

fn daemon() {
    let Some(mut promtool) = tools::find("promtool", "prometheus") else { return };
    in_lab(|netns| {
        let _counting = Counting::start();
        let [metrics, dead, port] = [fresh_port(), fresh_port(), fresh_port()];
        let top = format!(
            "metrics = \"127.0.0.1:{metrics}\"\nmetrics-top = 3\nmetrics-by = [\"comm\", \"pod\"]\n[stuck]\nthreshold = [\"CLOSE_WAIT=50ms\"]\n"
        );
        let sinks = format!(
            "[sinks.dead]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{dead}\"\nretry = \"100ms\"\n"
        );
        let mut daemon = Daemon::start_with(&top, netns, port, &sinks);
        let (_listener, client, _server) = Kind::V4.pair(port);
        drop(client);
        daemon.tracer.wait_for(|record| record["kind"] == "stuck");
        let comm = std::fs::read_to_string("/proc/self/comm").expect("comm");
        let mut last = BTreeMap::new();
        wait_until("the numbers are there", || {
            last = scrape(metrics);
            last["sockstate_sink_failures_total{sink=\"dead\"}"] > 1.0
        });
        assert_eq!(last["sockstate_sink_failing{sink=\"dead\"}"], 1.0);
        assert_eq!(last["sockstate_sink_failing{sink=\"console\"}"], 0.0);
        assert!(last["sockstate_sink_delivered_total{sink=\"console\"}"] >= 10.0);
        assert_eq!(last["sockstate_sink_delivered_total{sink=\"dead\"}"], 0.0);
        assert_eq!(last["sockstate_sink_lost_total{sink=\"dead\"}"], 0.0);
        assert_eq!(last["sockstate_ring_size_bytes"], f64::from(16 << 20));
        assert!(last["sockstate_ring_used_bytes"] <= last["sockstate_ring_size_bytes"]);
        assert_eq!(last[&format!("sockstate_stuck_sockets_top{{comm=\"{}\"}}", comm.trim())], 1.0);
        let by = last.iter().find(|(name, _)| name.starts_with("sockstate_stuck_sockets_by{"));
        let (name, count) = by.expect("a series");
        let labels = format!("state=\"CLOSE_WAIT\",comm=\"{}\",pod=\"", comm.trim());
        assert!(name.contains(&labels) && *count == 1.0, "{name} {count}");
        let runs = &last["sockstate_program_runs_total{program=\"set_state\"}"];
        let seconds = &last["sockstate_program_seconds_total{program=\"set_state\"}"];
        assert!(*runs >= 10.0 && *seconds > 0.0 && seconds / runs < 1e-3, "{runs} {seconds}");
        let (_, text) = get(metrics, "GET /metrics");
        promtool_takes(&mut promtool, &text);
        daemon.stop();
    });
}

/// A daemon with all features serves every name and label in the queries of the dashboard. promtool parses the queries.
fn dashboard() {
    let Some(mut promtool) = tools::find("promtool", "prometheus") else { return };
    let text = include_str!("../../packaging/grafana/sockstate.json");
    let board: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"))
        .map(|target| target["expr"].as_str().expect("a query"))
        .collect();
    assert!(queries.len() > 16, "{}", queries.len());
    let directory = tempfile::tempdir().expect("directory");
    let rules = directory.path().join("rules.yml");
    let concrete = |query: &&str| {
        query.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$instance", ".*")
    };
    let rule = |(at, query): (usize, String)| {
        let query = query.replace('\'', "''");
        format!("  - record: x:y\n    expr: '{query}'\n    labels: {{ at: \"{at}\" }}\n")
    };
    let all: String = queries.iter().map(concrete).enumerate().map(rule).collect();
    std::fs::write(&rules, format!("groups:\n- name: board\n  rules:\n{all}")).expect("write");
    let output = promtool.arg("check").arg("rules").arg(&rules).output().expect("promtool");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let counted = said.contains(&format!("{} rules found", queries.len()));
    assert!(output.status.success() && counted, "{said}");
    let served = include_str!("../../docs/metrics.md");
    for name in
        queries.iter().flat_map(|query| query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
    {
        if let Some(family) = name.strip_prefix("sockstate_") {
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| family.strip_suffix(part)).unwrap_or(family);
            assert!(served.contains(&format!("`sockstate_{family}")), "{name} is not in docs/metrics.md");
        }
    }
}

/// Converts to the older text format, the only one that promtool checks. It has no units, and its descriptions have the
/// names of the samples.
fn older(text: &str) -> String {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["#", "TYPE", name, "counter"] => names.insert(name, format!("{name}_total")),
            ["#", "TYPE", name, "info"] => names.insert(name, format!("{name}_info")),
            _ => None,
        };
    }
    let line = |line: &str| -> Option<String> {
        let Some(("#", described)) = line.split_once(' ') else { return Some(format!("{line}\n")) };
        let (what, rest) = described.split_once(' ')?;
        let (name, rest) = rest.split_once(' ')?;
        let name = names.get(name).map_or(name, String::as_str);
        let rest = if rest == "info" { "gauge" } else { rest };
        (what != "UNIT").then(|| format!("# {what} {name} {rest}\n"))
    };
    text.lines().filter_map(line).collect()
}

fn silent() {
    in_lab(|netns| {
        let metrics = fresh_port();
        let mut tracer = start(netns, metrics, &[]);
        let silent: Vec<TcpStream> =
            (0..7).map(|_| TcpStream::connect(("127.0.0.1", metrics)).expect("connect")).collect();
        let begin = Instant::now();
        assert_eq!(get(metrics, "GET /readyz"), (200, "ok\n".into()));
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
        assert_eq!(get(metrics, "GET /healthz").0, 200);
        assert_eq!(capabilities_of_thread(tracer.pid(), "metrics"), 0, "the thread that strangers talk to");
        assert_eq!(get(metrics, "GET /").0, 404);
        assert_eq!(get(metrics, "POST /metrics").0, 405);
        let port = fresh_port();
        drop(Kind::V4.listen(port));
        tracer.wait_for(|record| record["local"]["port"] == port && record["to"] == "CLOSE");
        silent.iter().for_each(|stream| stream.shutdown(Shutdown::Both).expect("shutdown"));
        tracer.stop();
    });
}

fn capabilities_of_thread(pid: u32, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let statuses = tasks.map(|task| std::fs::read_to_string(task.expect("thread").path().join("status")));
    let status = statuses
        .map(|status| status.expect("status"))
        .find(|status| status.starts_with(&format!("Name:\t{name}\n")))
        .expect("a thread of that name");
    let bits = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).expect("CapPrm");
    u64::from_str_radix(bits, 16).expect("hexadecimal")
}

fn taken() {
    in_lab(|_| {
        let port = fresh_port();
        let _listener = Kind::V4.listen(port);
        let address = format!("127.0.0.1:{port}");
        let output = sockstate()
            .args(["trace", "--alongside", "--metrics", &address, "--duration", "1"])
            .output()
            .expect("sockstate");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&address) && error.contains("in use"), "{error}");
    });
}
