//! Commands in a terminal of a given width.

use std::{
    fs::File,
    io::Read,
    os::fd::{FromRawFd, OwnedFd},
    process::Command,
};

/// Both ends of a new terminal.
fn pair(columns: u16) -> (File, OwnedFd) {
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut outer, mut inner) = (-1, -1);
    // SAFETY: `outer` and `inner` are there to be written to, and the other pointers are null or lead to `size`.
    let result = unsafe {
        libc::openpty(&raw mut outer, &raw mut inner, std::ptr::null_mut(), std::ptr::null(), &raw const size)
    };
    assert_eq!(result, 0, "no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just opened both, and nobody else owns them.
    unsafe { (File::from_raw_fd(outer), OwnedFd::from_raw_fd(inner)) }
}

/// What `command` writes to a terminal of `columns`, on standard output and standard error, until it ends.
#[must_use]
pub fn output_in_terminal(command: &mut Command, columns: u16) -> String {
    let (mut outer, inner) = pair(columns);
    let duplicate = || inner.try_clone().expect("a descriptor");
    let mut child =
        command.stdin(duplicate()).stdout(duplicate()).stderr(duplicate()).spawn().expect("a command");
    // `command` still has copies of the inner end, which would keep the terminal open.
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    drop(inner);
    let mut bytes = Vec::new();
    // Linux ends the reading with EIO when nobody has the inner end any more.
    let _ = outer.read_to_end(&mut bytes);
    child.wait().expect("wait");
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
}
