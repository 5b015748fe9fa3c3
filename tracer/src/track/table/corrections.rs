//! Corrects what two readings of the kernel's tables show to be wrong, and adds what conntrack's tables show.

use std::{collections::HashSet, rc::Rc};

use super::{Difference, Endpoints, KernelTables, Out, Table, complete};
use crate::{
    model::{ConnId, Event, EventKind, Identify, Nat},
    track::{
        conns::plain,
        kernel_tables::{continues, find_estimate},
        lifespans::Lifespans,
    },
};

impl Table {
    /// Corrects each of `differences` that the second reading, `kernel`, shows again.
    pub fn correct_confirmed(
        &mut self,
        differences: &HashSet<Difference>,
        kernel: &KernelTables<'_>,
        identities: &mut dyn Identify,
        out: Out<'_>,
    ) {
        self.updates.clear();
        for event in kernel.sockets {
            let difference = kernel.difference(event, &self.conns, &self.mini_sockets, &self.pending);
            if difference.is_some_and(|difference| differences.contains(&difference)) {
                self.correct_socket(event, identities);
                self.hand_out(out);
            }
        }
        let gone = kernel.gone(&self.conns);
        for difference in gone.iter().filter(|difference| differences.contains(difference)) {
            if let Some(at) = self.conns.find(difference.sk) {
                self.report_lost_end(at, kernel.began_ns);
                self.hand_out(out);
            }
        }
    }

    /// Forgets the sockets of which `kernel` shows nothing, and which have not changed for long. Nothing is reported: whether they
    /// still exist is not known.
    pub fn forget_unknown(&mut self, kernel: &KernelTables<'_>) {
        kernel.unknown(&self.conns).into_iter().for_each(|sk| self.dismiss(sk));
    }

    /// How many more connections have ended whose records the killed process may have written.
    pub fn take_doubted(&mut self) -> u64 {
        self.lifespans.as_mut().map_or(0, Lifespans::take_doubted)
    }

    /// Notes how the connection `id`, whose socket is at the address `sk`, is translated, unless it has ended or continues in a
    /// mini-socket.
    pub fn set_nat(&mut self, sk: u64, id: ConnId, nat: Nat) {
        if let Some(at) = self.conns.find(sk)
            && self.conns.get(at).id == id
        {
            self.conns.get_mut(at).nat = Some(Rc::new(nat));
        }
    }

    /// The kernel has the socket of `event` in another state, or the table does not have it.
    fn correct_socket(&mut self, event: &Event, identities: &mut dyn Identify) {
        let EventKind::Socket { state, mini } = event.kind else { return };
        let estimate = find_estimate(event, mini, &self.conns, &self.mini_sockets);
        if let Some(at) = estimate {
            self.mini_sockets.remove_estimate(&Endpoints::of(event));
            self.rekey(at, event.sk);
            self.watchdog.watch_again(&mut self.conns, at);
        }
        if let Some(at) = estimate.or_else(|| self.conns.find(event.sk)) {
            if continues(self.conns.get(at), event, state, mini) {
                let conn = self.conns.get_mut(at);
                let was = conn.state;
                conn.estimated = false;
                complete(conn, event.tuple, identities);
                if plain(was) != plain(state) {
                    self.correct(at, Some(was), state, event.time_ns);
                }
                return;
            }
            self.report_lost_end(at, event.time_ns);
        }
        let at = self.add_existing(event, state, mini, None, identities);
        self.correct(at, None, state, event.time_ns);
    }
}
