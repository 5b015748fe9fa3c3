//! MPTCP: the closes of the peers do not reach the TCP subflows, so a look asks for MPTCP's own sockets.

use std::{io::Write, os::fd::AsRawFd, process};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Test,
    lab::{in_lab, sockstate, wait_until},
    look_test, schema, skip,
    sockets::fresh_port,
    stuck::holders,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("mptcp: what the peer has closed is stuck, and its subflows are not", leaks),
        look_test("mptcp: one listener and one connection, with subflows of their own", whole),
        look_test("mptcp: an orphan waits for MPTCP's own timer", orphan),
        test("mptcp: doctor shows what the kernel has", doctor),
    ]
}

const MPTCP: i32 = 262;

fn socket() -> Option<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(MPTCP))).ok()
}

fn look(netns: u64) -> Vec<Value> {
    let output = sockstate()
        .args(["stuck", "--state", "CLOSE_WAIT", "--older-than", "0", "--format", "json"])
        .args(["--netns", &netns.to_string()])
        .output()
        .expect("sockstate");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    records.iter().for_each(schema::check);
    records
}

fn leaks() {
    in_lab(|netns| {
        let Some(listener) = socket() else { return skip("this kernel has no MPTCP") };
        let port = fresh_port();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port)).into();
        listener.bind(&address).expect("bind");
        listener.listen(8).expect("listen");
        let mut client = socket().expect("MPTCP");
        client.connect(&address).expect("connect");
        client.write_all(&[7; 33]).expect("write");
        let server = listener.accept().expect("accept").0;
        drop(client);
        // A TCP client of the same listener. This connection uses plain TCP on both sides.
        let plain = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        plain.connect(&address).expect("connect");
        let fallback = listener.accept().expect("accept").0;
        drop(plain);
        wait_until("both are in CLOSE_WAIT", || look(netns).len() >= 2);
        let found = look(netns);
        assert_eq!(found.len(), 2, "each counts once: {found:#?}");
        for (record, transport) in [(&server, "mptcp"), (&fallback, "tcp")].map(|(socket, transport)| {
            let held = [(u64::from(process::id()), socket.as_raw_fd() as u64)];
            (found.iter().find(|record| holders(record) == held).expect("held by us"), transport)
        }) {
            assert_eq!(
                (&record["network"]["transport"], &record["local"]["port"]),
                (&transport.into(), &port.into()),
                "{record}"
            );
            // For MPTCP sockets the kernel counts memory, and not bytes.
            assert_eq!(record["unread_bytes"].is_null(), transport == "mptcp", "{record}");
            check_end(record, transport);
        }
        let reason =
            &found.iter().find(|record| record["network"]["transport"] == "mptcp").expect("one")["reason"];
        assert_eq!(reason, "unread_data");
        drop((server, fallback));
        assert_eq!(look(netns).len(), 0, "closed");
    });
}

/// The kernel has no request that ends an MPTCP socket, so sockstate prints no `ss -K` for it.
fn check_end(record: &Value, transport: &str) {
    let commands = record["commands"].to_string();
    if transport == "tcp" {
        assert!(commands.contains("ss -K -t") && record["cannot_destroy"].is_null(), "{record}");
        return;
    }
    assert!(!commands.contains("ss -K"), "{record}");
    let way = record["cannot_destroy"].as_str().expect("another way");
    assert!(way.contains("MPTCP") && way.contains(&format!("({})", process::id())), "{record}");
    let port = &record["local"]["port"];
    let Ok(output) =
        process::Command::new("ss").args(["-H", "-K", "-M", &format!("sport = {port}")]).output()
    else {
        return;
    };
    let left = look(record["netns"].as_u64().expect("netns"));
    assert!(
        left.iter().any(|record| record["network"]["transport"] == "mptcp"),
        "`ss -K -M` ended it: {output:?}"
    );
}

/// A client and a listener of MPTCP; `None` if the kernel has no MPTCP.
pub(crate) fn pair(port: u16) -> Option<(Socket, Socket)> {
    let listener = socket()?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port)).into();
    listener.bind(&address).expect("bind");
    listener.listen(8).expect("listen");
    let client = socket().expect("MPTCP");
    client.connect(&address).expect("connect");
    Some((listener, client))
}

/// Every socket that `sockstate sockets` shows, in its order.
fn sockets(netns: u64) -> Vec<Value> {
    let output = sockstate()
        .args(["sockets", "--format", "json", "--netns", &netns.to_string()])
        .output()
        .expect("sockstate");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    records.iter().for_each(schema::check);
    records
}

/// Whether this kernel lists listeners of MPTCP: some kernels with MPTCP do not.
fn lists_listeners(found: &[Value]) -> bool {
    found.iter().any(|record| record["state"] == "LISTEN" && record["network"]["transport"] == "mptcp")
}

