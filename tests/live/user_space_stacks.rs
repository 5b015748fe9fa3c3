//! Network stacks in user space (pasta, slirp4netns), and the network namespaces whose connections they hold on the
//! host.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
};

use serde_json::Value;

use crate::{
    Test,
    lab::{in_lab, own_netns, wait_until},
    names::Name,
    netns::in_new_netns,
    observer::is_in_vm,
    skip,
    sockets::{Kind, fresh_port},
    stuck::look,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("stacks: the namespace that slirp4netns serves", slirp),
        test("stacks: the namespace that pasta serves", pasta),
    ]
}

/// A network namespace, as long as the value exists. Its thread connects to the addresses that it gets.
struct Inside {
    tid: i32,
    netns: u64,
    orders: Sender<SocketAddr>,
}

impl Inside {
    fn start() -> Self {
        let (orders, todo) = channel();
        let (started, known) = channel();
        thread::spawn(move || {
            in_new_netns(move || {
                // SAFETY: takes nothing, cannot fail.
                started.send((unsafe { libc::gettid() }, own_netns())).expect("send");
                // The client stays open, because the other side has to close first.
                let _open: Vec<TcpStream> =
                    todo.iter().map(|to| TcpStream::connect(to).expect("connect")).collect();
            })
        });
        let (tid, netns) = known.recv().expect("thread");
        Self { tid, netns, orders }
    }
}

/// A program that ends with the test.
struct Stack(Child);

impl Stack {
    fn start(command: &mut Command) -> Option<Self> {
        Some(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?))
    }

    /// The error output of the program, if it has ended.
    fn complaint(&mut self) -> Option<String> {
        self.0.try_wait().ok()??;
        let mut text = String::new();
        self.0.stderr.take()?.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_interface(inside: &Inside) -> bool {
    let links = fs::read_to_string(format!("/proc/{}/net/fib_trie", inside.tid)).unwrap_or_default();
    links.contains("10.0.2.") || links.contains("192.0.2.")
}

/// The stack holds the host's side of a connection of the namespace `inside`. The server closes the connection.
fn check(netns: u64, mut stack: Stack, inside: &Inside, gateway: Ipv4Addr) {
    wait_until("the stack has made its interface", || {
        if let Some(complaint) = stack.complaint() {
            panic!("it has ended: {complaint}");
        }
        has_interface(inside)
    });
    let port = fresh_port();
    let listener = Kind::V4.listen(port);
    inside.orders.send((gateway, port).into()).expect("order");
    drop(listener.accept().expect("accept"));
    let found = || -> Vec<Value> { look(netns, &["close-wait", "--older-than", "0"]) };
    wait_until("the stack's socket is in CLOSE_WAIT", || found().len() == 1);
    let record = &found()[0];
    let holder = &record["holders"][0];
    assert_eq!(holder["pid"], stack.0.id(), "{record}");
    assert_eq!(holder["serves"]["netns"], inside.netns, "{record}");
}

fn slirp() {
    if is_in_vm() {
        return skip("needs slirp4netns");
    }
    in_lab(|netns| {
        let inside = Inside::start();
        let mut command = Command::new("slirp4netns");
        command.args(["--configure", "--mtu=1500", &inside.tid.to_string(), "tap0"]);
        let Some(stack) = Stack::start(&mut command) else { return skip("needs slirp4netns") };
        check(netns, stack, &inside, Ipv4Addr::new(10, 0, 2, 2));
    });
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("ip");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

fn pasta() {
    let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if is_in_vm() || !is_there("pasta") || !is_there("ip") {
        return skip("needs pasta, and iproute2's ip");
    }
    in_lab(|netns| {
        // pasta copies the addresses of an interface.
        ip("link add a0 type veth peer name b0");
        ip("link set b0 up");
        ip("link set a0 up");
        ip("addr add 192.0.2.1/24 dev a0");
        ip("route add default via 192.0.2.254");
        let inside = Inside::start();
        // The namespace is given by its name, as container engines do it.
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("inside");
        let _name = Name::of(&inside.tid.to_string(), &path);
        let mut command = Command::new("pasta");
        command.args(["-f", "-4", "--runas", "0", "--config-net"]);
        command.args(["-t", "none", "-T", "none", "-u", "none", "-U", "none", "--netns"]).arg(&path);
        let Some(stack) = Stack::start(&mut command) else { return skip("needs pasta") };
        check(netns, stack, &inside, Ipv4Addr::new(192, 0, 2, 254));
    });
}
