//! All paths through the states of a connection.
//!
//! A path is the list of the states of one connection. `m` after a state means that a mini-socket is in this state (or
//! has left it), `/` precedes the cause of the transition into the state, and `|` separates alternatives.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use socket2::Socket;

use super::Watch;
use crate::{
    netns::sysctl,
    sockets::{self, Endpoints, Kind, make_deaf, make_hear, option, reset_on_close},
};

/// A scenario: its name, the function that plays it, and the expected paths.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) play: fn(Kind, u16, &mut Watch),
    pub(super) paths: &'static [&'static str],
}

const LISTENER: &str = "CLOSE LISTEN CLOSE";
/// The path of the side that closes first; it is still in TIME_WAIT at the end of the scenario.
const FIRST: &str = "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAITm/fin";
const FIRST_SERVER: &str = "LISTEN SYN_RECVm ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAITm/fin";
const SECOND: &str = "LISTEN SYN_RECVm ESTABLISHED CLOSE_WAIT/fin LAST_ACK CLOSE/fin";
const SECOND_CLIENT: &str = "CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT/fin LAST_ACK CLOSE/fin";
const RESETS: &str = "LISTEN SYN_RECVm ESTABLISHED CLOSE/reset_sent";
const RESETS_CLIENT: &str = "CLOSE SYN_SENT ESTABLISHED CLOSE/reset_sent";
const IS_RESET: &str = "LISTEN SYN_RECVm ESTABLISHED CLOSE/reset_received";
const IS_RESET_CLIENT: &str = "CLOSE SYN_SENT ESTABLISHED CLOSE/reset_received";
const HALF_CLOSED_RESET: &str = "LISTEN SYN_RECVm ESTABLISHED CLOSE_WAIT/fin CLOSE/reset_received";
const HALF_CLOSED_RESETS: &str = "LISTEN SYN_RECVm ESTABLISHED CLOSE_WAIT/fin CLOSE/reset_sent";
const SENDS_RESET_IN_FIN_WAIT2: &str = "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE/reset_sent";

macro_rules! scenarios {
    ($($name:literal, $play:ident, [$($path:expr),*];)*) => {
        pub(super) const ALL: &[Scenario] = &[$(Scenario { name: $name, play: $play, paths: &[$($path),*] }),*];
    };
}

