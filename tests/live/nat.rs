//! Connections whose packets conntrack translates, in the namespace of a socket or in that of a router. The truth is what the two
//! sockets of each connection know of themselves.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{
    Test, fleet,
    lab::{own_netns, wait_until},
    look_test,
    netns::{in_new_netns, sysctl},
    observer, skip,
    sockets::fresh_port,
    stuck::look,
    test, tools,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("nat: both ends of a connection through a router", through_a_router),
        look_test("nat: two routers, each of which translates", through_two_routers),
        look_test("nat: a redirection to another port of the same host", redirected),
        look_test("nat: the same ends elsewhere, where they are translated", elsewhere),
        test("nat: records of a trace, and the fleet's query", traced),
    ]
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
struct Host {
    jobs: Sender<Job>,
    netns: u64,
    thread: i32,
}

impl Host {
    fn start() -> Self {
        let (jobs, todo) = channel::<Job>();
        let (sender, started) = channel();
        thread::spawn(move || {
            in_new_netns(|| {
                // SAFETY: takes nothing, cannot fail.
                let thread = unsafe { libc::gettid() };
                sender.send((own_netns(), thread)).expect("somebody waits");
                todo.into_iter().for_each(|job| job());
            })
            .expect("a network namespace");
        });
        let (netns, thread) = started.recv().expect("the thread");
        Self { jobs, netns, thread }
    }

    /// Runs a job in the namespace, and waits for it.
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, answer) = channel();
        let job = move || sender.send(job()).expect("somebody waits");
        self.jobs.send(Box::new(job)).expect("the thread runs");
        answer.recv().expect("an answer")
    }

    fn ip(&self, arguments: String) {
        self.run(move || {
            let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip");
            assert!(status.success(), "ip {arguments}");
        });
    }

    /// Loads rules; false, and the test is skipped, if this kernel cannot translate by them.
    fn load(&self, rules: &str) -> bool {
        let Some(mut nft) = tools::find("nft", "nftables") else { return false };
        nft.arg(rules);
        let is_loaded = self.run(move || nft.status().expect("nft").success());
        if !is_loaded {
            skip("this kernel has no NAT for nftables");
        }
        is_loaded
    }

    /// Connects this host with another one by a veth pair. Each end has an address of both families with the same host number.
    fn link(&self, own: u8, network: u8, other: &Self, others: u8) {
        let (here, there) = (format!("to{network}"), format!("at{network}"));
        self.ip(format!("link add {here} type veth peer name {there} netns {}", other.thread));
        for (host, device, number) in [(self, &here, own), (other, &there, others)] {
            for family in Family::ALL {
                host.ip(format!(
                    "addr add {}/{} dev {device}{}",
                    family.address(network, number),
                    family.prefix(),
                    family.flags()
                ));
            }
            host.ip(format!("link set {device} up"));
        }
    }

    /// Sends packets for `network` to the router with the number 1 in the network `by`.
    fn route(&self, network: u8, by: u8) {
        for family in Family::ALL {
            let to = family.address(network, 0);
            self.ip(format!(
                "{} route add {to}/{} via {}",
                family.option(),
                family.prefix(),
                family.address(by, 1)
            ));
        }
    }

    fn forward(&self) {
        self.run(|| {
            sysctl("ipv4/ip_forward", "1").expect("forwarding");
            sysctl("ipv6/conf/all/forwarding", "1").expect("forwarding");
        });
    }

    fn listen(&self, family: Family) -> TcpListener {
        let port = fresh_port();
        self.run(move || TcpListener::bind((family.any(), port)).expect("listen"))
    }

    /// A route for one address, by the router with the number 1 in network 2.
    fn route_to(&self, family: Family, address: IpAddr) {
        self.ip(format!("{} route add {address} via {}", family.option(), family.address(2, 1)));
    }

    /// The connections that a look at this host lists, with `port` at one end.
    fn established(&self, port: u16) -> Vec<Value> {
        let all = look(self.netns, &["sockets", "--state", "ESTABLISHED"]);
        let has_port = |record: &Value| ["local", "remote"].iter().any(|end| record[end]["port"] == port);
        all.into_iter().filter(has_port).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn address(self, network: u8, host: u8) -> IpAddr {
        let text = match self {
            Self::V4 => format!("10.78.{network}.{host}"),
            Self::V6 => format!("fd78:0:0:{network}::{host}"),
        };
        text.parse().expect("an address")
    }

    fn any(self) -> IpAddr {
        match self {
            Self::V4 => "0.0.0.0".parse().expect("an address"),
            Self::V6 => "::".parse().expect("an address"),
        }
    }

    fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => "127.0.0.1".parse().expect("an address"),
            Self::V6 => "::1".parse().expect("an address"),
        }
    }

    fn prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }

    fn flags(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => " nodad",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// nftables' name.
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// A connection of two hosts, and what its sockets know of themselves.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn make(host: &Host, to: SocketAddr, listener: &TcpListener) -> Self {
        let client = host.run(move || TcpStream::connect(to).expect("connect"));
        let (server, _) = listener.accept().expect("accept");
        Self { client, server }
    }

    /// Local and remote end of the client's socket, and of the server's as the client would see it.
    fn ends(&self) -> [[SocketAddr; 2]; 2] {
        let ends =
            |stream: &TcpStream| [stream.local_addr().expect("an end"), stream.peer_addr().expect("an end")];
        let [server, client] = ends(&self.server);
        [ends(&self.client), [client, server]]
    }
}

