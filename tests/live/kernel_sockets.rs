//! Sockets that the kernel itself uses have no file, and the kernel is their holder. Sockets that look similar are not
//! the kernel's.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Test,
    lab::{in_lab, sockstate, wait_until},
    look_test,
    observer::is_in_vm,
    schema, skip,
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("kernel sockets: the holder of the socket that RDS listens on is the kernel", rds),
        look_test(
            "kernel sockets: below MPTCP, in an accept queue, and without a process is not the kernel's",
            others,
        ),
    ]
}

/// `RDS_TCP_PORT` (net/rds/tcp.h).
const RDS_PORT: u16 = 16385;
const MPTCP: i32 = 262;

fn look(netns: u64) -> Vec<Value> {
    let netns = netns.to_string();
    let output =
        sockstate().args(["sockets", "--format", "json", "--netns", &netns]).output().expect("sockstate");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    records.iter().for_each(schema::check);
    records
}

/// Kernel modules that were loaded for one test.
struct Modules(Vec<&'static str>);

impl Modules {
    fn load(names: &[&'static str]) -> Option<Self> {
        let mut loaded = Self(Vec::new());
        for name in names {
            let file = File::open(format!("/on-demand/{name}.ko")).ok()?;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            // SAFETY: the descriptor is open, and the parameters are an empty text.
            let result = unsafe { libc::syscall(libc::SYS_finit_module, fd, c"".as_ptr(), 0) };
            assert_eq!(result, 0, "{name}: {}", std::io::Error::last_os_error());
            loaded.0.push(name);
        }
        Some(loaded)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        while let Some(name) = self.0.pop() {
            let name = std::ffi::CString::new(name).expect("a name");
            wait_until("the module goes", || {
                // SAFETY: a text and a number.
                unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) == 0 }
            });
        }
    }
}

fn rds() {
    if !is_in_vm() {
        return skip("loads the kernel module rds_tcp, which listens in every network namespace");
    }
    let Some(modules) = Modules::load(&["rds", "rds_tcp"]) else {
        return skip("this kernel's package has no module rds_tcp");
    };
    in_lab(|netns| {
        let listens = |record: &Value| record["state"] == "LISTEN" && record["local"]["port"] == RDS_PORT;
        wait_until("RDS listens", || look(netns).iter().any(listens));
        let listener = look(netns).into_iter().find(listens).expect("RDS listens");
        assert_eq!(listener["held_by_kernel"], true, "{listener}");
        assert_eq!(listener["holders"].as_array().map(Vec::len), Some(0), "{listener}");
        // A process connects to the kernel's listener; the client's socket belongs to the process.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, RDS_PORT));
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        client.connect(&address.into()).expect("connect");
        let port = client.local_addr().expect("address").as_socket().expect("inet").port();
        let found = look(netns);
        let client_end = found.iter().find(|record| record["local"]["port"] == port);
        assert!(client_end.is_none_or(|record| record["held_by_kernel"].is_null()), "{client_end:?}");
    });
    drop(modules);
}

/// Whether the BPF program works that lists the kernel's own sockets.
fn can_list() -> bool {
    let output = sockstate().args(["doctor", "--format", "json"]).output().expect("doctor");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let hooks = found["hooks"].as_array().expect("hooks");
    hooks.iter().any(|hook| hook["hook"] == "iter/tcp (of the kernel)" && hook["works"] == true)
}

fn others() {
    assert!(can_list(), "the kernel's own sockets can be told here");
    in_lab(|netns| {
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
        let plain = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        let port = fresh_port();
        plain.bind(&address(port)).expect("bind");
        plain.listen(8).expect("listen");
        // One connection waits in the accept queue; another one soon becomes an orphan.
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        client.connect(&address(port)).expect("connect");
        let orphan = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        orphan.connect(&address(port)).expect("connect");
        drop(orphan);
        let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(MPTCP))).ok();
        let is_enabled =
            fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|text| text.trim() == "1");
        let mut subflows = Vec::new();
        if let (Some(listener), Some(client), true) = (mptcp(), mptcp(), is_enabled) {
            let port = fresh_port();
            listener.bind(&address(port)).expect("bind");
            listener.listen(8).expect("listen");
            client.connect(&address(port)).expect("connect");
            let server = listener.accept().expect("accept").0;
            let waiting = mptcp().expect("MPTCP");
            waiting.connect(&address(port)).expect("connect");
            subflows.extend([listener, client, server, waiting]);
        } else {
            skip("this kernel has no MPTCP");
        }
        let found = look(netns);
        let tcp = |record: &&Value| record["network"]["transport"] == "tcp";
        // The orphan may have ended already.
        let least = if subflows.is_empty() { 4 } else { 9 };
        assert!(found.iter().filter(tcp).count() >= least, "{found:#?}");
        let of_kernel: Vec<&Value> =
            found.iter().filter(|record| !record["held_by_kernel"].is_null()).collect();
        assert!(of_kernel.is_empty(), "{of_kernel:#?}");
    });
}