scenarios! {
    "client closes first", client_first, [LISTENER, FIRST, SECOND];
    "server closes first", server_first, [LISTENER, FIRST_SERVER, SECOND_CLIENT];
    "half close", half_close, [LISTENER, FIRST, SECOND];
    "half close, then close", half_close_then_close, [LISTENER, FIRST, SECOND];
    "orphan, the peer closes late", orphan_late, [LISTENER, FIRST, SECOND];
    "orphan expires", orphan_expires, [
        LISTENER,
        "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSEm/expired",
        "LISTEN SYN_RECVm ESTABLISHED CLOSE_WAIT/fin LAST_ACK CLOSE/reset_received"
    ];
    "TCP_LINGER2 beyond a minute", long_linger2, [LISTENER, FIRST, SECOND];
    "TCP_LINGER2 negative", no_linger2, [LISTENER, SENDS_RESET_IN_FIN_WAIT2, HALF_CLOSED_RESET];
    "unread data in FIN_WAIT2", unread_in_fin_wait2, [LISTENER, SENDS_RESET_IN_FIN_WAIT2, HALF_CLOSED_RESET];
    "disconnect in FIN_WAIT2", disconnect_in_fin_wait2, [LISTENER, SENDS_RESET_IN_FIN_WAIT2, HALF_CLOSED_RESET];
    "reset in FIN_WAIT2", reset_in_fin_wait2, [
        LISTENER,
        "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE/reset_received",
        HALF_CLOSED_RESETS
    ];
    "reset in FIN_WAIT1", reset_in_fin_wait1, [
        LISTENER, "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 CLOSE/reset_received", RESETS
    ];
    "data for an orphan", data_for_orphan, [
        LISTENER, "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSEm/*", HALF_CLOSED_RESET
    ];
    "no room for TIME_WAIT", no_time_wait, [
        LISTENER, "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE/fin", SECOND
    ];
    "reset", reset, [LISTENER, RESETS_CLIENT, IS_RESET];
    "unread data at close", unread, [LISTENER, IS_RESET_CLIENT, RESETS];
    "refused", refused, ["CLOSE SYN_SENT CLOSE/refused"];
    "given up connecting", given_up, [LISTENER, "CLOSE SYN_SENT CLOSE/given_up"];
    "connect is not answered", connect_timeout, [LISTENER, "CLOSE SYN_SENT CLOSE/connect_timeout"];
    "half open, never answered", half_open_expires, [
        // The last user of the request frees it, perhaps after its timer has expired. Then the hooks do not show why it
        // ended.
        LISTENER, "CLOSE SYN_SENT CLOSE/given_up", "LISTEN SYN_RECVm CLOSEm/expired|CLOSEm/dropped"
    ];
    "half open, then open", half_open_then_open, [LISTENER, RESETS_CLIENT, IS_RESET];
    "half open, then reset", half_open_reset, [
        LISTENER, "CLOSE SYN_SENT CLOSE/given_up", "LISTEN SYN_RECVm CLOSEm/dropped"
    ];
    "SYN cookie", syn_cookie, [
        LISTENER, RESETS_CLIENT, "LISTEN SYN_RECV/syncookie ESTABLISHED CLOSE/reset_received"
    ];
    "fast open", fast_open, [
        LISTENER, RESETS_CLIENT, "LISTEN SYN_RECV ESTABLISHED CLOSE/reset_received"
    ];
    "simultaneous close", simultaneous_close, [
        LISTENER,
        // On a slow machine the FINs may not cross: then one side receives the ACK first.
        "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 CLOSING/fin|FIN_WAIT2 TIME_WAITm/fin",
        "LISTEN SYN_RECVm ESTABLISHED FIN_WAIT1 CLOSING/fin|FIN_WAIT2 TIME_WAITm/fin"
    ];
    "simultaneous open: connect to itself", self_connect, [
        "CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING/fin TIME_WAITm/fin"
    ];
    "listener closed", listener_closed, [LISTENER];
    "listener closed with a connection that was never accepted", never_accepted, [
        LISTENER, IS_RESET_CLIENT, RESETS
    ];
    "TIME_WAIT reused by connect", reuse_by_connect, [
        LISTENER,
        "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAITm/fin CLOSEm/reused",
        SECOND,
        RESETS_CLIENT,
        IS_RESET
    ];
    "TIME_WAIT reused by a SYN", reuse_by_syn, [
        LISTENER,
        "LISTEN SYN_RECVm ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAITm/fin CLOSEm/reused",
        SECOND_CLIENT,
        RESETS_CLIENT,
        IS_RESET
    ];
    "one socket connects twice", connect_twice, [LISTENER, RESETS_CLIENT, IS_RESET, RESETS_CLIENT, IS_RESET];
    "keepalive is not answered", keepalive, [
        LISTENER, "CLOSE SYN_SENT ESTABLISHED CLOSE/keepalive_timeout", IS_RESET
    ];
    "killed from outside", killed, [LISTENER, "CLOSE SYN_SENT ESTABLISHED CLOSE/killed", IS_RESET];
    "TIME_WAIT killed from outside", killed_time_wait, [
        LISTENER, "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAITm/fin CLOSEm", SECOND
    ];
    "data is not acknowledged", not_acknowledged, [
        LISTENER, "CLOSE SYN_SENT ESTABLISHED CLOSE/retransmission_timeout", RESETS
    ];
}

/// The client resets, and the server's socket is closed afterwards.
fn reset_by(client: Socket, server: Socket, watch: &mut Watch) {
    reset_on_close(&client);
    drop(client);
    watch.quiet(&["LISTEN"]);
    drop(server);
}

fn client_first(kind: Kind, port: u16, watch: &mut Watch) {
    let (listener, client, server) = kind.pair(port);
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    drop(client);
    // The client continues as a mini-socket.
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
    drop(listener);
    watch.quiet(&["TIME_WAIT"]);
}

fn server_first(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    drop(server);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(client);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
}

fn half_close(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    client.shutdown(Shutdown::Write).expect("shutdown");
    // Both are still full sockets.
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
}

fn half_close_then_close(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    client.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(client);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
}

fn orphan_late(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    drop(client);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    // The time exceeds the bucket of the timer wheel that has the timer of FIN_WAIT2.
    thread::sleep(Duration::from_millis(2800));
    drop(server);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
}