fn whole() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some((listener, client)) = pair(port) else { return skip("this kernel has no MPTCP") };
        // Nearly the same: a connection of plain TCP from the same listener, which is no subflow.
        let plain = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        plain.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("connect");
        let plain_port = plain.local_addr().expect("address").as_socket().expect("IP").port();
        let found = sockets(netns);
        let is_plain =
            |record: &Value| record["local"]["port"] == plain_port || record["remote"]["port"] == plain_port;
        assert_eq!(found.iter().filter(|record| is_plain(record)).count(), 2, "{found:#?}");
        assert!(
            found.iter().filter(|record| is_plain(record)).all(|record| record["mptcp"].is_null()),
            "{found:#?}"
        );
        let whole = found.iter().enumerate().filter(|(_, record)| record["network"]["transport"] == "mptcp");
        let mut count = 0;
        for (at, record) in whole {
            assert_eq!(
                (&record["mptcp"]["subflow"], &record["mptcp"]["subflows"]),
                (&false.into(), &1.into()),
                "{record}"
            );
            // The subflow follows the MPTCP socket, and has the same endpoints, token and holder.
            let below = &found[at + 1];
            assert_eq!(below["network"]["transport"], "tcp", "{found:#?}");
            assert_eq!(below["mptcp"]["subflow"], true, "{below}");
            for key in ["local", "remote", "state"] {
                assert_eq!(below[key], record[key], "{key}");
            }
            assert_eq!(below["mptcp"]["token"], record["mptcp"]["token"]);
            assert_eq!(below["holders"], record["holders"]);
            if record["state"] != "LISTEN" {
                assert!(record["mptcp"]["token"].is_string(), "{record}");
            }
            count += 1;
        }
        assert_eq!(count, if lists_listeners(&found) { 3 } else { 2 }, "{found:#?}");
        assert_eq!(
            found.iter().filter(|record| record["mptcp"]["subflow"] == true).count(),
            count,
            "{found:#?}"
        );

        // The peer closes a connection that no process has accepted.
        drop((client, plain));
        wait_until("both are in CLOSE_WAIT", || look(netns).len() == 2);
        for record in look(netns) {
            assert_eq!(record["reason"], "never_accepted", "{record}");
            assert_eq!(record["listeners"].as_array().map(Vec::len), Some(1), "{record}");
            assert!(!record["why"].as_str().expect("why").contains("listeners"), "{record}");
            if lists_listeners(&found) {
                assert!(!record["creator"].is_null(), "{record}");
            }
        }
        drop(listener);
    });
}

/// A timer of MPTCP, and not of TCP, ends a connection that no process has any more.
fn orphan() {
    in_lab(|netns| {
        let Some((listener, client)) = pair(fresh_port()) else { return skip("this kernel has no MPTCP") };
        let server = listener.accept().expect("accept").0;
        drop(client);
        let orphans = |transport: &str| {
            let args = ["stuck", "--state", "FIN_WAIT2", "--older-than", "0"];
            let found = crate::stuck::look(netns, &args);
            found.into_iter().filter(|record| record["network"]["transport"] == transport).collect::<Vec<_>>()
        };
        wait_until("an orphan of MPTCP", || orphans("mptcp").len() == 1);
        let record = &orphans("mptcp")[0];
        assert_eq!(record["reason"], "orphan_waits_for_fin", "{record}");
        let advice = record["advice"].as_str().expect("advice");
        assert!(advice.contains("close_timeout") && !advice.contains("tcp_fin_timeout"), "{advice}");
        // The same with plain TCP.
        let (other, tcp, held) = crate::sockets::Kind::V4.pair(fresh_port());
        drop(tcp);
        wait_until("an orphan of TCP", || orphans("tcp").len() == 1);
        let advice = orphans("tcp")[0]["advice"].clone();
        assert!(advice.as_str().expect("advice").contains("tcp_fin_timeout"), "{advice}");
        drop((server, other, held));
    });
}

fn doctor() {
    let output = sockstate().args(["doctor", "--format", "json"]).output().expect("doctor");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mptcp = &found["mptcp"];
    let is_there = std::path::Path::new("/proc/sys/net/mptcp/enabled").exists();
    assert_eq!(mptcp["available"], is_there, "{mptcp}");
    assert_eq!(mptcp["enabled"].is_null(), !is_there, "{mptcp}");
    let works = socket().is_some();
    assert_eq!(mptcp["enabled"] == true, works, "{mptcp}");
    let why = mptcp["why"].as_str().expect("why");
    assert_eq!(why.contains("a trace sees its subflows only"), works, "{why}");
}
