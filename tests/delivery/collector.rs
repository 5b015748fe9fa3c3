//! Collectors that misbehave in every way that real ones do, and keep the records that they have received.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use sockstate::sinks::{
    self, Address, Authority, Batch, BatchSettings, Convert, Frame, Framing, HttpSettings, Inherited, Queue,
    SinkBuilder, SinkSettings, SpoolSettings, StreamSettings, Template, TlsSettings,
};

/// A sink with nothing special about it.
pub(crate) fn settings(builder: impl SinkBuilder + 'static) -> SinkSettings {
    SinkSettings {
        name: "test".into(),
        builder: Arc::new(builder),
        queue_bytes: 1 << 20,
        spool: None,
        batching: BatchSettings {
            batch_bytes: 64 << 10,
            batch_time: Duration::ZERO,
            retry_max: Duration::from_millis(200),
        },
    }
}

/// The same with a spool of its own.
pub(crate) fn spooled(
    builder: impl SinkBuilder + 'static,
    path: &std::path::Path,
    max_bytes: u64,
) -> SinkSettings {
    let spool = Some(SpoolSettings { path: path.to_owned(), max_bytes, sync: false });
    SinkSettings { spool, ..settings(builder) }
}

pub(crate) fn tcp(port: u16) -> StreamSettings {
    StreamSettings {
        address: Address::Tcp(Authority { host: "127.0.0.1".into(), port }),
        tls: TlsSettings::default(),
        framing: Framing::Lines,
    }
}

pub(crate) fn http(port: u16, template: Template) -> HttpSettings {
    HttpSettings {
        url: format!("http://127.0.0.1:{port}/insert?x=1"),
        template,
        headers: BTreeMap::from([("X-Test".into(), "yes".into())]),
        timeout: Duration::from_millis(500),
        gzip: false,
        tls: TlsSettings::default(),
    }
}

/// Feeds a sink as the pipeline does, and counts.
pub(crate) struct Feeder {
    pub(crate) queue: Queue,
    next: u64,
    pub(crate) refused: u64,
}

impl Feeder {
    pub(crate) fn start(settings: &SinkSettings, convert: Option<Convert>) -> Self {
        let queue = sinks::start(settings, Vec::new(), convert, Inherited::default()).expect("a sink");
        Self { queue, next: 1, refused: 0 }
    }

    /// Goes on with the numbers of another.
    pub(crate) fn after(mut self, other: &Self) -> Self {
        self.next = other.next;
        self
    }

    /// Pushes `count` records; what the queue does not take is refused.
    pub(crate) fn push(&mut self, count: u64) {
        let batch = batch(self.next, count);
        self.next += count;
        if self.queue.has_room(batch.bytes.len()) {
            self.queue.push(batch);
        } else {
            self.queue.count_overflow(count);
            self.refused += count;
        }
    }

    /// How many were pushed.
    pub(crate) fn pushed(&self) -> u64 {
        self.next - 1
    }

    pub(crate) fn wait_until(&self, what: &str, done: impl Fn(&sinks::Status) -> bool) {
        wait_until(what, || done(self.queue.status()));
    }

    /// Ends the sink, and waits for it.
    pub(crate) fn end(&self, grace: Duration) {
        self.queue.close(grace);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let finished = async { tokio::time::timeout(Duration::from_secs(20), self.queue.finished()).await };
        runtime.block_on(finished).expect("the sink ends");
    }
}

/// Records of about two hundred bytes.
pub(crate) fn batch(first: u64, count: u64) -> Batch {
    let mut batch = Batch::default();
    for seq in first..first + count {
        let filler = "x".repeat(160);
        writeln!(batch.bytes, "{{\"seq\":{seq},\"filler\":\"{filler}\"}}").expect("write");
        batch.frames.push(Frame {
            end: batch.bytes.len(),
            seq,
            time_ns: 1_700_000_000_000_000_000 + seq as i64,
            reported_lost: 0,
            reported_in_doubt: 0,
        });
    }
    batch
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: it does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The number in a line.
pub(crate) fn seq(line: &str) -> u64 {
    let value: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    value["seq"].as_u64().expect("seq")
}

/// The records that the collector has accepted, in order.
#[derive(Clone, Default)]
pub(crate) struct Taken(Arc<Mutex<Vec<String>>>);

impl Taken {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("lock").clone()
    }

    pub(crate) fn seqs(&self) -> Vec<u64> {
        self.lines().iter().map(|line| seq(line)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("lock").len()
    }

    pub(crate) fn add(&self, line: String) {
        self.0.lock().expect("lock").push(line);
    }
}

/// The behaviour of a stream collector with one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Reads whole lines to the end.
    Reads,
    /// Reads this number of lines, shuts down its own direction, and reads on to the end.
    HalfCloses(usize),
    /// Closes at once.
    Closes,
}

/// A stream collector: the nth connection is treated by the nth of `manners`, further ones by the last.
pub(crate) fn stream_collector(listener: TcpListener, manners: Vec<Manners>) -> Taken {
    let taken = Taken::default();
    let into = taken.clone();
    thread::spawn(move || {
        for (at, stream) in listener.incoming().enumerate() {
            let stream = stream.expect("connection");
            let manners = manners.get(at).or(manners.last()).copied().unwrap_or(Manners::Reads);
            if manners == Manners::Closes {
                continue;
            }
            let mut lines = BufReader::new(stream.try_clone().expect("stream"));
            let mut line = String::new();
            let mut count = 0;
            // A record that the end of a connection has cut comes again.
            while lines.read_line(&mut line).is_ok_and(|len| len > 0) && line.ends_with('\n') {
                into.add(line.trim_end().to_owned());
                line.clear();
                count += 1;
                if manners == Manners::HalfCloses(count) {
                    stream.shutdown(Shutdown::Write).expect("shutdown");
                }
            }
        }
    });
    taken
}

/// An HTTP request.
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// The answer: the rest of the status line, headers and body. Without an answer, the collector closes the connection.
pub(crate) type Answer = Option<String>;

pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Answer {
    Some(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// An HTTP collector; `respond` gets the number of the request, from 0, and the request.
pub(crate) fn http_collector(
    listener: TcpListener,
    respond: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
) {
    let respond = Arc::new(respond);
    let count = Arc::new(Mutex::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, respond, count) =
                (stream.expect("connection"), Arc::clone(&respond), Arc::clone(&count));
            thread::spawn(move || {
                let _ = serve(stream, |request| {
                    let mut count = count.lock().expect("lock");
                    *count += 1;
                    let at = *count - 1;
                    drop(count);
                    respond(at, request)
                });
            });
        }
    });
}

fn serve(mut stream: TcpStream, respond: impl Fn(&Request) -> Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        match respond(&request) {
            Some(answer) => stream.write_all(answer.as_bytes())?,
            None => break,
        }
    }
    Ok(())
}

/// The next request; `None` at the end of the connection.
pub(crate) fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { head, body }))
}

/// A listener and its port.
pub(crate) fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    (listener, port)
}
