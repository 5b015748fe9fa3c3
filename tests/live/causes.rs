//! Each cause, and beside it an end that nearly has this cause. The peer is a socket of this host, or a TUN device.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
};

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    Test,
    lab::{Tracer, in_lab, path},
    netns::sysctl,
    observer::wait_for_states,
    skip,
    sockets::{Kind, disconnect, fresh_port, make_deaf, make_hear, option, reset_on_close},
    test, timer_test,
    tun::{ACK, FIN, PEER, Peer, RST, SYN, Segment, Wire, connecting},
    unusual_ends::{assert_why, sees_resets},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("causes: a connect fails before its SYN", connect_fails_locally),
        test("causes: a connect with its SYN is given up, refused, or fails later", connect_is_sent),
        test("causes: data after shutdown, and after close", data_after_close),
        test("causes: data in FIN_WAIT1 after close", data_in_fin_wait1),
        test("causes: a reset is received while shut down", reset_while_shut),
        test("causes: a bad SYN-ACK is reset, and the connection goes on", bad_syn_ack),
        test("causes: the window stays closed", zero_window),
        test("causes: TCP_LINGER2 -1 at the last moment", no_linger2),
        test("causes: an orphan whose peer sends no FIN", fin_timeout),
        test("causes: an old error on an orderly end", old_error),
        test("causes: keepalive, TCP_USER_TIMEOUT and retransmissions", timeouts),
        test("causes: SO_LINGER 0, and a disconnect with it", linger_or_disconnect),
        timer_test("causes: a half-open connection's listener closes", listener_closes),
        timer_test("causes: a half-open connection moves to another listener", request_migrates),
        test("causes: SYN and FIN into TIME_WAIT", syn_fin_in_timewait),
    ]
}

/// Checks how a connection ended.
fn ended(connection: &[&Value], from: &str, cause: &str, why: Option<&str>, errno: Option<&str>) {
    let last = connection.last().expect("a transition");
    assert_eq!((&last["from"], &last["to"]), (&from.into(), &"CLOSE".into()), "{:?}", path(connection));
    assert_eq!(last["cause"], cause, "{last}");
    assert_eq!(last["errno"], errno.map_or(Value::Null, Into::into), "{last}");
    if let Some(why) = why {
        assert_eq!(last["reset_why"], why, "{last}");
    }
}

/// How the connection to this port ended.
fn end_to(tracer: &mut Tracer, port: u16) -> Value {
    tracer.wait_for(|record| {
        record["to"] == "CLOSE" && record["role"] == "client" && record["remote"]["port"] == port
    })
}

/// The peer behind a TUN device, if this kernel has TUN.
fn wire() -> Option<Wire> {
    match Wire::new() {
        Ok(wire) => Some(wire),
        Err(error) => {
            skip(&format!("no TUN device: {error}"));
            None
        }
    }
}

fn connect_fails_locally() {
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        sysctl("ipv4/ip_local_port_range", "40000 40000").expect("sysctl");
        let first = Kind::V4.connect(port).expect("connect");
        // Connects without a free local port, and a connect to endpoints that are in use.
        let other_family = Kind::V6.listen(port);
        let first_v6 = Kind::V6.connect(port).expect("connect");
        for kind in [Kind::V4, Kind::V6, Kind::Mapped] {
            let error = kind.connect(port).expect_err("no port");
            assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        }
        let error = Kind::V4.connect_from(40000, port).expect_err("the same ends");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        // An old error on the socket: a disconnect leaves ECONNRESET.
        let again = Kind::V4.listen(fresh_port());
        sysctl("ipv4/ip_local_port_range", "40001 40001").expect("sysctl");
        let other = Kind::V4.connect(port).expect("connect");
        disconnect(&other);
        let _holds = Kind::V4.connect(port).expect("connect");
        let address: SockAddr = SocketAddr::from(([127, 0, 0, 1], port)).into();
        let error = other.connect(&address).expect_err("no port");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        drop((first, first_v6, listener, other_family, again));
        let story = tracer.stop();
        let failed: Vec<_> = story
            .transitions()
            .filter(|record| record["from"] == "SYN_SENT" && record["to"] == "CLOSE")
            .collect();
        assert_eq!(failed.len(), 5, "{failed:#?}");
        for socket in &failed[..3] {
            ended(&[socket], "SYN_SENT", "no_local_port", None, Some("EADDRNOTAVAIL"));
        }
        // The kernel leaves the last port of a socket that connects again, as if a port had been found.
        for socket in &failed[3..] {
            ended(&[socket], "SYN_SENT", "connect_failed_locally", None, None);
        }
    });
}

