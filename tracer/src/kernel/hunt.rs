//! The hooks that take the stack of the thread that opens a connection; attached for `hunt` only.

use std::fs;

use aya::maps::{HashMap, MapData};
use sockstate_abi::abi::{ABSENT, Hunt as Constants, Python};

use super::{
    attach,
    attempt::Attempt,
    error::{KernelError, LoadError, chain},
    loaded::Loaded,
    pod::pod,
};
use crate::model::PythonLayout;

pod!(PodPython, Python);

/// The processes that the programs know to run CPython.
pub struct Pythons(HashMap<MapData, u32, PodPython>);

impl Pythons {
    /// The frames of this process's CPython are copied from now on. Where the kernel refuses, its functions have no names.
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

/// Whose stacks are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// These processes' only; all where none is named. Of several the programs take everybody's: user space tells them apart.
    pub pids: Vec<u32>,
    /// Only those of processes with these names.
    pub comms: Vec<String>,
    /// Most of one process in a second.
    pub rate: u32,
}

/// `struct pt_regs` of asm/ptrace.h: where pc, sp, fp and lr are, in words.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [Option<u32>; 4] = [Some(16), Some(19), Some(4), None];
#[cfg(target_arch = "aarch64")]
const REGISTERS: [Option<u32>; 4] = [Some(32), Some(31), Some(29), Some(30)];

/// What the programs are told.
pub(super) fn constants(hunt: Option<&Hunt>) -> Constants {
    let [pc, sp, fp, lr] = REGISTERS.map(|word| word.map_or(ABSENT, |word| word * 8));
    let mut constants = Constants { pc, sp, fp, lr, ..Constants::default() };
    if let Some(hunt) = hunt {
        constants.rate = hunt.rate;
        if let [pid] = hunt.pids[..] {
            constants.pid = pid;
        }
        if let [comm] = &hunt.comms[..] {
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

/// Debian's kernels have a level 3 of `perf_event_paranoid`, the default there, which CAP_PERFMON does not pass.
fn refusing_level() -> Option<String> {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    let level = level.trim().parse::<i32>().ok().filter(|level| *level > 2)?;
    Some(format!("; kernel.perf_event_paranoid is {level}: it takes CAP_SYS_ADMIN, or 2 at most there"))
}

impl Loaded {
    /// Takes stacks from now on. What cannot be had, and what it costs instead, is added to `degraded`.
    ///
    /// # Errors
    /// This kernel does not show the stacks of those who connect.
    pub fn hunt(&mut self) -> Result<(), KernelError> {
        let connect = match &self.btf {
            Some(btf) => attach::tp_btf(&mut self.ebpf, "opened_by_connect", "inet_sock_set_state", btf),
            None => Err("no BTF".into()),
        };
        self.attempts.push(Attempt::of(CONNECT, "who connects", &connect));
        match connect {
            Ok(link) => self.links.keep(link),
            Err(error) => {
                let error = chain(&*error);
                let reason = format!("{CONNECT}: {error} (stacks need bpf_task_pt_regs, Linux 5.15)");
                return Err(KernelError::Unsupported { reason });
            }
        }
        let accept = attach::kprobe(&mut self.ebpf, "opened_by_accept", "inet_csk_accept");
        self.attempts.push(Attempt::of(ACCEPT, "who accepts", &accept));
        match accept {
            Ok(link) => self.links.keep(link),
            Err(reason) => self.accept_calls(&chain(&*reason)),
        }
        Ok(())
    }

    /// Sees accepts at the end of their system calls instead, for this `reason`.
    fn accept_calls(&mut self, reason: &str) {
        let result = CALLS.into_iter().try_for_each(|call| {
            let link = attach::tracepoint(&mut self.ebpf, "opened_by_accept_call", "syscalls", call)?;
            self.links.keep(link);
            Ok(())
        });
        self.attempts.push(Attempt::of("tracepoint/syscalls/sys_exit_accept4", "who accepts", &result));
        self.degraded.push(match result {
            Ok(()) => format!(
                "accepts are seen at the end of the system call ({reason}): every system call of the host is a little slower meanwhile, and io_uring's accepts are not seen"
            ),
            Err(error) => {
                let (error, level) = (chain(&*error), refusing_level().unwrap_or_default());
                format!("accepts are not seen ({reason}; {error}{level})")
            }
        });
    }

    /// The map of processes that run CPython; the programs keep it.
    ///
    /// # Errors
    /// It was taken before.
    pub fn pythons(&mut self) -> Result<Pythons, KernelError> {
        let map = self.ebpf.take_map("PYTHONS").ok_or("the object lacks the map of Python processes".into());
        let map = map.and_then(|map| HashMap::try_from(map).map_err(LoadError::from));
        map.map(Pythons).map_err(|error| KernelError::Unsupported { reason: chain(&*error) })
    }
}
