//! Records that are under way when a sink must end: each is counted once, as delivered, in doubt, or lost.

use std::{
    io::Read,
    net::TcpListener,
    os::unix::net::UnixDatagram,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sockstate::sinks::{Address, DatagramSettings, Spool, Template};

use crate::{
    all,
    collector::{Feeder, batch, http, listen, seq, settings, spooled, tcp, wait_until},
};

/// A socket that nobody reads; filled up until it blocks its senders.
struct Unread(UnixDatagram, tempfile::TempDir);

impl Unread {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let socket = UnixDatagram::bind(directory.path().join("log")).expect("socket");
        socket.set_nonblocking(true).expect("nonblocking");
        Self(socket, directory)
    }

    fn target(&self) -> DatagramSettings {
        DatagramSettings::syslog(Address::Unix(self.1.path().join("log")))
    }

    /// Empty datagrams of our own find it full.
    fn wait_until_full(&self) {
        let probe = UnixDatagram::unbound().expect("socket");
        probe.connect(self.1.path().join("log")).expect("connect");
        probe.set_nonblocking(true).expect("nonblocking");
        wait_until("it is full", || probe.send(&[]).is_err());
    }

    fn seqs(&self) -> Vec<u64> {
        let mut buffer = [0; 2048];
        let datagrams =
            std::iter::from_fn(|| self.0.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec()));
        let records = datagrams.filter(|datagram| !datagram.is_empty());
        records.map(|datagram| seq(std::str::from_utf8(&datagram).expect("UTF-8"))).collect()
    }
}

#[test]
fn datagrams_that_were_sent_when_the_time_is_over_are_delivered() {
    let socket = Unread::new();
    let mut feeder = Feeder::start(&settings(socket.target()), None);
    feeder.push(1);
    feeder.wait_until("the first is sent", |status| status.delivered() == 1);
    feeder.push(2000);
    socket.wait_until_full();
    feeder.end(Duration::from_millis(100));
    let sent = socket.seqs();
    assert!((2..2001).contains(&sent.len()), "{}", sent.len());
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.lost()), (sent.len() as u64, 2001 - sent.len() as u64));

    let directory = tempfile::tempdir().expect("directory");
    let socket = Unread::new();
    let mut feeder = Feeder::start(&spooled(socket.target(), directory.path(), 1 << 20), None);
    feeder.push(1);
    feeder.wait_until("the first is sent", |status| status.delivered() == 1);
    feeder.push(2000);
    socket.wait_until_full();
    feeder.end(Duration::from_millis(100));
    let sent = socket.seqs();
    let mut spool = Spool::open(directory.path(), 1 << 20, false).expect("spool");
    let mut kept = Vec::new();
    while !spool.is_empty() {
        kept.extend(spool.read(1 << 20).expect("read").batch.frames.iter().map(|frame| frame.seq));
        spool.delivered();
    }
    kept.sort_unstable();
    assert_eq!([sent, kept].concat(), all(2001), "nothing twice");
}

#[test]
fn a_row_of_datagrams_that_are_too_large_costs_no_other() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("log");
    let socket = UnixDatagram::bind(&path).expect("socket");
    let reader = thread::spawn(move || {
        let mut buffer = [0; 2048];
        let mut receive = || {
            let len = socket.recv(&mut buffer).expect("datagram");
            seq(std::str::from_utf8(&buffer[..len]).expect("UTF-8"))
        };
        (0..60).map(|_| receive()).collect::<Vec<u64>>()
    });
    let convert: sockstate::sinks::Convert = Box::new(|line, out| {
        out.extend_from_slice(line.trim_ascii_end());
        if seq(std::str::from_utf8(line).expect("UTF-8").trim_end()) <= 40 {
            out.extend(std::iter::repeat_n(b' ', 1 << 20));
        }
        out.push(b'\n');
    });
    let mut feeder =
        Feeder::start(&settings(DatagramSettings::syslog(Address::Unix(path.clone()))), Some(convert));
    feeder.push(100);
    feeder.wait_until("all are counted", |status| status.lost() + status.delivered() == 100);
    assert_eq!((feeder.queue.status().lost(), feeder.queue.status().delivered()), (40, 60));
    assert_eq!(reader.join().expect("reader"), (41..=100).collect::<Vec<_>>());
}

/// Accepts, waits for something to read, and closes with it unread: a reset. Counts the connections.
fn resetter(listener: TcpListener, most: usize) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let resets = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming().take(most) {
            let stream = stream.expect("connection");
            let _ = stream.peek(&mut [0]);
            // The rest comes into the buffer, where the kernel acknowledges it.
            thread::sleep(Duration::from_millis(50));
            drop(stream);
            resets.fetch_add(1, Ordering::Relaxed);
        }
    });
    count
}