/// Ends that are nearly a local failure: the SYN was sent, or the kernel did not try to send it.
fn connect_is_sent() {
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let refused = fresh_port();
        Kind::V4.connect(refused).expect_err("refused");
        let deaf = fresh_port();
        let listener = Kind::V4.listen(deaf);
        make_deaf(&listener);
        // The socket is closed at once, is disconnected, or was shut down before the connect.
        drop(Kind::V4.start_connect(deaf));
        let client = Kind::V4.start_connect(deaf);
        disconnect(&client);
        sysctl("ipv4/tcp_syn_retries", "1").expect("sysctl");
        let shut = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        let _ = shut.shutdown(Shutdown::Both);
        let error = shut.connect(&SocketAddr::from(([127, 0, 0, 1], deaf)).into()).expect_err("no answer");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        let story = tracer.stop();
        let outcomes: Vec<_> = story
            .transitions()
            .filter(|record| record["from"] == "SYN_SENT")
            .map(|record| {
                (record["cause"].as_str().unwrap_or_default(), record["errno"].as_str().unwrap_or_default())
            })
            .collect();
        let wanted = [
            ("refused", "ECONNREFUSED"),
            ("given_up", ""),
            ("given_up", ""),
            ("connect_timeout", "ETIMEDOUT"),
        ];
        assert_eq!(outcomes, wanted);
    });
}

fn data_after_close() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        if !sees_resets(&tracer) {
            return skip("resets are not seen here");
        }
        // The socket is shut down in both directions while a process holds it, and is closed later.
        for close in [false, true] {
            let (listener, client, mut server) = Kind::V4.pair(fresh_port());
            let held = if close {
                drop(client);
                None
            } else {
                client.shutdown(Shutdown::Both).expect("shutdown");
                Some(client)
            };
            wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
            server.write_all(b"?").expect("write");
            tracer.wait_for(|record| record["from"] == "CLOSE_WAIT" && record["to"] == "CLOSE");
            drop((held, listener, server));
        }
        let story = tracer.stop();
        let of = |role: &str| -> Vec<Vec<&Value>> {
            story.connections().into_iter().filter(|connection| connection[0]["role"] == role).collect()
        };
        let clients = of("client");
        ended(&clients[0], "FIN_WAIT2", "reset_sent", Some("data_after_close"), Some("ECONNRESET"));
        for server in of("server") {
            ended(&server, "CLOSE_WAIT", "reset_received", None, Some("EPIPE"));
        }
    });
}

/// The peer sends data after close(), before it acknowledges the FIN.
fn data_in_fin_wait1() {
    in_lab(|netns| {
        let Some(mut wire) = wire() else { return };
        let tracer = Tracer::start(netns, &[]);
        if !sees_resets(&tracer) {
            return skip("resets are not seen here");
        }
        let (socket, peer) = wire.accept(fresh_port());
        drop(socket);
        wire.hear_flags(FIN);
        wire.say(&Segment { data: b"?".to_vec(), ..peer.segment(ACK) });
        wire.hear_flags(RST);
        let story = tracer.stop();
        let client = story.only("client");
        ended(&client, "FIN_WAIT1", "reset_sent", Some("data_after_close"), Some("ECONNRESET"));
    });
}

