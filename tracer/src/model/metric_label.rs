//! Labels of metrics whose values processes, peers and users of a cluster choose.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::{Container, Pod, Role, SocketCounts, Subject, Tuple};

/// The length of a network's prefix that the label `peer` has.
const V4_PREFIX: u8 = 24;
const V6_PREFIX: u8 = 64;

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricLabel {
    /// The name of the process that owns the socket.
    Comm,
    /// The systemd unit.
    Unit,
    /// The Kubernetes namespace.
    Namespace,
    /// The name of the Deployment, StatefulSet and so on that manages the pod.
    Workload,
    /// The name of the pod; its uid if the name is not known.
    Pod,
    /// The name of the container; its id if it has no name.
    Container,
    /// The port of the service: that of a listener and of the connections that it has taken. A client's local port says nothing.
    LocalPort,
    /// The network of the other end.
    Peer,
}

/// A socket, as metrics count it.
#[derive(Clone, Copy, Debug)]
pub struct CountedSocket<'a> {
    pub subject: &'a Subject,
    pub tuple: &'a Tuple,
    pub role: Option<Role>,
    /// The name of its state.
    pub state: &'static str,
}

impl CountedSocket<'_> {
    /// The port of the service, or 0.
    fn service_port(&self) -> u16 {
        if matches!(self.role, Some(Role::Server | Role::Listener)) { self.tuple.local_port } else { 0 }
    }

    /// The network of the other end, if there is one.
    fn peer(&self) -> Option<IpNet> {
        if self.role == Some(Role::Listener) || self.tuple.remote.is_unspecified() {
            return None;
        }
        let address = self.tuple.remote.canonical();
        let prefix = if matches!(address, IpAddr::V4(_)) { V4_PREFIX } else { V6_PREFIX };
        IpNet::new(address, prefix).ok().map(|network| network.trunc())
    }
}

impl MetricLabel {
    pub const ALL: [Self; 8] = [
        Self::Comm,
        Self::Unit,
        Self::Namespace,
        Self::Workload,
        Self::Pod,
        Self::Container,
        Self::LocalPort,
        Self::Peer,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Comm => "comm",
            Self::Unit => "unit",
            Self::Namespace => "namespace",
            Self::Workload => "workload",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::LocalPort => "local_port",
            Self::Peer => "peer",
        }
    }

    /// The value for a socket; empty where it is not known.
    #[must_use]
    pub fn value<'a>(self, socket: &CountedSocket<'a>) -> Cow<'a, str> {
        let subject = socket.subject;
        let pod = subject.pod.as_ref();
        let value = match self {
            Self::Comm => subject.owner.as_ref().map(|owner| &*owner.comm),
            Self::Unit => subject.unit.as_deref(),
            Self::Namespace => pod.and_then(|pod| pod.namespace.as_deref()),
            Self::Workload => pod.and_then(|pod| pod.workload.as_ref()).map(|workload| &*workload.name),
            Self::Pod => pod.map(Pod::shown_name),
            Self::Container => subject.container.as_ref().map(Container::shown_name),
            Self::LocalPort => {
                let port = Some(socket.service_port()).filter(|port| *port != 0);
                return port.map_or_else(Cow::default, |port| port.to_string().into());
            }
            Self::Peer => {
                return socket.peer().map_or_else(Cow::default, |network| network.to_string().into());
            }
        };
        value.unwrap_or_default().into()
    }
}

/// The labels that a metric has, and a limit for the number of its series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricLabels {
    labels: Vec<MetricLabel>,
    /// How many combinations of values have series of their own.
    most: usize,
}

impl MetricLabels {
    /// Each of `labels` once, and up to `most` combinations of values.
    #[must_use]
    pub fn new(mut labels: Vec<MetricLabel>, most: usize) -> Self {
        labels.sort_unstable();
        labels.dedup();
        Self { labels, most }
    }

    /// Counts sockets by their labels and states. The combinations with the most sockets have counts of their own, and all
    /// others have one together. Without labels there is nothing to count.
    #[must_use]
    pub fn count<'a>(&self, sockets: impl IntoIterator<Item = CountedSocket<'a>>) -> Vec<LabelledCounts> {
        if self.labels.is_empty() {
            return Vec::new();
        }
        // A host may have very many sockets, most of them with the values of others, so texts are made only once for all of these.
        let [by_port, by_peer] =
            [MetricLabel::LocalPort, MetricLabel::Peer].map(|label| self.labels.contains(&label));
        let mut alike: FxHashMap<_, (CountedSocket<'a>, i64)> = FxHashMap::default();
        for socket in sockets {
            let port = by_port.then(|| socket.service_port());
            let peer = if by_peer { socket.peer() } else { None };
            let key = (socket.subject.id, port, peer, socket.state);
            alike.entry(key).or_insert((socket, 0)).1 += 1;
        }
        let mut groups: BTreeMap<Vec<Cow<'a, str>>, BTreeMap<&'static str, i64>> = BTreeMap::new();
        for (socket, count) in alike.into_values() {
            let values = self.labels.iter().map(|label| label.value(&socket)).collect();
            *groups.entry(values).or_default().entry(socket.state).or_default() += count;
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.values().sum::<i64>()));
        let others = groups.split_off(self.most.min(groups.len()));
        let labelled = |(values, counts): (Vec<Cow<'_, str>>, _)| LabelledCounts {
            labels: self.labels.iter().copied().zip(values.into_iter().map(Cow::into_owned)).collect(),
            other: false,
            counts,
        };
        let mut all: Vec<LabelledCounts> = groups.into_iter().map(labelled).collect();
        if !others.is_empty() {
            let labels = self.labels.iter().map(|label| (*label, String::new())).collect();
            let mut counts = BTreeMap::new();
            for (state, count) in others.into_iter().flat_map(|(_, counts)| counts) {
                *counts.entry(state).or_default() += count;
            }
            all.push(LabelledCounts { labels, other: true, counts });
        }
        all
    }
}

