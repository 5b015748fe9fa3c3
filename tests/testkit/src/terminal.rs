//! Commands in a terminal of a given width.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Child, ChildStdin, Command, Stdio},
};

/// The size of a terminal.
fn size(columns: u16) -> libc::winsize {
    libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Both ends of a new terminal.
fn pair(columns: u16) -> (File, OwnedFd) {
    let size = size(columns);
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
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(inner);
    let mut bytes = Vec::new();
    // Linux ends the reading with EIO when nobody has the inner end any more.
    let _ = outer.read_to_end(&mut bytes);
    child.wait().expect("wait");
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
}

/// A command in a terminal whose width changes. The command ends with the terminal.
pub struct Terminal {
    outer: File,
    child: Child,
    /// What the command has written, and nobody has read.
    unread: String,
}

impl Terminal {
    /// Starts `command` in a terminal of `columns`, which shows its standard output.
    #[must_use]
    pub fn start(command: &mut Command, columns: u16) -> Self {
        let (outer, inner) = pair(columns);
        let child = command.stdout(inner).spawn().expect("a command");
        // `command` still has the inner end.
        command.stdout(Stdio::null());
        Self { outer, child, unread: String::new() }
    }

    /// The standard input of the command, if it is a pipe that nobody has taken.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    /// Changes the width.
    pub fn resize(&self, columns: u16) {
        let size = size(columns);
        // SAFETY: the descriptor is open, and TIOCSWINSZ reads one `winsize`.
        let result = unsafe { libc::ioctl(self.outer.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "not resized: {}", std::io::Error::last_os_error());
    }

    /// Waits for `what`, and returns what the command has written up to there.
    pub fn read_until(&mut self, what: &str) -> String {
        loop {
            if let Some(at) = self.unread.find(what) {
                let rest = self.unread.split_off(at + what.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            let mut bytes = [0; 4096];
            let count = self.outer.read(&mut bytes).unwrap_or(0);
            assert!(count > 0, "the command ended without {what:?}: {}", self.unread);
            self.unread += &String::from_utf8_lossy(&bytes[..count]).replace("\r\n", "\n");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The command may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
