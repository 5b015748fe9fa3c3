//! Facts about each state: spellings, settings of the kernel that affect it, commands that show more. The texts are in
//! `texts/`.

use crate::model::State;

use super::Mover;

/// Facts about one state.
#[derive(Debug)]
pub struct Facts {
    pub state: State,
    /// The spellings of RFC 9293, of `ss`, and of the kernel's headers.
    pub spellings: [&'static str; 3],
    /// Whose turn it is: the application, the peer or the kernel.
    pub turn: Option<Mover>,
    /// Settings that affect the state: most limit the time in it.
    pub settings: &'static [Setting],
    /// Commands that show more.
    pub look: &'static [&'static str],
    /// Sections of RFCs and kernel functions that describe the state.
    pub sources: &'static [&'static str],
}

/// A setting of the kernel that affects a state.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name below /proc/sys, with dots.
    pub sysctl: &'static str,
    /// The key of its text.
    pub text: &'static str,
}

const fn setting(sysctl: &'static str, text: &'static str) -> Setting {
    Setting { sysctl, text }
}

const SYN_RETRIES: Setting = setting("net.ipv4.tcp_syn_retries", "syn_retries");
const SYNACK_RETRIES: Setting = setting("net.ipv4.tcp_synack_retries", "synack_retries");
const MAX_SYN_BACKLOG: Setting = setting("net.ipv4.tcp_max_syn_backlog", "max_syn_backlog");
const SYNCOOKIES: Setting = setting("net.ipv4.tcp_syncookies", "syncookies");
const KEEPALIVE_TIME: Setting = setting("net.ipv4.tcp_keepalive_time", "keepalive_time");
const KEEPALIVE_INTVL: Setting = setting("net.ipv4.tcp_keepalive_intvl", "keepalive_intvl");
const KEEPALIVE_PROBES: Setting = setting("net.ipv4.tcp_keepalive_probes", "keepalive_probes");
const RETRIES2: Setting = setting("net.ipv4.tcp_retries2", "retries2");
const ORPHAN_RETRIES: Setting = setting("net.ipv4.tcp_orphan_retries", "orphan_retries");
const MAX_ORPHANS: Setting = setting("net.ipv4.tcp_max_orphans", "max_orphans");
const FIN_TIMEOUT: Setting = setting("net.ipv4.tcp_fin_timeout", "fin_timeout");
const TW_REUSE: Setting = setting("net.ipv4.tcp_tw_reuse", "tw_reuse");
const MAX_TW_BUCKETS: Setting = setting("net.ipv4.tcp_max_tw_buckets", "max_tw_buckets");
const SOMAXCONN: Setting = setting("net.core.somaxconn", "somaxconn");
const ABORT_ON_OVERFLOW: Setting = setting("net.ipv4.tcp_abort_on_overflow", "abort_on_overflow");

/// Settings that limit the retransmissions of our FIN.
const FIN_SENT: &[Setting] = &[ORPHAN_RETRIES, RETRIES2, MAX_ORPHANS];

