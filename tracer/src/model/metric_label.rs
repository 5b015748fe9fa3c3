//! Labels of metrics whose values processes and users of a cluster choose.

use std::collections::BTreeMap;

use super::{Container, Pod, Subject};

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
}

impl MetricLabel {
    pub const ALL: [Self; 6] =
        [Self::Comm, Self::Unit, Self::Namespace, Self::Workload, Self::Pod, Self::Container];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Comm => "comm",
            Self::Unit => "unit",
            Self::Namespace => "namespace",
            Self::Workload => "workload",
            Self::Pod => "pod",
            Self::Container => "container",
        }
    }

    /// The value for a socket; empty where it is not known.
    #[must_use]
    pub fn value(self, subject: &Subject) -> &str {
        let pod = subject.pod.as_ref();
        let value = match self {
            Self::Comm => subject.owner.as_ref().map(|owner| &*owner.comm),
            Self::Unit => subject.unit.as_deref(),
            Self::Namespace => pod.and_then(|pod| pod.namespace.as_deref()),
            Self::Workload => pod.and_then(|pod| pod.workload.as_ref()).map(|workload| &*workload.name),
            Self::Pod => pod.map(Pod::shown_name),
            Self::Container => subject.container.as_ref().map(Container::shown_name),
        };
        value.unwrap_or_default()
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

    /// Counts sockets by their subjects and states. The combinations with the most sockets have counts of their own, and all
    /// others have one together. Without labels there is nothing to count.
    #[must_use]
    pub fn count<'a>(
        &self,
        sockets: impl IntoIterator<Item = (&'a Subject, &'static str)>,
    ) -> Vec<LabelledCounts> {
        if self.labels.is_empty() {
            return Vec::new();
        }
        let mut groups: BTreeMap<Vec<&str>, BTreeMap<&'static str, i64>> = BTreeMap::new();
        for (subject, state) in sockets {
            let values = self.labels.iter().map(|label| label.value(subject)).collect();
            *groups.entry(values).or_default().entry(state).or_default() += 1;
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.values().sum::<i64>()));
        let others = groups.split_off(self.most.min(groups.len()));
        let labelled = |(values, counts): (Vec<&str>, _)| LabelledCounts {
            labels: self.labels.iter().copied().zip(values.into_iter().map(str::to_owned)).collect(),
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

    fn subject(pod: usize) -> Subject {
        let pod = Pod { name: Some(format!("web-{pod}")), ..Pod::new("uid".into()) };
        Subject { pod: Some(pod), ..(*Connection::example().subject).clone() }
    }

    #[test]
    fn the_largest_have_series_of_their_own_and_nothing_is_missing() {
        let subjects: Vec<Subject> = (0..50).map(subject).collect();
        // The pod `web-N` has N sockets.
        let sockets = || {
            let all = subjects.iter().enumerate();
            all.flat_map(|(number, subject)| (0..number).map(move |_| (subject, "CLOSE_WAIT")))
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
