//! NDJSON, schema `sockstate/1` (docs/events.md). Written by hand for speed; what repeats is kept ready:
//! the two ends of a connection, and everything about its owner.

use std::{collections::BTreeMap, io::Write, net::IpAddr};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Format,
    community_id::community_id,
    cuts::Cuts,
    errno,
    line::{Line, Piece, append, hex},
    seen::{Explained, Place, Seen},
    time::Times,
};
use crate::model::{
    Aggregate, Cause, ConnId, Connection, Dwell, Frame, Lost, Record, Resolved, Resync, Role, Snapshot,
    Stack, Start, State, Stop, Stuck, Subject, Transition, Tuple, bounds,
};

/// Texts that were written before, each in the slot of its number; a newer text takes an older one's slot.
struct TextCache<K> {
    slots: Vec<(Option<K>, Vec<u8>)>,
}

impl<K: Copy + Eq> TextCache<K> {
    fn new(slots: usize) -> Self {
        Self { slots: vec![(None, Vec::new()); slots] }
    }

    /// The text of `key`. `make` makes it of the key alone, so that no text can depend on what its key lacks.
    fn get(&mut self, number: u64, key: K, make: impl FnOnce(K, &mut Vec<u8>)) -> &[u8] {
        let slot = number as usize % self.slots.len();
        let (owner, text) = &mut self.slots[slot];
        if *owner != Some(key) {
            *owner = Some(key);
            text.clear();
            make(key, text);
        }
        text
    }
}

/// All that the end of a transition's line depends on, from `exact` on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Closing {
    exact: bool,
    mini: bool,
    illegal: bool,
    cause: Option<Cause>,
    reset_why: Option<&'static str>,
    errno: u16,
}

impl Closing {
    fn of(transition: &Transition) -> Self {
        let Transition { exact, illegal, cause, reset_why, errno, .. } = *transition;
        Self { exact, mini: transition.conn.mini, illegal, cause, reset_why, errno }
    }

    /// The slot of its text: most of those that are frequent have different slots.
    fn number(self) -> u64 {
        let cause = self.cause.map_or(0, |cause| 1 + cause as u64);
        u64::from(self.errno) << 8
            | u64::from(self.illegal) << 7
            | cause << 2
            | u64::from(self.exact) << 1
            | u64::from(self.mini)
    }

