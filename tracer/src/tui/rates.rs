//! What the socket of the detail view transfers: totals of the kernel, and rates from two readings of them.

use super::{App, View, examination::connection};
use crate::{
    display::{duration, number},
    model::{ConnId, Connection, State, Traffic},
    story::ConnHistory,
};

const SECOND_NS: f64 = 1e9;

/// The counters of a socket, and when they were read, `CLOCK_MONOTONIC` ns.
#[derive(Clone, Copy, Debug)]
struct Reading {
    traffic: Traffic,
    read_ns: u64,
}

/// The last two readings of the socket of the detail view.
#[derive(Debug, Default)]
pub(super) struct Rates {
    conn: Option<ConnId>,
    /// The socket was asked about since the last refresh.
    is_asked: bool,
    last: Option<Reading>,
    before: Option<Reading>,
}

impl Rates {
    /// From now on, the socket may be asked about again.
    pub(super) fn second(&mut self) {
        self.is_asked = false;
    }

    /// Totals and rates of a socket that was asked about; the totals of one that has ended.
    pub(super) fn lines(&self, history: &ConnHistory) -> Vec<String> {
        let is_asked = self.conn == Some(history.conn);
        let last = self.last.filter(|_| is_asked);
        let traffic = history.traffic.as_deref().copied().or(last.map(|last| last.traffic));
        if traffic.is_none() && !is_asked {
            return Vec::new();
        }
        let before = self.before.filter(|_| is_asked && history.traffic.is_none());
        let line = |what: &str, count: fn(&Traffic) -> u64| {
            let total = traffic.as_ref().map_or_else(|| "-".to_owned(), |traffic| count(traffic).to_string());
            let rate = last.zip(before).map(|(last, before)| {
                let seconds = last.read_ns.saturating_sub(before.read_ns) as f64 / SECOND_NS;
                // A socket that connects again counts from the beginning.
                let count = count(&last.traffic).saturating_sub(count(&before.traffic));
                format!("{}/s", number((count as f64 / seconds).round() as u64))
            });
            format!("{what:<14} {total:>14} {:>10}", rate.as_deref().unwrap_or("-"))
        };
        let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), duration);
        let smoothed = time(traffic.and_then(|traffic| traffic.rtt_smoothed_ns));
        let least = time(traffic.and_then(|traffic| traffic.rtt_min_ns));
        vec![
            line("bytes sent", |traffic| traffic.bytes_sent),
            line("bytes received", |traffic| traffic.bytes_received),
            line("retransmits", |traffic| traffic.retransmits.into()),
            format!("{:<14} {smoothed:>14} {:>10}", "RTT, least RTT", least),
        ]
    }
}

impl App {
    /// The socket of the detail view, if its counters are to be read: once for each refresh.
    pub fn uncounted(&mut self) -> Option<Connection> {
        if self.view != View::Detail {
            self.rates = Rates::default();
            return None;
        }
        let history = self.selected()?;
        // A mini-socket and a listener have no counters, and a frozen screen does not show the present.
        let has_none =
            history.mini || matches!(history.state, State::Listen | State::TimeWait | State::Close);
        let is_same = self.rates.conn == Some(history.conn);
        if has_none || self.frozen.is_some() || is_same && self.rates.is_asked {
            return None;
        }
        let conn = connection(history);
        if is_same {
            self.rates.is_asked = true;
        } else {
            self.rates = Rates { conn: Some(conn.id), is_asked: true, ..Rates::default() };
        }
        Some(conn)
    }

    /// Takes the counters of a socket, as read at `read_ns`; `None` if they cannot be read.
    pub fn counted(&mut self, conn: ConnId, traffic: Option<Traffic>, read_ns: u64) {
        let rates = &mut self.rates;
        if rates.conn == Some(conn)
            && let Some(traffic) = traffic
            && rates.last.is_none_or(|last| last.read_ns < read_ns)
        {
            (rates.before, rates.last) = (rates.last, Some(Reading { traffic, read_ns }));
        }
    }
}
