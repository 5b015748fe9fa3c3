//! Sinks against collectors that fail in every way: what is delivered and what is counted as lost is what was pushed.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/collector.rs"]
mod collector;
#[path = "delivery/spool.rs"]
mod spool;
#[path = "delivery/tls.rs"]
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use collector::{
    Feeder, Manners, Taken, answer, batch, http, http_collector, listen, settings, stream_collector, tcp,
    wait_until,
};
use sockstate::{
    format::convert::Syslog,
    sinks::{
        Address, Envelope, FileSettings, Framing, Queue, SinkSettings, TargetSettings, Template, TlsSettings,
    },
};

fn all(count: u64) -> Vec<u64> {
    (1..=count).collect()
}

#[test]
fn a_stream_collector_gets_everything_once_through_restarts() {
    let (listener, port) = listen();
    drop(listener);
    let mut feeder = Feeder::start(&settings(tcp(port)), None);
    feeder.push(500);
    feeder.wait_until("a refused connection", |it| it.failures() > 0 && it.is_failing());
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("listen");
    let manners = vec![Manners::Closes, Manners::HalfCloses(100), Manners::HalfCloses(1), Manners::Reads];
    let taken = stream_collector(listener, manners);
    for _ in 0..20 {
        feeder.push(100);
        thread::sleep(Duration::from_millis(5));
    }
    feeder.wait_until("all is delivered", |it| it.delivered() >= 2500 && it.queued_bytes() == 0);
    feeder.end(Duration::from_secs(5));
    // A reset leaves some in doubt: those come twice.
    let unique = || taken.seqs().into_iter().collect::<BTreeSet<_>>();
    wait_until("all is read", || unique().len() == 2500);
    let mut firsts = BTreeSet::new();
    let firsts: Vec<u64> = taken.seqs().into_iter().filter(|seq| firsts.insert(*seq)).collect();
    assert_eq!(firsts, all(2500), "in order");
    assert_eq!((feeder.refused, feeder.queue.status().lost()), (0, 0));
}

#[test]
fn a_connection_that_the_collector_ends_is_let_go_although_nothing_is_sent() {
    let (listener, port) = listen();
    let mut feeder = Feeder::start(&settings(tcp(port)), None);
    feeder.push(1);
    let (mut stream, _) = listener.accept().expect("connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    feeder.wait_until("delivery", |it| it.delivered() == 1);
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the sink closes its side");
    assert_eq!(collector::seq(rest.trim_end()), 1);
}

#[test]
fn a_collector_that_never_reads_delays_nobody_and_costs_what_is_counted() {
    let (deaf, deaf_port) = listen();
    let (listener, port) = listen();
    let taken = stream_collector(listener, vec![Manners::Reads]);
    let mut slow = Feeder::start(&SinkSettings { queue_bytes: 256 << 10, ..settings(tcp(deaf_port)) }, None);
    let mut quick = Feeder::start(&SinkSettings { queue_bytes: 64 << 20, ..settings(tcp(port)) }, None);
    let (stream, _) = {
        slow.push(1);
        deaf.accept().expect("connection")
    };
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..1000 {
        let push = Instant::now();
        slow.push(100);
        longest = longest.max(push.elapsed());
        quick.push(100);
        assert!(slow.queue.status().queued_bytes() <= 256 << 10);
    }
    wait_until("the other one has all", || taken.len() == 100_000);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!(slow.refused > 50_000, "20 MB do not fit into a queue and two socket buffers: {}", slow.refused);
    // It wakes up, and gets what was not counted as lost, in order.
    let begun = Taken::default();
    let into = begun.clone();
    let reader = thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stream)) {
            into.add(line.expect("line"));
        }
    });
    slow.end(Duration::from_secs(10));
    reader.join().expect("reader");
    let seqs = begun.seqs();
    assert_eq!(seqs.len() as u64 + slow.refused, slow.pushed());
    assert_eq!(slow.queue.status().lost(), slow.refused);
    assert!(seqs.is_sorted() && seqs.first() == Some(&1));
}

