//! What ends a socket where `ss -K` does not.

use super::names;
use crate::model::{Destroy, SocketReport, State, Transport};

/// Behind the advice: what the printed `ss -K` takes.
pub(super) fn privilege(found: &SocketReport) -> &'static str {
    match found.destroy {
        Destroy::NeedsNetAdmin if !found.socket.is_partial => "; `ss -K` needs CAP_NET_ADMIN",
        _ => "",
    }
}

/// Why no command ends it, and what else does.
pub(super) fn cannot_destroy(found: &SocketReport) -> Option<String> {
    let why = match (found.destroy, found.socket.transport) {
        _ if found.socket.is_partial => "no command gets into its network namespace",
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
            "no process has it: the kernel ends it when its timers run out".into()
        }
        None => "it closes when the process that has it open closes it or ends".into(),
    }
}
