//! Messages to the user on standard error. If standard error is full, closed or not read, messages are dropped and counted, and
//! nothing else happens. If the journal reads standard error, each line begins with its priority, as in sd-daemon(3).

use std::{
    env, fmt,
    io::{self, Write},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{capabilities, model::printable};

/// Limit of messages that wait for standard error.
const QUEUE_LIMIT: usize = 256;
/// How often the end of the process checks whether all messages are written.
const STEP: Duration = Duration::from_millis(5);
/// How long the end of the process waits for a thread that gets no CPU time.
const LONGEST: Duration = Duration::from_secs(10);

static QUEUE: Mutex<Option<SyncSender<String>>> = Mutex::new(None);
/// Dropped messages that are not reported yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Messages in the queue, or being written.
static WAITING: AtomicU64 = AtomicU64::new(0);
/// A message is being written.
static WRITING: AtomicBool = AtomicBool::new(false);

/// The priority of a message, as in syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// The program ends, or records are lost.
    Error = 3,
    /// Something does not work as wanted.
    Warning = 4,
    /// Something that users may want to know.
    Info = 6,
}

/// Writes a message to standard error: `message!("text")` is a warning; `error: ` or `info: ` before the text changes that.
macro_rules! message {
    (error: $($arguments:tt)*) => {
        $crate::messages::send($crate::messages::Priority::Error, format_args!($($arguments)*))
    };
    (info: $($arguments:tt)*) => {
        $crate::messages::send($crate::messages::Priority::Info, format_args!($($arguments)*))
    };
    ($($arguments:tt)*) => {
        $crate::messages::send($crate::messages::Priority::Warning, format_args!($($arguments)*))
    };
}

/// Starts the thread that writes messages. Without it, callers write and may wait.
pub fn start() {
    let (sender, receiver) = sync_channel(QUEUE_LIMIT);
    if thread::Builder::new().name("messages".into()).spawn(move || write_all(&receiver)).is_ok() {
        *QUEUE.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }
}

/// The function behind [`message!`].
pub fn send(priority: Priority, text: fmt::Arguments<'_>) {
    let line = lines(priority, &text.to_string(), is_read_by_journal());
    let sender = QUEUE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(sender) = sender else { return write(&line) };
    WAITING.fetch_add(1, Ordering::Relaxed);
    if sender.try_send(line).is_err() {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The lines of a message.
fn lines(priority: Priority, text: &str, for_journal: bool) -> String {
    // A message may contain text from other programs (process names, collectors' answers), so control characters are replaced.
    // Line feeds are kept for messages of several lines.
    let lines = text.split('\n').map(printable);
    if for_journal {
        // The journal adds the program's name, and reads the priority of each line.
        return lines.map(|line| format!("<{}>{line}\n", priority as u8)).collect();
    }
    format!("sockstate: {}\n", lines.collect::<Vec<_>>().join("\n"))
}

/// Whether the journal reads standard error: systemd then names the device and the inode of its socket.
fn is_read_by_journal() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let stat = rustix::fs::fstat(io::stderr());
        let name = stat.map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
        name.is_ok_and(|name| env::var("JOURNAL_STREAM") == Ok(name))
    })
}

/// Waits until all messages are written, up to `limit` if standard error blocks.
pub fn flush(limit: Duration) {
    let end = Instant::now() + LONGEST;
    let mut blocked = Duration::ZERO;
    while WAITING.load(Ordering::Relaxed) > 0 && blocked < limit && Instant::now() < end {
        thread::sleep(STEP);
        // On a busy machine a thread may wait for long until it writes.
        if WRITING.load(Ordering::Relaxed) {
            blocked += STEP;
        }
    }
}

fn write_all(receiver: &Receiver<String>) {
    // This thread needs no capabilities, so it drops all of them. If that fails, it writes messages anyway.
    let _ = capabilities::give_up_all();
    while let Ok(line) = receiver.recv() {
        WRITING.store(true, Ordering::Relaxed);
        write(&line);
        WRITING.store(false, Ordering::Relaxed);
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

fn write(line: &str) {
    write_to(&mut io::stderr(), line, &DROPPED);
}

/// Writes `line`, and then how many messages were dropped. There is no other place to report that standard error does not work: what
/// cannot be written is counted, and reported with the first line that can.
fn write_to(output: &mut impl Write, line: &str, dropped: &AtomicU64) {
    if output.write_all(line.as_bytes()).is_err() {
        dropped.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let count = dropped.swap(0, Ordering::Relaxed);
    let report = format!("{count} messages were dropped: standard error was full, or nobody read it");
    let report = lines(Priority::Warning, &report, is_read_by_journal());
    if count > 0 && output.write_all(report.as_bytes()).is_err() {
        dropped.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let (sender, receiver) = sync_channel(1);
        *QUEUE.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        message!("first \u{1b}[2J");
        message!("second");
        *QUEUE.lock().unwrap_or_else(PoisonError::into_inner) = None;
        assert_eq!(receiver.recv(), Ok("sockstate: first \u{fffd}[2J\n".to_owned()));
        assert!(receiver.recv().is_err(), "the second found no room");
        assert!(DROPPED.load(Ordering::Relaxed) >= 1);
    }

    #[test]
    fn each_line_for_the_journal_has_its_priority() {
        assert_eq!(lines(Priority::Error, "one\ntwo", true), "<3>one\n<3>two\n");
        assert_eq!(lines(Priority::Info, "one\u{1b}", true), "<6>one\u{fffd}\n");
        assert_eq!(lines(Priority::Warning, "<3>one\ntwo", false), "sockstate: <3>one\ntwo\n");
    }

    /// A disk that has room at times.
    struct Disk {
        room: usize,
        text: String,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= 1;
            self.text.push_str(std::str::from_utf8(bytes).expect("UTF-8"));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_standard_error_does_not_take_is_counted() {
        let (mut disk, dropped) = (Disk { room: 1, text: String::new() }, AtomicU64::new(0));
        for line in ["one\n", "two\n", "three\n"] {
            write_to(&mut disk, line, &dropped);
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        // There is room for one line: the report itself is not counted.
        disk.room = 1;
        write_to(&mut disk, "four\n", &dropped);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        disk.room = 3;
        for line in ["five\n", "six\n"] {
            write_to(&mut disk, line, &dropped);
        }
        let report = "sockstate: 2 messages were dropped: standard error was full, or nobody read it\n";
        assert_eq!(disk.text, format!("one\nfour\nfive\n{report}six\n"));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }
}
