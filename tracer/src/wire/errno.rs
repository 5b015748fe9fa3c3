//! Names of the errors that a TCP socket can carry (asm-generic/errno.h).

use super::Text;

/// The name of an errno; `E` and its number if it is not one that TCP uses; `None` for 0.
pub(super) fn text(errno: u16) -> Option<Text<'static>> {
    (errno != 0).then(|| name(errno).map_or_else(|| format!("E{errno}").into(), Text::from))
}

/// The number of a name, or of `E` and a number.
pub(super) fn number(text: &str) -> Option<u16> {
    (1..=200).find(|number| name(*number) == Some(text)).or_else(|| text.strip_prefix('E')?.parse().ok())
}

/// The name, e.g. `ECONNREFUSED`; a number that TCP does not use has none.
pub fn name(errno: u16) -> Option<&'static str> {
    Some(match i32::from(errno) {
        libc::EPERM => "EPERM",
        libc::EIO => "EIO",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EINVAL => "EINVAL",
        libc::EPIPE => "EPIPE",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETDOWN => "ENETDOWN",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ECONNRESET => "ECONNRESET",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENOTCONN => "ENOTCONN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EHOSTDOWN => "EHOSTDOWN",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EPROTO => "EPROTO",
        _ => return None,
    })
}
