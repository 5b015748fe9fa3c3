//! Protocols that share TCP's tracepoint must not confuse it.

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Test,
    lab::{Story, Tracer, in_lab, path, wait_until},
    observer::{proc_net_tcp, wait_for_states},
    skip,
    sockets::fresh_port,
    test,
};

const IPPROTO_SCTP: i32 = 132;
const IPPROTO_MPTCP: i32 = 262;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("protocols: SCTP is not TCP", sctp),
        test("protocols: MPTCP shows each of its TCP connections once", mptcp),
    ]
}

/// Makes one connection of this protocol, if the kernel has the protocol.
fn traced(protocol: i32) -> Option<Story> {
    let address = |port: u16| std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)).into();
    in_lab(|netns| {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(protocol)));
        let (Ok(listener), Ok(client)) = (socket(), socket()) else {
            skip(&format!("this kernel has no protocol {protocol}"));
            return None;
        };
        let port = fresh_port();
        let tracer = Tracer::start(netns, &[]);
        listener.bind(&address(port)).expect("bind");
        listener.listen(4).expect("listen");
        client.connect(&address(port)).expect("connect");
        let server = listener.accept().expect("accept").0;
        if protocol == IPPROTO_MPTCP {
            wait_for_states(&["LISTEN", "ESTABLISHED", "ESTABLISHED"]);
        }
        drop((client, server, listener));
        // A kernel worker of MPTCP closes the subflows.
        wait_until("all have closed", || proc_net_tcp().iter().all(|line| line.2 == "TIME_WAIT"));
        Some(tracer.stop())
    })
}

fn sctp() {
    if let Some(story) = traced(IPPROTO_SCTP) {
        assert_eq!(story.transitions().count(), 0, "{:#?}", story.records);
    }
}

fn mptcp() {
    let Some(story) = traced(IPPROTO_MPTCP) else { return };
    let opened: Vec<Vec<String>> = story.connections().iter().map(|connection| path(connection)).collect();
    let begins =
        |states: &[&str]| opened.iter().filter(|path| path.len() > 3 && path[..3] == *states).count();
    assert_eq!(begins(&["CLOSE", "SYN_SENT", "ESTABLISHED"]), 1, "{opened:?}");
    assert_eq!(begins(&["LISTEN", "SYN_RECV", "ESTABLISHED"]), 1, "{opened:?}");
    assert_eq!(opened.len(), 3, "and the listener: {opened:?}");
    assert_eq!(story.records.last().map(|record| &record["illegal"]), Some(&0.into()));
}
