//! What a filter by ports hides. The first transitions of a connection come before its ends are known. If the filter
//! then excludes the ends, no record and no connection remains. A connection that the filter matches has all its
//! records.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::{
    Test,
    lab::{in_lab, wait_until},
    netns::sysctl,
    restart::{DaemonFiles, end, state_files},
    sockets::{Kind, fresh_port, make_deaf},
    test,
};

/// The local port of the filter, and other ports.
const WANTED: u16 = 40_000;
const OTHERS: [u16; 3] = [40_001, 40_002, 40_003];

pub(crate) fn tests() -> Vec<Test> {
    let wanted = || format!("{WANTED}");
    let range = || format!("\"39990-{WANTED}\"");
    [
        ("a local port", format!("local-port = {}", wanted()), true, false),
        ("a range of local ports", format!("local-port = {}", range()), true, false),
        ("either port", format!("port = {}", wanted()), true, true),
        ("a remote port", format!("remote-port = {}", wanted()), false, true),
        ("a range of remote ports", format!("remote-port = {}", range()), false, true),
    ]
    .into_iter()
    .map(|(what, filter, client, server)| {
        test(format!("hidden: {what} leaves nothing of other connections behind"), move || {
            leaves_nothing(&filter, client, server);
        })
    })
    .collect()
}

/// Connects from this port, which the kernel chooses, because it is the only one in the range of local ports.
fn connect<T>(port: u16, connect: impl FnOnce() -> T) -> T {
    sysctl("ipv4/ip_local_port_range", &format!("{port} {port}")).expect("sysctl");
    connect()
}

/// The sides of a connection that the stream reports.
fn leaves_nothing(filter: &str, client: bool, server: bool) {
    in_lab(|netns| {
        let (port, deaf_port) = (fresh_port(), fresh_port());
        let Some(files) = DaemonFiles::new(port) else { return };
        files.write(&format!(
            "[filter]\n{filter}\nnetns = {netns}\n[kernel]\nalongside = true\nresync = \"1s\""
        ));
        let listener = Kind::V4.listen(port);
        let deaf = Kind::V4.listen(deaf_port);
        make_deaf(&deaf);
        let open = |local: u16| {
            let client = connect(local, || Kind::V4.connect(port)).expect("connect");
            (client, listener.accept().expect("accept").0)
        };
        // One connection is older than the tracer, one is answered, and one is not.
        let older = open(OTHERS[0]);
        let daemon = files.start(1);
        let answered = open(OTHERS[1]);
        let unanswered = connect(OTHERS[2], || Kind::V4.start_connect(deaf_port));
        let wanted = open(WANTED);
        let is_open = |record: &Value| record["to"] == "ESTABLISHED";
        let count = usize::from(client) + usize::from(server);
        wait_until("what is wanted is reported", || {
            files.records().iter().filter(|record| is_open(record)).count() == count
        });
        // The second SYN of this connection, and of the one before it, has shown the port. Only the client's side
        // exists.
        let last = connect(WANTED, || Kind::V4.start_connect(deaf_port));
        let waits = |record: &Value| record["to"] == "SYN_SENT" && record["remote"]["port"] == deaf_port;
        if client {
            wait_until("its port is known", || files.records().iter().any(waits));
        }
        end(daemon);
        drop((older, answered, wanted, unanswered, last));
        let records = files.records();
        check_records(&records, port, client, server);
        let mut expected: BTreeSet<(u8, u16, u16)> = BTreeSet::new();
        if client {
            expected.extend([(1, WANTED, port), (2, WANTED, deaf_port)]);
        }
        if server {
            expected.insert((1, port, WANTED));
        }
        assert_eq!(connections(&files.pin), expected, "{filter}");
    });
}

fn check_records(records: &[Value], port: u16, client: bool, server: bool) {
    let ports = |record: &Value| [&record["local"]["port"], &record["remote"]["port"]].map(Value::as_u64);
    for record in records {
        let of_other = ports(record).iter().flatten().any(|port| OTHERS.map(u64::from).contains(port));
        assert!(!of_other, "{record}");
    }
    for (role, is_wanted, first) in [("client", client, "CLOSE"), ("server", server, "LISTEN")] {
        let of_role = |record: &&Value| record["role"] == role && ports(record).contains(&Some(port.into()));
        let steps: Vec<&Value> = records.iter().filter(of_role).collect();
        let is_whole = steps.first().is_some_and(|record| record["from"] == first)
            && steps.last().is_some_and(|record| record["to"] == "ESTABLISHED");
        assert_eq!((is_whole, steps.is_empty()), (is_wanted, !is_wanted), "{role}: {steps:#?}");
    }
}

/// State, local and remote port of the connections in the saved table, with which the next sockstate would continue.
fn connections(pin: &Path) -> BTreeSet<(u8, u16, u16)> {
    let files = state_files(pin, ".state");
    let [path] = &files[..] else { panic!("{files:?}") };
    let state: Value = serde_json::from_slice(&fs::read(path).expect("its state")).expect("JSON");
    let number = |value: &Value| u16::try_from(value.as_u64().expect("a number")).expect("16 bits");
    let all = state["table"]["conns"].as_array().expect("connections").iter();
    let all = all.map(|record| {
        (number(&record["state"]) as u8, number(&record["local"][1]), number(&record["remote"][1]))
    });
    // Listeners are always followed.
    all.filter(|socket| socket.0 != 10).collect()
}