    /// What most transitions do not have is absent.
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.exact { br#","exact":true"# } else { br#","exact":false"# });
        if self.mini {
            out.extend_from_slice(br#","mini":true"#);
        }
        if self.illegal {
            out.extend_from_slice(br#","illegal":true"#);
        }
        text("cause", self.cause.map(Cause::name), out);
        text("reset_why", self.reset_why, out);
        if self.errno != 0 {
            error(self.errno, out);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// What tells the records of one host and run from those of others, where they come together.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Host name.
    pub host: &'a str,
    /// The stream's.
    pub instance: u32,
    /// Whatever the user wants to find in each.
    pub labels: &'a BTreeMap<String, String>,
}

/// The format.
pub struct Json {
    times: Times,
    /// Both states, and the key of what follows them, by the states.
    pairs: Vec<Option<Piece<112>>>,
    roles: [Piece<32>; 4],
    /// Both ends and the subject, by the connection and the subject's number.
    tails: TextCache<(u64, u64)>,
    /// By the subject's number.
    subjects: TextCache<u64>,
    closings: TextCache<Closing>,
    /// Members of every record; empty where none were asked for.
    stamp: Vec<u8>,
    /// Those of them that a `start` has not anyway.
    labels: Vec<u8>,
}

impl Default for Json {
    fn default() -> Self {
        let role = |role: Option<Role>| {
            let mut text = Vec::new();
            text_or_null("role", role.map(Role::name), &mut text);
            Piece::new(&text)
        };
        Self {
            times: Times::rfc3339(),
            pairs: vec![None; 1 << 10],
            roles: [
                role(None),
                role(Some(Role::Client)),
                role(Some(Role::Server)),
                role(Some(Role::Listener)),
            ],
            tails: TextCache::new(256),
            subjects: TextCache::new(64),
            closings: TextCache::new(256),
            stamp: Vec::new(),
            labels: Vec::new(),
        }
    }
}

impl Format for Json {
    fn header(&mut self, _: &mut Vec<u8>) {}

    fn record(&mut self, seq: u64, record: &Record, out: &mut Vec<u8>) {
        match record {
            // Has its end, too.
            Record::Transition(transition) => return self.transition(seq, transition, out),
            Record::Snapshot(snapshot) => self.snapshot(seq, snapshot, out),
            Record::Resync(resync) => self.resync(seq, resync, out),
            Record::Stuck(stuck) => self.stuck(seq, stuck, out),
            Record::Resolved(resolved) => self.resolved(seq, resolved, out),
            Record::Aggregate(aggregate) => self.aggregate(seq, aggregate, out),
            Record::Lost(lost) => self.lost(seq, lost, out),
            Record::Start(start) => self.start(seq, start, out),
            Record::Stop(stop) => self.stop(seq, stop, out),
        }
        out.extend_from_slice(b"}\n");
    }
}

impl Json {
    fn transition(&mut self, seq: u64, it: &Transition, out: &mut Vec<u8>) {
        append(out, |line| {
            line.text(br#"{"schema":"sockstate/1","kind":"transition","seq":"#);
            line.number(seq);
            line.text(br#","time":""#);
            self.times.nanoseconds(it.time_ns, line);
            line.text(br#"Z","conn":""#);
            line.text(&hex(it.conn.id.0));
            let pair = usize::from(it.from.number()) << 5 | usize::from(it.to.number());
            match self.pairs.get_mut(pair) {
                Some(known) => line.piece(known.get_or_insert_with(|| states(it.from, it.to))),
                None => line.piece(&states(it.from, it.to)),
            }
            match it.in_state {
                Some(in_state) => {
                    line.number(in_state.ns);
                    if in_state.at_least {
                        line.text(br#","in_state_at_least":true"#);
                    }
                }
                None => line.text(b"null"),
            }
            line.piece(&self.roles[it.conn.role.map_or(0, |role| 1 + role as usize)]);
        });
        out.extend_from_slice(&self.stamp);
        let (conn, subjects) = (&it.conn, &mut self.subjects);
        let of_subject = conn.subject.id;
        let mut subject_text = |out: &mut Vec<u8>| {
            out.extend_from_slice(subjects.get(of_subject, of_subject, |_, out| subject(&conn.subject, out)));
        };
        if conn.tuple.is_complete() {
            let key = (conn.id.0, of_subject);
            out.extend_from_slice(self.tails.get(conn.id.0, key, |_, out| {
                ends(&conn.tuple, None, out);
                subject_text(out);
            }));
        } else {
            ends(&conn.tuple, None, out);
            subject_text(out);
        }
        let closing = Closing::of(it);
        out.extend_from_slice(self.closings.get(closing.number(), closing, Closing::write));
    }

    /// With these members in every record.
    #[must_use]
    pub fn stamped(it: &Stamp<'_>) -> Self {
        let (mut stamp, mut labels) = (Vec::new(), Vec::new());
        if !it.labels.is_empty() {
            members(&json!({"labels": it.labels}), &mut labels);
        }
        let instance = format!("{:06x}", it.instance);
        members(&json!({"host": {"name": it.host}, "instance": instance}), &mut stamp);
        stamp.extend_from_slice(&labels);
        Self { stamp, labels, ..Self::default() }
    }

    /// `start` is everything before the number.
    fn head(&mut self, start: &[u8], seq: u64, time_ns: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(start);
        number(seq, out);
        out.extend_from_slice(br#","time":""#);
        self.times.write(time_ns, 9, out);
        out.extend_from_slice(br#"Z""#);
        out.extend_from_slice(if start.ends_with(br#""start","seq":"#) { &self.labels } else { &self.stamp });
    }

    fn snapshot(&mut self, seq: u64, it: &Snapshot, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"snapshot","seq":"#, seq, it.time_ns, out);
        conn(it.conn.id, out);
        out.extend_from_slice(br#"","state":""#);
        socket(it.state, &it.conn, out);
    }

    fn resync(&mut self, seq: u64, it: &Resync, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"resync","seq":"#, seq, it.time_ns, out);
        conn(it.conn.id, out);
        match it.was {
            Some(was) => {
                out.extend_from_slice(br#"","was":""#);
                state(was, "was", out);
            }
            None => out.extend_from_slice(br#"","was":null"#),
        }
        out.extend_from_slice(br#","state":""#);
        socket(it.state, &it.conn, out);
    }

    fn stuck(&mut self, seq: u64, it: &Stuck, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"stuck","seq":"#, seq, it.time_ns, out);
        conn(it.conn.id, out);
        out.extend_from_slice(br#"","state":""#);
        let interface = it.found.as_ref().and_then(|found| found.0.socket.interface.as_deref());
        let mut cuts = Cuts::of(it.found.as_ref().map_or(&[], |found| &found.0.cut));
        described(it.state, &it.conn, interface, &mut cuts, out);
        members(&json!({"age_ns": it.age.ns, "age_at_least": it.age.at_least, "times": it.times}), out);
        if let Some(found) = &it.found {
            members(&Seen::new(&found.0, &bounds::STREAM, &mut cuts), out);
            members(&Explained::new(&found.1, &mut cuts), out);
        }
        match &it.opened {
            Some(Ok(stack)) => members(&json!({"opened": opened(stack, &mut cuts), "opening": "seen"}), out),
            Some(Err(why)) => members(&json!({"opening": why.name()}), out),
            None => {}
        }
        truncated(&cuts, out);
    }

    fn resolved(&mut self, seq: u64, it: &Resolved, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"resolved","seq":"#, seq, it.time_ns, out);
        conn(it.conn.id, out);
        out.extend_from_slice(br#"","to":""#);
        state(it.to, "to", out);
        out.extend_from_slice(br#","state":""#);
        socket(it.state, &it.conn, out);
        members(&json!({"age_ns": it.age.ns, "age_at_least": it.age.at_least}), out);
    }

    fn aggregate(&mut self, seq: u64, it: &Aggregate, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"aggregate","seq":"#, seq, it.time_ns, out);
        out.extend_from_slice(br#","from":""#);
        state(it.from, "from", out);
        out.extend_from_slice(br#","to":""#);
        state(it.to, "to", out);
        let buckets: Vec<_> = Dwell::ENDS_S
            .iter()
            .zip(&it.dwell.counts)
            // The last has no end.
            .map(|(end, count)| json!({"le_ns": end.is_finite().then_some(end * 1e9).map(|ns| ns as u64), "count": count}))
            .collect();
        let mut cuts = Cuts::default();
        let mut name = |field, text: &str| cuts.text(field, text, bounds::NAME).to_owned();
        let (unit, container) = (it.unit.as_deref(), it.container.as_deref());
        let unit = unit.map(|unit| name("unit", unit));
        let container = container.map(|id| name("container.id", id));
        members(
            &json!({
                "window_ns": it.window_ns,
                "count": it.count,
                "role": it.role.map(Role::name),
                "comm": it.comm,
                "port": (it.port != 0).then_some(it.port),
                "peer": it.peer.map(|peer| json!({"address": peer.canonical()})),
                "in_state": {"sum_ns": it.dwell.sum_ns, "buckets": buckets},
            }),
            out,
        );
        if let Some(unit) = unit {
            members(&json!({"unit": unit}), out);
        }
        if let Some(container) = container {
            members(&json!({"container": {"id": container}}), out);
        }
        if it.other {
            out.extend_from_slice(br#","other":true"#);
        }
        truncated(&cuts, out);
    }

    fn lost(&mut self, seq: u64, it: &Lost, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"lost","seq":"#, seq, it.time_ns, out);
        match it.since_ns {
            Some(since_ns) => {
                out.extend_from_slice(br#","since":""#);
                self.times.write(since_ns, 9, out);
                out.extend_from_slice(br#"Z""#);
            }
            None => text_or_null("since", None, out),
        }
        out.extend_from_slice(br#","count":"#);
        number(it.count, out);
        if it.in_doubt > 0 {
            out.extend_from_slice(br#","in_doubt":"#);
            number(it.in_doubt, out);
        }
        text_or_null("place", Some(it.place.name()), out);
    }

    fn start(&mut self, seq: u64, it: &Start, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"start","seq":"#, seq, it.time_ns, out);
        members(
            &json!({
                "version": it.version,
                "instance": format!("{:06x}", it.instance),
                "host": {"name": it.host, "kernel": it.kernel},
                "hook": it.hook,
                "tier": it.tier,
                "degraded": it.degraded,
            }),
            out,
        );
        if let Some(adopted) = it.adopted {
            members(&json!({"adopted": {"instance": format!("{adopted:06x}")}}), out);
        }
    }

    fn stop(&mut self, seq: u64, it: &Stop, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"stop","seq":"#, seq, it.time_ns, out);
        let lost: serde_json::Map<_, _> =
            it.lost.iter().map(|(place, count)| (place.name().to_owned(), json!(count))).collect();
        members(
            &json!({"reason": it.reason, "transitions": it.transitions, "lost": lost, "illegal": it.illegal}),
            out,
        );
    }
}

/// The members of an object, behind those already written.
fn members(object: &impl Serialize, out: &mut Vec<u8>) {
    let before = out.len();
    // Writing a value of ours to a vector does not fail.
    let _ = serde_json::to_writer(&mut *out, object);
    // Instead of the braces: a comma, and nothing.
    if let Some(brace) = out.get_mut(before) {
        *brace = b',';
    }
    out.pop();
}

/// What of the record is longer than it is there.
fn truncated(cuts: &Cuts, out: &mut Vec<u8>) {
    if !cuts.is_empty() {
        members(&json!({"truncated": cuts}), out);
    }
}

/// The call path that a connection was opened from.
fn opened(it: &Stack, cuts: &mut Cuts) -> Value {
    let frame = |frame: &Frame, cuts: &mut Cuts| {
        let mut text = |field, text: &Option<String>, most| {
            text.as_deref().map(|text| cuts.text(field, text, most).to_owned())
        };
        let mut members = json!({
            "function": text("opened.frames[].function", &frame.function, bounds::FUNCTION),
            "file": text("opened.frames[].file", &frame.file, bounds::PATH),
            "line": frame.line,
            "module": text("opened.frames[].module", &frame.module, bounds::PATH),
            "offset": frame.offset,
        });
        if let Some(why) = frame.unnamed {
            members["unnamed"] = why.name().into();
        }
        if let Some(interpreter) = &frame.interpreter {
            members["interpreter"] = bounds::shown(interpreter, bounds::NAME).0.into();
        }
        if let Some(language) = frame.language {
            members["language"] = language.into();
        }
        members
    };
    json!({
        "by": it.by.name(),
        "comm": it.comm,
        "path": format!("{:016x}", it.id),
        "complete": it.complete,
        "frames": cuts.list("opened.frames", it.frames.iter(), bounds::FRAMES, frame),
    })
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Without the closing quote.
fn conn(conn: ConnId, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","conn":""#);
    out.extend_from_slice(&hex(conn.0));
}

/// Both states, and the key of what follows them.
fn states(from: State, to: State) -> Piece<112> {
    let mut text = br#"","from":""#.to_vec();
    state(from, "from", &mut text);
    text.extend_from_slice(br#","to":""#);
    state(to, "to", &mut text);
    text.extend_from_slice(br#","in_state_ns":"#);
    Piece::new(&text)
}

/// A socket as it is, from its state on.
fn socket(is: State, conn: &Connection, out: &mut Vec<u8>) {
    let mut cuts = Cuts::default();
    described(is, conn, None, &mut cuts, out);
    truncated(&cuts, out);
}

/// The same, with the name of the interface that the socket is bound to.
fn described(is: State, conn: &Connection, interface: Option<&str>, cuts: &mut Cuts, out: &mut Vec<u8>) {
    state(is, "state", out);
    text_or_null("role", conn.role.map(Role::name), out);
    ends(&conn.tuple, interface, out);
    owner_and_place(&conn.subject, cuts, out);
    if conn.mini {
        out.extend_from_slice(br#","mini":true"#);
    }
}

/// The name and its closing quote; an unknown one keeps its number beside it.
fn state(value: State, key: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(value.name().as_bytes());
    out.push(b'"');
    if let State::Unknown(code) = value {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"_number\":");
        number(code.into(), out);
    }
}

/// A member whose value needs no escaping.
fn text_or_null(key: &str, value: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    match value {
        Some(value) => {
            out.extend_from_slice(b"\":\"");
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"\":null"),
    }
}

/// The same, absent where it is not known.
fn text(key: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if value.is_some() {
        text_or_null(key, value, out);
    }
}

fn error(errno: u16, out: &mut Vec<u8>) {
    match errno::name(errno) {
        Some(name) => text_or_null("errno", Some(name), out),
        None => text_or_null("errno", Some(&format!("E{errno}")), out),
    }
}

/// Both ends, and the interface that the socket is bound to, with its name where that is known.
fn ends(tuple: &Tuple, interface: Option<&str>, out: &mut Vec<u8>) {
    append(out, |line| {
        line.text(br#","network":{"transport":"tcp","type":"ipv"#);
        line.text(if tuple.is_v4() { b"4" } else { b"6" });
        line.text(br#"","community_id":"#);
        if tuple.is_complete() {
            line.text(b"\"");
            line.text(&community_id(tuple));
            line.text(b"\"");
        } else {
            line.text(b"null");
        }
        line.text(br#"},"local":{"address":""#);
        end(tuple.local.canonical(), tuple.local_port, line);
        line.text(br#","remote":{"address":""#);
        end(tuple.remote.canonical(), tuple.remote_port, line);
    });
    if tuple.interface != 0 {
        members(&json!({"interface": {"index": tuple.interface, "name": interface}}), out);
    }
}

/// Address and port, and the end of the object.
fn end(address: IpAddr, port: u16, line: &mut Line<'_>) {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            line.number(a.into());
            for octet in [b, c, d] {
                line.text(b".");
                line.number(octet.into());
            }
        }
        IpAddr::V6(v6) => line.display(v6),
    }
    line.text(br#"","port":"#);
    if port == 0 {
        line.text(b"null");
    } else {
        line.number(port.into());
    }
    line.text(b"}");
}

fn subject(it: &Subject, out: &mut Vec<u8>) {
    let mut cuts = Cuts::default();
    owner_and_place(it, &mut cuts, out);
    truncated(&cuts, out);
}

fn owner_and_place(it: &Subject, cuts: &mut Cuts, out: &mut Vec<u8>) {
    let owner = it.owner.as_ref().map(|owner| {
        let exe = owner.exe.as_deref();
        let mut value = json!({
            "pid": owner.pid(),
            "comm": cuts.text("owner.comm", &owner.comm, bounds::NAME),
            "exe": exe.map(|exe| cuts.text("owner.exe", exe, bounds::PATH)),
            "uid": owner.uid,
            "source": owner.source.name(),
        });
        if let Some(cmdline) = &owner.cmdline {
            value["cmdline"] = cuts.text("owner.cmdline", cmdline, bounds::COMMAND_LINE).into();
        }
        value
    });
    // Writing to a vector does not fail.
    let _ = write!(out, ",\"owner\":{}", json!(owner));
    members(&Place::new(it, cuts), out);
}
