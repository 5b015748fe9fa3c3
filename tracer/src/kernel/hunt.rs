//! The hooks that copy the stack of the thread that opens a connection; attached for `hunt` only.

use std::{fmt, fs};

use aya::maps::{HashMap, MapData};
use sockstate_abi::abi::{ABSENT, Hunt as Constants, Python};

use super::{
    attach,
    attempt::Attempt,
    error::{KernelError, LoadError, chain},
    loaded::Loaded,
    pod::pod,
};
use crate::{filter::Processes, model::PythonLayout};

pod!(PodPython, Python);

/// The map of processes that run CPython.
pub struct PythonMap(HashMap<MapData, u32, PodPython>);

impl PythonMap {
    /// Lets the programs copy the CPython frames of this process. If the kernel refuses, its Python functions have no names.
    pub fn add(&mut self, pid: u32, layout: &PythonLayout) {
        let python = Python {
            runtime: layout.runtime,
            version: layout.version,
            interpreters: layout.interpreters,
            next_interpreter: layout.next_interpreter,
            threads: layout.threads,
            next_thread: layout.next_thread,
            native_thread_id: layout.native_thread_id,
            current_frame: layout.current_frame,
            previous: layout.previous,
            executable: layout.executable,
            instruction: layout.instruction,
            owner: layout.owner,
            qualname: layout.qualname,
            pad: 0,
            zero: 0,
        };
        let _ = self.0.insert(pid, PodPython(python), 0);
    }
}

/// The processes whose stacks are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// The programs know one process id and one name: user space compares several.
    pub processes: Processes,
    /// Limit of stacks per process and second.
    pub rate: u32,
}

/// `struct pt_regs` of asm/ptrace.h: offsets of pc, sp, fp and lr, in words.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [Option<u32>; 4] = [Some(16), Some(19), Some(4), None];
#[cfg(target_arch = "aarch64")]
const REGISTERS: [Option<u32>; 4] = [Some(32), Some(31), Some(29), Some(30)];

/// The constants for the programs.
pub(super) fn constants(hunt: Option<&Hunt>) -> Constants {
    let [pc, sp, fp, lr] = REGISTERS.map(|word| word.map_or(ABSENT, |word| word * 8));
    let mut constants = Constants { pc, sp, fp, lr, ..Constants::default() };
    if let Some(hunt) = hunt {
        constants.rate = hunt.rate;
        if let [pid] = hunt.processes.pid[..] {
            constants.pid = pid;
        }
        if let [comm] = &hunt.processes.comm[..] {
            // The kernel keeps 15 bytes of a name.
            for (to, from) in constants.comm[..15].iter_mut().zip(comm.bytes()) {
                *to = from;
            }
        }
    }
    constants
}

const CONNECT: &str = "tp_btf/inet_sock_set_state (stacks)";
const ACCEPT: &str = "kprobe/inet_csk_accept";
const CALLS: [&str; 2] = ["sys_exit_accept", "sys_exit_accept4"];

/// What a hunt does not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HuntGap {
    pub what: String,
    /// What is missing because of it.
    pub cost: &'static str,
    /// What the user can do.
    pub todo: String,
}

impl fmt::Display for HuntGap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.what, self.cost)
    }
}

/// What gives a hunt the accepts, which it does not see. Debian's kernels have a level 3 of `perf_event_paranoid`, their default, at
/// which CAP_PERFMON is not enough.
fn remedy() -> String {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok();
    match level.and_then(|level| level.trim().parse::<i32>().ok()).filter(|level| *level > 2) {
        Some(level) => format!(
            "run as root or with CAP_SYS_ADMIN, or set kernel.perf_event_paranoid, which is {level}, to 2"
        ),
        None => "run as root with tracefs mounted, on a kernel with CONFIG_KPROBE_EVENTS or CONFIG_FTRACE_SYSCALLS".into(),
    }
}

impl Loaded {
    /// Attaches the hooks that copy stacks. Returns what they do not see.
    ///
    /// # Errors
    /// This kernel cannot copy the stacks of processes that connect.
    pub fn hunt(&mut self) -> Result<Option<HuntGap>, KernelError> {
        let connect = match &self.btf {
            Some(btf) => attach::tp_btf(&mut self.ebpf, "opened_by_connect", "inet_sock_set_state", btf),
            None => Err("no BTF".into()),
        };
        self.attempts.push(Attempt::of(CONNECT, "call paths of connect()", &connect));
        match connect {
            Ok(link) => self.links.keep(link),
            Err(error) => {
                let error = chain(&*error);
                let reason = format!("{CONNECT}: {error} (stacks need BTF and bpf_task_pt_regs, Linux 5.15)");
                return Err(KernelError::Unsupported { reason });
            }
        }
        let accept = attach::kprobe(&mut self.ebpf, "opened_by_accept", "inet_csk_accept");
        self.attempts.push(Attempt::of(ACCEPT, "call paths of accept()", &accept));
        Ok(match accept {
            Ok(link) => {
                self.links.keep(link);
                None
            }
            Err(reason) => Some(self.accept_calls(&chain(&*reason))),
        })
    }

    /// Hooks the exit of the accept system calls instead; `reason` says why the kprobe does not work.
    fn accept_calls(&mut self, reason: &str) -> HuntGap {
        let result = CALLS.into_iter().try_for_each(|call| {
            let link = attach::tracepoint(&mut self.ebpf, "opened_by_accept_call", "syscalls", call)?;
            self.links.keep(link);
            Ok(())
        });
        self.attempts.push(Attempt::of(
            "tracepoint/syscalls/sys_exit_accept4",
            "call paths of accept()",
            &result,
        ));
        match result {
            Ok(()) => HuntGap {
                what: format!("accepts are seen at the end of the system call ({reason})"),
                cost: "every system call of the host is a little slower, and accepts by io_uring are not seen",
                todo: "use a kernel with kprobes (CONFIG_KPROBE_EVENTS)".into(),
            },
            Err(error) => HuntGap {
                what: format!("accepts are not seen ({reason}; {})", chain(&*error)),
                cost: "connections that a server accepts have no call path",
                todo: remedy(),
            },
        }
    }

    /// Takes the map of processes that run CPython; the programs go on using it.
    ///
    /// # Errors
    /// The map was taken before.
    pub fn pythons(&mut self) -> Result<PythonMap, KernelError> {
        let map = self.ebpf.take_map("PYTHONS").ok_or("the object lacks the map of Python processes".into());
        let map = map.and_then(|map| HashMap::try_from(map).map_err(LoadError::from));
        map.map(PythonMap).map_err(|error| KernelError::Unsupported { reason: chain(&*error) })
    }
}
