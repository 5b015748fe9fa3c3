//! Makes lines of records.

use serde::Serialize;

use super::{
    Adopted, Aggregate, Bucket, ContainerId, Dwell, Ends, Explained, Found, Host, Kind, Line, Lost, Opened,
    Peer, Resolved, Resync, Snapshot, Socket, Stamp, Start, Stop, Stuck, SubjectKeys, Text, Time, Transition,
    cuts::Cuts, errno,
};
use crate::model::{self, Connection, Record, State, Transport, bounds};

/// A state's name, and its number where it has no name of its own.
pub(super) fn state(state: State) -> (Text<'static>, Option<u8>) {
    let number = if let State::Unknown(number) = state { Some(number) } else { None };
    (state.name().into(), number)
}

pub(super) fn instance(instance: u32) -> Text<'static> {
    format!("{instance:06x}").into()
}

/// The name of an errno; `E` and its number if it is not one that TCP uses.
fn error(errno: u16) -> Option<Text<'static>> {
    (errno != 0).then(|| errno::name(errno).map_or_else(|| format!("E{errno}").into(), Text::from))
}

impl<'a> Line<'a> {
    /// The line of a record.
    #[must_use]
    pub fn of(seq: u64, record: &'a Record, stamp: &Stamp<'a>) -> Self {
        let stamp = stamp.clone();
        Self::new(match record {
            Record::Start(start) => Kind::Start(Start::of(seq, start, stamp)),
            Record::Snapshot(snapshot) => Kind::Snapshot(Snapshot::of(seq, snapshot, stamp)),
            Record::Transition(transition) => Kind::Transition(Transition::of(seq, transition, stamp)),
            Record::Aggregate(aggregate) => Kind::Aggregate(Aggregate::of(seq, aggregate, stamp)),
            Record::Resync(resync) => Kind::Resync(Resync::of(seq, resync, stamp)),
            Record::Stuck(stuck) => Kind::Stuck(Box::new(Stuck::of(seq, stuck, stamp))),
            Record::Resolved(resolved) => Kind::Resolved(Resolved::of(seq, resolved, stamp)),
            Record::Lost(lost) => Kind::Lost(Lost::of(seq, lost, stamp)),
            Record::Stop(stop) => Kind::Stop(Stop::of(seq, stop, stamp)),
        })
    }

    /// Appends the line, with its newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        append(self, out);
        out.push(b'\n');
    }
}

/// Appends a value as JSON.
pub(crate) fn append(value: &impl Serialize, out: &mut Vec<u8>) {
    // Writing a value of ours to a vector does not fail.
    let _ = serde_json::to_writer(out, value);
}

impl<'a> Socket<'a> {
    fn of(now: State, conn: &'a Connection, interface: Option<&'a str>, cuts: &mut Cuts) -> Self {
        let (state, state_number) = state(now);
        Self {
            state,
            state_number,
            role: conn.role.map(|role| role.name().into()),
            ends: Ends::new(&conn.tuple, Transport::Tcp, interface),
            subject: SubjectKeys::new(&conn.subject, cuts),
            mini: conn.mini,
        }
    }
}

impl<'a> Start<'a> {
    fn of(seq: u64, start: &'a model::Start, stamp: Stamp<'a>) -> Self {
        Self {
            seq,
            time: Time(start.time_ns),
            // A start record has its own keys for the host and the instance.
            labels: stamp.labels,
            degraded: start.degraded.iter().map(|why| why.as_str().into()).collect(),
            hook: start.hook.into(),
            host: Some(Host { kernel: start.kernel.as_str().into(), name: start.host.as_str().into() }),
            instance: instance(start.instance),
            tier: start.tier.into(),
            version: start.version.into(),
            adopted: start.adopted.map(|before| Adopted { instance: instance(before) }),
        }
    }
}

impl<'a> Snapshot<'a> {
    fn of(seq: u64, snapshot: &'a model::Snapshot, stamp: Stamp<'a>) -> Self {
        let mut cuts = Cuts::default();
        let socket = Socket::of(snapshot.state, &snapshot.conn, None, &mut cuts);
        let (time, conn) = (Time(snapshot.time_ns), snapshot.conn.id.to_string().into());
        Self { seq, time, stamp, conn, socket, truncated: cuts.parts() }
    }
}

impl<'a> Transition<'a> {
    fn of(seq: u64, transition: &'a model::Transition, stamp: Stamp<'a>) -> Self {
        let conn = &transition.conn;
        let mut cuts = Cuts::default();
        let subject = SubjectKeys::new(&conn.subject, &mut cuts);
        let (from, from_number) = state(transition.from);
        let (to, to_number) = state(transition.to);
        Self {
            seq,
            time: Time(transition.time_ns),
            conn: conn.id.to_string().into(),
            from,
            from_number,
            to,
            to_number,
            in_state_ns: transition.in_state.map(|in_state| in_state.ns),
            in_state_at_least: transition.in_state.is_some_and(|in_state| in_state.at_least),
            role: conn.role.map(|role| role.name().into()),
            stamp,
            ends: Ends::new(&conn.tuple, Transport::Tcp, None),
            subject,
            truncated: cuts.parts(),
            exact: transition.exact,
            mini: conn.mini,
            illegal: transition.illegal,
            cause: transition.cause.map(|cause| cause.name().into()),
            reset_why: transition.reset_why.map(Text::from),
            errno: error(transition.errno),
        }
    }
}

