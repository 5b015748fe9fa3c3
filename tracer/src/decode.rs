//! Decodes records of the ring and of the iterators into [`Event`]s. No unsafe, and no panic for any input.

use std::{mem::offset_of, rc::Rc};

use sockstate_abi::abi::{
    AF_INET, AF_INET6, Counters, Head, PYTHON_FRAMES, closed, end, flag, kind, opened, process, sent,
};
use thiserror::Error;

use crate::model::{
    Address, ClosedAs, Event, EventKind, KernelSocket, MiniEnd, MiniEndHow, OpenedBy, Opening, PythonFrame,
    PythonStack, Registers, State, Task, Traffic, Tuple,
};

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The record is shorter than its flags say.
    #[error("record of {len} bytes is too short for its {part}")]
    Short {
        len: usize,
        /// The part that is cut.
        part: &'static str,
    },
    #[error("unknown kind of record {0}")]
    Kind(u8),
    #[error("unknown address family {0}")]
    Family(u16),
    #[error("unknown end of a mini-socket {0}")]
    End(u32),
    #[error("unknown call that opens a connection {0}")]
    Call(u8),
    #[error("unknown change of a process {0}")]
    Process(u8),
    #[error("record of kind {0} has no task")]
    NoTask(u8),
}

/// Reads fields one after another.
struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    fn take<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Short { len: self.len, part });
        };
        self.rest = rest;
        Ok(*head)
    }

    fn u64(&mut self, part: &'static str) -> Result<u64, DecodeError> {
        self.take(part).map(u64::from_ne_bytes)
    }

    fn opening(&mut self, call: u8, task: Task, len: u32) -> Result<Opening, DecodeError> {
        let by = match call {
            opened::CONNECT => OpenedBy::Connect,
            opened::ACCEPT => OpenedBy::Accept,
            other => return Err(DecodeError::Call(other)),
        };
        let [pc, sp, fp, lr] =
            [self.u64("registers")?, self.u64("registers")?, self.u64("registers")?, self.u64("registers")?];
        let python = self.python()?;
        let stack =
            self.rest.get(..len as usize).ok_or(DecodeError::Short { len: self.len, part: "stack" })?;
        Ok(Opening { by, task, registers: Registers { pc, sp, fp, lr }, python, stack: stack.to_vec() })
    }

    fn python(&mut self) -> Result<PythonStack, DecodeError> {
        const PART: &str = "Python frames";
        let (runtime, last_loop) = (self.u64(PART)?, self.u64(PART)?);
        let count = u32::from_ne_bytes(self.take(PART)?) as usize;
        let complete = u32::from_ne_bytes(self.take(PART)?) != 0;
        let mut frames = Vec::new();
        for index in 0..PYTHON_FRAMES {
            let [code, instruction, qualname] = [self.u64(PART)?, self.u64(PART)?, self.u64(PART)?];
            if index < count {
                frames.push(match (code, instruction) {
                    (0, 0) => PythonFrame::Interpreter,
                    (0, address) => PythonFrame::Loop(address),
                    _ => PythonFrame::Function { code, instruction, qualname },
                });
            }
        }
        if last_loop != 0 {
            frames.push(PythonFrame::Loop(last_loop));
        }
        Ok(PythonStack { runtime, frames, complete })
    }

    fn u32(&mut self, part: &'static str) -> Result<u32, DecodeError> {
        self.take(part).map(u32::from_ne_bytes)
    }

    fn counters(&mut self) -> Result<Counters, DecodeError> {
        const PART: &str = "counters";
        Ok(Counters {
            bytes_sent: self.u64(PART)?,
            bytes_retrans: self.u64(PART)?,
            bytes_received: self.u64(PART)?,
            segs_out: self.u32(PART)?,
            segs_in: self.u32(PART)?,
            total_retrans: self.u32(PART)?,
            srtt_us: self.u32(PART)?,
            rtt_min_us: self.u32(PART)?,
            unread: self.u32(PART)?,
        })
    }

    fn task(&mut self) -> Result<Task, DecodeError> {
        Ok(Task {
            pid: u32::from_ne_bytes(self.take("task")?),
            exec_id: u32::from_ne_bytes(self.take("task")?),
            start_ns: self.u64("task")?,
            comm: self.take("task")?,
        })
    }
}

