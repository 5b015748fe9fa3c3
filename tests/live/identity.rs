//! Connections with equal ends, which differ only in their interface.

use std::{
    io::Write,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsRawFd,
    process::{self, Command},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{
    Test,
    lab::{Story, Tracer, in_lab, path, sockstate},
    netns::in_new_netns,
    observer::{is_in_vm, proc_net_tcp},
    schema, skip,
    sockets::fresh_port,
    stuck::holders,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("identity: equal link-local ends on two interfaces", twins),
        test("identity: the same, closed from here first", closers),
        test("identity: equal ends, one bound to an interface and one to none", unbound_twin),
    ]
}

/// Another network namespace, which two pairs of veth interfaces connect to the test's namespace.
struct Far {
    tid: i32,
    orders: Sender<Order>,
    sockets: Receiver<Socket>,
}

enum Order {
    /// Tells the thread to set the interfaces up.
    Up,
    /// Tells the thread to connect over this interface, from the first port to the second.
    Connect(&'static str, u16, u16),
}

const NEAR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const FAR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

impl Far {
    fn start() -> Self {
        let (orders, todo) = channel();
        let (said, sockets) = channel();
        let (started, tid) = channel();
        // The thread ends when the sender of orders is dropped, and then its namespace ends, too.
        thread::spawn(move || {
            in_new_netns(|| {
                // SAFETY: takes nothing, cannot fail.
                started.send(unsafe { libc::gettid() }).expect("send");
                for order in todo {
                    match order {
                        Order::Up => ["b0", "b1"].iter().for_each(|name| up(name, FAR)),
                        Order::Connect(name, from, to) => {
                            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
                            socket.set_reuse_address(true).expect("reuse");
                            socket.bind(&on(FAR, name, from).into()).expect("bind");
                            socket.connect(&on(NEAR, name, to).into()).expect("connect");
                            said.send(socket).expect("send");
                        }
                    }
                }
            })
            .expect("a network namespace");
        });
        Self { tid: tid.recv().expect("thread"), orders, sockets }
    }

    fn connect(&self, name: &'static str, from: u16, to: u16) -> Socket {
        self.orders.send(Order::Connect(name, from, to)).expect("order");
        self.sockets.recv().expect("socket")
    }
}

fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).expect("name");
    // SAFETY: a string that ends with NUL.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

fn on(address: Ipv6Addr, name: &str, port: u16) -> SocketAddr {
    SocketAddrV6::new(address, port, 0, index(name)).into()
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("ip");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Replaces all addresses of an interface by this one.
fn up(name: &str, address: Ipv6Addr) {
    ip(&format!("link set {name} addrgenmode none"));
    ip(&format!("-6 addr add {address}/64 dev {name} nodad"));
    ip(&format!("link set {name} up"));
}

fn has_ip() -> bool {
    let ip = Command::new("ip").arg("-V").output();
    let there = !is_in_vm() && ip.is_ok_and(|output| output.status.success());
    if !there {
        skip("needs iproute2's ip, to make interfaces");
    }
    there
}

/// Two pairs of veth interfaces to another namespace, both with the same addresses.
fn cables() -> Far {
    let far = Far::start();
    for at in 0..2 {
        ip(&format!("link add a{at} type veth peer name b{at} netns {}", far.tid));
    }
    far.orders.send(Order::Up).expect("order");
    ["a0", "a1"].iter().for_each(|name| up(name, NEAR));
    far
}

/// A listener on all addresses. Its connections are bound to the interface that they come through, the listener itself
/// to none.
fn listen(port: u16) -> Socket {
    let listener = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
    listener.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).expect("bind");
    listener.listen(16).expect("listen");
    listener
}

/// Connects a client over each interface, both from one port. Returns the clients and the accepted servers.
fn pairs(far: &Far, listener: &Socket, from: u16, to: u16) -> [(Socket, Socket); 2] {
    ["b0", "b1"].map(|name| {
        let client = far.connect(name, from, to);
        (client, listener.accept().expect("accept").0)
    })
}

