//! Sockets that existed before the tracer started.

use std::{net::Shutdown, process};

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, can_list_holders, in_lab, path},
    observer::{proc_net_tcp, wait_for_states},
    roles::Actor,
    skip,
    sockets::{Kind, fresh_port, keep_over_exec},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("existing: owners, durations as lower bounds", lower_bounds),
        test("existing: the snapshot is what /proc/net/tcp shows, mini-sockets included", snapshot),
        test("existing: a connection that several processes hold has no owner", several_holders),
        test("existing: every namespace of the host", every_namespace),
    ]
}

fn lower_bounds() {
    if !can_list_holders() {
        skip("this kernel lists no holders of sockets (needs 5.11)");
        return;
    }
    let port = fresh_port();
    in_lab(|netns| {
        let listener = Kind::V4.listen(port);
        let mut client = Actor::start("client", port);
        let pid = client.pid();
        client.hear();
        let server = listener.accept().expect("accept").0;
        let mut tracer = Tracer::start(netns, &[]);
        client.kill();
        let record = tracer.wait_for(|record| record["to"] == "CLOSE_WAIT");
        assert_eq!(record["in_state_at_least"], true);
        assert!(record["in_state_ns"].as_u64() > Some(0));
        assert_eq!(record["owner"]["pid"], process::id(), "who held it when the tracer started");
        assert_eq!(record["owner"]["source"], "scan");
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop(server);
        // New connections of an old listener inherit its owner.
        drop(Kind::V4.connect(port).expect("connect"));
        let story = tracer.stop();
        let old: Vec<_> =
            story.connections().into_iter().filter(|record| record[0]["from"] == "ESTABLISHED").collect();
        assert_eq!(old.len(), 2);
        let of_client = old.iter().find(|record| record[0]["owner"]["pid"] == pid).expect("the client's");
        assert_eq!(path(of_client), ["ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"]);
        // The tracer saw the transition that begins the second duration.
        assert!(of_client[1]["in_state_at_least"].is_null());
        assert_eq!(of_client[1]["owner"]["comm"], of_client[0]["owner"]["comm"]);
        let new = story.only("server");
        assert_eq!(new[0]["owner"]["pid"], process::id());
        assert_eq!(new[0]["owner"]["source"], "inherited");
    });
}

fn snapshot() {
    if !can_list_holders() {
        skip("this kernel lists no holders of sockets (needs 5.11)");
        return;
    }
    in_lab(|netns| {
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        let (_listener6, client6, server6) = Kind::V6.pair(fresh_port());
        // One pair leaves a TIME_WAIT, another pair a mini-socket in FIN_WAIT2.
        drop((client6, server6));
        let mapped = Kind::Mapped.pair(fresh_port());
        drop(mapped.1);
        client.shutdown(Shutdown::Write).expect("shutdown");
        let shown = wait_for_states(&[
            "LISTEN",
            "LISTEN",
            "LISTEN",
            "FIN_WAIT2",
            "CLOSE_WAIT",
            "TIME_WAIT",
            "FIN_WAIT2",
            "CLOSE_WAIT",
        ]);
        let story = Tracer::start(netns, &["--snapshot"]).stop();
        assert_eq!(shown, proc_net_tcp(), "nothing changed meanwhile");
        let port = |value: &Value| value["port"].as_u64().unwrap_or(0) as u16;
        let mut said: Vec<_> = story
            .of("snapshot")
            .map(|record| {
                (
                    port(&record["local"]),
                    port(&record["remote"]),
                    record["state"].as_str().expect("state").to_owned(),
                )
            })
            .collect();
        said.sort();
        assert_eq!(said, shown);
        let minis = story.of("snapshot").filter(|record| record["mini"] == true);
        let mut states: Vec<_> = minis.map(|record| record["state"].as_str().expect("state")).collect();
        states.sort_unstable();
        assert_eq!(states, ["FIN_WAIT2", "TIME_WAIT"]);
        for record in story.of("snapshot").filter(|record| record["mini"].is_null()) {
            assert_eq!(record["owner"]["pid"], process::id(), "{record}");
        }
        // A filter also applies to the snapshot.
        let story = Tracer::start(netns, &["--snapshot", "--from", "close-wait"]).stop();
        assert_eq!(story.of("snapshot").count(), 2);
        drop((listener, server));
    });
}

/// If several processes hold a connection, it is not known which of them has accepted it. Several descriptors of one
/// process are one holder.
fn several_holders() {
    if !can_list_holders() {
        skip("this kernel lists no holders of sockets (needs 5.11)");
        return;
    }
    in_lab(|netns| {
        let own: Vec<_> = (0..3).map(|_| Kind::V4.pair(fresh_port())).collect();
        let (listener, _, server) = &own[0];
        let mut others =
            [listener, server, server].map(|socket| Actor::start("holder", keep_over_exec(socket)));
        others.iter_mut().for_each(|other| assert_eq!(other.hear(), "here"));
        let twice = own[1].2.try_clone().expect("a second descriptor");
        let mut tracer = Tracer::start(netns, &["--snapshot"]);
        let port = server.local_addr().expect("address").as_socket().expect("IP").port();
        let all: Vec<_> = (0..9).map(|_| tracer.wait_for(|record| record["kind"] == "snapshot")).collect();
        let shared = |record: &&Value| record["state"] == "ESTABLISHED" && record["local"]["port"] == port;
        assert_eq!(all.iter().filter(shared).count(), 1);
        for record in &all {
            if shared(&record) {
                assert!(record["owner"].is_null(), "{record}");
            } else {
                // The other processes have inherited the listener from this process.
                assert_eq!(record["owner"]["pid"], process::id(), "{record}");
                assert_eq!(record["owner"]["source"], "scan");
            }
        }
        drop((own, twice));
        for other in others {
            other.end();
        }
        let end = tracer.wait_for(|record| {
            record["kind"] == "transition" && record["local"]["port"] == port && record["to"] != "LISTEN"
        });
        assert_eq!(end["from"], "ESTABLISHED", "{end}");
        tracer.stop();
    });
}

fn every_namespace() {
    if !can_list_holders() {
        skip("this kernel lists no holders of sockets (needs 5.11)");
        return;
    }
    let port = fresh_port();
    in_lab(|other| {
        // A process in the namespace, so that sockstate can find it. The socket belongs to the test.
        let _somebody = Actor::start("late listener", port + 1);
        let _listener = Kind::V4.listen(port);
        in_lab(|netns| {
            assert_ne!(netns, other);
            let mut command = crate::lab::sockstate();
            let filter = port.to_string();
            command.args(["--format", "json", "--alongside", "--snapshot", "--port", &filter]);
            let mut tracer = Tracer::spawn(&mut command);
            let record = tracer.wait_for(|record| record["kind"] == "snapshot");
            assert_eq!(record["netns"], other);
            assert_eq!(record["local"]["port"], port);
            assert_eq!(record["owner"]["pid"], process::id());
            tracer.stop();
        });
    });
}