/// Whether `extra` of this kind of record is the interface that the socket is bound to.
fn tells_interface(kind: u8, new: State) -> bool {
    match kind {
        kind::TRANSITION => new != State::Close,
        kind::PORT | kind::SOCKET | kind::MINI | kind::COOKIE => true,
        _ => false,
    }
}

/// Whether a process has ended; otherwise it has executed another program or changed its name.
fn has_ended(what: u8) -> Result<bool, DecodeError> {
    match what {
        process::RENEWED => Ok(false),
        process::ENDED => Ok(true),
        other => Err(DecodeError::Process(other)),
    }
}

/// The addresses of both ends.
#[inline]
fn addresses(reader: &mut Reader<'_>, flags: u8) -> Result<(Address, Address), DecodeError> {
    if flags & flag::V6 != 0 {
        let read = |reader: &mut Reader<'_>| reader.take::<16>("addresses").map(Address::from_v6);
        Ok((read(reader)?, read(reader)?))
    } else {
        let read = |reader: &mut Reader<'_>| reader.take::<4>("addresses").map(Address::from_v4);
        Ok((read(reader)?, read(reader)?))
    }
}

/// Decodes one record. Bytes after the record are ignored, because the ring pads records.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    // One length check for the whole head.
    let Some((head, rest)) = bytes.split_first_chunk::<{ size_of::<Head>() }>() else {
        return Err(DecodeError::Short { len: bytes.len(), part: "head" });
    };
    let mut reader = Reader { rest, len: bytes.len() };
    let u64_at = |at: usize| {
        let b = &head[at..at + 8];
        u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    };
    let u32_at = |at: usize| {
        let b = &head[at..at + 4];
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
    };
    let u16_at = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    let (time_ns, sk) = (u64_at(offset_of!(Head, time_ns)), u64_at(offset_of!(Head, sk)));
    let (cgroup, netns) = (u64_at(offset_of!(Head, cgroup)), u32_at(offset_of!(Head, netns)));
    let (uid, extra) = (u32_at(offset_of!(Head, uid)), u32_at(offset_of!(Head, extra)));
    let (kind, flags) = (head[offset_of!(Head, kind)], head[offset_of!(Head, flags)]);
    let old = State::from_number(head[offset_of!(Head, old)]);
    let new = State::from_number(head[offset_of!(Head, new)]);
    let (family, error) = (u16_at(offset_of!(Head, family)), u16_at(offset_of!(Head, error)));
    let local_port = u16_at(offset_of!(Head, local_port));
    let remote_port = u16_at(offset_of!(Head, remote_port));
    if family != AF_INET && family != AF_INET6 {
        return Err(DecodeError::Family(family));
    }
    let (local, remote) = addresses(&mut reader, flags)?;
    let task = if flags & flag::TASK != 0 { Some(reader.task()?) } else { None };
    // Without a pid the kernel did not act in a process's own call.
    let task = task.filter(|task| task.pid != 0);
    let listener = if flags & flag::LISTENER != 0 { reader.u64("listener")? } else { 0 };
    let counters = if flags & flag::COUNTERS != 0 { Some(reader.counters()?) } else { None };
    let known = flags & flag::BARE == 0;
    let interface = if tells_interface(kind, new) && known { extra } else { 0 };
    let linked = (listener != 0).then_some(KernelSocket(listener));
    let kind = match kind {
        kind::TRANSITION => EventKind::Transition {
            from: old,
            to: new,
            task,
            listener: linked,
            maybe_copy: flags & flag::COMPANION != 0,
            closed_as: (known && new == State::Close).then(|| closed_as(extra, local_port)),
            traffic: counters.map(|counters| Rc::new(traffic(counters, extra & closed::FIN_RECEIVED != 0))),
        },
        kind::MINI => EventKind::Mini { state: new, from: linked, again: flags & flag::AGAIN != 0 },
        kind::MINI_END => EventKind::MiniEnd(mini_end(extra)?),
        kind::COOKIE => EventKind::Cookie,
        kind::RESET_RECEIVED => EventKind::ResetReceived(new),
        kind::RESET_SENT => EventKind::ResetSent {
            state: new,
            reason: (extra & sent::HAS_REASON != 0).then_some((extra & sent::REASON) as u16),
            linger_0: extra & sent::LINGER_0 != 0,
        },
        kind::PORT => EventKind::PortKnown,
        kind::SOCKET => EventKind::Socket { state: new, mini: flags & flag::MINI != 0 },
        kind::FILE => {
            let task = task.ok_or(DecodeError::NoTask(kind))?;
            EventKind::Held { state: new, task, fd: extra }
        }
        kind::OF_KERNEL => EventKind::OfKernel { inode: extra.into() },
        kind::PROCESS => {
            let task = task.ok_or(DecodeError::NoTask(kind))?;
            EventKind::Process { task, ended: has_ended(head[offset_of!(Head, new)])? }
        }
        kind::RESET => EventKind::Reset { flags: extra as u8 },
        kind::OPENED => {
            let task = task.ok_or(DecodeError::NoTask(kind))?;
            EventKind::Opened(Box::new(reader.opening(head[offset_of!(Head, new)], task, extra)?))
        }
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Event {
        time_ns,
        sk,
        cgroup: (cgroup != 0).then_some(cgroup),
        netns: (netns != 0).then_some(netns),
        uid: (known && flags & flag::MINI == 0).then_some(uid),
        error: if known { error } else { 0 },
        tuple: Tuple { local, remote, local_port, remote_port, v6_socket: family == AF_INET6, interface },
        kind,
    })
}

