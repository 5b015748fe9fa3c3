//! Whether those who have a connection open have inherited it without being meant to. A server may hand connections to another program
//! on purpose, so this is never certain; what speaks for it is in docs/stuck.md.

use crate::model::{Holder, Process, SocketReport, State};

/// The clocks of processes and of sockets advance in ticks of up to 10 ms.
const MARGIN_NS: u64 = 50_000_000;
/// Descriptors up to this one are given to a program on purpose.
const LAST_STANDARD: u32 = 2;

/// Whether the holders look as if they may have inherited it, before it is known if their descriptors can be inherited.
#[must_use]
pub fn is_suspect(found: &SocketReport) -> bool {
    found.socket.state == State::CloseWait
        && all(found, |holder| is_stranger(found, holder) || is_other(found, holder))
}

/// Whether the holders have inherited the connection, by the processes that opened or accepted it, or by the time of their start.
pub(super) fn is_inherited(found: &SocketReport) -> bool {
    all(found, |holder| is_stranger(found, holder) && holder.close_on_exec == Some(false))
}

/// Whether it is not known if the holders have inherited the connection.
pub(super) fn is_unsure(found: &SocketReport) -> bool {
    all(found, |holder| is_other(found, holder) && holder.close_on_exec == Some(false))
}

/// The processes that have opened or accepted the connection, as far as they are known.
pub(super) fn openers(found: &SocketReport) -> impl Iterator<Item = &Process> {
    found.listening().chain(&found.opener).map(|process| &**process)
}

/// Whether the process was started when the connection existed already.
pub(super) fn is_younger(found: &SocketReport, process: &Process) -> bool {
    let times = found.socket.times.unwrap_or_default();
    // Each counts from the handshake at the earliest.
    let connected_ns = times.since_data_sent_ns.max(times.since_data_received_ns).max(times.since_ack_ns);
    process.age_ns.is_some_and(|age_ns| age_ns.saturating_add(MARGIN_NS) < connected_ns)
}

fn all(found: &SocketReport, is_one: impl Fn(&Holder) -> bool) -> bool {
    let may_be = |holder: &Holder| holder.fd().is_some_and(|fd| fd > LAST_STANDARD);
    !found.holders.is_empty() && found.holders.iter().all(|holder| may_be(holder) && is_one(holder))
}

/// Whether the holder runs another program than every process that may have opened or accepted the connection. If no such process is
/// known: whether the holder was started later, by another program.
fn is_stranger(found: &SocketReport, holder: &Holder) -> bool {
    let process = &holder.process;
    let mut openers = openers(found).peekable();
    if openers.peek().is_none() {
        return is_other(found, holder) && is_younger(found, process);
    }
    // A child that runs the same program may be a worker, and one in another unit was started by the service manager for it.
    openers.all(|opener| {
        opener.pid != process.pid
            && differs(&process.exe, &opener.exe)
            && !differs(&process.unit, &opener.unit)
    })
}

/// Whether no process is known to have opened or accepted the connection, and the holder runs another program than its parent: the holder
/// may have opened the connection itself.
fn is_other(found: &SocketReport, holder: &Holder) -> bool {
    openers(found).next().is_none() && differs(&holder.process.exe, &holder.process.parent_exe)
}

fn differs(one: &Option<String>, other: &Option<String>) -> bool {
    one.is_some() && other.is_some() && one != other
}
