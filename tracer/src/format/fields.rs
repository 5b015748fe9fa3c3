//! Values that the formats of collectors need from lines of every kind.

use super::image::Image;
use crate::wire::{
    Ends, Kind, Labels, Line, Owner, Pod, Socket, Stamp, SubjectKeys, Text, Time, Traffic, Workload,
};

/// The values of a line; `None` where its kind does not have the key, or the value is not known.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) seq: Option<u64>,
    pub(super) time: Option<Time>,
    pub(super) conn: Option<&'a str>,
    pub(super) role: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) state: Option<&'a str>,
    pub(super) in_state_ns: Option<u64>,
    pub(super) age_ns: Option<u64>,
    /// Of a connection that has ended.
    pub(super) begin: Option<Time>,
    pub(super) duration_ns: Option<u64>,
    pub(super) traffic: Option<Traffic>,
    pub(super) cause: Option<&'a str>,
    pub(super) reset_why: Option<&'a str>,
    pub(super) errno: Option<&'a str>,
    pub(super) place: Option<&'a str>,
    pub(super) ends: Option<&'a Ends<'a>>,
    pub(super) owner: Option<&'a Owner<'a>>,
    pub(super) container: Option<&'a str>,
    pub(super) container_name: Option<&'a str>,
    pub(super) image: Option<Image<'a>>,
    pub(super) runtime: Option<&'a str>,
    pub(super) pod: Option<&'a Pod<'a>>,
    pub(super) unit: Option<&'a str>,
    pub(super) host: Option<&'a str>,
    pub(super) instance: Option<&'a str>,
    pub(super) labels: Option<&'a Labels<'a>>,
}

fn text<'a>(text: &'a Option<Text<'_>>) -> Option<&'a str> {
    text.as_deref()
}

/// A key that each line of its kind has is empty in a line of an earlier version that lacks it.
fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

impl<'a> Fields<'a> {
    pub(super) fn of(line: &'a Line<'a>) -> Self {
        match &line.kind {
            Kind::Transition(transition) => Self {
                conn: known(&transition.conn),
                role: text(&transition.role),
                from: known(&transition.from),
                to: known(&transition.to),
                in_state_ns: transition.in_state_ns,
                cause: text(&transition.cause),
                reset_why: text(&transition.reset_why),
                errno: text(&transition.errno),
                traffic: transition.traffic,
                ends: Some(&transition.ends),
                ..Self::head(transition.seq, transition.time)
                    .stamp(&transition.stamp)
                    .subject(&transition.subject)
            },
            Kind::Connection(lifespan) => Self {
                conn: known(&lifespan.conn),
                role: text(&lifespan.role),
                cause: text(&lifespan.cause),
                reset_why: text(&lifespan.reset_why),
                errno: text(&lifespan.errno),
                begin: Some(lifespan.begin),
                duration_ns: lifespan.duration_ns,
                traffic: lifespan.traffic,
                ends: Some(&lifespan.ends),
                ..Self::head(lifespan.seq, lifespan.time).stamp(&lifespan.stamp).subject(&lifespan.subject)
            },
            Kind::Snapshot(snapshot) => Self {
                conn: known(&snapshot.conn),
                ..Self::head(snapshot.seq, snapshot.time).stamp(&snapshot.stamp).socket(&snapshot.socket)
            },
            Kind::Resync(resync) => Self {
                conn: known(&resync.conn),
                ..Self::head(resync.seq, resync.time).stamp(&resync.stamp).socket(&resync.socket)
            },
            Kind::Stuck(stuck) => Self {
                conn: known(&stuck.conn),
                age_ns: stuck.age_ns,
                ..Self::head(stuck.seq, stuck.time).stamp(&stuck.stamp).socket(&stuck.socket)
            },
            Kind::Resolved(resolved) => Self {
                conn: known(&resolved.conn),
                to: known(&resolved.to),
                age_ns: resolved.age_ns,
                traffic: resolved.traffic,
                ..Self::head(resolved.seq, resolved.time).stamp(&resolved.stamp).socket(&resolved.socket)
            },
            Kind::Aggregate(aggregate) => Self {
                role: text(&aggregate.role),
                from: known(&aggregate.from),
                to: known(&aggregate.to),
                ..Self::head(aggregate.seq, aggregate.time)
                    .stamp(&aggregate.stamp)
                    .workload(&aggregate.workload)
            },
            Kind::Reset(reset) => Self {
                ends: reset.segment.as_ref().map(|segment| &segment.ends),
                ..Self::head(reset.seq, reset.time).stamp(&reset.stamp)
            },
            Kind::Lost(lost) => {
                Self { place: known(&lost.place), ..Self::head(lost.seq, lost.time).stamp(&lost.stamp) }
            }
            Kind::Start(start) => Self {
                host: start.host.as_ref().map(|host| &*host.name),
                instance: known(&start.instance),
                labels: Some(&start.labels),
                ..Self::head(start.seq, start.time)
            },
            Kind::Stop(stop) => Self::head(stop.seq, stop.time).stamp(&stop.stamp),
            Kind::Other(other) => Self { seq: other.seq, time: other.time, ..Self::default() },
        }
    }

    fn head(seq: u64, time: Time) -> Self {
        Self { seq: Some(seq), time: Some(time), ..Self::default() }
    }

    fn stamp(self, stamp: &'a Stamp<'a>) -> Self {
        let host = stamp.host.as_ref().map(|host| &*host.name);
        Self { host, instance: text(&stamp.instance), labels: Some(&stamp.labels), ..self }
    }

    fn socket(self, socket: &'a Socket<'a>) -> Self {
        let (state, role) = (known(&socket.state), text(&socket.role));
        Self { state, role, ends: Some(&socket.ends), ..self.subject(&socket.subject) }
    }

    fn subject(self, keys: &'a SubjectKeys<'a>) -> Self {
        Self { owner: keys.owner.as_ref(), ..self.workload(&keys.placement.workload) }
    }

    fn workload(self, workload: &'a Workload<'a>) -> Self {
        let container = workload.container.as_ref();
        Self {
            container: container.map(|container| &*container.id),
            runtime: container.and_then(|container| text(&container.runtime)),
            container_name: container.and_then(|container| text(&container.name)),
            image: container.and_then(|container| text(&container.image)).map(Image::of),
            pod: workload.pod.as_ref(),
            unit: text(&workload.unit),
            ..self
        }
    }

    /// The ends, if the line has them.
    pub(super) fn network(&self) -> Option<&'a Ends<'a>> {
        self.ends.filter(|ends| ends.network.is_some())
    }

    /// The state that the connection is in now.
    pub(super) fn now(&self) -> Option<&'a str> {
        self.to.or(self.state)
    }
}