#[test]
fn http_faults_cost_nothing() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    let bad = AtomicBool::new(false);
    http_collector(listener, move |at, request| {
        assert!(request.head.starts_with("POST /insert?x=1 HTTP/1.1\r\n"), "{}", request.head);
        assert!(request.head.to_ascii_lowercase().contains("x-test: yes\r\n"), "{}", request.head);
        match at {
            0 => answer("429 Too Many Requests", "Retry-After: 0\r\n", "slow down"),
            1 => answer("503 Service Unavailable", "", ""),
            2 => answer("500 Internal Server Error", "", "oops"),
            3 => None,
            4 => {
                // Longer than a sink waits.
                thread::sleep(Duration::from_millis(800));
                answer("200 OK", "", "")
            }
            5 => Some("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".into())
                .filter(|_| !bad.load(Ordering::Relaxed)),
            6 => Some("this is no HTTP\r\n\r\n".into()),
            _ => {
                String::from_utf8_lossy(&request.body).lines().for_each(|line| into.add(line.to_owned()));
                answer("204 No Content", "", "")
            }
        }
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    for _ in 0..10 {
        feeder.push(100);
        thread::sleep(Duration::from_millis(20));
    }
    feeder.wait_until("all is delivered", |it| it.delivered() == 1000);
    assert_eq!(taken.seqs(), all(1000), "answered with success once each");
    assert!(feeder.queue.status().failures() >= 6, "{}", feeder.queue.status().failures());
    assert_eq!(feeder.queue.status().lost(), 0);
    feeder.end(Duration::from_secs(1));
}

#[test]
fn what_a_collector_refuses_for_good_is_lost_and_said() {
    let (listener, port) = listen();
    http_collector(listener, |at, _| match at {
        0 => answer("405 Method Not Allowed", "", "not what I wanted"),
        _ => answer("200 OK", "", ""),
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(10);
    feeder.wait_until("it is refused", |it| it.lost() == 10);
    assert_eq!(feeder.queue.take_lost(), 10, "for the stream");
    feeder.push(5);
    feeder.wait_until("the next is not", |it| it.delivered() == 5);
    assert!(!feeder.queue.has_lost());
}

/// A collector that answers `status` to requests in which a record has a number of `bad`.
fn choosy(status: &'static str, bad: &'static [u64]) -> (Feeder, Taken) {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    http_collector(listener, move |_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if body.lines().any(|line| bad.contains(&collector::seq(line))) {
            return answer(status, "", "not that one");
        }
        body.lines().for_each(|line| into.add(line.to_owned()));
        answer("200 OK", "", "")
    });
    (Feeder::start(&settings(http(port, Template::Ndjson)), None), taken)
}

#[test]
fn one_record_that_a_collector_does_not_want_costs_itself_only() {
    for status in ["400 Bad Request", "413 Payload Too Large", "422 Unprocessable Entity"] {
        let (mut feeder, taken) = choosy(status, &[1, 77, 78, 500]);
        feeder.push(500);
        feeder.wait_until("the others are delivered", |it| it.delivered() == 496 && it.lost() == 4);
        feeder.push(100);
        feeder.wait_until("it goes on", |it| it.delivered() == 596);
        let wanted: Vec<u64> = all(600).into_iter().filter(|seq| ![1, 77, 78, 500].contains(seq)).collect();
        assert_eq!(taken.seqs(), wanted, "{status}");
        assert_eq!(feeder.queue.take_lost(), 4);
    }
}

#[test]
fn a_collector_that_wants_nothing_is_not_asked_for_each_record() {
    let (listener, port) = listen();
    let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&requests);
    http_collector(listener, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        answer("400 Bad Request", "", "")
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(2000);
    feeder.wait_until("all are refused", |it| it.lost() == 2000);
    assert!(requests.load(Ordering::Relaxed) < 100, "{requests:?}");
}

#[test]
fn an_answer_without_an_end_is_no_reason_to_send_again() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    let long = "x".repeat(5 << 20);
    http_collector(listener, move |_, request| {
        String::from_utf8_lossy(&request.body).lines().for_each(|line| into.add(line.to_owned()));
        answer("200 OK", "", &long)
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(100);
    feeder.wait_until("all is delivered", |it| it.delivered() == 100);
    assert_eq!(taken.seqs(), all(100));
}

#[test]
fn a_collector_that_asks_for_no_pause_gets_one() {
    let (listener, port) = listen();
    let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&requests);
    http_collector(listener, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        answer("429 Too Many Requests", "Retry-After: 0\r\n", "")
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(10);
    feeder.wait_until("it is tried", |it| it.failures() > 0);
    thread::sleep(Duration::from_secs(2));
    let count = requests.load(Ordering::Relaxed);
    assert!((2..=40).contains(&count), "{count} requests");
}

/// Receives a datagram.
type Receive<'a> = Box<dyn Fn(&mut [u8]) -> std::io::Result<usize> + 'a>;

#[test]
fn a_datagram_that_is_too_large_is_lost_and_the_next_ones_go_on() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("log");
    let unix = UnixDatagram::bind(&path).expect("socket");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("socket");
    let port = udp.local_addr().expect("address").port();
    let large = || -> Option<sockstate::sinks::Convert> {
        Some(Box::new(|line, out| {
            out.extend_from_slice(line.trim_ascii_end());
            if [1, 5].contains(&collector::seq(std::str::from_utf8(line).expect("UTF-8").trim_end())) {
                out.extend(std::iter::repeat_n(b' ', 1 << 20));
            }
            out.push(b'\n');
        }))
    };
    let read: [Receive<'_>; 2] = [Box::new(|buffer| unix.recv(buffer)), Box::new(|buffer| udp.recv(buffer))];
    unix.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    udp.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let addresses = [format!("unix:{}", path.display()), format!("udp://127.0.0.1:{port}")];
    for (address, read) in addresses.iter().zip(read) {
        let target = TargetSettings::Datagram(address.parse::<Address>().expect("address"));
        let mut feeder = Feeder::start(&settings(target), large());
        feeder.push(8);
        let mut buffer = vec![0; 1 << 16];
        let seqs: Vec<u64> = (0..6)
            .map(|_| {
                let count = read(&mut buffer).expect("datagram");
                collector::seq(std::str::from_utf8(&buffer[..count]).expect("UTF-8").trim_end())
            })
            .collect();
        assert_eq!(seqs, [2, 3, 4, 6, 7, 8], "{address}");
        feeder.wait_until("the others are counted", |it| it.lost() == 2 && it.delivered() == 6);
    }
}

#[test]
fn a_collector_that_resets_again_and_again_gets_on() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut text = Vec::new();
            let mut buffer = [0; 8192];
            // With something unread, the close is a reset.
            while text.len() < 200_000 {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => text.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = String::from_utf8_lossy(&text[..whole]).into_owned();
            lines.lines().for_each(|line| into.add(line.to_owned()));
        }
    });
    let fat = || -> Option<sockstate::sinks::Convert> {
        Some(Box::new(|line, out| {
            out.extend_from_slice(line.trim_ascii_end());
            out.extend(std::iter::repeat_n(b' ', 1000));
            out.push(b'\n');
        }))
    };
    let mut feeder = Feeder::start(&settings(tcp(port)), fat());
    for _ in 0..20 {
        feeder.push(100);
        wait_until("there is room", || feeder.queue.has_room(60_000));
    }
    feeder.wait_until("it gets on", |it| it.delivered() == 2000);
    feeder.end(Duration::from_secs(5));
    let seqs = taken.seqs();
    let unique: BTreeSet<u64> = seqs.iter().copied().collect();
    let status = feeder.queue.status();
    // What the last connections acknowledged and did not read is in doubt.
    assert!(unique.len() >= 1500 && seqs.len() < 8000, "{} of {}", unique.len(), seqs.len());
    assert_eq!(status.delivered() + status.in_doubt() + status.lost(), 2000);
}