impl<'a> Aggregate<'a> {
    fn of(seq: u64, aggregate: &'a model::Aggregate, stamp: Stamp<'a>) -> Self {
        let (from, from_number) = state(aggregate.from);
        let (to, to_number) = state(aggregate.to);
        let mut cuts = Cuts::default();
        let mut name =
            |field, text: &'a Option<String>| Some(cuts.text(field, text.as_deref()?, bounds::NAME).into());
        let unit = name("unit", &aggregate.unit);
        let container = name("container.id", &aggregate.container).map(|id| ContainerId { id });
        Self {
            seq,
            time: Time(aggregate.time_ns),
            stamp,
            from,
            from_number,
            to,
            to_number,
            comm: aggregate.comm.as_deref().map(Text::from),
            count: aggregate.count,
            in_state: Dwell::of(&aggregate.dwell),
            peer: aggregate.peer.map(|peer| Peer { address: peer.canonical().to_string().into() }),
            port: (aggregate.port != 0).then_some(aggregate.port),
            role: aggregate.role.map(|role| role.name().into()),
            window_ns: aggregate.window_ns,
            unit,
            container,
            other: aggregate.other,
            truncated: cuts.parts(),
        }
    }
}

impl Dwell {
    fn of(dwell: &model::Dwell) -> Self {
        let ends = model::Dwell::ENDS_S.iter().zip(&dwell.counts);
        let bucket = |(end, count): (&f64, &u64)| Bucket {
            count: *count,
            le_ns: end.is_finite().then_some(end * 1e9).map(|ns| ns as u64),
        };
        Self { buckets: ends.map(bucket).collect(), sum_ns: dwell.sum_ns }
    }
}

impl<'a> Resync<'a> {
    fn of(seq: u64, resync: &'a model::Resync, stamp: Stamp<'a>) -> Self {
        let mut cuts = Cuts::default();
        let socket = Socket::of(resync.state, &resync.conn, None, &mut cuts);
        let (was, was_number) = resync.was.map(state).unzip();
        Self {
            seq,
            time: Time(resync.time_ns),
            stamp,
            conn: resync.conn.id.to_string().into(),
            was,
            was_number: was_number.flatten(),
            socket,
            truncated: cuts.parts(),
        }
    }
}

impl<'a> Stuck<'a> {
    fn of(seq: u64, stuck: &'a model::Stuck, stamp: Stamp<'a>) -> Self {
        let found = stuck.found.as_deref();
        let interface = found.and_then(|(examined, _)| examined.socket.interface.as_deref());
        let mut cuts = Cuts::of(found.map_or(&[], |(examined, _)| &examined.cut));
        let socket = Socket::of(stuck.state, &stuck.conn, interface, &mut cuts);
        let opening = stuck.opened.as_ref().map(|opened| match opened {
            Ok(_) => SEEN,
            Err(why) => why.name(),
        });
        let stack = stuck.opened.as_ref().and_then(|opened| opened.as_deref().ok());
        Self {
            seq,
            time: Time(stuck.time_ns),
            stamp,
            conn: stuck.conn.id.to_string().into(),
            socket,
            age_at_least: stuck.age.at_least,
            age_ns: Some(stuck.age.ns),
            times: stuck.times,
            found: found.map(|(examined, _)| Found::new(examined, &bounds::STREAM, &mut cuts)),
            explained: found.map(|(_, diagnosis)| Explained::new(diagnosis, &mut cuts)),
            opened: stack.map(|stack| Opened::new(stack, &mut cuts)),
            opening: opening.map(Text::from),
            truncated: cuts.parts(),
        }
    }
}

/// What `opening` says where the call path is known.
pub(super) const SEEN: &str = "seen";

impl<'a> Resolved<'a> {
    fn of(seq: u64, resolved: &'a model::Resolved, stamp: Stamp<'a>) -> Self {
        let mut cuts = Cuts::default();
        let socket = Socket::of(resolved.state, &resolved.conn, None, &mut cuts);
        let (to, to_number) = state(resolved.to);
        Self {
            seq,
            time: Time(resolved.time_ns),
            stamp,
            conn: resolved.conn.id.to_string().into(),
            to,
            to_number,
            socket,
            truncated: cuts.parts(),
            age_at_least: resolved.age.at_least,
            age_ns: Some(resolved.age.ns),
        }
    }
}

impl<'a> Lost<'a> {
    fn of(seq: u64, lost: &'a model::Lost, stamp: Stamp<'a>) -> Self {
        Self {
            seq,
            time: Time(lost.time_ns),
            stamp,
            since: lost.since_ns.map(Time),
            count: Some(lost.count),
            in_doubt: lost.in_doubt,
            place: lost.place.name().into(),
        }
    }
}

impl<'a> Stop<'a> {
    fn of(seq: u64, stop: &'a model::Stop, stamp: Stamp<'a>) -> Self {
        Self {
            seq,
            time: Time(stop.time_ns),
            stamp,
            illegal: stop.illegal,
            lost: stop.lost.iter().map(|(place, count)| (place.name().into(), *count)).collect(),
            reason: stop.reason.into(),
            transitions: Some(stop.transitions),
        }
    }
}