/// Ends that are nearly data after close: a reset of the peer in the same states.
fn reset_while_shut() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        client.shutdown(Shutdown::Both).expect("shutdown");
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        reset_on_close(&server);
        drop(server);
        tracer.wait_for(|record| record["from"] == "FIN_WAIT2");
        drop((client, listener));
        let resets = sees_resets(&tracer);
        let story = tracer.stop();
        if resets {
            ended(&story.only("client"), "FIN_WAIT2", "reset_received", None, Some("ECONNRESET"));
            ended(&story.only("server"), "CLOSE_WAIT", "reset_sent", None, None);
        }
    });
}

/// A reset that ended nothing is no evidence of a later end.
fn bad_syn_ack() {
    in_lab(|netns| {
        let Some(mut wire) = wire() else { return };
        let mut tracer = Tracer::start(netns, &[]);
        let cases: [(&str, &str, Option<&str>); 3] = [
            ("SYN_SENT", "given_up", None),
            ("LAST_ACK", "fin", None),
            ("ESTABLISHED", "retransmission_timeout", Some("ETIMEDOUT")),
        ];
        for (from, cause, errno) in cases {
            let port = fresh_port();
            let mut socket = connecting(port);
            let syn = wire.hear_flags(SYN);
            let mut peer = Peer { from: port, to: syn.from, seq: 1000, ack: syn.seq.wrapping_add(77) };
            wire.say(&peer.segment(SYN | ACK));
            wire.hear_flags(RST);
            let mut held = None;
            if from == "SYN_SENT" {
                drop(socket);
            } else {
                peer.ack = syn.seq.wrapping_add(1);
                wire.say(&peer.segment(SYN | ACK));
                peer.seq += 1;
                wire.hear_flags(ACK);
                if from == "LAST_ACK" {
                    close_second(&mut wire, &mut peer, socket);
                } else {
                    option(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 500);
                    socket.write_all(b"?").expect("write");
                    held = Some(socket);
                }
            }
            ended(&[&end_to(&mut tracer, port)], from, cause, None, errno);
            drop(held);
        }
        tracer.stop();
    });
}

/// The peer closes, then the host's socket closes, and both acknowledge everything.
fn close_second(wire: &mut Wire, peer: &mut Peer, socket: Socket) {
    wire.say(&peer.segment(FIN | ACK));
    peer.seq += 1;
    wire.hear_flags(ACK);
    drop(socket);
    let fin = wire.hear_flags(FIN);
    let ack = peer.acknowledge(&fin);
    wire.say(&ack);
}

/// A peer answers each probe and never opens its window; another peer opens its window in time.
fn zero_window() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        for opens in [true, false] {
            let port = fresh_port();
            let listener = Kind::V4.listen(port);
            listener.set_recv_buffer_size(4096).expect("buffer");
            let mut client = Kind::V4.connect(port).expect("connect");
            let mut server = listener.accept().expect("accept").0;
            client.set_nonblocking(true).expect("nonblocking");
            while client.write(&[0; 65536]).is_ok() {}
            if opens {
                server.shutdown(Shutdown::Write).expect("shutdown");
                tracer.wait_for(|record| record["to"] == "CLOSE_WAIT" && record["role"] == "client");
                drop(client);
                server.read_to_end(&mut Vec::new()).expect("read");
                ended(&[&end_to(&mut tracer, port)], "LAST_ACK", "fin", None, None);
                continue;
            }
            option(&client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1000);
            let end = end_to(&mut tracer, port);
            ended(&[&end], "ESTABLISHED", "zero_window_timeout", None, Some("ETIMEDOUT"));
            drop((server, client));
        }
        tracer.stop();
    });
}

/// The ACK of the FIN ends an orphan with TCP_LINGER2 -1; without it, it waits for the peer's FIN.
fn no_linger2() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let resets = sees_resets(&tracer);
        for linger2 in [-1, 0] {
            let port = fresh_port();
            let (listener, client, server) = Kind::V4.pair(port);
            option(&client, libc::IPPROTO_TCP, libc::TCP_LINGER2, linger2);
            drop(client);
            tracer.wait_for(|record| record["from"] == "FIN_WAIT1" && record["to"] == "FIN_WAIT2");
            if linger2 == -1 && resets {
                let end = end_to(&mut tracer, port);
                ended(&[&end], "FIN_WAIT2", "reset_sent", Some("linger2"), None);
            }
            drop((server, listener));
        }
        let story = tracer.stop();
        let sent = story.transitions().filter(|record| record["cause"] == "reset_sent").count();
        assert_eq!(sent, usize::from(resets), "{:#?}", story.records);
    });
}

