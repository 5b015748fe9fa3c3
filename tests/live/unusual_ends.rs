//! Unusual ends of connections: connects that wait for their first data, disconnects, resets by mini-sockets, full
//! queues.

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::OnceLock,
};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{Tracer, in_lab, path},
    netns::sysctl,
    observer::wait_for_states,
    skip,
    sockets::{Kind, disconnect, fresh_port, option},
    test,
    tun::{SYN, Wire, connecting},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("ends: a connect that waits for its first data is closed", deferred_is_closed),
        test("ends: a connect that waits for its first data is disconnected", deferred_is_disconnected),
        test("ends: a connect that waits for its first data sends it", deferred_is_sent),
        test("ends: data unread, and data read", unread_or_read),
        test("ends: a disconnect in LAST_ACK, with data to send and without", disconnect_in_last_ack),
        test("ends: data for an orphan's mini-socket", data_for_orphan),
        test("ends: no room for an orphan's mini-socket", no_room_for_orphan),
        test("ends: a connect whose host cannot be reached", unreachable),
    ]
}

/// The last transition of this side of the connection to this port.
pub(crate) fn end_of(tracer: &mut Tracer, role: &str, port: u16) -> Value {
    let end = if role == "client" { "remote" } else { "local" };
    let is_conn =
        |record: &Value| record["to"] == "CLOSE" && record["role"] == role && record[end]["port"] == port;
    let seen = tracer.seen().iter().find(|record| is_conn(record)).cloned();
    seen.unwrap_or_else(|| tracer.wait_for(is_conn))
}

pub(crate) fn assert_end(end: &Value, from: &str, cause: Option<&str>, errno: Option<&str>) {
    let or_null = |text: Option<&str>| text.map_or(Value::Null, Into::into);
    assert_eq!(
        (&end["from"], &end["cause"], &end["errno"]),
        (&from.into(), &or_null(cause), &or_null(errno)),
        "{end}"
    );
}

/// Whether the running kernel gives this reason for a reset: a name of `enum sk_rst_reason` (6.10 and newer).
fn kernel_names(reason: &str) -> bool {
    static BTF: OnceLock<Vec<u8>> = OnceLock::new();
    let btf = BTF.get_or_init(|| std::fs::read("/sys/kernel/btf/vmlinux").expect("the kernel's types"));
    let name = format!("SK_RST_REASON_{reason}\0");
    btf.windows(name.len()).any(|bytes| bytes == name.as_bytes())
}

/// Checks that `reset_why` is `why` if the kernel gives this reason, and null otherwise.
pub(crate) fn assert_why(end: &Value, reason: &str, why: &str) {
    let expected = if kernel_names(reason) { why.into() } else { Value::Null };
    assert_eq!(end["reset_why"], expected, "{end}");
}

pub(crate) fn sees_resets(tracer: &Tracer) -> bool {
    tracer.first()["hook"] == "tp_btf"
}

/// A connect() that returns before a SYN is sent (TCP_FASTOPEN_CONNECT without a cookie).
fn deferred(port: u16) -> Option<Socket> {
    if sysctl("ipv4/tcp_fastopen", "1543").is_err() {
        skip("no TCP fast open");
        return None;
    }
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1);
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("at once");
    Some(socket)
}

/// The connection is closed before its SYN is sent.
fn deferred_is_closed() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let Some(socket) = deferred(port) else { return };
        wait_for_states(&["SYN_SENT"]);
        drop(socket);
        let end = end_of(&mut tracer, "client", port);
        assert_eq!(end["owner"]["source"], "connect", "{end}");
        assert_eq!(end["owner"]["pid"], std::process::id());
        let story = tracer.stop();
        let client = story.only("client");
        assert_eq!(path(&client), ["CLOSE", "SYN_SENT", "CLOSE"]);
        assert_end(&end, "SYN_SENT", Some("given_up"), None);
    });
}

/// A disconnect looks the same as a first SYN that could not be sent. There is no evidence for either.
fn deferred_is_disconnected() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let Some(socket) = deferred(port) else { return };
        disconnect(&socket);
        assert_end(&end_of(&mut tracer, "client", port), "SYN_SENT", None, None);
        tracer.stop();
    });
}

/// The SYN has the first data. The connect is refused without a listener, and is an ordinary connection otherwise.
fn deferred_is_sent() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let nobody = fresh_port();
        let Some(mut socket) = deferred(nobody) else { return };
        // On loopback, the reset arrives before write() returns.
        let _ = socket.write(b"?");
        let end = end_of(&mut tracer, "client", nobody);
        assert_end(&end, "SYN_SENT", Some("refused"), Some("ECONNREFUSED"));
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 8);
        let Some(mut client) = deferred(port) else { return };
        client.write_all(b"hello").expect("write");
        let mut server = listener.accept().expect("accept").0;
        server.read_exact(&mut [0; 5]).expect("read");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("read"), 0);
        drop(server);
        assert_end(&end_of(&mut tracer, "server", port), "LAST_ACK", Some("fin"), None);
        let story = tracer.stop();
        let connections = story.connections();
        let is_ours = |of_one: &&Vec<&Value>| {
            of_one[0]["role"] == "client" && of_one.iter().any(|record| record["remote"]["port"] == port)
        };
        let client = connections.iter().find(is_ours).expect("the client");
        assert_eq!(path(client)[..4], ["CLOSE", "SYN_SENT", "ESTABLISHED", "FIN_WAIT1"]);
        assert!(client.iter().all(|record| record["owner"]["pid"] == std::process::id()));
    });
}