#[test]
fn a_queue_that_hangs_has_what_it_holds_counted() {
    let queue = Queue::new("test", 1 << 20, None);
    queue.push(batch(1, 10));
    assert_eq!((queue.abandon(), queue.status().lost()), (10, 10));
}

#[test]
fn a_request_that_is_too_large_is_halved() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    http_collector(listener, move |_, request| {
        if request.body.len() > 1500 {
            return answer("413 Payload Too Large", "", "");
        }
        String::from_utf8_lossy(&request.body).lines().for_each(|line| into.add(line.to_owned()));
        answer("200 OK", "", "")
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(100);
    feeder.wait_until("all is delivered", |it| it.delivered() == 100);
    assert_eq!(taken.seqs(), all(100));
}

#[test]
fn bulk_answers_are_read_item_by_item() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    // Of three at first: taken, refused, later. Then what is left.
    http_collector(listener, move |at, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let lines: Vec<&str> = body.lines().collect();
        assert!(lines.iter().step_by(2).all(|line| *line == "{\"create\":{}}"), "{body}");
        let records: Vec<&str> = lines.iter().skip(1).step_by(2).copied().collect();
        let statuses: &[u16] = match at {
            0 => &[201, 400, 429],
            _ => &[400, 201],
        };
        assert_eq!(records.len(), statuses.len(), "{body}");
        let items: Vec<String> =
            statuses.iter().map(|status| format!("{{\"create\":{{\"status\":{status}}}}}")).collect();
        for (record, status) in records.iter().zip(statuses) {
            if *status == 201 {
                into.add((*record).to_owned());
            }
        }
        answer("200 OK", "", &format!("{{\"errors\":true,\"items\":[{}]}}", items.join(",")))
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Elasticsearch)), None);
    feeder.push(3);
    feeder.wait_until("it is over", |it| it.delivered() == 2 && it.lost() == 1);
    assert_eq!(taken.seqs(), [1, 3]);
}

