//! Independent observers: bpftrace on the tracepoint, and /proc/net/tcp. They share no code with sockstate.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const NAMES: [&str; 13] = [
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "SYN_RECV",
];

const SCRIPT: &str = r#"
BEGIN { printf("ready\n"); }
tracepoint:sock:inet_sock_set_state /args->protocol == 6 && args->oldstate != args->newstate/ {
    printf("%p %d %d %d %d\n", args->skaddr, args->oldstate, args->newstate, args->sport, args->dport);
}
"#;

/// One transition that bpftrace printed.
#[derive(Clone, Debug)]
struct Seen {
    sk: String,
    old: usize,
    new: usize,
    sport: u16,
    dport: u16,
}

/// One bpftrace process for all tests of this program.
struct Bpftrace {
    child: Mutex<Option<Child>>,
}

static BPFTRACE: OnceLock<Bpftrace> = OnceLock::new();
static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

fn bpftrace() -> &'static Bpftrace {
    BPFTRACE.get_or_init(|| {
        let mut child = Command::new("bpftrace")
            .args(["-e", SCRIPT])
            .env("BPFTRACE_PERF_RB_PAGES", "1024")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bpftrace");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        lines.find(|line| line == "ready").expect("bpftrace attaches");
        thread::spawn(move || {
            for line in lines {
                let fields: Vec<&str> = line.split(' ').collect();
                if let [sk, old, new, sport, dport] = fields[..] {
                    let number = |text: &str| text.parse().expect("number");
                    SEEN.lock().expect("lock").push(Seen {
                        sk: sk.to_owned(),
                        old: usize::from(number(old)),
                        new: usize::from(number(new)),
                        sport: number(sport),
                        dport: number(dport),
                    });
                }
            }
        });
        Bpftrace { child: Mutex::new(Some(child)) }
    })
}

/// Whether the test runs in a virtual machine of `cargo xtask vm`, which has no bpftrace.
pub fn is_in_vm() -> bool {
    std::env::var_os("SOCKSTATE_TEST_VM").is_some()
}

/// How long a test waits for an event that must come: other programs may need the processors, and an emulated processor
/// is slow. Only a test that fails waits that long.
pub fn patience() -> Duration {
    Duration::from_secs(180)
}

/// Whether bpftrace runs.
pub fn is_there() -> bool {
    BPFTRACE.get().is_some()
}

/// Starts bpftrace if it does not run yet. Does nothing in a virtual machine.
pub fn watch() {
    if !is_in_vm() {
        bpftrace();
    }
}

/// Whether the kernel counts enough runs of the program that it skipped to explain `missing` transitions, in addition
/// to those that earlier calls have explained. A classic tracepoint runs no program while another one runs on the same
/// CPU (counted since 6.7, commit dd8657894c11).
pub fn excuses(missing: u64) -> bool {
    static EXCUSED: AtomicU64 = AtomicU64::new(0);
    let pid =
        BPFTRACE.get().and_then(|bpftrace| bpftrace.child.lock().expect("lock").as_ref().map(Child::id));
    let infos =
        fs::read_dir(format!("/proc/{}/fdinfo", pid.unwrap_or_default())).into_iter().flatten().flatten();
    let misses = |text: String| -> u64 {
        let counts = text
            .lines()
            .filter_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse::<u64>().ok());
        counts.sum()
    };
    let missed: u64 = infos.filter_map(|entry| fs::read_to_string(entry.path()).ok()).map(misses).sum();
    EXCUSED.fetch_add(missing, Ordering::Relaxed) + missing <= missed
}

/// Ends bpftrace.
pub fn stop_watching() {
    if let Some(mut child) = BPFTRACE.get().and_then(|bpftrace| bpftrace.child.lock().expect("lock").take()) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The paths of the sockets with `port` on either side, as bpftrace saw them: the first state, then the state that each
/// transition leads to. Waits until the paths have `transitions` transitions in total.
pub fn paths(port: u16, transitions: usize) -> Vec<Vec<String>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let seen: Vec<Seen> = SEEN.lock().expect("lock").clone();
        let of_port: Vec<Seen> =
            seen.into_iter().filter(|line| line.sport == port || line.dport == port).collect();
        if of_port.len() >= transitions || Instant::now() > deadline {
            return group(&of_port);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Groups transitions by socket. The kernel may use the address of a socket again after the socket is freed.
fn group(seen: &[Seen]) -> Vec<Vec<String>> {
    let mut live: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut dead = Vec::new();
    for line in seen {
        let path = live.entry(&line.sk).or_insert_with(|| vec![NAMES[line.old].to_owned()]);
        path.push(NAMES[line.new].to_owned());
        if line.new == 7 {
            dead.extend(live.remove(line.sk.as_str()));
        }
    }
    dead.extend(live.into_values());
    dead.sort();
    dead
}

/// One socket of /proc/net/tcp or tcp6: local port, remote port, state.
pub type Line = (u16, u16, String);

/// The sockets of this thread's namespace.
pub fn proc_net_tcp() -> Vec<Line> {
    let mut lines = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        lines.extend(text.lines().skip(1).map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = |field: &str| {
                let (_, port) = field.rsplit_once(':').expect("port");
                u16::from_str_radix(port, 16).expect("port")
            };
            let state = usize::from_str_radix(fields[3], 16).expect("state");
            (port(fields[1]), port(fields[2]), NAMES[state].to_owned())
        }));
    }
    lines.sort();
    lines
}

/// Waits until the states of this namespace's sockets are exactly these.
pub fn wait_for_states(wanted: &[&str]) -> Vec<Line> {
    let mut wanted: Vec<&str> = wanted.to_vec();
    wanted.sort_unstable();
    let deadline = Instant::now() + patience();
    loop {
        let lines = proc_net_tcp();
        let mut states: Vec<&str> = lines.iter().map(|line| line.2.as_str()).collect();
        states.sort_unstable();
        if states == wanted {
            return lines;
        }
        assert!(Instant::now() < deadline, "waiting for {wanted:?}, there are {lines:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
