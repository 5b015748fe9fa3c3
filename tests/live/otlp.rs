//! `sockstate run` with a receiver that knows OpenTelemetry's own messages, and accepts nothing else.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek},
    net::TcpStream,
    os::unix::fs::FileExt,
};

use serde_json::Value;

use crate::{
    Test,
    daemon::{Daemon, SPLIT, connections},
    lab::{Story, in_lab, wait_until},
    sockets::fresh_port,
    test,
    tools::{self, Running},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("otlp: logs over HTTP, protobuf and JSON", || logs("")),
        test("otlp: logs over HTTP, from the sinks' process", || logs(SPLIT)),
        test("otlp: metrics over HTTP, protobuf and JSON", || metrics("")),
        test("otlp: metrics over HTTP, from the sinks' process", || metrics(SPLIT)),
        #[cfg(feature = "grpc")]
        test("feature grpc: OTLP logs and metrics", || grpc("")),
        #[cfg(feature = "grpc")]
        test("feature grpc: OTLP logs and metrics, from the sinks' process", || grpc(SPLIT)),
        #[cfg(feature = "grpc")]
        test("feature grpc: over TLS", encrypted),
        #[cfg(feature = "grpc")]
        test("feature grpc: an overloaded server gets each record later, once", overloaded),
    ]
}

/// The receiver. It writes each accepted request as a line of a file.
struct Receiver {
    _running: Running,
    stdout: File,
    http: u16,
    #[cfg(feature = "grpc")]
    grpc: u16,
}

