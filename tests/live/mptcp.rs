//! MPTCP: the peers' closes stay above TCP, so a look asks for MPTCP's own sockets.

use std::{io::Write, os::fd::AsRawFd, process};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Test,
    lab::{in_lab, sockstate, wait_until},
    schema, skip,
    sockets::fresh_port,
    stuck::holders,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![test("mptcp: what the peer has closed is stuck, and its subflows are not", leaks)]
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
        // A plain TCP client of the same listener, whose connection is TCP on both sides.
        let plain = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        plain.connect(&address).expect("connect");
        let fallback = listener.accept().expect("accept").0;
        drop(plain);
        wait_until("both are in CLOSE_WAIT", || look(netns).len() >= 2);
        let found = look(netns);
        assert_eq!(found.len(), 2, "each counts once: {found:#?}");
        for (it, transport) in [(&server, "mptcp"), (&fallback, "tcp")].map(|(socket, transport)| {
            let held = [(u64::from(process::id()), socket.as_raw_fd() as u64)];
            (found.iter().find(|it| holders(it) == held).expect("held by us"), transport)
        }) {
            assert_eq!(
                (&it["network"]["transport"], &it["local"]["port"]),
                (&transport.into(), &port.into()),
                "{it}"
            );
            // The kernel counts memory there, not bytes.
            assert_eq!(it["unread_bytes"].is_null(), transport == "mptcp", "{it}");
            check_end(it, transport);
        }
        let reason = &found.iter().find(|it| it["network"]["transport"] == "mptcp").expect("one")["reason"];
        assert_eq!(reason, "unread_data");
        drop((server, fallback));
        assert_eq!(look(netns).len(), 0, "closed");
    });
}

/// The kernel has no way to end an MPTCP socket from outside, so no command is printed that would do nothing.
fn check_end(it: &Value, transport: &str) {
    let commands = it["commands"].to_string();
    if transport == "tcp" {
        assert!(commands.contains("ss -K -t") && it["cannot_destroy"].is_null(), "{it}");
        return;
    }
    assert!(!commands.contains("ss -K"), "{it}");
    let way = it["cannot_destroy"].as_str().expect("another way");
    assert!(way.contains("MPTCP") && way.contains(&format!("({})", process::id())), "{it}");
    let port = &it["local"]["port"];
    let Ok(output) =
        process::Command::new("ss").args(["-H", "-K", "-M", &format!("sport = {port}")]).output()
    else {
        return;
    };
    let left = look(it["netns"].as_u64().expect("netns"));
    assert!(left.iter().any(|it| it["network"]["transport"] == "mptcp"), "`ss -K -M` ended it: {output:?}");
}