fn end(value: &Value) -> SocketAddr {
    let address: IpAddr = value["address"].as_str().expect("an address").parse().expect("an address");
    SocketAddr::new(address, value["port"].as_u64().expect("a port") as u16)
}

/// Checks the records of both ends against the sockets.
fn check(connection: &Connection, client: &Value, server: &Value) {
    let [of_client, of_server] = connection.ends();
    let ends = |value: &Value| [end(&value["local"]), end(&value["remote"])];
    let turned = |[one, other]: [SocketAddr; 2]| [other, one];
    assert_eq!(ends(client), of_client, "{client}");
    assert_eq!(ends(server), turned(of_server), "{server}");
    if of_client == of_server {
        assert_eq!((client.get("nat"), server.get("nat")), (None, None), "{client} {server}");
        return;
    }
    assert!(client["nat"].is_object() && server["nat"].is_object(), "{client} {server}");
    assert_eq!(ends(&client["nat"]), of_server, "{client}");
    assert_eq!(ends(&server["nat"]), turned(of_client), "{server}");
    assert_eq!(client["nat"]["community_id"], server["network"]["community_id"]);
    assert_eq!(server["nat"]["community_id"], client["network"]["community_id"]);
    assert_ne!(client["network"]["community_id"], server["network"]["community_id"]);
}

/// Makes a connection, and checks what looks at both hosts show.
fn look_at_both(client: &Host, to: SocketAddr, server: &Host, listener: &TcpListener, is_translated: bool) {
    let connection = Connection::make(client, to, listener);
    let [of_client, of_server] = connection.ends();
    assert_eq!(of_client != of_server, is_translated, "{of_client:?} {of_server:?}");
    let port = listener.local_addr().expect("an end").port();
    let (here, there) = (client.established(to.port()), server.established(port));
    let only = |records: &[Value], end: &str, port: u16| {
        let found: Vec<&Value> = records.iter().filter(|record| record[end]["port"] == port).collect();
        assert_eq!(found.len(), 1, "{records:#?}");
        found[0].clone()
    };
    check(&connection, &only(&here, "remote", to.port()), &only(&there, "local", port));
}

/// Whether this machine can make the networks; otherwise the test is skipped.
fn can_route() -> bool {
    if observer::is_in_vm() {
        skip("needs ip and nft");
    }
    !observer::is_in_vm() && tools::find("nft", "nftables").is_some()
}

/// A client (number 2 in network 1), a router (number 1 in both), and a server (number 2 in network 2).
fn three_hosts() -> [Host; 3] {
    let [client, router, server] = [(); 3].map(|()| Host::start());
    router.link(1, 1, &client, 2);
    router.link(1, 2, &server, 2);
    router.forward();
    client.route(2, 1);
    server.route(1, 2);
    // Services have addresses of network 9, which no host has.
    client.route(9, 1);
    [client, router, server]
}

