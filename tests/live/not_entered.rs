//! Corrections in a network namespace that the tracer cannot enter. A process in the namespace lists its sockets.

use std::os::unix::process::CommandExt;

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{Tracer, in_lab, sockstate, wait_until},
    observer::proc_net_tcp,
    resync::believed,
    sockets::{Kind, fresh_port, reset_on_close},
    test,
    visibility::drop_capability,
};

const CAP_SYS_ADMIN: u64 = 21;

pub(crate) fn tests() -> Vec<Test> {
    vec![test("resync: what ends in a namespace that cannot be entered", ends_are_found)]
}

fn ends_are_found() {
    in_lab(|netns| {
        let ports = [Kind::V4, Kind::V6, Kind::Mapped].map(|kind| (kind, fresh_port()));
        // These listeners are older than the tracer, and accept nothing.
        let listeners = ports.map(|(kind, port)| kind.listen(port));
        // The tracer runs in another namespace.
        let mut tracer = in_lab(|_| Tracer::spawn(without_sys_admin().args(["--netns", &netns.to_string()])));
        let clients = ports.map(|(kind, port)| {
            let client = kind.connect(port).expect("connect");
            tracer.wait_for(|record| record["remote"]["port"] == port && record["to"] == "ESTABLISHED");
            client
        });

        let busy = fresh_port();
        let listener = Kind::V4.listen(busy);
        wait_until("an end is lost and found", || {
            (0..500).for_each(|_| connect_and_reset(&listener, busy));
            tracer.poll(|record| record["kind"] == "resync" && record["state"] == "CLOSE")
        });
        wait_until("the stream has nothing open that has ended", || {
            tracer.poll(|_| false);
            let exist: Vec<_> =
                proc_net_tcp().into_iter().map(|(local, remote, _)| (local, remote)).collect();
            believed(tracer.seen()).iter().all(|(local, remote, _)| exist.contains(&(*local, *remote)))
        });
        for (_, port) in ports {
            let is_open =
                |record: &&Value| record["remote"]["port"] == port || record["local"]["port"] == port;
            let ended = tracer.seen().iter().filter(is_open).find(|record| record["state"] == "CLOSE");
            assert_eq!(ended, None, "it waits in an accept queue");
        }
        drop((clients, listeners, listener));
        tracer.stop();
    });
}

fn connect_and_reset(listener: &Socket, port: u16) {
    let client = Kind::V4.connect(port).expect("connect");
    let server = listener.accept().expect("accept");
    reset_on_close(&client);
    drop((client, server));
}

/// A tracer that cannot enter network namespaces, and loses records.
fn without_sys_admin() -> std::process::Command {
    let mut command = sockstate();
    command.args(["trace", "--format", "json", "--alongside", "--ring-size", "4K", "--resync", "500ms"]);
    // SAFETY: a system call that takes numbers.
    unsafe { command.pre_exec(|| drop_capability(CAP_SYS_ADMIN)) };
    command
}