#[test]
fn what_was_reset_twice_is_in_doubt() {
    let (listener, port) = listen();
    let resets = resetter(listener, usize::MAX);
    let mut feeder = Feeder::start(&settings(tcp(port)), None);
    feeder.push(100);
    feeder.wait_until("the kernel has it", |status| status.delivered() == 100);
    wait_until("it was reset twice", || resets.load(Ordering::Relaxed) >= 2);
    feeder.end(Duration::from_secs(2));
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (0, 100, 0));
    assert_eq!(resets.load(Ordering::Relaxed), 2, "nothing is sent a third time");
}

#[test]
fn a_reset_just_before_the_end_leaves_records_in_doubt() {
    for _ in 0..20 {
        let (listener, port) = listen();
        let resets = resetter(listener, 1);
        let mut feeder = Feeder::start(&settings(tcp(port)), None);
        feeder.push(10);
        wait_until("it was reset", || resets.load(Ordering::Relaxed) == 1);
        feeder.end(Duration::ZERO);
        let status = feeder.queue.status();
        assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (0, 10, 0));
    }
}

/// An HTTP collector that takes requests and answers none of them; counts their bytes.
fn silent(listener: TcpListener, connections: usize) -> Arc<AtomicU64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&bytes);
    thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let mut stream = stream.expect("connection");
            let mut buffer = [0; 8192];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                count.fetch_add(len as u64, Ordering::Relaxed);
            }
        }
    });
    bytes
}

#[test]
fn what_was_not_answered_when_the_time_is_over_is_in_doubt() {
    // The end comes within the attempt, and after it.
    for waits in [false, true] {
        let (listener, port) = listen();
        let bytes = silent(listener, 1);
        let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
        feeder.push(10);
        wait_until("it has the request", || bytes.load(Ordering::Relaxed) > 1800);
        if waits {
            feeder.wait_until("the time is over", |status| status.failures() > 1);
        }
        feeder.push(10);
        feeder.end(Duration::ZERO);
        let status = feeder.queue.status();
        assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (0, 10, 10), "{waits}");
    }
    // With a spool, the next run sends them again.
    let directory = tempfile::tempdir().expect("directory");
    let (listener, port) = listen();
    let bytes = silent(listener, 1);
    let mut feeder = Feeder::start(&spooled(http(port, Template::Ndjson), directory.path(), 1 << 20), None);
    feeder.push(10);
    wait_until("it has the request", || bytes.load(Ordering::Relaxed) > 1800);
    feeder.end(Duration::ZERO);
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (0, 0, 0));
    let mut spool = Spool::open(directory.path(), 1 << 20, false).expect("spool");
    assert_eq!(spool.read(1 << 20).expect("read").batch.len(), 10);
}

#[test]
fn what_a_stream_has_written_and_nobody_acknowledged_is_in_doubt() {
    let (listener, port) = listen();
    let mut feeder = Feeder::start(&settings(tcp(port)), None);
    // More than both buffers hold.
    let chunks = 400;
    for _ in 0..chunks {
        wait_until("there is room", || feeder.queue.has_room(30_000) || feeder.queue.stands_still());
        feeder.push(100);
    }
    let connection = listener.accept().expect("connection");
    feeder.end(Duration::ZERO);
    let status = feeder.queue.status();
    let (delivered, doubtful, lost) = (status.delivered(), status.in_doubt(), status.lost());
    assert_eq!(delivered + doubtful + lost, feeder.pushed(), "{delivered}, {doubtful}, {lost}");
    // A step of 64 KiB is sent at a time.
    assert!(delivered > 0 && (1..1000).contains(&doubtful) && lost > 0, "{delivered}, {doubtful}, {lost}");
    drop(connection);
}

#[test]
fn a_record_of_a_loss_that_is_lost_is_said_again_with_what_is_in_doubt() {
    let (listener, port) = listen();
    drop(listener);
    let feeder = Feeder::start(&settings(tcp(port)), None);
    let mut batch = batch(1, 2);
    (batch.frames[0].reported_lost, batch.frames[0].reported_in_doubt) = (3, 5);
    feeder.queue.push(batch);
    feeder.end(Duration::ZERO);
    let queue = &feeder.queue;
    assert!(queue.has_lost());
    assert_eq!((queue.take_lost(), queue.take_doubt()), (2 + 3, 5));
    // These records were counted when they became in doubt.
    assert_eq!((queue.status().lost(), queue.status().in_doubt(), queue.has_lost()), (2, 0, false));
}
