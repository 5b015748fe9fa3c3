//! Incomplete answers: for a part of the records, cut off, endless, or about something else.

use std::{
    io::{BufReader, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use sockstate::sinks::{Convert, Envelope, Template};

use crate::{
    all,
    collector::{self, Feeder, Taken, answer, http, http_collector, listen, settings, wait_until},
};

/// The records that a `_bulk` request holds.
fn documents(body: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(body).lines().skip(1).step_by(2).map(str::to_owned).collect()
}

fn envelope() -> Envelope {
    Envelope { before: b"[".to_vec(), behind: b"]".to_vec() }
}

/// Records that conversion makes longer, so that one batch takes many requests.
fn fat() -> Option<Convert> {
    Some(Box::new(|line, out| {
        out.extend_from_slice(line.trim_ascii_end());
        out.extend(std::iter::repeat_n(b' ', 2000));
        out.push(b'\n');
    }))
}

#[test]
fn a_refusal_costs_nothing_of_what_was_not_sent_yet() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    http_collector(listener, move |_, request| {
        let documents = documents(&request.body);
        assert!(documents.len() < 200, "the batch is sent in parts");
        let items: Vec<String> = documents
            .into_iter()
            .map(|document| {
                let is_bad = collector::seq(&document) == 3;
                if !is_bad {
                    into.add(document);
                }
                format!("{{\"create\":{{\"status\":{}}}}}", if is_bad { 400 } else { 201 })
            })
            .collect();
        answer("200 OK", "", &format!("{{\"errors\":true,\"items\":[{}]}}", items.join(",")))
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Elasticsearch)), fat());
    feeder.push(200);
    feeder.wait_until("the others are delivered", |status| status.delivered() == 199 && status.lost() == 1);
    assert_eq!(taken.seqs(), all(200).into_iter().filter(|seq| *seq != 3).collect::<Vec<_>>());

    let (listener, port) = listen();
    let json = "{\"partialSuccess\":{\"rejectedLogRecords\":\"1\",\"errorMessage\":\"no\"}}";
    http_collector(listener, move |at, _| answer("200 OK", "", if at == 0 { json } else { "" }));
    let mut feeder = Feeder::start(&settings(http(port, Template::OtlpJson(envelope()))), fat());
    feeder.push(200);
    feeder.wait_until("one is lost", |status| status.delivered() == 199 && status.lost() == 1);

    // The collector refuses the whole first request, and accepts the next ones.
    let (listener, port) = listen();
    http_collector(listener, |at, _| {
        answer(if at == 0 { "405 Method Not Allowed" } else { "200 OK" }, "", "")
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), fat());
    feeder.push(200);
    feeder.wait_until("the rest is delivered", |status| {
        status.delivered() + status.lost() == 200 && status.delivered() > 100 && status.lost() > 1
    });
}

/// A collector that takes each request, and begins its answer as `head` says; what comes then is `rest`'s.
fn rude(
    template: Template,
    head: &'static str,
    rest: impl Fn(&mut TcpStream) + Send + Sync + Copy + 'static,
) -> (Feeder, Taken) {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, into) = (stream.expect("connection"), into.clone());
            thread::spawn(move || {
                let Ok(Some(request)) = collector::read_request(&mut BufReader::new(&stream)) else { return };
                into.add(String::from_utf8_lossy(&request.body).into_owned());
                let _ = stream.write_all(head.as_bytes());
                rest(&mut stream);
            });
        }
    });
    let mut feeder = Feeder::start(&settings(http(port, template)), None);
    feeder.push(10);
    (feeder, taken)
}

/// How a connection goes on behind the head of an answer.
type Rest = fn(&mut TcpStream);