/// `fin_received`: the counters of received bytes include a FIN.
fn traffic(counters: Counters, fin_received: bool) -> Traffic {
    let fin = u32::from(fin_received);
    let received = counters.bytes_received.saturating_sub(fin.into());
    let unread = u64::from(counters.unread.saturating_sub(fin));
    let ns = |us: u32| u64::from(us) * 1000;
    Traffic {
        bytes_sent: counters.bytes_sent.saturating_sub(counters.bytes_retrans),
        bytes_received: received,
        unread_bytes: unread.min(received),
        segments_sent: counters.segs_out,
        segments_received: counters.segs_in,
        retransmits: counters.total_retrans,
        rtt_smoothed_ns: (counters.srtt_us != 0).then(|| ns(counters.srtt_us) / 8),
        rtt_min_ns: (counters.rtt_min_us != u32::MAX).then(|| ns(counters.rtt_min_us)),
    }
}

fn closed_as(bits: u32, local_port: u16) -> ClosedAs {
    ClosedAs {
        orphan: bits & closed::ORPHAN != 0,
        fin_received: bits & closed::FIN_RECEIVED != 0,
        no_linger2: bits & closed::NO_LINGER2 != 0,
        retransmitted: bits & closed::RETRANSMITTED != 0,
        receive_shut: bits & closed::RECEIVE_SHUT != 0,
        send_shut: bits & closed::SEND_SHUT != 0,
        unacked: bits & closed::UNACKED != 0,
        unsent: bits & closed::UNSENT != 0,
        in_flight: bits & closed::IN_FLIGHT != 0,
        connecting: bits & closed::CONNECTING != 0,
        nothing_sent: bits & closed::NOTHING_SENT != 0,
        probed: bits & closed::PROBED != 0,
        no_window: bits & closed::NO_WINDOW != 0,
        no_local_port: local_port == 0,
    }
}

fn mini_end(extra: u32) -> Result<MiniEnd, DecodeError> {
    let how = match extra & 0xff {
        end::STOPPED => MiniEndHow::Stopped,
        end::EXPIRED => MiniEndHow::Expired,
        end::KILLED => MiniEndHow::Killed,
        other => return Err(DecodeError::End(other)),
    };
    Ok(MiniEnd {
        how,
        netns_gone: extra & end::NETNS_GONE != 0,
        reused: extra & end::REUSED != 0,
        listener_gone: extra & end::LISTENER_GONE != 0,
    })
}