fn interfaces(records: &[&Value]) -> Vec<u64> {
    records.iter().map(|record| record["interface"]["index"].as_u64().unwrap_or(0)).collect()
}

fn twins() {
    if !has_ip() {
        return;
    }
    in_lab(|netns| {
        let far = cables();
        let (port, from) = (fresh_port(), fresh_port());
        let rule = format!("CLOSE_WAIT:{port}=1");
        let mut tracer = Tracer::start(netns, &["--threshold", &rule]);
        let listener = listen(port);
        let [(first, eof), (mut second, unread)] = pairs(&far, &listener, from, port);
        second.write_all(&[7; 77]).expect("write");
        drop((first, second));
        for _ in 0..2 {
            let record = tracer.wait_for(|record| record["kind"] == "stuck");
            let (server, name, reason, bytes) = if record["interface"]["index"] == index("a0") {
                (&eof, "a0", "eof_unread", 0)
            } else {
                (&unread, "a1", "unread_data", 77)
            };
            assert_eq!(holders(&record), [(u64::from(process::id()), server.as_raw_fd() as u64)], "{record}");
            assert_eq!(
                (&record["interface"]["index"], &record["interface"]["name"]),
                (&index(name).into(), &name.into())
            );
            assert_eq!(
                (&record["reason"], &record["unread_bytes"]),
                (&reason.into(), &bytes.into()),
                "{record}"
            );
        }
        let looked = look(netns);
        assert_eq!(looked.len(), 2, "{looked:#?}");
        let victim = looked.iter().find(|record| record["interface"]["name"] == "a0").expect("the one on a0");
        assert_eq!(holders(victim)[0].1, eof.as_raw_fd() as u64, "{victim}");
        kill(victim, "a0", &"a1".into());
        let story = tracer.stop();
        let servers = connections(&story, from);
        assert_eq!(servers.len(), 2, "{servers:#?}");
        for (transitions, name) in servers.iter().zip(["a0", "a1"]) {
            let is_killed = name == "a0" && transitions.len() == 4;
            let whole = ["LISTEN", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "CLOSE"];
            assert_eq!(path(transitions), &whole[..if is_killed { 5 } else { 4 }], "{transitions:#?}");
            assert_eq!(interfaces(transitions)[1..], vec![u64::from(index(name)); transitions.len() - 1]);
        }
        drop((eof, unread));
    });
}

/// Runs the printed command, if this machine can run it. The other connection must survive.
fn kill(victim: &Value, device: &str, survivor: &Value) {
    let command = victim["commands"].as_array().and_then(|list| list.last()).and_then(Value::as_str);
    let command = command.expect("a command");
    assert!(command.ends_with(&format!(" and dev {device}'")), "{command}");
    if !Command::new("ss").arg("-V").output().is_ok_and(|output| output.status.success()) {
        return skip("the printed command: needs iproute2's ss");
    }
    // The namespace of this thread is not that of the process, so the printed command enters it.
    let output = Command::new("sh").args(["-c", command]).output().expect("sh");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let left = proc_net_tcp().into_iter().filter(|line| line.2 == "CLOSE_WAIT").count();
    assert_eq!(left, 1, "{command} ends one of the two");
    let left = look(victim["netns"].as_u64().expect("netns"));
    assert_eq!(
        left.iter().map(|record| &record["interface"]["name"]).collect::<Vec<_>>(),
        [survivor],
        "{left:#?}"
    );
}

/// The servers of clients from this port, in the order of their interfaces.
fn connections(story: &Story, from: u16) -> Vec<Vec<&Value>> {
    let is_of_this_test =
        |connection: &Vec<&Value>| connection.iter().any(|connection| connection["remote"]["port"] == from);
    let mut found: Vec<_> = story.connections().into_iter().filter(is_of_this_test).collect();
    found.sort_by_key(|record| interfaces(record).into_iter().max());
    found
}