fn through_a_router() {
    if !can_route() {
        return;
    }
    let [client, router, server] = three_hosts();
    for family in Family::ALL {
        let name = family.name();
        let listener = server.listen(family);
        let port = listener.local_addr().expect("an end").port();
        let address = |network, host| family.address(network, host);
        let direct = SocketAddr::new(address(2, 2), port);
        let service = SocketAddr::new(address(9, 9), fresh_port());
        let dnat = format!(
            "chain d {{ type nat hook prerouting priority -100; tcp dport {} dnat to {direct}; }};",
            service.port()
        );
        let source = |what: &str| {
            format!("chain s {{ type nat hook postrouting priority 100; tcp dport {port} {what}; }};")
        };
        let source_address = address(2, 77);
        server.route_to(family, source_address);
        for (rules, to, is_translated) in [
            (dnat.clone(), service, true),
            (dnat.clone(), direct, false),
            (source("masquerade"), direct, true),
            (source(&format!("snat to {source_address}")), direct, true),
            (format!("{dnat} {}", source("masquerade")), service, true),
        ] {
            if !router.load(&format!("table {name} t {{ {rules} }}")) {
                return;
            }
            look_at_both(&client, to, &server, &listener, is_translated);
            assert!(router.load(&format!("delete table {name} t")));
        }
    }
}

fn through_two_routers() {
    if !can_route() {
        return;
    }
    let [client, near, far, server] = [(); 4].map(|()| Host::start());
    near.link(1, 1, &client, 2);
    far.link(1, 3, &near, 2);
    far.link(1, 2, &server, 2);
    near.forward();
    far.forward();
    client.route(9, 1);
    near.route(9, 3);
    server.route(3, 2);
    for family in Family::ALL {
        let listener = server.listen(family);
        let direct = SocketAddr::new(family.address(2, 2), listener.local_addr().expect("an end").port());
        let service = SocketAddr::new(family.address(9, 9), fresh_port());
        let (name, port) = (family.name(), service.port());
        let masquerade = format!(
            "table {name} t {{ chain s {{ type nat hook postrouting priority 100; tcp dport {port} masquerade; }}; }}"
        );
        let dnat = format!(
            "table {name} t {{ chain d {{ type nat hook prerouting priority -100; tcp dport {port} dnat to {direct}; }}; }}"
        );
        if !near.load(&masquerade) || !far.load(&dnat) {
            return;
        }
        look_at_both(&client, service, &server, &listener, true);
    }
}

fn redirected() {
    if !can_route() {
        return;
    }
    let [host, client] = [(); 2].map(|()| Host::start());
    host.link(1, 1, &client, 2);
    for family in Family::ALL {
        let listener = host.listen(family);
        let (name, port) = (family.name(), listener.local_addr().expect("an end").port());
        let loopback = SocketAddr::new(family.loopback(), fresh_port());
        let from_outside = SocketAddr::new(family.address(1, 1), fresh_port());
        let chain = |hook: &str, to: SocketAddr| {
            format!(
                "chain {hook} {{ type nat hook {hook} priority -100; tcp dport {} redirect to :{port}; }};",
                to.port()
            )
        };
        let rules = format!(
            "table {name} t {{ {} {} }}",
            chain("output", loopback),
            chain("prerouting", from_outside)
        );
        if !host.load(&rules) {
            return;
        }
        look_at_both(&host, loopback, &host, &listener, true);
        look_at_both(&client, from_outside, &host, &listener, true);
    }
}

/// Two networks have equal addresses, and a connection in each has equal ends. Only one of the routers translates.
fn elsewhere() {
    if !can_route() {
        return;
    }
    let networks = [three_hosts(), three_hosts()];
    let family = Family::V4;
    let (port, source) = (fresh_port(), fresh_port());
    let source = SocketAddr::new(family.address(1, 2), source);
    let to = SocketAddr::new(family.address(2, 2), port);
    let mut made = Vec::new();
    for ([client, router, server], rule) in
        networks.iter().zip(["tcp dport 1 snat to 10.78.2.77", "masquerade"])
    {
        let rules =
            format!("table ip t {{ chain s {{ type nat hook postrouting priority 100; {rule}; }}; }}");
        if !router.load(&rules) {
            return;
        }
        let listener = server.run(move || TcpListener::bind(to).expect("listen"));
        let stream = client.run(move || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            socket.bind(&source.into()).expect("bind");
            socket.connect(&to.into()).expect("connect");
            TcpStream::from(socket)
        });
        let (server, _) = listener.accept().expect("accept");
        made.push(Connection { client: stream, server });
    }
    for ([client, _, server], connection) in networks.iter().zip(&made) {
        let (here, there) = (client.established(port), server.established(port));
        assert_eq!((here.len(), there.len()), (1, 1), "{here:#?} {there:#?}");
        check(connection, &here[0], &there[0]);
    }
    let [plain, translated] = [&made[0], &made[1]].map(Connection::ends);
    assert_eq!(plain[0], translated[0], "equal ends");
    assert_eq!((plain[0] == plain[1], translated[0] == translated[1]), (true, false));
}