impl Receiver {
    /// Starts a receiver that answers the first `refused` calls of gRPC with UNAVAILABLE. It encrypts with the
    /// certificate in `directory`.
    fn start(refused: u32, certificates: Option<&std::path::Path>) -> Option<Self> {
        let mut python = tools::python("grpc, opentelemetry.proto.collector.logs.v1.logs_service_pb2")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs/otlp_receiver.py");
        let stdout = tempfile::tempfile().expect("file");
        let [http, grpc] = [fresh_port(), fresh_port()];
        let arguments = [http.to_string(), grpc.to_string(), refused.to_string()];
        let into = stdout.try_clone().expect("file");
        let running = Running::start(python.arg(script).args(arguments).args(certificates).stdout(into));
        for port in [http, grpc] {
            wait_until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        Some(Self {
            _running: running,
            stdout,
            http,
            #[cfg(feature = "grpc")]
            grpc,
        })
    }

    /// Waits until the receiver has accepted this number of requests of this kind.
    fn wait_for(&self, kind: &str, count: usize) {
        let kind = format!("\"kind\": \"{kind}\"");
        wait_until(&format!("{count} requests"), || {
            // The receiver shares the position in the file.
            let mut text = vec![0; self.stdout.metadata().expect("metadata").len() as usize];
            self.stdout.read_exact_at(&mut text, 0).expect("read");
            String::from_utf8_lossy(&text).matches(&kind).count() >= count
        });
    }

    /// All requests that the receiver has accepted, by their kind.
    fn requests(mut self) -> BTreeMap<String, Vec<Value>> {
        self.stdout.rewind().expect("rewind");
        let mut requests: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in BufReader::new(self.stdout).lines() {
            let mut said: Value = serde_json::from_str(&line.expect("line")).expect("JSON");
            assert!(said["error"].is_null(), "{said}");
            let kind = said["kind"].as_str().expect("kind").to_owned();
            requests.entry(kind).or_default().push(said["request"].take());
        }
        requests
    }
}

/// The attributes by name, as in the JSON of protobuf, where integers are texts.
fn attributes(point: &Value) -> BTreeMap<String, Value> {
    let of = |record: &Value| {
        let value = record["value"].as_object().and_then(|value| value.values().next()).cloned();
        (record["key"].as_str().expect("key").to_owned(), value.unwrap_or_default())
    };
    point["attributes"].as_array().map(|all| all.iter().map(of).collect()).unwrap_or_default()
}

fn check_resource(entry: &Value) {
    let resource = attributes(&entry["resource"]);
    assert_eq!(resource["service.name"], "sockstate");
    assert_eq!(resource["env"], "test");
    assert!(resource["host.name"].is_string());
}

/// Checks that the log records have the same content as the records, in the same order.
fn check_logs(requests: &[Value], story: &Story, way: &str) {
    let mut logs = Vec::new();
    for request in requests.iter().flat_map(|request| request["resourceLogs"].as_array().expect("resources"))
    {
        check_resource(request);
        logs.extend(request["scopeLogs"][0]["logRecords"].as_array().expect("records"));
    }
    assert_eq!(logs.len(), story.records.len(), "{way}");
    for (log, record) in logs.into_iter().zip(&story.records) {
        let name = format!("sockstate.{}", record["kind"].as_str().expect("kind"));
        assert_eq!(log["eventName"], name);
        let found = attributes(log);
        assert_eq!(found["sockstate.seq"], record["seq"].to_string(), "{log}");
        let time: jiff::Timestamp = record["time"].as_str().expect("time").parse().expect("time");
        assert_eq!(log["timeUnixNano"], time.as_nanosecond().to_string());
        if record["kind"] == "transition" {
            assert_eq!(found["sockstate.from"], record["from"]);
            assert_eq!(found["network.local.address"], record["local"]["address"]);
            assert_eq!(found["process.executable.name"], record["owner"]["comm"]);
            if record["to"] == "CLOSE_WAIT" {
                assert_eq!(found["network.connection.state"], "close_wait");
            }
        }
    }
}

/// The last numbers equal the sums over the records.
fn check_metrics(requests: &[Value], story: &Story, way: &str) {
    assert!(requests.len() >= 2, "{way}: now and then, and at the end");
    for request in requests {
        request["resourceMetrics"].as_array().expect("resources").iter().for_each(check_resource);
    }
    let last = requests.last().expect("a request")["resourceMetrics"].as_array().expect("resources");
    let scope = &last.last().expect("a resource")["scopeMetrics"][0];
    let metrics: BTreeMap<&str, &Value> = scope["metrics"]
        .as_array()
        .expect("metrics")
        .iter()
        .map(|record| (record["name"].as_str().expect("name"), record))
        .collect();
    let (mut counts, mut seconds) =
        (BTreeMap::<[String; 2], u64>::new(), BTreeMap::<String, (u64, f64)>::new());
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    for record in story.transitions() {
        *counts.entry([text(&record["from"]), text(&record["to"])]).or_default() += 1;
        if let (Some(ns), None) = (record["in_state_ns"].as_u64(), record.get("in_state_at_least")) {
            let (count, sum) = seconds.entry(text(&record["from"])).or_default();
            *count += 1;
            *sum += ns as f64 / 1e9;
        }
    }
    let number = |value: &Value| value.as_str().expect("a number is a text").parse::<u64>().expect("number");
    let sum = &metrics["sockstate.transitions"]["sum"];
    assert_eq!(sum["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    assert_eq!(sum["isMonotonic"], true);
    let mut shown = BTreeMap::new();
    for point in sum["dataPoints"].as_array().expect("points") {
        let labels = attributes(point);
        shown.insert([text(&labels["from"]), text(&labels["to"])], number(&point["asInt"]));
        assert!(number(&point["startTimeUnixNano"]) < number(&point["timeUnixNano"]));
    }
    assert_eq!(shown, counts, "{way}");
    assert!(counts.values().sum::<u64>() > 100, "{way}: {counts:?}");
    let duration = metrics["sockstate.state.duration"];
    assert_eq!(duration["unit"], "s");
    let points = duration["histogram"]["dataPoints"].as_array().expect("points");
    assert_eq!(points.len(), seconds.len(), "{way}");
    for point in points {
        let (count, sum) = seconds[&text(&attributes(point)["state"])];
        let buckets = point["bucketCounts"].as_array().expect("buckets");
        assert_eq!(buckets.len(), point["explicitBounds"].as_array().expect("bounds").len() + 1);
        assert_eq!(buckets.iter().map(number).sum::<u64>(), count);
        assert_eq!(number(&point["count"]), count);
        assert!((point["sum"].as_f64().expect("sum") - sum).abs() < 1e-6, "{point}");
    }
    let sockets = metrics["sockstate.sockets"]["gauge"]["dataPoints"].as_array().expect("points");
    assert!(sockets.iter().any(|point| attributes(point)["state"] == "CLOSE_WAIT"), "{sockets:?}");
}

fn logs(top: &'static str) {
    in_lab(|netns| {
        let Some(receiver) = Receiver::start(0, None) else { return };
        let (http, port) = (receiver.http, fresh_port());
        let daemon = Daemon::start_with(
            top,
            netns,
            port,
            &format!(
                "[sinks.protobuf]\ntype = \"otlp\"\nurl = \"http://127.0.0.1:{http}\"\nbatch-time = \"50ms\"\ncompression = \"gzip\"\n\
                 [sinks.json]\ntype = \"otlp\"\njson = true\nurl = \"http://127.0.0.1:{http}/v1/logs\"\nbatch-time = \"50ms\"\n"
            ),
        );
        connections(50, port);
        let (story, _directory) = daemon.stop();
        let requests = receiver.requests();
        for kind in ["/v1/logs application/json", "/v1/logs application/x-protobuf"] {
            check_logs(&requests[kind], &story, kind);
        }
    });
}

fn metrics(top: &'static str) {
    in_lab(|netns| {
        let Some(receiver) = Receiver::start(0, None) else { return };
        let (http, port) = (receiver.http, fresh_port());
        let mut daemon = Daemon::start_with(
            top,
            netns,
            port,
            &format!(
                "[sinks.protobuf]\ntype = \"otlp-metrics\"\nurl = \"http://127.0.0.1:{http}\"\ninterval = \"100ms\"\n\
                 compression = \"gzip\"\n[sinks.json]\ntype = \"otlp-metrics\"\njson = true\nurl = \"http://127.0.0.1:{http}\"\n\
                 interval = \"100ms\"\n"
            ),
        );
        connections(50, port);
        daemon.tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        let kinds = ["/v1/metrics application/json", "/v1/metrics application/x-protobuf"];
        kinds.iter().for_each(|kind| receiver.wait_for(kind, 2));
        let (story, _directory) = daemon.stop();
        let requests = receiver.requests();
        for kind in kinds {
            check_metrics(&requests[kind], &story, kind);
        }
    });
}

#[cfg(feature = "grpc")]
fn over_grpc(
    top: &'static str,
    refused: u32,
    certificates: Option<&std::path::Path>,
    check: impl FnOnce(BTreeMap<String, Vec<Value>>, Story) + Send,
) {
    // The certificate that the sink trusts, and the name of the server in it.
    let (scheme, tls) = match certificates {
        Some(path) => {
            ("https", format!("tls-ca = \"{}/cert.pem\"\ntls-name = \"localhost\"\n", path.display()))
        }
        None => ("http", String::new()),
    };
    in_lab(|netns| {
        let Some(receiver) = Receiver::start(refused, certificates) else { return };
        let (grpc, port) = (receiver.grpc, fresh_port());
        let mut daemon = Daemon::start_with(
            top,
            netns,
            port,
            &format!(
                "[sinks.logs]\ntype = \"otlp\"\ngrpc = true\nurl = \"{scheme}://127.0.0.1:{grpc}\"\nbatch-time = \"50ms\"\n\
                 retry = \"200ms\"\n{tls}[sinks.metrics]\ntype = \"otlp-metrics\"\ngrpc = true\nurl = \"{scheme}://127.0.0.1:{grpc}\"\n\
                 interval = \"100ms\"\nretry = \"200ms\"\n{tls}"
            ),
        );
        connections(50, port);
        daemon.tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        receiver.wait_for("grpc metrics", 2);
        let (story, _directory) = daemon.stop();
        check(receiver.requests(), story);
    });
}

#[cfg(feature = "grpc")]
fn grpc(top: &'static str) {
    over_grpc(top, 0, None, |requests, story| {
        check_logs(&requests["grpc logs"], &story, "gRPC");
        check_metrics(&requests["grpc metrics"], &story, "gRPC");
    });
}

#[cfg(feature = "grpc")]
fn encrypted() {
    let directory = tempfile::tempdir().expect("directory");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    for (name, pem) in [("cert", made.cert.pem()), ("key", made.signing_key.serialize_pem())] {
        std::fs::write(directory.path().join(name).with_extension("pem"), pem).expect("write");
    }
    over_grpc("", 0, Some(directory.path()), |requests, story| {
        check_logs(&requests["grpc logs"], &story, "gRPC over TLS");
        check_metrics(&requests["grpc metrics"], &story, "gRPC over TLS");
    });
}

#[cfg(feature = "grpc")]
fn overloaded() {
    over_grpc("", 3, None, |requests, story| {
        assert_eq!(requests["grpc refused"].len(), 3);
        check_logs(&requests["grpc logs"], &story, "gRPC, refused at first");
    });
}