/// A timeout in FIN_WAIT2 above a minute begins with a full socket. If the limit is lowered meanwhile, the kernel
/// resets the connection.
fn fin_timeout() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        if !sees_resets(&tracer) {
            return skip("resets are not seen here");
        }
        sysctl("ipv4/tcp_fin_timeout", "62").expect("sysctl");
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        drop(client);
        tracer.wait_for(|record| record["to"] == "FIN_WAIT2");
        sysctl("ipv4/tcp_fin_timeout", "10").expect("sysctl");
        tracer.wait_for(|record| record["from"] == "FIN_WAIT2");
        drop((server, listener));
        let story = tracer.stop();
        ended(&story.only("client"), "FIN_WAIT2", "reset_sent", Some("fin_timeout"), None);
    });
}

/// With IP_RECVERR, the error of an ICMP message stays on the socket, and the connection continues.
fn old_error() {
    in_lab(|netns| {
        let Some(mut wire) = wire() else { return };
        let mut tracer = Tracer::start(netns, &[]);
        for unread in [false, true] {
            let port = fresh_port();
            let (mut socket, mut peer) = wire.accept(port);
            option(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
            socket.write_all(b"?").expect("write");
            let sent = wire.hear_flags(ACK);
            wire.say_unreachable(&sent);
            let ack = peer.acknowledge(&sent);
            wire.say(&ack);
            if unread {
                wire.say(&Segment { data: b"!".to_vec(), ..peer.segment(ACK) });
                wire.hear_flags(ACK);
                drop(socket);
                wire.hear_flags(RST);
            } else {
                close_second(&mut wire, &mut peer, socket);
            }
            let end = end_to(&mut tracer, port);
            if !unread {
                ended(&[&end], "LAST_ACK", "fin", None, None);
            } else if sees_resets(&tracer) {
                ended(&[&end], "ESTABLISHED", "reset_sent", None, None);
            }
        }
        let story = tracer.stop();
        assert!(story.transitions().all(|record| record["errno"].is_null()), "{:#?}", story.records);
    });
}

fn timeouts() {
    in_lab(|netns| {
        let Some(mut wire) = wire() else { return };
        let mut tracer = Tracer::start(netns, &[]);
        for (cause, data) in [("keepalive_timeout", false), ("retransmission_timeout", true)] {
            let port = fresh_port();
            let (mut socket, peer) = wire.accept(port);
            option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 1);
            option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 1);
            option(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 1);
            option(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
            if data {
                option(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 500);
                socket.write_all(b"?").expect("write");
            } else {
                // The peer answers one probe, so this is not a timeout yet.
                wire.hear_flags(ACK);
                wire.say(&peer.segment(ACK));
            }
            ended(&[&end_to(&mut tracer, port)], "ESTABLISHED", cause, None, Some("ETIMEDOUT"));
        }
        tracer.stop();
    });
}

/// tcp_disconnect() gives the same reason for both ends; close() shuts the socket down first.
fn linger_or_disconnect() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        for close in [true, false] {
            let port = fresh_port();
            let (_listener, client, _server) = Kind::V4.pair(port);
            reset_on_close(&client);
            let held = if close {
                drop(client);
                None
            } else {
                disconnect(&client);
                Some(client)
            };
            let end = end_to(&mut tracer, port);
            if sees_resets(&tracer) {
                ended(&[&end], "ESTABLISHED", "reset_sent", None, None);
                assert_why(&end, "TCP_STATE", if close { "linger" } else { "abort" });
            }
            drop(held);
        }
        tracer.stop();
    });
}