fn look(netns: u64) -> Vec<Value> {
    let output = sockstate()
        .args(["close-wait", "--older-than", "0", "--format", "json", "--netns", &netns.to_string()])
        .output()
        .expect("sockstate");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    records.iter().for_each(schema::check);
    records
}

/// Two full sockets with the same endpoints become mini-sockets.
fn closers() {
    if !has_ip() {
        return;
    }
    in_lab(|netns| {
        let far = cables();
        let (port, from) = (fresh_port(), fresh_port());
        let mut tracer = Tracer::start(netns, &[]);
        let listener = listen(port);
        let [(first, one), (second, other)] = pairs(&far, &listener, from, port);
        drop(one);
        drop(other);
        let in_fin_wait2 = || proc_net_tcp().into_iter().filter(|line| line.2 == "FIN_WAIT2").count();
        crate::lab::wait_until("two orphans in FIN_WAIT2", || in_fin_wait2() == 2);
        drop((first, second));
        let exact = tracer.seen().iter().any(|record| {
            record["kind"] == "start" && record["tier"] != "none" && record["tier"] != "estimate"
        });
        if !exact {
            return skip("no tier here sees mini-sockets");
        }
        for _ in 0..2 {
            tracer.wait_for(|record| record["to"] == "TIME_WAIT");
        }
        let story = tracer.stop();
        let servers = connections(&story, from);
        assert_eq!(servers.len(), 2, "{servers:#?}");
        for (transitions, name) in servers.iter().zip(["a0", "a1"]) {
            let whole = ["LISTEN", "SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"];
            assert_eq!(path(transitions), whole, "{transitions:#?}");
            assert_eq!(interfaces(transitions), vec![u64::from(index(name)); transitions.len()]);
        }
    });
}

/// Connects from the first port to the second port of an address of the test.
fn connect_bound(from: SocketAddr, to: SocketAddr, device: Option<&str>) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.bind_device(device.map(str::as_bytes)).expect("interface");
    socket.bind(&from.into()).expect("bind");
    socket.connect(&to.into()).expect("connect");
    socket
}

fn unbound_twin() {
    if !has_ip() {
        return;
    }
    in_lab(|netns| {
        ip("link add a0 type veth peer name b0");
        ip("link set b0 up");
        crate::netns::sysctl("ipv4/tcp_fin_timeout", "1").expect("sysctl");
        ip("addr add 192.0.2.1/24 dev a0");
        ip("link set a0 up");
        let (from, to) = (SocketAddr::from(([192, 0, 2, 1], fresh_port())), fresh_port());
        let to = SocketAddr::from(([192, 0, 2, 1], to));
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        listener.bind(&to.into()).expect("bind");
        listener.listen(8).expect("listen");
        // The servers have the same endpoints, so the first one has to end before the next one begins.
        let bound = connect_bound(from, to, Some("a0"));
        let server = listener.accept().expect("accept").0;
        drop(server);
        crate::lab::wait_until("the first client is in CLOSE_WAIT", || look(netns).len() == 1);
        let alone = &look(netns)[0];
        crate::lab::wait_until("the first server is gone", || {
            !proc_net_tcp().iter().any(|line| line.2 == "FIN_WAIT2")
        });
        let last =
            |holder: &Value| holder["commands"].as_array().and_then(|all| all.last().cloned()).expect("one");
        assert!(last(alone).as_str().expect("text").ends_with(" and dev a0'"), "{alone}");
        let plain = connect_bound(from, to, None);
        let server = listener.accept().expect("accept").0;
        drop(server);
        crate::lab::wait_until("both are in CLOSE_WAIT", || look(netns).len() == 2);
        let both = look(netns);
        let victim =
            both.iter().find(|record| record["interface"].is_null()).expect("the one that is not bound");
        assert_eq!(holders(victim)[0].1, plain.as_raw_fd() as u64, "{victim}");
        kill(victim, "0", &"a0".into());
        drop((bound, plain));
    });
}
