//! Filters: the same traffic with and without a filter. The filtered stream must have exactly the connections that the
//! filter matches.

use serde_json::Value;

use crate::{
    Test,
    lab::{Story, Tracer, in_lab, path},
    netns::sysctl,
    observer::wait_for_states,
    roles::Actor,
    sockets::{Kind, fresh_port, make_deaf},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("filters: each passes what it matches and nothing else", each_takes_what_it_names),
        test("filters: a local port does not lose a connect's first transition", local_port_of_a_connect),
        test("filters: a local port is known before an answer comes", local_port_without_an_answer),
        test("filters: a state keeps durations and owners", states_keep_durations),
        test("filters: another network namespace", other_namespace),
    ]
}

/// Connections of all kinds, one after another, each to its own port.
fn traffic(ports: [u16; 3]) {
    for (kind, port) in Kind::ALL.into_iter().zip(ports) {
        let (listener, client, server) = kind.pair(port);
        drop(client);
        wait_for_states(&[&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"][..], &time_waits()].concat());
        drop(server);
        drop(listener);
    }
}

/// The records that earlier connections left.
fn time_waits() -> Vec<&'static str> {
    let lines = crate::observer::proc_net_tcp();
    lines.iter().filter(|line| line.2 == "TIME_WAIT").map(|_| "TIME_WAIT").collect()
}

fn each_takes_what_it_names() {
    type Wanted = fn(&Value, [u16; 3]) -> bool;
    let ports = [fresh_port(), fresh_port(), fresh_port()];
    let (first, all_text) = (ports[0].to_string(), format!("{},{}-{}", ports[0], ports[1], ports[2]));
    let pid = std::process::id().to_string();
    let cases: Vec<(Vec<&str>, Wanted)> = vec![
        (vec![], |_, _| true),
        (vec!["--port", &first], |record, ports| {
            record["local"]["port"] == ports[0] || record["remote"]["port"] == ports[0]
        }),
        (vec!["--port", &all_text], |_, _| true),
        (vec!["--local-port", &first], |record, ports| record["local"]["port"] == ports[0]),
        (vec!["-D", &first], |record, ports| record["remote"]["port"] == ports[0]),
        (vec!["-4"], |record, _| record["network"]["type"] == "ipv4"),
        (vec!["-6"], |record, _| record["network"]["type"] == "ipv6"),
        (vec!["--remote", "127.0.0.0/8"], |record, _| record["remote"]["address"] == "127.0.0.1"),
        (vec!["--local", "::1,127.0.0.1"], |record, _| record["local"]["address"] != "::"),
        (vec!["--local", "10.0.0.0/8"], |_, _| false),
        (vec!["--from", "established"], |record, _| record["from"] == "ESTABLISHED"),
        (vec!["--to", "close-wait,LAST_ACK"], |record, _| {
            record["to"] == "CLOSE_WAIT" || record["to"] == "LAST_ACK"
        }),
        (vec!["--from", "FIN-WAIT-2,last-ack", "--to", "closed"], |record, _| {
            (record["from"] == "FIN_WAIT2" || record["from"] == "LAST_ACK") && record["to"] == "CLOSE"
        }),
        (vec!["--pid", &pid], |_, _| true),
        (vec!["--pid", "1"], |_, _| false),
        (vec!["--comm", "nobody"], |_, _| false),
        (vec!["--hook", "tracepoint", "-4", "--port", &first], |record, ports| {
            record["local"]["port"] == ports[0] || record["remote"]["port"] == ports[0]
        }),
    ];
    in_lab(|netns| {
        let tracers: Vec<Tracer> = cases.iter().map(|(args, _)| Tracer::start(netns, args)).collect();
        traffic(ports);
        let stories: Vec<Story> = tracers.into_iter().map(Tracer::stop).collect();
        let complete = with_ports(&stories[0]);
        let nothing = [vec!["--local", "10.0.0.0/8"], vec!["--pid", "1"], vec!["--comm", "nobody"]];
        for ((args, wanted), story) in cases.iter().zip(&stories) {
            // Two tracers record different times, so the test compares the states of each connection.
            let mut expected: Vec<String> =
                complete.iter().filter(|connection| wanted(connection, ports)).map(summary).collect();
            assert_eq!(expected.is_empty(), nothing.contains(args), "{args:?}: {complete:#?}");
            let mut said: Vec<String> = with_ports(story).iter().map(summary).collect();
            said.sort();
            expected.sort();
            assert_eq!(said, expected, "{args:?}");
        }
    });
}

/// Every transition, with the endpoints that the last transitions of its connection show.
fn with_ports(story: &Story) -> Vec<Value> {
    let mut all = Vec::new();
    for connection in story.connections() {
        let last = connection.last().expect("one at least");
        for record in &connection {
            let mut record = (*record).clone();
            for key in ["local", "remote", "network"] {
                record[key] = last[key].clone();
            }
            all.push(record);
        }
    }
    all
}

fn summary(connection: &Value) -> String {
    format!(
        "{} {} {} {} {} {}",
        connection["role"],
        connection["local"],
        connection["remote"],
        connection["from"],
        connection["to"],
        connection["in_state_ns"].is_null()
    )
}

fn local_port_of_a_connect() {
    let port = fresh_port();
    in_lab(|netns| {
        // The next sockets are bound to these ports before they connect.
        sysctl("ipv4/ip_local_port_range", "40000 40001").expect("sysctl");
        let all = Tracer::start(netns, &[]);
        let one = Tracer::start(netns, &["--local-port", "40000"]);
        let listener = Kind::V4.listen(port);
        let clients = [Kind::V4.connect(port).expect("connect"), Kind::V4.connect(port).expect("connect")];
        drop((clients, listener));
        let (all, one) = (all.stop(), one.stop());
        let expected: Vec<_> = all
            .connections()
            .into_iter()
            .filter(|connection| connection.last().is_some_and(|last| last["local"]["port"] == 40000))
            .map(|connection| path(&connection))
            .collect();
        let said: Vec<_> = one.connections().iter().map(|connection| path(connection)).collect();
        assert_eq!(said, expected);
        assert_eq!(said.len(), 1);
        assert_eq!(said[0][..2], ["CLOSE", "SYN_SENT"]);
        // The records that were held back have the port that they waited for.
        assert!(one.transitions().all(|record| record["local"]["port"] == 40000));
    });
}

fn local_port_without_an_answer() {
    let port = fresh_port();
    in_lab(|netns| {
        sysctl("ipv4/ip_local_port_range", "40000 40001").expect("sysctl");
        let mut tracer = Tracer::start(netns, &["--local-port", "40000-40001"]);
        let listener = Kind::V4.listen(port);
        make_deaf(&listener);
        let client = Kind::V4.start_connect(port);
        // The SYN is sent again after a second. No transition shows the port before.
        let record = tracer.wait_for(|record| record["to"] == "SYN_SENT");
        let bound = client.local_addr().expect("address").as_socket().expect("inet").port();
        assert_eq!(record["local"]["port"], bound);
        wait_for_states(&["LISTEN", "SYN_SENT"]);
        drop(client);
        let story = tracer.stop();
        assert_eq!(path(&story.only("client")), ["CLOSE", "SYN_SENT", "CLOSE"]);
    });
}

fn states_keep_durations() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &["--to", "CLOSE_WAIT"]);
        let listener = Kind::V4.listen(port);
        let mut client = Actor::start("client", port);
        client.hear();
        let server = listener.accept().expect("accept").0;
        client.end();
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop(server);
        let story = tracer.stop();
        let said: Vec<&Value> = story.transitions().collect();
        assert_eq!(said.len(), 1);
        assert!(said[0]["in_state_ns"].as_u64() > Some(0), "{}", said[0]);
        assert_eq!(said[0]["owner"]["pid"], std::process::id());
        assert_eq!(said[0]["role"], "server");
    });
}

fn other_namespace() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        in_lab(|other| {
            assert_ne!(other, netns);
            drop(Kind::V4.listen(port));
        });
        assert_eq!(tracer.stop().transitions().count(), 0);
    });
}