fn listener_closes() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        if tracer.seen()[0]["tier"] == "none" || tracer.seen()[0]["tier"] == "estimate" {
            return skip("mini-sockets are not seen here");
        }
        sysctl("ipv4/tcp_synack_retries", "1").expect("sysctl");
        for closes in [true, false] {
            let port = fresh_port();
            let listener = Kind::V4.listen(port);
            let client = Kind::V4.start_deaf_connect(port);
            tracer.wait_for(|record| record["to"] == "SYN_RECV");
            let held = if closes {
                drop(listener);
                None
            } else {
                Some(listener)
            };
            let end = tracer.wait_for(|record| record["from"] == "SYN_RECV");
            // If another CPU still uses the request when its timer expires, that CPU frees it. The hooks then do not
            // show why it ended.
            let wanted: &[&str] = if closes { &["listener_closed"] } else { &["expired", "dropped"] };
            assert!(wanted.iter().any(|cause| end["cause"] == *cause), "{end}");
            drop((client, held));
        }
        tracer.stop();
    });
}

/// net.ipv4.tcp_migrate_req (5.14): another listener of the SO_REUSEPORT group takes the request.
fn request_migrates() {
    in_lab(|netns| {
        if sysctl("ipv4/tcp_migrate_req", "1").is_err() {
            return skip("this kernel does not migrate requests");
        }
        let mut tracer = Tracer::start(netns, &[]);
        if tracer.seen()[0]["tier"] == "none" || tracer.seen()[0]["tier"] == "estimate" {
            return skip("mini-sockets are not seen here");
        }
        let port = fresh_port();
        let listen = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            socket.set_reuse_port(true).expect("reuse");
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("bind");
            socket.listen(8).expect("listen");
            socket
        };
        let first = listen();
        let client = Kind::V4.start_deaf_connect(port);
        tracer.wait_for(|record| record["to"] == "SYN_RECV");
        let second = listen();
        drop(first);
        make_hear(&client);
        let server = second.accept().expect("accept").0;
        let opened = tracer.wait_for(|record| record["role"] == "server" && record["to"] == "ESTABLISHED");
        drop((client, server, second));
        let story = tracer.stop();
        let servers: Vec<_> = story.transitions().filter(|record| record["role"] == "server").collect();
        assert!(servers.iter().all(|record| record["conn"] == opened["conn"]), "{servers:#?}");
        assert_eq!(path(&servers)[..3], ["LISTEN", "SYN_RECV", "ESTABLISHED"]);
    });
}

/// The kernel takes the SYN as the beginning of a new connection and ends TIME_WAIT. Then it drops the SYN, because it
/// has a FIN.
fn syn_fin_in_timewait() {
    in_lab(|netns| {
        let Some(mut wire) = wire() else { return };
        let mut tracer = Tracer::start(netns, &[]);
        if tracer.seen()[0]["tier"] == "none" || tracer.seen()[0]["tier"] == "estimate" {
            return skip("mini-sockets are not seen here");
        }
        let (socket, mut peer) = wire.accept(fresh_port());
        let local = socket.local_addr().expect("address").as_socket().expect("IP").port();
        drop(socket);
        let fin = wire.hear_flags(FIN);
        let ack = peer.acknowledge(&fin);
        wire.say(&ack);
        wire.say(&peer.segment(FIN | ACK));
        wait_for_states(&["TIME_WAIT"]);
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        listener.set_reuse_address(true).expect("reuse");
        listener.bind(&SocketAddr::from(([0, 0, 0, 0], local)).into()).expect("bind");
        listener.listen(1).expect("listen");
        wire.say(&Segment { seq: peer.seq.wrapping_add(100_000), flags: SYN | FIN, ..peer.segment(SYN) });
        let end = tracer.wait_for(|record| record["from"] == "TIME_WAIT");
        assert_eq!((&end["cause"], &end["remote"]["address"]), (&Value::Null, &PEER.to_string().into()));
        tracer.stop();
    });
}
