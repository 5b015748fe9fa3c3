//! The table against the kernel's own: losses leave connections that have ended, and hide others.

use std::{
    collections::{BTreeSet, HashSet},
    rc::Rc,
};

use super::{
    conns::{Conn, Since, plain},
    table::{Applied, Out, Table, merge, same_ends},
    wait::{Ends, take},
};
use crate::model::{ConnId, Event, EventKind, Identify, Resync, State};

/// What the kernel's tables held, after everything up to then was applied.
#[derive(Debug)]
pub struct Shown<'a> {
    /// `CLOCK_MONOTONIC` ns before the look began.
    pub began_ns: u64,
    /// Network namespaces that were looked into.
    pub namespaces: &'a BTreeSet<u32>,
    /// Their sockets.
    pub sockets: &'a [Event],
    /// Keys of all sockets that processes hold; none if not known.
    pub held: Option<&'a HashSet<u64>>,
}

/// Longer than a mini-socket or an orphan lives, ns: in namespaces that cannot be entered nothing else can be known.
const LONG_NS: u64 = 300_000_000_000;

impl Table {
    /// Takes in what the table lacks or has wrong; returns those that the kernel did not show, to be looked for again.
    pub fn compare(&mut self, shown: &Shown<'_>, who: &mut dyn Identify, out: Out<'_>) -> Vec<(u64, ConnId)> {
        for event in shown.sockets {
            if let EventKind::Socket { state, mini } = event.kind {
                self.compare_one(event, state, mini, who, out);
            }
        }
        self.unseen(shown)
    }

    /// Reports those of `suspects` that a second look does not show either as gone.
    pub fn bury(&mut self, suspects: &[(u64, ConnId)], shown: &Shown<'_>, out: Out<'_>) {
        let unseen: HashSet<(u64, ConnId)> = self.unseen(shown).into_iter().collect();
        for suspect in suspects.iter().filter(|suspect| unseen.contains(suspect)) {
            if let Some(at) = self.conns.find(suspect.0) {
                self.lose(at, shown.began_ns, out);
            }
        }
    }

    fn compare_one(&mut self, event: &Event, state: State, mini: bool, who: &mut dyn Identify, out: Out<'_>) {
        if state == State::Close || self.waiting.timewaits.iter().any(|it| it.sk == event.sk) {
            return;
        }
        let found = self.conns.find(event.sk).or_else(|| self.find_estimate(event, mini));
        if let Some(at) = found {
            let conn = self.conns.get(at);
            if conn.since_ns >= event.time_ns && !conn.estimated {
                return;
            }
            // Mini-sockets and full ones never take each other's memory.
            if same_ends(&conn.tuple, &event.tuple) && conn.mini == mini {
                let was = conn.state;
                let conn = self.conns.get_mut(at);
                conn.estimated = false;
                conn.tuple = merge(conn.tuple, event.tuple);
                if plain(was) != plain(state) {
                    self.correct(at, Some(was), state, event.time_ns, out);
                }
                return;
            }
            self.lose(at, event.time_ns, out);
        }
        let at = self.add_existing(event, state, mini, None, who);
        self.correct(at, None, state, event.time_ns, out);
    }

    /// An estimated mini-socket with these ends gets the key that it really has.
    fn find_estimate(&mut self, event: &Event, mini: bool) -> Option<usize> {
        if !mini || !self.has_estimates() {
            return None;
        }
        let ends = Ends::of(event);
        let same = |conn: &Conn| conn.estimated && Ends::new(conn.subject.netns, conn.tuple) == ends;
        let at = self.conns.iter().position(same)?;
        self.conns.rename(at, event.sk);
        self.watch_again(at);
        Some(at)
    }

    /// The end of this connection was lost.
    pub(super) fn lose(&mut self, at: usize, time_ns: u64, out: Out<'_>) {
        // Another may have its key soon.
        self.waiting.endings.take(self.conns.get(at).sk);
        let was = self.conns.get(at).state;
        self.correct(at, Some(was), State::Close, time_ns, out);
        self.remove(at);
    }

    /// Reports that a connection is in another state than the stream had said.
    pub(super) fn correct(
        &mut self,
        at: usize,
        was: Option<State>,
        state: State,
        time_ns: u64,
        out: Out<'_>,
    ) {
        if self.conns.get(at).unborn {
            // What waits comes first.
            let sk = self.conns.get(at).sk;
            for it in take(&mut self.waiting.births, |it| it.sk == sk) {
                self.finish_birth(it, out);
            }
        }
        self.unwatch(at, state, time_ns);
        let wall_ns = self.wall(time_ns);
        let conn = self.conns.get_mut(at);
        conn.state = state;
        conn.since_ns = time_ns;
        conn.since = Since::AtLeast;
        out(Applied::Resync(Resync {
            time_ns: wall_ns,
            conn: conn.id,
            was,
            state,
            role: conn.role,
            tuple: conn.tuple,
            subject: Rc::clone(&conn.subject),
            mini: conn.mini,
        }));
        self.watch(at);
    }

    /// Connections that were there before the look and are not in it.
    fn unseen(&self, shown: &Shown<'_>) -> Vec<(u64, ConnId)> {
        let seen: HashSet<u64> = shown.sockets.iter().map(|event| event.sk).collect();
        let gone = |conn: &&Conn| {
            if conn.since_ns >= shown.began_ns || conn.estimated || seen.contains(&conn.sk) {
                return false;
            }
            let entered = conn.subject.netns.is_some_and(|netns| shown.namespaces.contains(&netns));
            let free = shown.held.is_some_and(|held| !held.contains(&conn.sk));
            let old = shown.began_ns - conn.since_ns > LONG_NS;
            entered || (free && old)
        };
        self.conns.iter().filter(gone).map(|conn| (conn.sk, conn.id)).collect()
    }
}