#[test]
fn what_an_otlp_collector_takes_in_part_is_counted_in_part() {
    let envelope = Envelope { before: b"[".to_vec(), behind: b"]".to_vec() };
    // ExportLogsServiceResponse { partial_success: { rejected_log_records: 3, error_message: "no" } }
    let protobuf = "\u{a}\u{6}\u{8}\u{3}\u{12}\u{2}no";
    let json = "{\"partialSuccess\":{\"rejectedLogRecords\":\"3\",\"errorMessage\":\"no\"}}";
    for (template, body) in
        [(Template::OtlpJson(envelope.clone()), json), (Template::OtlpProtobuf(envelope.clone()), protobuf)]
    {
        let (listener, port) = listen();
        http_collector(listener, move |at, _| answer("200 OK", "", if at == 0 { body } else { "" }));
        let mut feeder = Feeder::start(&settings(http(port, template)), None);
        feeder.push(10);
        feeder.wait_until("a part is lost", |it| it.lost() == 3 && it.delivered() == 7);
        feeder.push(10);
        feeder.wait_until("and then nothing", |it| it.delivered() == 17);
        assert_eq!(feeder.queue.status().lost(), 3);
    }
}

#[test]
fn templates_make_what_their_collectors_take() {
    let lokis = BTreeMap::from([("job".to_owned(), "sockstate".to_owned())]);
    let cases = [
        (Template::Splunk, "application/json"),
        (Template::Loki(lokis), "application/json"),
        (Template::Ndjson, "application/x-ndjson"),
    ];
    for (template, kind) in cases {
        let (listener, port) = listen();
        let bodies = Taken::default();
        let into = bodies.clone();
        http_collector(listener, move |_, request| {
            assert!(request.head.to_ascii_lowercase().contains(&format!("content-type: {kind}\r\n")));
            into.add(String::from_utf8(request.body.clone()).expect("UTF-8"));
            answer("200 OK", "", "{}")
        });
        let mut feeder = Feeder::start(&settings(http(port, template.clone())), None);
        feeder.push(2);
        feeder.wait_until("delivery", |it| it.delivered() == 2);
        let body = bodies.lines().concat();
        match template {
            Template::Splunk => {
                let events: Vec<serde_json::Value> =
                    body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
                assert_eq!(events[1]["event"]["seq"], 2);
                assert_eq!(events[1]["time"], 1_700_000_000.0);
            }
            Template::Loki(_) => {
                let push: serde_json::Value = serde_json::from_str(&body).expect("JSON");
                let stream = &push["streams"][0];
                assert_eq!(stream["stream"]["job"], "sockstate");
                assert_eq!(stream["values"][1][0], "1700000000000000002");
                assert_eq!(collector::seq(stream["values"][1][1].as_str().expect("text")), 2);
            }
            _ => assert_eq!(body.as_bytes(), batch(1, 2).bytes),
        }
    }
}

