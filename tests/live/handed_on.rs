//! Connections whose owner has closed them or has ended: their owner is the process that has them, or their listener,
//! open.

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, in_lab},
    look_test,
    roles::{Actor, keep_or_let_go, next_step, say, start_holder},
    sockets::{Kind, fresh_port},
    stuck::holders,
};

pub(crate) fn tests() -> Vec<Test> {
    let unaccepted = |name, parent, others, wanted| {
        look_test(format!("handed on: a connection that nobody has accepted, {name}"), move || {
            owner_of("listen", parent, others, wanted);
        })
    };
    let accepted = |name, parent, others, wanted| {
        look_test(format!("handed on: a connection {name}"), move || {
            owner_of("accept", parent, others, wanted);
        })
    };
    vec![
        unaccepted("whose listener one other has", Parent::Closes, 1, Some((Who::Other, "inherited"))),
        unaccepted("whose listener two others have", Parent::Closes, 2, None),
        unaccepted("whose listener another has too", Parent::KeepsOpen, 1, Some((Who::Parent, "inherited"))),
        unaccepted("whose dead owner's listener one has", Parent::Ends, 1, Some((Who::Other, "inherited"))),
        unaccepted("whose dead owner's listener two have", Parent::Ends, 2, None),
        accepted("of a dead owner that one other has", Parent::Ends, 1, Some((Who::Other, "scan"))),
        accepted("of a dead owner that two others have", Parent::Ends, 2, None),
        accepted(
            "of an owner whose first thread has ended",
            Parent::Headless,
            1,
            Some((Who::Parent, "inherited")),
        ),
    ]
}

/// What a process that listened does after others have got its socket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parent {
    KeepsOpen,
    Closes,
    Ends,
    /// Only the first thread of the process ends.
    Headless,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Parent,
    Other,
}

/// Listens and may accept ("HOW PORT PARENT OTHERS"), and starts other processes that have the listener or the
/// connection open. Then the process stays, closes its own copy, or ends.
pub(crate) fn hand_on(value: &str) {
    let fields: Vec<&str> = value.split(' ').collect();
    let listener = Kind::V4.listen(fields[1].parse().expect("port"));
    say("listening");
    let shared = if fields[0] == "listen" { listener } else { listener.accept().expect("accept").0 };
    for _ in 0..fields[3].parse().expect("number") {
        start_holder(&shared);
    }
    if fields[2] != "Headless" {
        return keep_or_let_go(shared, fields[2]);
    }
    std::thread::spawn(move || {
        say("here");
        while next_step() {}
        drop(shared);
        std::process::exit(0);
    });
    // SAFETY: ends this thread alone, which holds nothing that others wait for.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

fn owner_of(how: &str, kind: Parent, others: usize, wanted: Option<(Who, &str)>) {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--threshold", "ESTABLISHED=1"]);
        let port = fresh_port();
        let mut parent = Actor::start("hand on", format!("{how} {port} {kind:?} {others}"));
        assert_eq!(parent.hear(), "listening");
        let client = Kind::V4.connect(port).expect("connect");
        let pids: Vec<u64> = (0..others).map(|_| parent.hear().parse().expect("pid")).collect();
        match kind {
            Parent::Closes => assert_eq!(parent.hear(), "closed"),
            Parent::Headless => assert_eq!(parent.hear(), "here"),
            Parent::Ends => parent.wait(),
            Parent::KeepsOpen => {}
        }
        let stuck = tracer.wait_for(|record| record["kind"] == "stuck" && record["role"] == "server");
        // A connection that nobody has accepted has no file; the other processes have the accepted connection.
        let mut having: Vec<u64> = holders(&stuck).into_iter().map(|holder| holder.0).collect();
        having.retain(|pid| pids.contains(pid));
        having.sort_unstable();
        assert_eq!(having, if how == "listen" { Vec::new() } else { sorted(&pids) }, "{stuck}");
        let expected = wanted.map(|(who, source)| {
            let pid = if who == Who::Parent { u64::from(parent.pid()) } else { pids[0] };
            (pid, source.to_owned())
        });
        assert_eq!(owner(&stuck), expected, "{stuck}");
        drop(client);
        // Later records have the same owner, until a process closes the connection.
        let next = tracer.wait_for(|record| record["role"] == "server" && record["to"] == "CLOSE_WAIT");
        assert_eq!(owner(&next), expected, "{next}");
        parent.release();
        tracer.stop();
    });
}

fn sorted(pids: &[u64]) -> Vec<u64> {
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    pids
}

fn owner(record: &Value) -> Option<(u64, String)> {
    let owner = &record["owner"];
    let source = owner["source"].as_str()?.to_owned();
    Some((owner["pid"].as_u64().expect("pid"), source))
}
