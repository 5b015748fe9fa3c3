//! What ends a socket where `ss -K` does not.

use super::names;
use crate::model::{Destroy, SocketReport, State, Transport};

/// Whether `ss -K` ends the socket, and may be printed.
pub(super) fn can_destroy(found: &SocketReport) -> bool {
    let works = matches!(found.destroy, Destroy::Works | Destroy::NeedsNetAdmin);
    works && !found.socket.is_partial && !is_orphan(found)
}

/// Whether the kernel alone ends the socket. `tcp_abort` before Linux 6.11 (bac76cf89816) takes the timers from an orphan, which then
/// stays for ever.
fn is_orphan(found: &SocketReport) -> bool {
    let socket = &found.socket;
    let is_closed_here =
        matches!(socket.state, State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck);
    is_closed_here && socket.inode == 0 && found.holders.is_empty() && !found.of_kernel
}

/// A part for the end of the advice: the privilege that the printed `ss -K` needs.
pub(super) fn privilege(found: &SocketReport) -> &'static str {
    match found.destroy {
        Destroy::NeedsNetAdmin if can_destroy(found) => "; `ss -K` needs CAP_NET_ADMIN",
        _ => "",
    }
}

/// Why no command ends the socket, and what else does.
pub(super) fn cannot_destroy(found: &SocketReport) -> Option<String> {
    let why = match (found.destroy, found.socket.transport) {
        _ if found.socket.is_partial => "no command gets into its network namespace",
        _ if is_orphan(found) => {
            "`ss -K` is not for a socket that no process holds: Linux before 6.11 would keep it for ever"
        }
        (Destroy::Works | Destroy::NeedsNetAdmin, _) => return None,
        (Destroy::NotSupported, Transport::Tcp) => {
            "`ss -K` does nothing: this kernel is built without CONFIG_INET_DIAG_DESTROY"
        }
        (Destroy::NotSupported, Transport::Mptcp) => {
            "`ss -K` does nothing: the kernel ends no MPTCP socket that way"
        }
        (Destroy::Unknown, _) => "whether `ss -K` works is not known",
    };
    Some(format!("{why}; {}", other_way(found)))
}

fn other_way(found: &SocketReport) -> String {
    if let Some(holders) = names(found.holders.iter().map(|holder| &holder.process)) {
        return format!("it closes when {holders} closes it or ends: restart that");
    }
    let waits = matches!(
        found.socket.state,
        State::CloseWait | State::Established | State::NewSynRecv | State::SynRecv
    );
    match names(found.listening()).filter(|_| waits && found.socket.inode == 0) {
        Some(listening) => format!("it ends when {listening} accepts and closes it, or ends: restart that"),
        None if found.of_kernel => {
            "it closes when what the kernel uses it for ends, such as a mount or an export".into()
        }
        None if found.socket.inode == 0 => {
            "no process holds it: the kernel ends it when its timers run out".into()
        }
        None => "it closes when the process that has it open closes it or ends".into(),
    }
}
