//! NDJSON, schema `sockstate/1` (docs/events.md). Written by hand for speed; what repeats is kept ready:
//! the two ends of a connection, and everything about its owner.

use std::{io::Write, net::IpAddr};

use serde_json::json;

use super::{Format, community_id::community_id, errno, time::Times};
use crate::model::{
    Cause, Lost, Notice, Resync, Role, Snapshot, Start, State, Stop, Subject, Transition, Tuple,
};

/// Remembered pieces of text, by number; a newer one takes an older one's place.
struct Pieces {
    slots: Vec<(u64, Vec<u8>)>,
}

impl Pieces {
    fn new(slots: usize) -> Self {
        Self { slots: vec![(u64::MAX, Vec::new()); slots] }
    }

    fn get(&mut self, id: u64, make: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let slot = id as usize % self.slots.len();
        let (owner, text) = &mut self.slots[slot];
        if *owner != id {
            *owner = id;
            text.clear();
            make(text);
        }
        text
    }
}

/// The format.
pub struct Json {
    times: Times,
    ends: Pieces,
    subjects: Pieces,
    pairs: Pieces,
    scratch: Vec<u8>,
}

impl Default for Json {
    fn default() -> Self {
        Self {
            times: Times::rfc3339(),
            ends: Pieces::new(256),
            subjects: Pieces::new(64),
            pairs: Pieces::new(4096),
            scratch: Vec::new(),
        }
    }
}

impl Format for Json {
    fn header(&mut self, _: &mut Vec<u8>) {}