fn file(path: &Path) -> FileSettings {
    FileSettings { path: path.to_owned(), rotate_bytes: None, rotate_every: None, keep: None, zstd: false }
}

fn lines_of(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).expect("file");
    let is_zstd = path.extension().is_some_and(|extension| extension == "zst");
    let bytes = if is_zstd { zstd::decode_all(&bytes[..]).expect("zstd") } else { bytes };
    String::from_utf8(bytes).expect("UTF-8").lines().map(collector::seq).collect()
}

/// The rotated files, oldest first.
fn rotated(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).expect("directory").map(|it| it.expect("entry").path());
    let mut files: Vec<_> =
        entries.filter(|it| it.file_name().is_some_and(|name| name != "out.json")).collect();
    files.sort();
    files
}

#[test]
fn a_file_is_rotated_compressed_and_kept_as_asked() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    let settings_of = FileSettings { rotate_bytes: Some(50_000), zstd: true, ..file(&path) };
    let mut feeder = Feeder::start(&settings(TargetSettings::File(settings_of.clone())), None);
    for _ in 0..10 {
        feeder.push(100);
    }
    feeder.wait_until("all is written", |it| it.delivered() == 1000);
    feeder.end(Duration::from_secs(5));
    let mut seqs = Vec::new();
    let files = rotated(directory.path());
    assert!(files.len() >= 3, "{files:?}");
    for old in &files {
        assert_eq!(old.extension().and_then(|it| it.to_str()), Some("zst"));
        seqs.extend(lines_of(old));
    }
    assert!(fs::metadata(&path).expect("file").len() <= 50_000);
    seqs.extend(lines_of(&path));
    assert_eq!(seqs, all(1000));

    let mut feeder =
        Feeder::start(&settings(TargetSettings::File(FileSettings { keep: Some(2), ..settings_of })), None);
    feeder.push(1000);
    feeder.wait_until("all is written", |it| it.delivered() == 1000);
    feeder.end(Duration::from_secs(5));
    assert_eq!(rotated(directory.path()).len(), 2);
}

#[test]
fn what_a_killed_one_was_compressing_is_compressed_once() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    let name = |suffix: &str| directory.path().join(format!("out.json.20261125T10000{suffix}"));
    let line = |seq: u64| format!("{{\"seq\":{seq}}}\n");
    let zst = |seq| zstd::encode_all(line(seq).as_bytes(), 3).expect("zstd");
    let files: [(&str, Vec<u8>); 9] = [
        // It had begun.
        ("1.000000Z", line(1).into()),
        ("1.000000Z.zst.part", zst(1)[..7].to_vec()),
        // It had ended, but for the removal.
        ("2.000000Z", line(2).into()),
        ("2.000000Z.zst", zst(2)),
        // What it was made of has been removed.
        ("3.000000Z.zst.part", zst(3)[..7].to_vec()),
        // Nobody had asked for it.
        ("4.000000Z", line(4).into()),
        ("5.000000Z.zst", zst(5)),
        // Somebody is at it.
        ("6.000000Z", line(6).into()),
        ("6.000000Z.zst.part", zst(6)),
    ];
    for (suffix, bytes) in &files {
        fs::write(name(suffix), bytes).expect("what a killed one left");
    }
    let at_work = fs::File::open(name("6.000000Z")).expect("file");
    at_work.lock().expect("lock");
    let mut feeder = Feeder::start(&settings(TargetSettings::File(file(&path))), None);
    feeder.push(1);
    feeder.end(Duration::from_secs(5));
    let mut kept = rotated(directory.path());
    assert_eq!(kept.split_off(4), ["6.000000Z", "6.000000Z.zst.part"].map(name));
    assert_eq!(kept, ["1.000000Z.zst", "2.000000Z.zst", "4.000000Z", "5.000000Z.zst"].map(name));
    assert_eq!(kept.iter().flat_map(|file| lines_of(file)).collect::<Vec<_>>(), [1, 2, 4, 5]);
}

