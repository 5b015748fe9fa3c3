//! Whether a socket can be ended from outside.

/// Whether the kernel ends a socket that another process has open, by `SOCK_DESTROY`, as `ss -K` asks it to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Destroy {
    /// It does.
    Works,
    /// It does so for processes with CAP_NET_ADMIN, which this one has not.
    NeedsNetAdmin,
    /// It has no code for that: TCP's without CONFIG_INET_DIAG_DESTROY, MPTCP's in every kernel so far.
    NotSupported,
    /// It could not be asked.
    #[default]
    Unknown,
}