    fn transition(&mut self, seq: u64, it: &Transition, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"transition","seq":"#, seq, it.time_ns, out);
        out.extend_from_slice(br#","conn":""#);
        hex(it.conn.0, out);
        let pair = u64::from(it.from.number()) << 8 | u64::from(it.to.number());
        out.extend_from_slice(self.pairs.get(pair, |out| states(it.from, it.to, out)));
        match it.in_state {
            Some(in_state) => {
                number(in_state.ns, out);
                if in_state.at_least {
                    out.extend_from_slice(br#","in_state_at_least":true"#);
                }
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","role":"#);
        out.extend_from_slice(match it.role {
            Some(Role::Client) => br#""client""#,
            Some(Role::Server) => br#""server""#,
            Some(Role::Listener) => br#""listener""#,
            None => b"null",
        });
        if it.tuple.is_complete() {
            out.extend_from_slice(self.ends.get(it.conn.0, |out| ends(&it.tuple, out)));
        } else {
            ends(&it.tuple, out);
        }
        out.extend_from_slice(self.subjects.get(it.subject.id, |out| subject(&it.subject, out)));
        out.extend_from_slice(if it.exact { br#","exact":true"# } else { br#","exact":false"# });
        // What most have not is absent.
        if it.mini {
            out.extend_from_slice(br#","mini":true"#);
        }
        text("cause", it.cause.map(Cause::name), out);
        text("reset_why", it.reset_why, out);
        if it.errno != 0 {
            error(it.errno, out);
        }
        out.extend_from_slice(b"}\n");
    }

    fn notice(&mut self, seq: u64, notice: &Notice, out: &mut Vec<u8>) {
        match notice {
            Notice::Snapshot(snapshot) => self.snapshot(seq, snapshot, out),
            Notice::Resync(resync) => self.resync(seq, resync, out),
            Notice::Lost(lost) => self.lost(seq, lost, out),
            Notice::Start(start) => self.start(seq, start, out),
            Notice::Stop(stop) => self.stop(seq, stop, out),
        }
        out.extend_from_slice(b"}\n");
    }
}

impl Json {
    /// `start` is everything before the number.
    fn head(&mut self, start: &[u8], seq: u64, time_ns: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(start);
        number(seq, out);
        out.extend_from_slice(br#","time":""#);
        self.times.write(time_ns, 9, out);
        out.extend_from_slice(br#"Z""#);
    }

    fn snapshot(&mut self, seq: u64, it: &Snapshot, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"snapshot","seq":"#, seq, it.time_ns, out);
        out.extend_from_slice(br#","conn":""#);
        hex(it.conn.0, out);
        out.extend_from_slice(br#"","state":""#);
        socket(it.state, it.role, &it.tuple, &it.subject, it.mini, out);
    }

    fn resync(&mut self, seq: u64, it: &Resync, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"resync","seq":"#, seq, it.time_ns, out);
        out.extend_from_slice(br#","conn":""#);
        hex(it.conn.0, out);
        match it.was {
            Some(was) => {
                out.extend_from_slice(br#"","was":""#);
                state(was, "was", out);
            }
            None => out.extend_from_slice(br#"","was":null"#),
        }
        out.extend_from_slice(br#","state":""#);
        socket(it.state, it.role, &it.tuple, &it.subject, it.mini, out);
    }

    fn lost(&mut self, seq: u64, it: &Lost, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"lost","seq":"#, seq, it.time_ns, out);
        out.extend_from_slice(br#","count":"#);
        number(it.count, out);
        text_or_null("place", Some(it.place.name()), out);
    }

    fn start(&mut self, seq: u64, it: &Start, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"start","seq":"#, seq, it.time_ns, out);
        self.rest(
            json!({
                "version": it.version,
                "instance": format!("{:06x}", it.instance),
                "host": {"name": it.host, "kernel": it.kernel},
                "hook": it.hook,
                "tier": it.tier,
                "degraded": it.degraded,
            }),
            out,
        );
    }

    fn stop(&mut self, seq: u64, it: &Stop, out: &mut Vec<u8>) {
        self.head(br#"{"schema":"sockstate/1","kind":"stop","seq":"#, seq, it.time_ns, out);
        let lost: serde_json::Map<_, _> =
            it.lost.iter().map(|(place, count)| (place.name().to_owned(), json!(count))).collect();
        self.rest(
            json!({"reason": it.reason, "transitions": it.transitions, "lost": lost, "illegal": it.illegal}),
            out,
        );
    }

    /// The members of an object, behind those already written.
    fn rest(&mut self, object: serde_json::Value, out: &mut Vec<u8>) {
        self.scratch.clear();
        // Writing a value of ours to a vector does not fail.
        let _ = serde_json::to_writer(&mut self.scratch, &object);
        let members = self.scratch.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}"));
        out.push(b',');
        out.extend_from_slice(members.unwrap_or_default());
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn hex(value: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (at, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[(value >> (60 - at * 4) & 15) as usize];
    }
    out.extend_from_slice(&text);
}

/// Both states, and the key of what follows them.
fn states(from: State, to: State, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"","from":""#);
    state(from, "from", out);
    out.extend_from_slice(br#","to":""#);
    state(to, "to", out);
    out.extend_from_slice(br#","in_state_ns":"#);
}

/// A socket as it is, from its state on.
fn socket(is: State, role: Option<Role>, tuple: &Tuple, whose: &Subject, mini: bool, out: &mut Vec<u8>) {
    state(is, "state", out);
    text_or_null("role", role.map(Role::name), out);
    ends(tuple, out);
    subject(whose, out);
    if mini {
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

fn ends(tuple: &Tuple, out: &mut Vec<u8>) {
    out.extend_from_slice(if tuple.is_v4() {
        br#","network":{"type":"ipv4","community_id":"#
    } else {
        br#","network":{"type":"ipv6","community_id":"#
    });
    if tuple.is_complete() {
        out.push(b'"');
        community_id(tuple, out);
        out.push(b'"');
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(br#"},"local":{"address":""#);
    end(tuple.local.canonical(), tuple.local_port, out);
    out.extend_from_slice(br#","remote":{"address":""#);
    end(tuple.remote.canonical(), tuple.remote_port, out);
}

/// Address and port, and the end of the object.
fn end(address: IpAddr, port: u16, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                number(octet.into(), out);
            }
        }
        // Writing to a vector does not fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
    out.extend_from_slice(br#"","port":"#);
    if port == 0 {
        out.extend_from_slice(b"null");
    } else {
        number(port.into(), out);
    }
    out.push(b'}');
}

fn subject(it: &Subject, out: &mut Vec<u8>) {
    let owner = it.owner.as_ref().map(|owner| {
        let mut value = json!({
            "pid": owner.pid(),
            "comm": owner.comm,
            "exe": owner.exe,
            "uid": owner.uid,
            "source": owner.source.name(),
        });
        if let Some(cmdline) = &owner.cmdline {
            value["cmdline"] = json!(cmdline);
        }
        value
    });
    let cgroup = it.cgroup.as_ref().map(|it| json!({"id": it.id.to_string(), "path": it.path}));
    let container = it.container.as_ref().map(|it| json!({"id": it.id, "runtime": it.runtime}));
    let pod = it.pod_uid.as_ref().map(|uid| json!({"uid": uid}));
    // Null for what could be known of every socket; absent what most have not.
    for (key, value) in [("owner", json!(owner)), ("netns", json!(it.netns)), ("cgroup", json!(cgroup))] {
        let _ = write!(out, ",\"{key}\":{value}");
    }
    for (key, value) in
        [("container", container), ("pod", pod), ("unit", it.unit.as_ref().map(|unit| json!(unit)))]
    {
        if let Some(value) = value {
            let _ = write!(out, ",\"{key}\":{value}");
        }
    }
}