#[test]
fn a_file_is_opened_again_and_mended() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    Feeder::start(&settings(TargetSettings::File(file(&path))), None).end(Duration::from_secs(5));
    let long = "x".repeat(200_000);
    let mut killed = fs::OpenOptions::new().append(true).open(&path).expect("file");
    write!(killed, "{{\"seq\":99}}\n{{\"seq\":1,\"long\":\"{long}").expect("what a killed one left");
    let mut feeder = Feeder::start(&settings(TargetSettings::File(file(&path))), None);
    feeder.push(10);
    feeder.wait_until("it is written", |it| it.delivered() == 10);
    let moved = directory.path().join("out.json.1");
    fs::rename(&path, &moved).expect("rename");
    feeder.queue.reopen();
    feeder.push(10);
    feeder.wait_until("it is written", |it| it.delivered() == 20);
    assert_eq!(lines_of(&moved), [&[99][..], &all(10)].concat());
    assert_eq!(lines_of(&path), (11..=20).collect::<Vec<_>>());
}

#[test]
fn a_file_that_another_program_wrote_is_not_cut() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    fs::write(&path, "another program's\nunfinished line").expect("file");
    let mut feeder = Feeder::start(&settings(TargetSettings::File(file(&path))), None);
    feeder.push(2);
    feeder.wait_until("it is written", |it| it.delivered() == 2);
    let text = fs::read_to_string(&path).expect("file");
    let rest = text.strip_prefix("another program's\nunfinished line\n").expect("what was there");
    assert_eq!(rest.lines().map(collector::seq).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_file_sink_follows_no_link_and_uses_no_directory_of_others() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().expect("directory");
    let foreign = directory.path().join("foreign");
    fs::write(&foreign, "precious").expect("file");
    let link = directory.path().join("link.json");
    symlink(&foreign, &link).expect("symlink");
    let refused = |path: &Path, reason: &str| {
        let started = sockstate::sinks::start(
            &settings(TargetSettings::File(file(path))),
            Vec::new(),
            None,
            sockstate::sinks::Inherited::default(),
        );
        let error = started.err().expect("refused").to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(&link, "symbolic link");
    refused(directory.path(), "");
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).expect("directory");
    for mode in [0o777, 0o1777] {
        fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).expect("mode");
        refused(&shared.join("out.json"), "other users");
    }
    assert_eq!(fs::read_to_string(&foreign).expect("file"), "precious");
    assert_eq!(fs::read_dir(&shared).expect("directory").count(), 0);
}

#[test]
fn a_rotation_counts_and_removes_only_files_of_its_own() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("out.json");
    let foreign = [
        "out.json.1-important-Z.bak",
        "out.json.2020-01-01T00:00:00Z.gz",
        "out.json.2Zoo",
        "out.json.20201Z",
    ];
    for name in foreign {
        fs::write(directory.path().join(name), name).expect("file");
    }
    let target = FileSettings { rotate_bytes: Some(300), keep: Some(2), ..file(&path) };
    let mut feeder = Feeder::start(&settings(TargetSettings::File(target)), None);
    for pushed in 1..=40 {
        feeder.push(1);
        feeder.wait_until("it is written", |it| it.delivered() == pushed);
    }
    feeder.end(Duration::from_secs(5));
    for name in foreign {
        assert_eq!(fs::read_to_string(directory.path().join(name)).expect("still there"), name);
    }
    let names =
        fs::read_dir(directory.path()).expect("directory").map(|entry| entry.expect("entry").file_name());
    assert_eq!(names.count(), foreign.len() + 3, "the file and two rotated ones");
}