fn unread_or_read() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        for reads in [false, true] {
            let port = fresh_port();
            let (listener, mut client, mut server) = Kind::V4.pair(port);
            client.write_all(b"request").expect("write");
            client.shutdown(Shutdown::Write).expect("shutdown");
            wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
            if reads {
                server.read_to_end(&mut Vec::new()).expect("read");
            }
            drop(server);
            let end = end_of(&mut tracer, "server", port);
            if reads {
                assert_end(&end, "LAST_ACK", Some("fin"), None);
            } else if sees_resets(&tracer) {
                assert_end(&end, "CLOSE_WAIT", Some("reset_sent"), None);
                assert_why(&end, "TCP_ABORT_ON_CLOSE", "unread_data");
            }
            drop((listener, client));
            wait_for_states(if reads { &["TIME_WAIT"] } else { &[] });
        }
        tracer.stop();
    });
}

/// The peer has shut down, and has read nothing or everything.
fn disconnect_in_last_ack() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        for to_send in [true, false] {
            let port = fresh_port();
            let (listener, mut client, server) = Kind::V4.pair(port);
            server.shutdown(Shutdown::Write).expect("shutdown");
            wait_for_states(&["LISTEN", "CLOSE_WAIT", "FIN_WAIT2"]);
            if to_send {
                client.set_nonblocking(true).expect("nonblocking");
                while client.write(&[0; 1 << 16]).is_ok() {}
            } else {
                // The peer drops the FIN, so it is not acknowledged.
                crate::sockets::make_deaf(&server);
            }
            client.shutdown(Shutdown::Write).expect("shutdown");
            wait_for_states(&["LISTEN", "LAST_ACK", "FIN_WAIT2"]);
            disconnect(&client);
            let end = end_of(&mut tracer, "client", port);
            if sees_resets(&tracer) {
                let cause = to_send.then_some("reset_sent");
                assert_end(&end, "LAST_ACK", cause, None);
                if to_send {
                    assert_why(&end, "TCP_DISCONNECT_WITH_DATA", "disconnect");
                } else {
                    assert_eq!(end["reset_why"], Value::Null, "no reset was sent: {end}");
                }
            }
            drop((listener, client, server));
        }
        tracer.stop();
    });
}

/// The kernel answers data for an orphan in FIN_WAIT2 with a reset.
fn data_for_orphan() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        if ["none", "estimate"].contains(&tracer.first()["tier"].as_str().expect("tier")) {
            return skip("mini-sockets are not seen here");
        }
        let port = fresh_port();
        let (_listener, client, mut server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        server.write_all(b"?").expect("write");
        let end = end_of(&mut tracer, "client", port);
        // Before 6.10, the kernel has no trace event for the reset of a mini-socket.
        let is_known = end["cause"] == "reset_sent" || end["cause"].is_null();
        assert!(is_known && end["mini"] == true && end["from"] == "FIN_WAIT2", "{end}");
        let peer = end_of(&mut tracer, "server", port);
        assert_end(&peer, "CLOSE_WAIT", Some("reset_received"), Some("EPIPE"));
        tracer.stop();
    });
}

/// net.ipv4.tcp_max_tw_buckets: the connection ends in FIN_WAIT2 without a FIN and without a reset.
fn no_room_for_orphan() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        if ["none", "estimate"].contains(&tracer.first()["tier"].as_str().expect("tier")) {
            return skip("mini-sockets are not seen here");
        }
        sysctl("ipv4/tcp_max_tw_buckets", "0").expect("sysctl");
        let port = fresh_port();
        let (_listener, client, server) = Kind::V4.pair(port);
        drop(client);
        assert_end(&end_of(&mut tracer, "client", port), "FIN_WAIT2", None, None);
        drop(server);
        // Nearly the same: a process holds the socket, and the peer's FIN comes.
        let port = fresh_port();
        let (_other, client, server) = Kind::V4.pair(port);
        client.shutdown(Shutdown::Write).expect("shutdown");
        wait_for_states(&["LISTEN", "LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop(server);
        assert_end(&end_of(&mut tracer, "client", port), "FIN_WAIT2", Some("fin"), None);
        drop(client);
        tracer.stop();
    });
}

/// An ICMP message reports that the host cannot be reached: the record has the error and no cause. Another connect
/// continues.
fn unreachable() {
    in_lab(|netns| {
        let mut wire = match Wire::new() {
            Ok(wire) => wire,
            Err(error) => return skip(&format!("no TUN device: {error}")),
        };
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let socket = connecting(port);
        let syn = wire.hear_flags(SYN);
        wire.say_unreachable(&syn);
        let end = end_of(&mut tracer, "client", port);
        assert_end(&end, "SYN_SENT", None, Some("EHOSTUNREACH"));
        drop(socket);
        let (socket, _) = wire.accept(fresh_port());
        tracer.wait_for(|record| record["to"] == "ESTABLISHED");
        drop(socket);
        tracer.stop();
    });
}
