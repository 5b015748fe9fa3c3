//! Records of connections that go on, compared with what this program has sent until then.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use socket2::Socket;

use crate::{
    Test,
    fleet::{number, rows_of_each_engine},
    lab::{Tracer, in_lab, signal, wait_until},
    restart::{DaemonFiles, end},
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kind in Kind::ALL {
        tests.push(test(format!("interims: bytes until the moment of each record, {kind:?}"), move || {
            running_totals(kind);
        }));
    }
    tests.push(test("interims: one that is older than the trace has them too", older));
    tests.push(test("interims: SIGHUP changes the interval, and the next daemon goes on", reloaded));
    tests
}

fn is_interim(record: &Value) -> bool {
    record["kind"] == "connection" && record["final"] == false
}

fn is_final(record: &Value) -> bool {
    record["kind"] == "connection" && record["final"] == true
}

fn wall_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(now.as_nanos()).expect("a time before 2262")
}

fn time_ns(record: &Value) -> i64 {
    let time: jiff::Timestamp = record["time"].as_str().expect("time").parse().expect("a time");
    i64::try_from(time.as_nanosecond()).expect("a time before 2262")
}

/// Sends some bytes, and returns when: from the beginning of the call until the other side had them.
fn send(client: &mut Socket, server: &mut Socket, bytes: usize) -> (i64, i64) {
    let before_ns = wall_ns();
    client.write_all(&vec![1; bytes]).expect("write");
    server.read_exact(&mut vec![0; bytes]).expect("read");
    (before_ns, wall_ns())
}

fn running_totals(kind: Kind) {
    const PIECES: [usize; 3] = [10_000, 1, 54_321];
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--records", "connections", "--interim", "1s"]);
        let (listener, mut client, mut server) = kind.pair(fresh_port());
        let mut sent = Vec::new();
        for bytes in PIECES {
            sent.push((send(&mut client, &mut server, bytes), bytes as u64));
            let total: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
            for (role, bytes) in [("client", json!([total, 0])), ("server", json!([0, total]))] {
                tracer.wait_for(|record| {
                    let found = json!([record["bytes"]["sent"], record["bytes"]["received"]]);
                    is_interim(record) && record["role"] == role && found == bytes
                });
            }
        }
        drop(client);
        drop((server, listener));
        let mut ends = 0;
        while ends < 2 {
            tracer.wait_for(is_final);
            ends += 1;
        }
        let records = tracer.stop().records;
        let mut of_conn: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for record in records.iter().filter(|record| record["kind"] == "connection") {
            of_conn.entry(record["conn"].as_str().expect("conn")).or_default().push(record);
        }
        assert_eq!(of_conn.len(), 2, "{of_conn:#?}");
        for all in of_conn.values() {
            let [interims @ .., last] = &all[..] else { panic!("no record") };
            assert!(interims.len() >= PIECES.len() && is_final(last), "{all:#?}");
            let way = if last["role"] == "client" { "sent" } else { "received" };
            assert_eq!(last["bytes"][way], PIECES.iter().sum::<usize>(), "{last}");
            for (at, record) in interims.iter().enumerate() {
                assert!(is_interim(record), "nothing comes after the end: {all:#?}");
                let (read_ns, bytes) = (time_ns(record), record["bytes"][way].as_u64().expect("bytes"));
                let sum = |is_sent: &dyn Fn(&(i64, i64)) -> bool| -> u64 {
                    sent.iter().filter(|(times, _)| is_sent(times)).map(|(_, bytes)| bytes).sum()
                };
                let (least, most) = (sum(&|times| times.1 <= read_ns), sum(&|times| times.0 <= read_ns));
                assert!((least..=most).contains(&bytes), "{least} to {most}: {record}");
                assert!(record["duration_ns"].as_u64() >= Some(1_000_000_000), "{record}");
                assert_eq!((&record["cause"], &record["end"]), (&Value::Null, &record["time"]), "{record}");
                assert_eq!((&record["begin"], &record["path"][0]), (&last["begin"], &last["path"][0]));
                assert_eq!(
                    record["path"].as_array().and_then(|path| path.last()).map(|step| &step["state"]),
                    Some(&json!("ESTABLISHED")),
                    "{record}"
                );
                assert_eq!(record["owner"]["pid"], std::process::id(), "{record}");
                assert!(
                    record["segments"]["sent"].as_u64() > Some(0)
                        && record["rtt"]["smoothed_ns"].as_u64() > Some(0)
                );
                let later = all.get(at + 1).expect("the last one is final");
                assert!(
                    time_ns(later) > read_ns
                        && later["segments"]["sent"].as_u64() >= record["segments"]["sent"].as_u64()
                );
            }
        }
    });
}

fn older() {
    in_lab(|netns| {
        let (listener, mut client, mut server) = Kind::V6.pair(fresh_port());
        send(&mut client, &mut server, 777);
        let mut tracer = Tracer::start(netns, &["--records", "connections", "--interim", "1s"]);
        let mut bytes = BTreeMap::new();
        while bytes.len() < 2 {
            let record = tracer.wait_for(is_interim);
            assert_eq!(record["at_least"], true, "{record}");
            let local = record["local"]["port"].as_u64().expect("port");
            bytes.insert(local, record["bytes"].clone());
        }
        let mut bytes: Vec<String> = bytes.values().map(Value::to_string).collect();
        bytes.sort();
        assert_eq!(bytes, [r#"{"received":0,"sent":777}"#, r#"{"received":777,"sent":0}"#]);
        drop((client, server, listener));
        tracer.stop();
    });
}

fn reloaded() {
    const RARELY: Option<&str> = Some("[\"connections\"]\ninterim = \"1h\"");
    const OFTEN: Option<&str> = Some("[\"connections\"]\ninterim = \"1s\"");
    in_lab(|netns| {
        let port = fresh_port();
        let Some(mut files) = DaemonFiles::new(port) else { return };
        files.kinds = RARELY;
        files.configure(netns, port, "");
        let first = files.start(1);
        let (listener, mut client, mut server) = Kind::V4.pair(port);
        send(&mut client, &mut server, 1234);
        files.kinds = OFTEN;
        files.configure(netns, port, "");
        signal(first.id(), libc::SIGHUP);
        let interims = |bytes: u64| -> Vec<Value> {
            let is_it = |record: &Value| {
                is_interim(record) && record["role"] == "client" && record["bytes"]["sent"] == bytes
            };
            files.records().into_iter().filter(is_it).collect()
        };
        wait_until("the new interval is used", || interims(1234).len() >= 2);
        end(first);
        send(&mut client, &mut server, 1000);
        let second = files.start(3);
        wait_until("the next daemon goes on", || interims(2234).len() >= 2);
        drop((client, server, listener));
        wait_until("both ends have ended", || {
            files.records().iter().filter(|record| is_final(record)).count() == 2
        });
        end(second);
        rows_of_each_engine(&[&files.output()], |engine, rows| {
            let [row] = &rows["talkers"].as_array().expect("rows")[..] else { panic!("{engine}: {rows:#}") };
            let counts = ["connections", "sent", "received"].map(|key| number(&row[key]));
            assert_eq!(counts, [2, 2234, 2234], "{engine}: each connection counts once");
        });
        let (one, other) = (&interims(1234)[0], &interims(2234)[0]);
        for key in ["conn", "begin", "instance", "owner"] {
            assert_eq!(one[key], other[key], "{key}");
        }
        assert!(other.get("at_least").is_none() && other.get("incomplete").is_none(), "{other}");
    });
}