/// netstat's states, in the order of its page.
pub const STATES: [Facts; 12] = [
    Facts {
        state: State::Established,
        spellings: ["ESTABLISHED", "established", "TCP_ESTABLISHED"],
        turn: Some(Mover::Application),
        settings: &[KEEPALIVE_TIME, KEEPALIVE_INTVL, KEEPALIVE_PROBES, RETRIES2],
        look: &["sockstate sockets --state ESTABLISHED", "ss -tnoi state established"],
        sources: &["RFC 9293 3.3.2", "tcp_finish_connect(), tcp_rcv_state_process()"],
    },
    Facts {
        state: State::SynSent,
        spellings: ["SYN-SENT", "syn-sent", "TCP_SYN_SENT"],
        turn: Some(Mover::Peer),
        settings: &[SYN_RETRIES],
        look: &["sockstate --from SYN_SENT", "ss -tno state syn-sent", "nstat -az TcpAttemptFails"],
        sources: &["RFC 9293 3.3.2, 3.10.7.3", "tcp_v4_connect(), tcp_write_timeout()"],
    },
    Facts {
        state: State::SynRecv,
        spellings: ["SYN-RECEIVED", "syn-recv", "TCP_NEW_SYN_RECV, TCP_SYN_RECV"],
        turn: Some(Mover::Peer),
        settings: &[SYNACK_RETRIES, MAX_SYN_BACKLOG, SYNCOOKIES, SOMAXCONN],
        look: &["ss -tno state syn-recv", "nstat -az TcpExtListenOverflows TcpExtTCPReqQFullDoCookies"],
        sources: &["RFC 9293 3.3.2, 3.10.7.4", "tcp_conn_request(), reqsk_timer_handler()"],
    },
    Facts {
        state: State::FinWait1,
        spellings: ["FIN-WAIT-1", "fin-wait-1", "TCP_FIN_WAIT1"],
        turn: Some(Mover::Peer),
        settings: FIN_SENT,
        look: &["sockstate stuck --state FIN_WAIT1 --older-than 1s", "ss -tnoi state fin-wait-1"],
        sources: &["RFC 9293 3.3.2, 3.10.4", "tcp_close_state(), tcp_write_timeout()"],
    },
    Facts {
        state: State::FinWait2,
        spellings: ["FIN-WAIT-2", "fin-wait-2", "TCP_FIN_WAIT2"],
        turn: Some(Mover::Peer),
        settings: &[FIN_TIMEOUT, MAX_ORPHANS],
        look: &["sockstate stuck --state FIN_WAIT2 --older-than 1s", "ss -tno state fin-wait-2"],
        sources: &["RFC 9293 3.3.2, 3.6", "tcp_close(), tcp_time_wait()"],
    },
    Facts {
        state: State::TimeWait,
        spellings: ["TIME-WAIT", "time-wait", "TCP_TIME_WAIT"],
        turn: Some(Mover::Kernel),
        settings: &[TW_REUSE, MAX_TW_BUCKETS],
        look: &["ss -tn state time-wait | awk '{print $4}' | sort | uniq -c | sort -n", "nstat -az TcpExtTW"],
        sources: &["RFC 9293 3.6.1; RFC 1337; RFC 6191", "tcp_time_wait(), tw_timer_handler()"],
    },
    Facts {
        state: State::Close,
        spellings: ["CLOSED", "unconnected", "TCP_CLOSE"],
        turn: Some(Mover::Application),
        settings: &[],
        look: &["ss -tanp state unconnected"],
        sources: &["RFC 9293 3.3.2", "tcp_done(), inet_csk_destroy_sock()"],
    },
    Facts {
        state: State::CloseWait,
        spellings: ["CLOSE-WAIT", "close-wait", "TCP_CLOSE_WAIT"],
        turn: Some(Mover::Application),
        settings: &[KEEPALIVE_TIME, KEEPALIVE_INTVL, KEEPALIVE_PROBES, RETRIES2],
        look: &[
            "sockstate close-wait",
            "sockstate hunt --threshold CLOSE_WAIT=10s",
            "ss -tnp state close-wait",
        ],
        sources: &["RFC 9293 3.3.2, 3.6, 3.8.4", "tcp_fin(), tcp_keepalive_timer()"],
    },
    Facts {
        state: State::LastAck,
        spellings: ["LAST-ACK", "last-ack", "TCP_LAST_ACK"],
        turn: Some(Mover::Peer),
        settings: FIN_SENT,
        look: &["sockstate stuck --state LAST_ACK --older-than 1s", "ss -tnoi state last-ack"],
        sources: &["RFC 9293 3.3.2, 3.10.4", "tcp_close_state(), tcp_rcv_state_process()"],
    },
    Facts {
        state: State::Listen,
        spellings: ["LISTEN", "listening", "TCP_LISTEN"],
        turn: Some(Mover::Application),
        settings: &[SOMAXCONN, ABORT_ON_OVERFLOW],
        look: &[
            "sockstate sockets --state LISTEN",
            "ss -tlnp",
            "nstat -az TcpExtListenOverflows TcpExtListenDrops",
        ],
        sources: &["RFC 9293 3.3.2, 3.10.1", "inet_csk_listen_start()"],
    },
    Facts {
        state: State::Closing,
        spellings: ["CLOSING", "closing", "TCP_CLOSING"],
        turn: Some(Mover::Peer),
        settings: FIN_SENT,
        look: &["sockstate --to CLOSING", "ss -tnoi state closing"],
        sources: &["RFC 9293 3.3.2, 3.6", "tcp_fin()"],
    },
    Facts {
        state: State::Unknown(0),
        spellings: ["", "", ""],
        turn: None,
        settings: &[],
        look: &["sockstate doctor", "uname -r"],
        sources: &["include/net/tcp_states.h"],
    },
];

/// The facts about `state`.
#[must_use]
pub fn facts(state: State) -> &'static Facts {
    let known = STATES.iter().find(|facts| facts.state.name() == state.name());
    known.unwrap_or(&STATES[STATES.len() - 1])
}
