//! What a user can run to look further at a socket, or to end it.

use std::{borrow::Cow, path::Path};

use super::ending::can_destroy;
use crate::{
    display::endpoint,
    model::{SocketReport, Transport, Via, bounds},
};

/// For each of the first holders its descriptor, and how to end the socket; and how many more there would be. `netns` leads to its
/// network namespace where that is not the user's own.
pub(super) fn commands(found: &SocketReport, netns: Option<&Path>) -> (Vec<String>, usize) {
    let more = found.holders.len().saturating_sub(bounds::COMMANDS);
    let mut commands: Vec<String> = found
        .holders
        .iter()
        .take(bounds::COMMANDS)
        .map(|holder| {
            let pid = holder.process.pid;
            match (holder.via, holder.tid) {
                (Via::Descriptor(fd), None) => format!("ls -l /proc/{pid}/fd/{fd}"),
                (Via::Descriptor(fd), Some(tid)) => format!("ls -l /proc/{pid}/task/{tid}/fd/{fd}"),
                (Via::IoUring(ring), _) => format!("cat /proc/{pid}/fdinfo/{ring}"),
                (Via::Mapping, _) => format!("grep -F 'socket:[{}]' /proc/{pid}/maps", found.socket.inode),
            }
        })
        .collect();
    if !can_destroy(found) {
        return (commands, more);
    }
    let enter =
        netns.map(|path| format!("nsenter --net={} ", quoted(&path.to_string_lossy()))).unwrap_or_default();
    let of = match found.socket.transport {
        Transport::Tcp => "-t",
        Transport::Mptcp => "-M",
    };
    let end = format!("{enter}ss -K {of} -a {}", filter(found));
    if !bounds::shown(&end, bounds::COMMAND).1 {
        return (commands, more + 1);
    }
    commands.push(end);
    (commands, more)
}

/// As a shell reads it as one word: a user may mount a namespace at any path.
fn quoted(path: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.:".contains(&byte);
    if path.bytes().all(is_plain) { path.into() } else { format!("'{}'", path.replace('\'', r"'\''")).into() }
}

/// The socket in `ss`'s language.
fn filter(found: &SocketReport) -> String {
    let SocketReport { socket, .. } = found;
    let tuple = &socket.tuple;
    // A socket that is AF_INET6 with IPv4 inside shows its addresses as mapped ones.
    let text = |address: crate::model::Address, port| match (address.canonical(), tuple.v6_socket) {
        (std::net::IpAddr::V4(v4), true) => format!("[::ffff:{v4}]:{port}"),
        _ => endpoint(address, port),
    };
    // Equal ends may exist on other interfaces.
    let interface = match (tuple.interface, &socket.interface) {
        (0, _) if found.has_bound_twin => " and dev 0".into(),
        (0, _) => String::new(),
        // A name that a shell or `ss` would read in another way: `ss` takes the index too.
        (_, Some(name))
            if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) =>
        {
            format!(" and dev {name}")
        }
        (index, _) => format!(" and dev {index}"),
    };
    format!(
        "'src {} and dst {}{interface}'",
        text(tuple.local, tuple.local_port),
        text(tuple.remote, tuple.remote_port)
    )
}
