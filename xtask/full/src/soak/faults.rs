//! The faulty environment of the daemon: collectors that come and go, collectors that hang, a full disk, a standard
//! error that nobody reads.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat, statvfs};

use super::check::Stream;
use crate::command;

/// A collector that reads, pauses, reads, goes away, and comes back.
pub(super) fn collect(directory: &Path, ends: &AtomicBool) -> Result<()> {
    let path = directory.join("collector");
    while !ends.load(Ordering::Relaxed) {
        let _ = fs::remove_file(&path);
        let listener = listen(&path)?;
        listener.set_nonblocking(true)?;
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && !ends.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut buffer = vec![0; 1 << 20];
            let close = Instant::now() + Duration::from_secs(7);
            while Instant::now() < close {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    // Sometimes the collector sleeps.
                    Ok(_) if close.elapsed().is_zero() && buffer[0].is_multiple_of(7) => {
                        thread::sleep(Duration::from_millis(200))
                    }
                    _ => {}
                }
            }
        }
        drop(listener);
        thread::sleep(Duration::from_secs(5));
    }
    Ok(())
}

/// Listens at a socket to which every user can connect.
pub(super) fn listen(path: &Path) -> Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

/// Controls a collector that reads nothing until the end.
#[derive(Default)]
pub(super) struct Hung {
    /// The collector reads now.
    pub(super) reads: AtomicBool,
    /// Nothing more will come: the daemon has ended.
    pub(super) ends: AtomicBool,
    /// How many transitions the collector has read, or read to be lost.
    pub(super) known: AtomicU64,
}

/// Accepts connections, and reads nothing from them until the end. Then it reads everything.
pub(super) fn hang(listener: &UnixListener, control: &Hung) -> Result<Stream> {
    listener.set_nonblocking(true)?;
    let mut connections = Vec::new();
    let mut accept = || -> Result<bool> {
        let Ok((connection, _)) = listener.accept() else { return Ok(false) };
        connection.set_nonblocking(false)?;
        connections.push(connection);
        Ok(true)
    };
    while !control.reads.load(Ordering::Relaxed) {
        while accept()? {}
        thread::sleep(Duration::from_millis(100));
    }
    while accept()? {}
    // The connections are in the order in which they were made. The daemon still writes only to the last one.
    let mut stream = Stream::default();
    for connection in connections {
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        read_lines(connection, control, &mut stream)?;
    }
    Ok(stream)
}

/// Holds a pipe open, and reads nothing from it until the end. Then it reads everything.
pub(super) fn hold(pipe: File, control: &Hung) -> Result<Stream> {
    while !control.reads.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
    }
    let mut stream = Stream::default();
    read_lines(pipe, control, &mut stream)?;
    Ok(stream)
}

/// Adds whole lines until the end of the stream, or until nothing more comes. A line that a kill or a reset has cut is
/// not a record.
fn read_lines(from: impl Read, control: &Hung, stream: &mut Stream) -> Result<()> {
    let mut from = BufReader::with_capacity(1 << 20, from);
    let mut line = Vec::new();
    loop {
        match from.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) if line.ends_with(b"\n") => {
                add(&line, stream)?;
                line.clear();
            }
            // The rest of the line may still come.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                control.known.store(stream.known(), Ordering::Relaxed);
                if control.ends.load(Ordering::Relaxed) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(20));
            }
            Err(_) => return Ok(()),
        }
    }
}

/// Adds a line of a pipe. A killed process may have left a part of a record before the first record of the next
/// process.
fn add(line: &[u8], stream: &mut Stream) -> Result<()> {
    let text = String::from_utf8_lossy(line);
    let begin = text.rfind("{\"schema\":").context("a line without a record")?;
    ensure!(begin == 0 || text.starts_with('{'), "not a record: {text}");
    stream.add(&text[begin..], true).map(drop)
}

/// Makes a named pipe, and opens it for reading without blocking.
pub(super) fn fifo(path: &Path) -> Result<File> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    Ok(File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?)
}

/// A standard error that nobody reads, and that is already full.
pub(super) fn deaf() -> Result<(Stdio, io::PipeReader)> {
    const PIPE: usize = 1 << 16;
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(&[b'\n'; PIPE])?;
    Ok((writer.into(), reader))
}

/// A file system in memory.
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        command(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755,size=4G", "tmpfs"]).arg(&path))?;
        Ok(Self(path))
    }

    /// Fills the disk.
    pub(super) fn fill(&self) -> Result<()> {
        // The daemon may write between the two calls. Then the disk cannot be made that small.
        let is_full = |_: &i32| self.resize(&self.used().unwrap_or(0).to_string()).is_ok();
        ensure!((0..100).any(|turn| is_full(&turn)), "the disk cannot be made full");
        Ok(())
    }

    /// Makes room again.
    pub(super) fn empty(&self) -> Result<()> {
        self.resize("4G")
    }

    fn used(&self) -> Result<u64> {
        let found = statvfs(&self.0)?;
        Ok((found.f_blocks - found.f_bfree) * found.f_frsize)
    }

    fn resize(&self, size: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(&self.0).stderr(Stdio::null());
        command(&mut mount)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
