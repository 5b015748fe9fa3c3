//! Sinks against collectors that fail in every way: every record is delivered, or counted as lost.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod collector;
mod ends;
mod files;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod partly;
mod spool;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixDatagram,
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
        Address, DatagramSettings, Framing, HttpSettings, Queue, SinkSettings, StreamSettings, Template,
        TlsSettings,
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
    feeder.wait_until("a refused connection", |status| status.failures() > 0 && status.is_failing());
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("listen");
    let manners = vec![Manners::Closes, Manners::HalfCloses(100), Manners::HalfCloses(1), Manners::Reads];
    let taken = stream_collector(listener, manners);
    for _ in 0..20 {
        feeder.push(100);
        thread::sleep(Duration::from_millis(5));
    }
    feeder.wait_until("all is delivered", |status| status.delivered() >= 2500 && status.queued_bytes() == 0);
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
    feeder.wait_until("delivery", |status| status.delivered() == 1);
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
    // The collector continues, and gets the records that were not counted as lost, in order.
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
        feeder.wait_until("delivery", |status| status.delivered() == 2);
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

#[test]
fn syslog_counts_octets_on_streams_and_sends_datagrams_elsewhere() {
    let convert = || -> Option<sockstate::sinks::Convert> {
        let syslog = Syslog::new(3, "web1", 42);
        Some(Box::new(move |line, out| syslog.convert(line, out)))
    };
    let (listener, port) = listen();
    let address = format!("tcp://127.0.0.1:{port}").parse().expect("address");
    let target = StreamSettings { address, tls: TlsSettings::default(), framing: Framing::Octets };
    let mut feeder = Feeder::start(&settings(target), convert());
    feeder.push(3);
    let (mut stream, _) = listener.accept().expect("connection");
    feeder.wait_until("delivery", |status| status.delivered() == 3);
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
        Feeder::start(&settings(DatagramSettings::syslog(Address::Unix(path.clone()))), convert());
    feeder.push(1);
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).expect("datagram");
    assert!(buffer[..len].starts_with(b"<30>1 ") && !buffer[..len].ends_with(b"\n"));
    // Another daemon takes the place of the first.
    drop(socket);
    fs::remove_file(&path).expect("remove");
    feeder.push(1);
    feeder.wait_until("nobody listens", |status| status.is_failing());
    let socket = UnixDatagram::bind(&path).expect("socket");
    socket.recv(&mut buffer).expect("datagram");
    feeder.wait_until("delivery", |status| status.delivered() == 2);
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
        let target = DatagramSettings::syslog(address.parse::<Address>().expect("address"));
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
        feeder.wait_until("the others are counted", |status| status.lost() == 2 && status.delivered() == 6);
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
    feeder.wait_until("it gets on", |status| status.delivered() == 2000);
    feeder.end(Duration::from_secs(5));
    let seqs = taken.seqs();
    let unique: BTreeSet<u64> = seqs.iter().copied().collect();
    let status = feeder.queue.status();
    // Records that the last connections acknowledged and did not read are in doubt.
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
fn a_queue_knows_its_end_and_what_was_lost() {
    let queue = Queue::new("test", 1000, None);
    assert!(queue.has_room(100_000), "one batch, however large");
    queue.push(batch(1, 5));
    assert!(!queue.has_room(10_000));
    queue.count_overflow(7);
    assert_eq!(
        (queue.status().lost(), queue.has_lost()),
        (7, false),
        "the caller of push knows of these records"
    );
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
    let target = HttpSettings { gzip: true, ..http(port, Template::Ndjson) };
    let mut feeder = Feeder::start(&settings(target), None);
    feeder.push(50);
    feeder.wait_until("delivery", |status| status.delivered() == 50);
    let seqs: BTreeSet<u64> = bodies.lines().concat().lines().map(collector::seq).collect();
    assert_eq!(seqs.into_iter().collect::<Vec<_>>(), all(50));
    std::io::stderr().flush().expect("flush");
}