/// A trace of each host adds `nat` once the answer has come. The server does not close its connection, and the query of the fleet
/// finds both ends.
fn traced() {
    if !can_route() {
        return;
    }
    let [client, router, server] = three_hosts();
    for family in Family::ALL {
        let directory = tempfile::tempdir().expect("directory");
        let listener = server.listen(family);
        let direct = SocketAddr::new(family.address(2, 2), listener.local_addr().expect("an end").port());
        let service = SocketAddr::new(family.address(9, 9), fresh_port());
        let (name, port) = (family.name(), service.port());
        let rules = format!(
            "table {name} t {{ chain d {{ type nat hook prerouting priority -100; tcp dport {port} dnat to {direct}; }}; \
             chain s {{ type nat hook postrouting priority 100; tcp dport {} masquerade; }}; }}",
            direct.port()
        );
        if !router.load(&rules) {
            return;
        }
        let path = directory.path();
        let [mut web, mut db] = [("web", &client), ("db", &server)]
            .map(|(name, host)| fleet::host(name, host.netns, path, "nat = true\n"));
        let mut held = Vec::new();
        wait_until("both ends have `nat` when one of them closes", || {
            let connection = Connection::make(&client, service, &listener);
            let port = connection.ends()[0][0].port();
            let peer = connection.ends()[1][0].port();
            web.wait_for(|record| record["to"] == "ESTABLISHED" && record["local"]["port"] == port);
            db.wait_for(|record| record["to"] == "ESTABLISHED" && record["remote"]["port"] == peer);
            let Connection { client: stream, server } = connection;
            drop(stream);
            held.push(server);
            let closes =
                web.wait_for(|record| record["to"] == "FIN_WAIT2" && record["local"]["port"] == port);
            let waits =
                db.wait_for(|record| record["to"] == "CLOSE_WAIT" && record["remote"]["port"] == peer);
            let has_both = closes.get("nat").is_some() && waits.get("nat").is_some();
            if has_both {
                assert_eq!(closes["nat"]["community_id"], waits["network"]["community_id"]);
                assert_eq!(waits["nat"]["community_id"], closes["network"]["community_id"]);
                assert_eq!(end(&closes["nat"]["remote"]), direct, "{closes}");
                assert_eq!(end(&waits["nat"]["local"]), service, "{waits}");
            } else {
                held.pop();
            }
            has_both
        });
        // A record of a whole connection waits for the answer, however short the connection is.
        let Connection { client: stream, server } = Connection::make(&client, service, &listener);
        let [port, peer] = [stream.local_addr(), server.peer_addr()].map(|end| end.expect("an end").port());
        drop((stream, server));
        let has_ended = |record: &Value| record["kind"] == "connection";
        let ends = [
            web.wait_for(|record| has_ended(record) && record["local"]["port"] == port),
            db.wait_for(|record| has_ended(record) && record["remote"]["port"] == peer),
        ];
        let ids = |end: &Value| [&end["network"], &end["nat"]].map(|ends| ends["community_id"].clone());
        let [of_client, mut of_server] = ends.each_ref().map(ids);
        of_server.reverse();
        assert_eq!(of_client, of_server, "{ends:#?}");
        web.stop();
        db.stop();
        let files = ["web.json", "db.json"].map(|name| path.join(name));
        fleet::rows_of_each_engine(&files.each_ref().map(PathBuf::as_path), |engine, rows| {
            let held = rows["held"].as_array().expect("rows");
            assert_eq!(held.len(), 1, "{engine}: {rows:#}");
            assert_eq!((&held[0]["holder"], &held[0]["waits"]), (&"db".into(), &"web".into()), "{engine}");
            let both = rows["both"].as_array().expect("rows");
            let is_it = |row: &&Value| row["community_id"] == ends[0]["network"]["community_id"];
            let rows: Vec<&Value> = both.iter().filter(is_it).collect();
            assert_eq!(rows.len(), 1, "{engine}: {both:#?}");
            assert_eq!((&rows[0]["client"], &rows[0]["server"]), (&"web".into(), &"db".into()), "{engine}");
        });
    }
}
