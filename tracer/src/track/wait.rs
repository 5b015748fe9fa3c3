//! What waits some moments for the evidence that follows: never long, and mostly empty.

use std::collections::{HashMap, HashSet, VecDeque};

use rustc_hash::FxBuildHasher;

use super::resets::RecentResets;
use crate::model::{Cause, ClosedAs, Event, State, Transition, Tuple};

/// Both ends in their namespace: what one connection at a time has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    netns: Option<u32>,
    tuple: Tuple,
}

impl Ends {
    pub(super) fn of(event: &Event) -> Self {
        Self::new(event.netns, event.tuple)
    }

    pub(super) fn new(netns: Option<u32>, tuple: Tuple) -> Self {
        Self { netns, tuple: tuple.of_any_socket() }
    }
}

/// A timewait socket whose full socket has not gone yet.
pub(super) struct Timewait {
    pub(super) sk: u64,
    /// The full socket, 0 where the hook did not tell.
    pub(super) full: u64,
    pub(super) ends: Ends,
    pub(super) state: State,
    pub(super) event: Event,
    pub(super) ended: Option<Ending>,
}

/// The end of a mini-socket that may not be one, or whose cause may follow.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub(super) sk: u64,
    pub(super) ends: Ends,
    pub(super) at_ns: u64,
    pub(super) cause: Option<Cause>,
}

/// Ends of mini-sockets: very many in a SYN flood, or when a namespace goes.
#[derive(Default)]
pub(super) struct Endings {
    by_sk: HashMap<u64, Ending, FxBuildHasher>,
    by_ends: HashMap<Ends, u64, FxBuildHasher>,
    /// When and whose, in order; what was taken back meanwhile is not in the maps.
    order: VecDeque<(u64, u64)>,
}

impl Endings {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds one; an earlier one of the same socket goes.
    pub(super) fn push(&mut self, ending: Ending) {
        self.take(ending.sk);
        self.order.push_back((ending.at_ns, ending.sk));
        self.by_ends.insert(ending.ends, ending.sk);
        self.by_sk.insert(ending.sk, ending);
    }

    /// Takes out that of this socket.
    pub(super) fn take(&mut self, sk: u64) -> Option<Ending> {
        let ending = self.by_sk.remove(&sk)?;
        if self.by_ends.get(&ending.ends) == Some(&sk) {
            self.by_ends.remove(&ending.ends);
        }
        if self.by_sk.is_empty() {
            self.order.clear();
        }
        Some(ending)
    }

    /// Takes out that of the connection with these ends.
    pub(super) fn take_ends(&mut self, ends: &Ends) -> Option<Ending> {
        let sk = *self.by_ends.get(ends)?;
        self.take(sk)
    }

    /// Takes out the first that has waited since before `until_ns`.
    pub(super) fn take_old(&mut self, until_ns: u64) -> Option<Ending> {
        while let Some(&(at_ns, sk)) = self.order.front().filter(|(at_ns, _)| *at_ns <= until_ns) {
            self.order.pop_front();
            if self.by_sk.get(&sk).is_some_and(|ending| ending.at_ns == at_ns) {
                return self.take(sk);
            }
        }
        None
    }
}

/// `-> CLOSE` of a full socket that a reset may explain.
pub(super) struct Closing {
    pub(super) sk: u64,
    pub(super) at_ns: u64,
    pub(super) transition: Transition,
    /// What the socket was then.
    pub(super) closed: ClosedAs,
    /// `tcp_reset()` ended it.
    pub(super) received: bool,
    /// The mini-socket that is likely where none can be seen.
    pub(super) likely: Option<State>,
}

/// `LISTEN -> SYN_RECV` of a child whose ends are not known yet (kernels up to 6.12).
pub(super) struct Birth {
    pub(super) sk: u64,
    pub(super) at_ns: u64,
    pub(super) transition: Transition,
}

/// All that waits.
#[derive(Default)]
pub(super) struct Waiting {
    /// Requests by their ends: the child has another key.
    pub(super) requests: HashMap<Ends, u64, FxBuildHasher>,
    /// Estimated mini-sockets by their ends: the kernel's own has another key.
    pub(super) estimated: HashMap<Ends, u64, FxBuildHasher>,
    /// Children whose requests were not known, while the walk over what exists may still show those.
    pub(super) children: HashSet<Ends, FxBuildHasher>,
    /// Connections that several processes held when the tracer started; kept until the walk is over.
    pub(super) shared: HashSet<u64, FxBuildHasher>,
    /// SYN cookies that came back, with when.
    pub(super) cookies: Vec<(Ends, u64)>,
    pub(super) timewaits: Vec<Timewait>,
    pub(super) endings: Endings,
    pub(super) closings: Vec<Closing>,
    pub(super) births: Vec<Birth>,
    pub(super) resets: RecentResets,
}

impl Waiting {
    /// Whether something waits for time to pass.
    pub(super) fn is_idle(&self) -> bool {
        self.timewaits.is_empty()
            && self.endings.is_empty()
            && self.closings.is_empty()
            && self.births.is_empty()
            && self.cookies.is_empty()
            && self.resets.is_empty()
    }

    /// How many transitions wait, at most.
    pub(super) fn len(&self) -> usize {
        self.timewaits.len() + self.endings.by_sk.len() + self.closings.len() + self.births.len()
    }

    /// The timewait socket that takes the place of this full one.
    pub(super) fn take_timewait(&mut self, full: u64, ends: &Ends) -> Option<Timewait> {
        let fits = |it: &Timewait| if it.full == 0 { it.ends == *ends } else { it.full == full };
        let at = self.timewaits.iter().position(fits)?;
        Some(self.timewaits.swap_remove(at))
    }

    /// Whether a SYN cookie of this connection came back.
    pub(super) fn take_cookie(&mut self, ends: &Ends) -> bool {
        let at = self.cookies.iter().position(|(known, _)| known == ends);
        at.map(|at| self.cookies.swap_remove(at)).is_some()
    }
}

/// Takes out of `list` what is as wanted, in order.
pub(super) fn take<T>(list: &mut Vec<T>, wanted: impl Fn(&T) -> bool) -> Vec<T> {
    list.extract_if(.., |it| wanted(it)).collect()
}
