//! A network namespace with a tracer in it, and the records that the tracer wrote.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{netns::in_new_netns, observer::patience, schema};

static BINARY: OnceLock<&str> = OnceLock::new();

/// Sets the path of the binary under test, which cargo gives to test programs only.
pub fn use_binary(path: &'static str) {
    let _ = BINARY.set(path);
}

/// A command that runs the binary under test.
///
/// # Panics
/// The test program has not called [`use_binary`].
pub fn sockstate() -> Command {
    let mut command = Command::new(BINARY.get().expect("use_binary comes first"));
    command.env_remove("NO_COLOR");
    command
}

/// Whether this kernel lists who holds a socket that is older than the tracer.
pub fn can_list_holders() -> bool {
    let output = sockstate().args(["doctor", "--format", "json"]).output().expect("doctor");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let hooks = found["hooks"].as_array().expect("hooks");
    hooks.iter().any(|hook| hook["hook"] == "iter/task_file" && hook["works"] == true)
}

/// Polls until `done`, for as long as [`patience`] allows. For conditions that no event announces.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !done() {
        assert!(Instant::now() < deadline, "{what}: it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A running tracer.
pub struct Tracer {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<Value>,
}

impl Tracer {
    /// Starts a tracer of one namespace, alongside others, and waits until it traces.
    pub fn start(netns: u64, args: &[&str]) -> Self {
        let mut command = sockstate();
        command.args(["trace", "--format", "json", "--alongside", "--netns", &netns.to_string()]);
        Self::spawn(command.args(args))
    }

    /// Starts any command that writes records as JSON lines.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tracer");
        let Lines(lines) = Lines::of(child.stdout.take().expect("stdout"));
        let mut tracer = Self { child, lines, seen: Vec::new() };
        tracer.wait_for(|record| record["kind"] == "start");
        tracer
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn first(&self) -> Value {
        self.seen[0].clone()
    }

    /// The records that the test has read so far.
    pub fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// Reads records until one is as wanted, and returns it.
    pub fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let Ok(line) = self.lines.recv_timeout(patience()) else {
                let _ = self.child.kill();
                let mut error = String::new();
                let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut error));
                let last = &self.seen[self.seen.len().saturating_sub(20)..];
                let number = self.seen.len();
                panic!(
                    "the tracer says nothing more after {number} records; the last: {last:#?}; it complains: {error}"
                );
            };
            let record: Value = serde_json::from_str(&line).expect("JSON");
            self.seen.push(record.clone());
            if wanted(&record) {
                return record;
            }
        }
    }

    /// Reads the records that have arrived. Returns whether any record so far is as wanted.
    pub fn poll(&mut self, wanted: impl Fn(&Value) -> bool) -> bool {
        self.seen.extend(self.lines.try_iter().map(|line| serde_json::from_str(&line).expect("JSON")));
        self.seen.iter().any(wanted)
    }

    /// Ends the tracer with SIGINT. Returns all its records, checked.
    pub fn stop(mut self) -> Story {
        signal(self.child.id(), libc::SIGINT);
        let status = self.child.wait().expect("wait");
        let mut error = String::new();
        let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut error));
        assert!(status.success(), "{status}: {error}");
        let rest = self.lines.iter().map(|line| serde_json::from_str(&line).expect("JSON"));
        let mut records = std::mem::take(&mut self.seen);
        records.extend(rest);
        Story::new(records)
    }
}

/// Lines of a running program's stream.
pub struct Lines(Receiver<String>);

impl Lines {
    /// Reads the lines of `stream` in a thread.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self(lines)
    }

    /// Waits for the next line that contains `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            let line = self.0.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("no line with {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// All further lines, until the end of the stream.
    pub fn rest(self) -> String {
        self.0.iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The process was already waited for, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: takes numbers; the process is a child that has not been waited for.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Inode of this thread's network namespace.
pub fn own_netns() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").expect("namespace").ino()
}

/// Runs `work` in a namespace of its own; `work` gets its inode.
pub fn in_lab<T: Send>(work: impl FnOnce(u64) -> T + Send) -> T {
    in_new_netns(|| work(own_netns())).expect("a network namespace")
}

/// All records of one tracer, from `start` to `stop`.
pub struct Story {
    pub records: Vec<Value>,
}

impl Story {
    /// Checks what must hold of every stream: the schema, the numbering, both ends.
    pub fn new(records: Vec<Value>) -> Self {
        for (at, record) in records.iter().enumerate() {
            assert_eq!(record["seq"], at + 1, "numbered without a gap: {record}");
            schema::check(record);
        }
        assert_eq!(records.first().map(|record| &record["kind"]), Some(&"start".into()));
        assert_eq!(records.last().map(|record| &record["kind"]), Some(&"stop".into()), "{records:#?}");
        Self { records }
    }

    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.records.iter().filter(move |record| record["kind"] == kind)
    }

    pub fn transitions(&self) -> impl Iterator<Item = &Value> {
        self.of("transition")
    }

    /// The transitions of each connection, in the order of each connection's first transition.
    pub fn connections(&self) -> Vec<Vec<&Value>> {
        let mut connections: Vec<Vec<&Value>> = Vec::new();
        for record in self.transitions() {
            match connections.iter_mut().find(|known| known[0]["conn"] == record["conn"]) {
                Some(known) => known.push(record),
                None => connections.push(vec![record]),
            }
        }
        connections
    }

    /// The only connection with this role.
    pub fn only(&self, role: &str) -> Vec<&Value> {
        let mut found: Vec<_> =
            self.connections().into_iter().filter(|connection| connection[0]["role"] == role).collect();
        assert_eq!(found.len(), 1, "one {role}: {:#?}", self.records);
        found.remove(0)
    }
}

/// The path of a connection: the first state, then the state that each transition leads to.
pub fn path(transitions: &[&Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("state").to_owned();
    transitions
        .iter()
        .map(|record| text(&record["from"]))
        .take(1)
        .chain(transitions.iter().map(|record| text(&record["to"])))
        .collect()
}