/// What metrics say about the sockets that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketTotals {
    pub tally: SocketCounts,
    /// The names of the processes that own the most stuck sockets, each with its number of them.
    pub leakers: Vec<(String, i64)>,
    /// All sockets, by labels.
    pub sockets_by: Vec<LabelledCounts>,
    /// The stuck sockets, by labels.
    pub stuck_by: Vec<LabelledCounts>,
    /// The local ports that connections from one address to one address and port use, where these are the most.
    pub ports_used: i64,
}

/// Sockets with the same values of some labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledCounts {
    /// A value that is not known is empty.
    pub labels: Vec<(MetricLabel, String)>,
    /// These are the sockets of all combinations beyond the limit; the values are empty.
    pub other: bool,
    /// By the names of their states.
    pub counts: BTreeMap<&'static str, i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Connection;

    fn subject(number: usize) -> Subject {
        let pod = Pod { name: Some(format!("web-{number}")), ..Pod::new("uid".into()) };
        let id = number as u64;
        Subject { id, pod: Some(pod), ..(*Connection::example().subject).clone() }
    }

    fn socket<'a>(subject: &'a Subject, tuple: &'a Tuple, role: Role) -> CountedSocket<'a> {
        CountedSocket { subject, tuple, role: Some(role), state: "CLOSE_WAIT" }
    }

    #[test]
    fn ports_of_services_and_networks_of_peers() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address").into();
        let tuple =
            |remote: &str, local_port| Tuple { remote: address(remote), local_port, ..Tuple::example() };
        let (one, other, v6) =
            (tuple("192.0.2.7", 443), tuple("192.0.2.200", 50_000), tuple("2001:db8:1:2:3::4", 443));
        let subject = subject(1);
        let labels = MetricLabels::new(vec![MetricLabel::Peer, MetricLabel::LocalPort], 10);
        let sockets = [
            socket(&subject, &one, Role::Server),
            socket(&subject, &one, Role::Server),
            socket(&subject, &other, Role::Client),
            socket(&subject, &v6, Role::Server),
            socket(&subject, &one, Role::Listener),
        ];
        let rows: Vec<_> = labels
            .count(sockets)
            .into_iter()
            .map(|row| (row.labels.into_iter().map(|(_, value)| value).collect(), row.counts["CLOSE_WAIT"]))
            .collect();
        let row = |port: &str, peer: &str, count| (vec![port.to_owned(), peer.to_owned()], count);
        assert_eq!(
            rows,
            [
                row("443", "192.0.2.0/24", 2),
                row("", "192.0.2.0/24", 1),
                row("443", "", 1),
                row("443", "2001:db8:1:2::/64", 1)
            ]
        );
    }

    #[test]
    fn the_largest_have_series_of_their_own_and_nothing_is_missing() {
        let subjects: Vec<Subject> = (0..50).map(subject).collect();
        let tuple = &Tuple::example();
        // The pod `web-N` has N sockets.
        let sockets = || {
            let all = subjects.iter().enumerate();
            all.flat_map(|(number, subject)| (0..number).map(move |_| socket(subject, tuple, Role::Server)))
        };
        let labels = MetricLabels::new(vec![MetricLabel::Pod, MetricLabel::Namespace, MetricLabel::Pod], 2);
        let counts = labels.count(sockets());
        let row = |pod: &str, other, count| LabelledCounts {
            labels: vec![(MetricLabel::Namespace, String::new()), (MetricLabel::Pod, pod.to_owned())],
            other,
            counts: BTreeMap::from([("CLOSE_WAIT", count)]),
        };
        let rest = (0..48).sum();
        assert_eq!(counts, [row("web-49", false, 49), row("web-48", false, 48), row("", true, rest)]);
        let together = MetricLabels::new(vec![MetricLabel::Pod], 0).count(sockets());
        assert_eq!((together.len(), together[0].counts["CLOSE_WAIT"]), (1, (0..50).sum()));
        let all = MetricLabels::new(vec![MetricLabel::Pod], 1000).count(sockets());
        assert!(all.len() == 49 && all.iter().all(|counts| !counts.other), "{all:?}");
        assert!(MetricLabels::new(Vec::new(), 5).count(sockets()).is_empty());
    }
}
