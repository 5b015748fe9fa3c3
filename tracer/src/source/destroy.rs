//! Whether `ss -K` works: asks the kernel to end a socket that cannot exist, and reads the error.

use std::{cell::OnceCell, io};

use caps::Capability;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{
    netlink::{answer, exact_request, open},
    visibility::has_everywhere,
};
use crate::model::{Destroy, Transport};

/// `SOCK_DESTROY` (linux/sock_diag.h).
const SOCK_DESTROY: u16 = 21;

/// The kernel's answers, one for each transport.
#[derive(Debug, Default)]
pub struct Destroys {
    tcp: OnceCell<Destroy>,
    mptcp: OnceCell<Destroy>,
}

impl Destroys {
    /// Whether the kernel ends sockets of this transport. Call this only if sockets of the transport were listed: without a
    /// handler for the transport, the kernel answers as if the socket did not exist.
    #[must_use]
    pub fn of(&self, transport: Transport) -> Destroy {
        let known = match transport {
            Transport::Tcp => &self.tcp,
            Transport::Mptcp => &self.mptcp,
        };
        *known.get_or_init(|| match probe(transport) {
            Ok(error) => meaning(error, has_everywhere(Capability::CAP_NET_ADMIN)),
            Err(_) => Destroy::Unknown,
        })
    }
}

/// The kernel's error number. The request cannot destroy a socket: it asks for local port 0, which no socket has, and for the
/// cookie 0, which the kernel never assigns (`sock_gen_cookie` starts at 1; only all ones mean any cookie).
fn probe(transport: Transport) -> io::Result<i32> {
    let socket = open()?;
    send(&socket, &exact_request(SOCK_DESTROY, transport), SendFlags::empty())?;
    let mut buffer = [0_u8; 4096];
    let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    answer(&buffer[..len]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `inet_diag_cmd_exact` answers EOPNOTSUPP if the transport has no `destroy`; otherwise it finds no socket. The kernel checks
/// the capability only after it has found a socket (`sock_diag_destroy`).
fn meaning(error: i32, has_net_admin: bool) -> Destroy {
    match error {
        libc::EOPNOTSUPP => Destroy::NotSupported,
        libc::EPERM => Destroy::NeedsNetAdmin,
        libc::ENOENT | libc::ESTALE if has_net_admin => Destroy::Works,
        libc::ENOENT | libc::ESTALE => Destroy::NeedsNetAdmin,
        _ => Destroy::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_kernels_with_and_without_it() {
        for (error, has_net_admin, wanted) in [
            (libc::ENOENT, true, Destroy::Works),
            (libc::ESTALE, true, Destroy::Works),
            (libc::ENOENT, false, Destroy::NeedsNetAdmin),
            (libc::EPERM, true, Destroy::NeedsNetAdmin),
            (libc::EOPNOTSUPP, true, Destroy::NotSupported),
            (libc::EOPNOTSUPP, false, Destroy::NotSupported),
            (libc::EINVAL, true, Destroy::Unknown),
            // A socket would have been destroyed, or the request was malformed.
            (0, true, Destroy::Unknown),
        ] {
            assert_eq!(meaning(error, has_net_admin), wanted, "{error} {has_net_admin}");
        }
    }
}