fn orphan_expires(kind: Kind, port: u16, watch: &mut Watch) {
    // The time is long enough for a busy machine.
    sysctl("ipv4/tcp_fin_timeout", "5").expect("sysctl");
    let (_listener, client, server) = kind.pair(port);
    drop(client);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    watch.quiet(&["LISTEN", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN"]);
}

fn long_linger2(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    option(&client, libc::IPPROTO_TCP, libc::TCP_LINGER2, 65);
    drop(client);
    // The connection is a full socket for five seconds, and then a mini-socket for another five seconds.
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    thread::sleep(Duration::from_millis(5800));
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
}

fn no_linger2(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    option(&client, libc::IPPROTO_TCP, libc::TCP_LINGER2, -1);
    client.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(client);
    watch.quiet(&["LISTEN"]);
    drop(server);
}

fn unread_in_fin_wait2(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, mut server) = kind.pair(port);
    client.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    server.write_all(b"zz").expect("write");
    client.peek(&mut [std::mem::MaybeUninit::uninit()]).expect("it has arrived");
    drop(client);
    watch.quiet(&["LISTEN"]);
    drop(server);
}

fn disconnect_in_fin_wait2(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    client.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    sockets::disconnect(&client);
    watch.quiet(&["LISTEN"]);
    drop(server);
}

fn reset_in_fin_wait2(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    client.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    reset_on_close(&server);
    drop(server);
    watch.quiet(&["LISTEN"]);
    drop(client);
}

fn reset_in_fin_wait1(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    make_deaf(&server);
    client.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT1", "ESTABLISHED"]);
    reset_on_close(&server);
    drop(server);
    watch.quiet(&["LISTEN"]);
    drop(client);
}

fn data_for_orphan(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, mut server) = kind.pair(port);
    drop(client);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    server.write_all(b"dd").expect("write");
    watch.quiet(&["LISTEN"]);
}

fn no_time_wait(kind: Kind, port: u16, watch: &mut Watch) {
    // Only since 5.19 the sysctl belongs to the network namespace. On older kernels the test would change the host's.
    if sysctl("ipv4/tcp_max_tw_buckets", "0").is_err() {
        return watch.cannot("tcp_max_tw_buckets is the host's here");
    }
    let (_listener, client, server) = kind.pair(port);
    client.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN"]);
    drop(client);
}

fn reset(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    reset_by(client, server, watch);
}

fn unread(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, mut client, server) = kind.pair(port);
    client.write_all(b"abc").expect("write");
    server.peek(&mut [std::mem::MaybeUninit::uninit()]).expect("it has arrived");
    drop(server);
    watch.quiet(&["LISTEN"]);
}

fn refused(kind: Kind, port: u16, watch: &mut Watch) {
    let error = kind.connect(port).expect_err("nobody listens");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    watch.quiet(&[]);
}

fn given_up(kind: Kind, port: u16, watch: &mut Watch) {
    let listener = kind.listen(port);
    make_deaf(&listener);
    let client = kind.start_connect(port);
    watch.quiet(&["LISTEN", "SYN_SENT"]);
    drop(client);
    watch.quiet(&["LISTEN"]);
}

fn connect_timeout(kind: Kind, port: u16, watch: &mut Watch) {
    sysctl("ipv4/tcp_syn_retries", "1").expect("sysctl");
    let listener = kind.listen(port);
    make_deaf(&listener);
    let _client = kind.start_connect(port);
    watch.quiet(&["LISTEN", "SYN_SENT"]);
    watch.quiet(&["LISTEN"]);
}

/// A client that drops the SYN-ACK.
fn half_open(kind: Kind, port: u16, watch: &mut Watch) -> (Socket, Socket) {
    let listener = kind.listen(port);
    let client = kind.start_deaf_connect(port);
    watch.quiet(&["LISTEN", "SYN_SENT", "SYN_RECV"]);
    (listener, client)
}

fn half_open_expires(kind: Kind, port: u16, watch: &mut Watch) {
    sysctl("ipv4/tcp_synack_retries", "1").expect("sysctl");
    let (listener, client) = half_open(kind, port, watch);
    // The client would send its SYN again, which would make another request.
    make_deaf(&listener);
    watch.quiet(&["LISTEN", "SYN_SENT"]);
    drop(client);
    watch.quiet(&["LISTEN"]);
    drop(listener);
}

fn half_open_then_open(kind: Kind, port: u16, watch: &mut Watch) {
    let (listener, client) = half_open(kind, port, watch);
    make_hear(&client);
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    let server = listener.accept().expect("accept").0;
    reset_by(client, server, watch);
}

fn half_open_reset(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client) = half_open(kind, port, watch);
    // The next SYN-ACK finds no socket.
    drop(client);
    watch.quiet(&["LISTEN"]);
}

fn syn_cookie(kind: Kind, port: u16, watch: &mut Watch) {
    sysctl("ipv4/tcp_syncookies", "2").expect("sysctl");
    let (_listener, client, server) = kind.pair(port);
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    reset_by(client, server, watch);
}

