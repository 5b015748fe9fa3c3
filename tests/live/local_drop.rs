//! Packets that this host itself drops: the kernel retries by the timer of zero windows, although the window is open.

use std::{io::Write, net::Shutdown};

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, in_lab, wait_until},
    look_test,
    reasons::text,
    sockets::{Kind, fresh_port, option},
    stuck::look,
    tools,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![look_test("reasons: this host drops what is sent", dropped_here)]
}

fn dropped_here() {
    in_lab(|netns| {
        let Some(mut nft) = tools::find("nft", "nftables") else { return };
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let (_listener, mut client, server) = Kind::V4.pair(port);
        server.shutdown(Shutdown::Write).expect("shutdown");
        tracer.wait_for(|record| record["to"] == "CLOSE_WAIT");
        let rule = format!(
            "table ip t {{ chain c {{ type filter hook output priority 0; tcp dport {port} drop; }}; }}"
        );
        assert!(nft.arg(rule).status().expect("nft").success());
        client.write_all(&[0; 100]).expect("write");
        let stuck = |state: &str| {
            let mut found = Vec::new();
            wait_until("the timer runs", || {
                found = look(netns, &["stuck", "--state", state, "--older-than", "0"]);
                found.first().is_some_and(|record| record["timer"]["name"] == "persist")
            });
            found.remove(0)
        };
        let waits = stuck("CLOSE_WAIT");
        assert_eq!(waits["reason"], "cannot_send", "{waits}");
        assert!(text(&waits, "why").contains("this host does not send 100 bytes"), "{waits}");
        option(&client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1000);
        drop(client);
        let end = tracer.wait_for(|record| record["from"] == "LAST_ACK");
        assert_eq!((&end["cause"], &end["errno"]), (&Value::Null, &"ETIMEDOUT".into()), "{end}");
        tracer.stop();
    });
}