#[test]
fn a_pipe_is_waited_for_and_never_blocks_the_sink() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_bits_truncate(0o600),
        0,
    )
    .expect("mkfifo");
    let mut feeder = Feeder::start(&settings(TargetSettings::File(file(&path))), None);
    feeder.push(50);
    feeder.wait_until("nobody reads", |it| it.failures() > 0);
    let mut reader = fs::File::open(&path).expect("pipe");
    feeder.wait_until("it is written", |it| it.delivered() == 50);
    let mut text = vec![0; 64 << 10];
    let count = reader.read(&mut text).expect("read");
    assert_eq!(
        String::from_utf8_lossy(&text[..count]).lines().map(collector::seq).collect::<Vec<_>>(),
        all(50)
    );
    // A reader that stands still: the sink still ends in time, and counts.
    for _ in 0..40 {
        feeder.push(100);
        thread::sleep(Duration::from_millis(1));
    }
    let begin = Instant::now();
    feeder.end(Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let status = feeder.queue.status();
    assert_eq!(status.delivered() + status.lost(), feeder.pushed(), "{} lost", status.lost());
    assert!(status.lost() > 0);
}

#[test]
fn syslog_counts_octets_on_streams_and_sends_datagrams_elsewhere() {
    let convert = || -> Option<sockstate::sinks::Convert> {
        let syslog = Syslog::new(3, "web1", 42);
        Some(Box::new(move |line, out| syslog.convert(line, out)))
    };
    let (listener, port) = listen();
    let address = format!("tcp://127.0.0.1:{port}").parse().expect("address");
    let target = TargetSettings::Stream(address, TlsSettings::default(), Framing::Octets);
    let mut feeder = Feeder::start(&settings(target), convert());
    feeder.push(3);
    let (mut stream, _) = listener.accept().expect("connection");
    feeder.wait_until("delivery", |it| it.delivered() == 3);
    feeder.end(Duration::from_secs(1));
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    let mut rest = text.as_str();
    for seq in 1..=3 {
        let (length, message) = rest.split_once(' ').expect("a length");
        let (message, next) = message.split_at(length.parse().expect("number"));
        rest = next;
        assert!(message.starts_with("<30>1 - web1 sockstate 42 - [sockstate@32473 seq="), "{message}");
        assert_eq!(collector::seq(message.split_once("] ").expect("a message").1), seq);
    }
    assert_eq!(rest, "");

    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("log");
    let socket = UnixDatagram::bind(&path).expect("socket");
    let mut feeder =
        Feeder::start(&settings(TargetSettings::Datagram(Address::Unix(path.clone()))), convert());
    feeder.push(1);
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).expect("datagram");
    assert!(buffer[..len].starts_with(b"<30>1 ") && !buffer[..len].ends_with(b"\n"));
    // Another daemon takes the place of the first.
    drop(socket);
    fs::remove_file(&path).expect("remove");
    feeder.push(1);
    feeder.wait_until("nobody listens", |it| it.is_failing());
    let socket = UnixDatagram::bind(&path).expect("socket");
    socket.recv(&mut buffer).expect("datagram");
    feeder.wait_until("delivery", |it| it.delivered() == 2);
}

#[test]
fn a_queue_knows_its_end_and_what_was_lost() {
    let queue = Queue::new("test", 1000, None);
    assert!(queue.has_room(100_000), "one batch, however large");
    queue.push(batch(1, 5));
    assert!(!queue.has_room(10_000));
    queue.refused(7);
    assert_eq!((queue.status().lost(), queue.has_lost()), (7, false), "whoever pushes knows of those");
}

#[test]
fn what_is_gzipped_is_the_same() {
    let (listener, port) = listen();
    let bodies = Taken::default();
    let into = bodies.clone();
    http_collector(listener, move |_, request| {
        assert!(request.head.to_ascii_lowercase().contains("content-encoding: gzip\r\n"), "{}", request.head);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&request.body[..]).read_to_string(&mut text).expect("gzip");
        into.add(text);
        answer("200 OK", "", "")
    });
    let TargetSettings::Http(plain, tls) = http(port, Template::Ndjson) else { panic!("http") };
    let target = TargetSettings::Http(sockstate::sinks::HttpSettings { gzip: true, ..plain }, tls);
    let mut feeder = Feeder::start(&settings(target), None);
    feeder.push(50);
    feeder.wait_until("delivery", |it| it.delivered() == 50);
    let seqs: BTreeSet<u64> = bodies.lines().concat().lines().map(collector::seq).collect();
    assert_eq!(seqs.into_iter().collect::<Vec<_>>(), all(50));
    std::io::stderr().flush().expect("flush");
}