fn fast_open(kind: Kind, port: u16, watch: &mut Watch) {
    // Both sides use TCP fast open without cookies.
    sysctl("ipv4/tcp_fastopen", "1539").expect("sysctl");
    let listener = kind.listen(port);
    option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 5);
    let client = kind.fast_connect(port, b"hi");
    let mut server = listener.accept().expect("accept").0;
    server.read_exact(&mut [0; 2]).expect("read");
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    reset_by(client, server, watch);
}

fn simultaneous_close(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    make_deaf(&client);
    make_deaf(&server);
    client.shutdown(Shutdown::Write).expect("shutdown");
    server.shutdown(Shutdown::Write).expect("shutdown");
    watch.quiet(&["LISTEN", "FIN_WAIT1", "FIN_WAIT1"]);
    make_hear(&client);
    make_hear(&server);
    // Each FIN is sent again, and arrives at a socket that has already sent its own FIN.
    watch.quiet(&["LISTEN", "TIME_WAIT", "TIME_WAIT"]);
}

fn self_connect(kind: Kind, port: u16, watch: &mut Watch) {
    let socket = kind.connect_from(port, port).expect("connect");
    watch.quiet(&["ESTABLISHED"]);
    drop(socket);
    watch.quiet(&["TIME_WAIT"]);
}

fn listener_closed(kind: Kind, port: u16, watch: &mut Watch) {
    let listener = kind.listen(port);
    watch.quiet(&["LISTEN"]);
    drop(listener);
    watch.quiet(&[]);
}

fn never_accepted(kind: Kind, port: u16, watch: &mut Watch) {
    let listener = kind.listen(port);
    let client = kind.connect(port).expect("connect");
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    drop(listener);
    watch.quiet(&[]);
    drop(client);
}

fn reuse_by_connect(kind: Kind, port: u16, watch: &mut Watch) {
    sysctl("ipv4/tcp_tw_reuse", "1").expect("sysctl");
    let listener = kind.listen(port);
    let client = kind.connect_from(40_000, port).expect("connect");
    let server = listener.accept().expect("accept").0;
    drop(client);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
    // The kernel reuses a TIME_WAIT only after one second.
    thread::sleep(Duration::from_millis(1300));
    let client = kind.connect_from(40_000, port).expect("connect");
    let server = listener.accept().expect("accept").0;
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    reset_by(client, server, watch);
}

fn reuse_by_syn(kind: Kind, port: u16, watch: &mut Watch) {
    let listener = kind.listen(port);
    let client = kind.connect_from(40_000, port).expect("connect");
    let server = listener.accept().expect("accept").0;
    drop(server);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(client);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
    thread::sleep(Duration::from_millis(1200));
    let client = kind.connect_from(40_000, port).expect("connect");
    let server = listener.accept().expect("accept").0;
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    reset_by(client, server, watch);
}

fn connect_twice(kind: Kind, port: u16, watch: &mut Watch) {
    let (listener, client, server) = kind.pair(port);
    sockets::disconnect(&client);
    watch.quiet(&["LISTEN"]);
    drop(server);
    kind.connect_again(&client, port);
    let server = listener.accept().expect("accept").0;
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    reset_by(client, server, watch);
}

fn keepalive(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    make_deaf(&client);
    for (name, value) in [(libc::TCP_KEEPIDLE, 1), (libc::TCP_KEEPINTVL, 1), (libc::TCP_KEEPCNT, 1)] {
        option(&client, libc::IPPROTO_TCP, name, value);
    }
    option(&client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    watch.quiet(&["LISTEN"]);
    drop((client, server));
}

fn not_acknowledged(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, mut client, server) = kind.pair(port);
    option(&client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 700);
    make_deaf(&server);
    client.write_all(b"x").expect("write");
    watch.quiet(&["LISTEN", "ESTABLISHED"]);
    assert!(client.as_raw_fd() >= 0);
    reset_on_close(&server);
    drop(server);
    watch.quiet(&["LISTEN"]);
}

fn killed(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    watch.quiet(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
    if !sockets::has_tcp_diag() {
        return watch.cannot("this kernel has no tcp_diag");
    }
    Endpoints::of(&client).kill().expect("kill");
    watch.quiet(&["LISTEN"]);
    drop((client, server));
}

fn killed_time_wait(kind: Kind, port: u16, watch: &mut Watch) {
    let (_listener, client, server) = kind.pair(port);
    let endpoints = Endpoints::of(&client);
    drop(client);
    watch.quiet(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    watch.quiet(&["LISTEN", "TIME_WAIT"]);
    if !sockets::has_tcp_diag() {
        return watch.cannot("this kernel has no tcp_diag");
    }
    if let Err(error) = endpoints.kill() {
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
        return watch.cannot("this kernel kills no TIME_WAIT");
    }
    watch.quiet(&["LISTEN"]);
}
