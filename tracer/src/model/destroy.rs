//! Whether a socket can be ended from outside.

/// Whether `SOCK_DESTROY`, the request behind `ss -K`, ends a socket that another process has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Destroy {
    /// The kernel ends the socket.
    Works,
    /// The kernel wants CAP_NET_ADMIN, and this process does not have it.
    NeedsNetAdmin,
    /// The kernel has no code for the request: TCP without CONFIG_INET_DIAG_DESTROY, MPTCP in every kernel so far.
    NotSupported,
    /// The kernel could not be asked.
    #[default]
    Unknown,
}
