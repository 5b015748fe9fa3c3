//! The sockets that went to CLOSE last, to recognise a second copy of that transition.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::model::State;

/// How many sockets are remembered.
const MOST: usize = 64;

/// Sockets by the kernel's address. The kernel gives the memory of a closed socket to the next one, so most are forgotten soon.
#[derive(Default)]
pub(super) struct Closed {
    /// The number of the end, and the state before it.
    by_sk: FxHashMap<u64, (u64, State)>,
    /// Each end with its number, in order. Ends that were forgotten since are still here.
    order: VecDeque<(u64, u64)>,
    ends: u64,
}

impl Closed {
    /// The socket `sk` has gone from `from` to CLOSE.
    pub(super) fn note(&mut self, sk: u64, from: State) {
        self.ends += 1;
        self.by_sk.insert(sk, (self.ends, from));
        self.order.push_back((self.ends, sk));
        if self.order.len() > MOST
            && let Some((number, sk)) = self.order.pop_front()
            && self.by_sk.get(&sk).is_some_and(|known| known.0 == number)
        {
            self.by_sk.remove(&sk);
        }
    }

    /// Whether the last socket at `sk` went from `from` to CLOSE.
    pub(super) fn came_from(&self, sk: u64, from: State) -> bool {
        self.by_sk.get(&sk).is_some_and(|known| known.1 == from)
    }

    /// Another socket is at the address `sk` now.
    pub(super) fn forget(&mut self, sk: u64) {
        self.by_sk.remove(&sk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ends_are_known_until_another_socket_has_their_address() {
        let mut closed = Closed::default();
        closed.note(1, State::LastAck);
        assert!(closed.came_from(1, State::LastAck) && !closed.came_from(1, State::SynSent));
        closed.forget(1);
        assert!(!closed.came_from(1, State::LastAck));
        // The first end of this address is forgotten in its turn, and the second one is not.
        closed.note(1, State::SynSent);
        for sk in 2..=MOST as u64 {
            closed.note(sk, State::LastAck);
        }
        assert!(closed.came_from(1, State::SynSent));
        closed.note(99, State::LastAck);
        assert!(!closed.came_from(1, State::SynSent) && closed.came_from(2, State::LastAck));
        assert_eq!(closed.by_sk.len(), MOST);
    }
}
