//! Mini-sockets by their endpoints: the kernel object that continues a mini-socket's connection has another address.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use super::identity::Endpoints;

/// How long an estimated mini-socket is kept: TCP_TIMEWAIT_LEN, and net.ipv4.tcp_fin_timeout's default.
const ESTIMATE_NS: u64 = 60_000_000_000;

/// The requests, and the mini-sockets that are only estimated.
#[derive(Default)]
pub(super) struct MiniSockets {
    requests: HashMap<Endpoints, u64, FxBuildHasher>,
    estimates: HashMap<Endpoints, u64, FxBuildHasher>,
    /// Estimated ones, in the order of their ends: when, and which.
    expiries: VecDeque<(u64, u64)>,
    /// The key of the last estimated one. No kernel address is that low.
    last_estimate: u64,
}

impl MiniSockets {
    /// The last request that had these endpoints. Its address may be another socket's since.
    pub(super) fn request(&self, ends: &Endpoints) -> Option<u64> {
        self.requests.get(ends).copied()
    }

    pub(super) fn add_request(&mut self, ends: Endpoints, sk: u64) {
        self.requests.insert(ends, sk);
    }

    pub(super) fn remove_request(&mut self, ends: &Endpoints) {
        self.requests.remove(ends);
    }

    /// The estimated mini-socket with these endpoints.
    pub(super) fn estimate(&self, ends: &Endpoints) -> Option<u64> {
        self.estimates.get(ends).copied()
    }

    /// Adds an estimated mini-socket that begins at `at_ns`; returns the key by which it is known.
    pub(super) fn add_estimate(&mut self, ends: Endpoints, at_ns: u64) -> u64 {
        self.last_estimate += 1;
        self.expiries.push_back((at_ns.saturating_add(ESTIMATE_NS), self.last_estimate));
        self.estimates.insert(ends, self.last_estimate);
        self.last_estimate
    }

    pub(super) fn remove_estimate(&mut self, ends: &Endpoints) {
        self.estimates.remove(ends);
    }

    /// When the first estimated mini-socket ended that ends by `now_ns`, and its key.
    pub(super) fn take_expired(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        self.expiries.pop_front_if(|(until_ns, _)| *until_ns <= now_ns)
    }

    /// The mini-socket `sk` has ended.
    pub(super) fn forget(&mut self, ends: &Endpoints, sk: u64) {
        for index in [&mut self.requests, &mut self.estimates] {
            if index.get(ends) == Some(&sk) {
                index.remove(ends);
            }
        }
    }
}