/// A byte now and then, for longer than a sink waits.
fn drip(stream: &mut TcpStream) {
    for _ in 0..100 {
        if stream.write_all(b" ").is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_success_whose_answer_breaks_is_a_success() {
    const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length";
    let broken: [(&str, Rest); 3] = [(LONG, |_| {}), (CHUNKED, |_| {}), (LONG, drip)];
    for (head, rest) in broken {
        for template in [Template::Ndjson, Template::Splunk, Template::Loki([].into())] {
            let (feeder, taken) = rude(template, head, rest);
            feeder.wait_until("all is delivered", |status| status.delivered() == 10);
            assert_eq!((taken.len(), feeder.queue.status().failures()), (1, 0), "{head:?}");
        }
    }
}

#[test]
fn a_verdict_that_breaks_off_leaves_its_records_in_doubt() {
    const LONG: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"took\":3,\"errors\": true, \"items\":[";
    const NOTHING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    const GOOD: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"took\":3,\"errors\": false,\"items\":[";
    let cases: [(Template, &str, Rest, u64); 6] = [
        (Template::Elasticsearch, LONG, |_| {}, 10),
        (Template::Elasticsearch, LONG, drip, 10),
        (Template::Elasticsearch, NOTHING, |_| {}, 10),
        // All were taken: the rest of the answer is not needed.
        (Template::Elasticsearch, GOOD, |_| {}, 0),
        (Template::OtlpJson(envelope()), LONG, |_| {}, 10),
        (Template::OtlpProtobuf(envelope()), LONG, drip, 10),
    ];
    for (template, head, rest, doubtful) in cases {
        let (feeder, taken) = rude(template, head, rest);
        feeder.wait_until("it is over", |status| status.delivered() + status.in_doubt() == 10);
        feeder.end(Duration::from_secs(1));
        let status = feeder.queue.status();
        assert_eq!((status.in_doubt(), status.lost(), taken.len()), (doubtful, 0, 1), "{head:?}");
    }
}

#[test]
fn a_long_answer_that_reports_errors_is_no_success() {
    let (listener, port) = listen();
    let reason = "x".repeat(5 << 20);
    http_collector(listener, move |_, _| {
        let item = format!("{{\"create\":{{\"status\":400,\"error\":\"{reason}\"}}}}");
        answer("200 OK", "", &format!("{{\"errors\":true,\"items\":[{item},{item}]}}"))
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Elasticsearch)), None);
    feeder.push(2);
    feeder.wait_until("it is over", |status| status.in_doubt() + status.delivered() + status.lost() == 2);
    assert_eq!(feeder.queue.status().in_doubt(), 2);
}

#[test]
fn bulk_is_asked_for_statuses_only() {
    let (listener, port) = listen();
    let heads = Taken::default();
    let into = heads.clone();
    http_collector(listener, move |_, request| {
        into.add(request.head.lines().next().unwrap_or_default().to_owned());
        answer("200 OK", "", "{\"errors\":false}")
    });
    for (query, expected) in [
        ("", "?filter_path=errors,items.*.status,items.*.error"),
        ("?pipeline=a", "?pipeline=a&filter_path=errors,items.*.status,items.*.error"),
        ("?filter_path=errors&refresh=true", "?filter_path=errors&refresh=true"),
    ] {
        let mut target = http(port, Template::Elasticsearch);
        target.url = format!("http://127.0.0.1:{port}/logs/_bulk{query}");
        let mut feeder = Feeder::start(&settings(target), None);
        feeder.push(1);
        feeder.wait_until("it is delivered", |status| status.delivered() == 1);
        let head = heads.lines().pop().expect("a request");
        assert_eq!(head, format!("POST /logs/_bulk{expected} HTTP/1.1"));
    }
}

#[test]
fn bulk_answers_of_other_shapes_are_no_reason_to_send_again() {
    // The answer, and how many of three records are delivered, in doubt and lost.
    let cases = [
        ("{\"errors\":false,\"items\":[{\"index\":{\"status\":201}}]}", [3, 0, 0]),
        ("{\"errors\":false,\"items\":[{},{},{}]}", [3, 0, 0]),
        (
            "{\"errors\":true,\"items\":[{\"index\":{\"status\":201}},{\"index\":{\"status\":400}},\
             {\"index\":{\"status\":409}}]}",
            [2, 0, 1],
        ),
        // Which ones these are is not known: a filter has taken the others out.
        ("{\"errors\":true,\"items\":[{\"create\":{\"status\":400}}]}", [0, 3, 0]),
        ("{\"errors\":true}", [0, 3, 0]),
        ("{\"errors\":true,\"items\":[{\"create\":{}},{\"create\":{}},{\"create\":{}}]}", [0, 3, 0]),
    ];
    for (body, expected) in cases {
        let (listener, port) = listen();
        let requests = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&requests);
        http_collector(listener, move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            answer("200 OK", "", body)
        });
        let mut feeder = Feeder::start(&settings(http(port, Template::Elasticsearch)), None);
        feeder.push(3);
        let status = feeder.queue.status();
        wait_until("it is over", || {
            status.delivered() + status.in_doubt() + status.lost() == 3
                || requests.load(Ordering::Relaxed) > 3
        });
        let found = [status.delivered(), status.in_doubt(), status.lost()];
        assert_eq!((found, requests.load(Ordering::Relaxed)), (expected, 1), "{body}");
    }
}

/// The messages that the sinks write to standard error. A process of its own runs `test`.
fn messages_of(test: &str) -> Option<String> {
    const CHILD: &str = "SOCKSTATE_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().expect("child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_a_collector_says_is_quoted_in_part_and_in_one_line() {
    if let Some(messages) = messages_of("partly::what_a_collector_says_is_quoted_in_part_and_in_one_line") {
        let lines: Vec<&str> = messages.lines().filter(|line| line.contains("sockstate: ")).collect();
        assert!(lines.len() >= 3, "{messages}");
        assert!(lines.iter().all(|line| line.len() < 1000), "{}", lines[0].len());
        assert!(!messages.lines().any(|line| line.starts_with("sockstate: sink forged")), "{messages}");
        assert!(messages.contains("sink forged") && !messages.contains('\u{1b}'), "quoted, not obeyed");
        return;
    }
    let text = format!("no\\nsockstate: sink forged: all is well\\u001b[2J{}", "x".repeat(100_000));
    let otlp = format!("{{\"partialSuccess\":{{\"rejectedLogRecords\":1,\"errorMessage\":\"{text}\"}}}}");
    let bulk =
        format!("{{\"errors\":true,\"items\":[{{\"create\":{{\"status\":400,\"error\":\"{text}\"}}}}]}}");
    let raw = text.replace("\\n", "\n").replace("\\u001b", "\u{1b}");
    for (template, status, body) in [
        (Template::OtlpJson(envelope()), "200 OK", otlp),
        (Template::Elasticsearch, "200 OK", bulk),
        (Template::Ndjson, "405 Method Not Allowed", raw),
    ] {
        let (listener, port) = listen();
        http_collector(listener, move |_, _| answer(status, "", &body));
        let mut feeder = Feeder::start(&settings(http(port, template)), None);
        feeder.push(1);
        feeder.wait_until("it is refused", |status| status.lost() == 1);
    }
}
