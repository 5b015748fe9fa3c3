//! A NATS server that acknowledges some messages, and then no more.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sockstate::sinks::{NatsSettings, TlsFiles};

use crate::collector::{Feeder, listen, settings, wait_until};

/// NATS' protocol as far as a publisher needs it: the first `most` messages are acknowledged. Counts all.
fn server(listener: TcpListener, most: usize, max_payload: usize) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let messages = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, messages) = (stream.expect("connection"), Arc::clone(&messages));
            thread::spawn(move || serve(stream, most, max_payload, &messages));
        }
    });
    count
}

fn serve(mut stream: TcpStream, most: usize, max_payload: usize, count: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let info = format!(
        "INFO {{\"server_id\":\"T\",\"server_name\":\"t\",\"version\":\"2.10.0\",\"proto\":1,\"headers\":true,\"max_payload\":{max_payload},\
         \"host\":\"127.0.0.1\",\"port\":4222,\"jetstream\":true,\"go\":\"go1.22\",\"client_id\":1}}\r\n"
    );
    stream.write_all(info.as_bytes()).ok()?;
    // Where acknowledgements go: the identifier of the only subscription.
    let mut inbox = String::new();
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.first()? {
            "PING" => stream.write_all(b"PONG\r\n").ok()?,
            "SUB" => inbox = (*words.last()?).to_owned(),
            "PUB" | "HPUB" => {
                let length: usize = words.last()?.parse().ok()?;
                let mut payload = vec![0; length + 2];
                reader.read_exact(&mut payload).ok()?;
                if count.fetch_add(1, Ordering::Relaxed) < most {
                    let reply = words.get(2)?;
                    let body = "{\"stream\":\"S\",\"seq\":1}";
                    let message = format!("MSG {reply} {inbox} {}\r\n{body}\r\n", body.len());
                    stream.write_all(message.as_bytes()).ok()?;
                }
            }
            _ => {}
        }
    }
}

fn target(port: u16) -> NatsSettings {
    NatsSettings {
        url: format!("nats://127.0.0.1:{port}"),
        subject: "sockstate.events".into(),
        credentials: None,
        id: "test".into(),
        tls: TlsFiles::default(),
    }
}

#[test]
fn messages_that_are_acknowledged_at_the_end_are_delivered_and_the_others_in_doubt() {
    let (listener, port) = listen();
    let messages = server(listener, 30, 1 << 20);
    let mut feeder = Feeder::start(&settings(target(port)), None);
    feeder.push(100);
    wait_until("it has all", || messages.load(Ordering::Relaxed) == 100);
    feeder.end(Duration::from_secs(1));
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (30, 70, 0));
}

#[test]
fn a_row_of_messages_that_are_too_large_costs_no_other() {
    let (listener, port) = listen();
    server(listener, usize::MAX, 100 << 10);
    let convert: sockstate::sinks::Convert = Box::new(|line, out| {
        out.extend_from_slice(line.trim_ascii_end());
        if crate::collector::seq(std::str::from_utf8(line).expect("UTF-8").trim_end()) <= 40 {
            out.extend(std::iter::repeat_n(b' ', 200 << 10));
        }
        out.push(b'\n');
    });
    let mut feeder = Feeder::start(&settings(target(port)), Some(convert));
    feeder.push(100);
    feeder.wait_until("all are counted", |status| status.lost() + status.delivered() == 100);
    assert_eq!((feeder.queue.status().lost(), feeder.queue.status().delivered()), (40, 60));
}
