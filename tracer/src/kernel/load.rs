//! Loading and attaching: the best hook that this kernel and these privileges allow, chosen by trying.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::Array,
    programs::{
        BtfTracePoint, ProgramError, TracePoint, tp_btf::BtfTracePointLink, trace_point::TracePointLink,
    },
};
use rustix::process::{Resource, Rlimit, setrlimit};
use sockstate_abi::abi::{Filter as KernelFilter, Offsets, TracepointFormat};
use thiserror::Error;

use super::{btf, filter, tracefs};
use crate::model::Filter;

/// The programs; rebuilt by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/sockstate.bpf.o");

/// Where kernels put their BTF.
pub(super) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Which hook is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// The best that works.
    #[default]
    Auto,
    /// tp_btf or nothing.
    TpBtf,
    /// The classic tracepoint.
    Tracepoint,
}

/// The hook that sees the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `tp_btf/inet_sock_set_state`.
    TpBtf,
    /// `tracepoint/sock/inet_sock_set_state`.
    Tracepoint,
}

impl Hook {
    /// As records and doctor show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// What to load.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which hook.
    pub hook: HookChoice,
    /// BTF in place of the kernel's own.
    pub btf: Option<PathBuf>,
    /// Size of the ring in bytes, a power of two.
    pub ring_bytes: u32,
    /// What is wanted.
    pub filter: Filter,
}

/// One hook that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub hook: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The reason if it failed.
    pub error: Option<String>,
}

/// Why nothing can be traced.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The system does not let us.
    #[error(
        "cannot load the kernel programs: {reason}; they need CAP_BPF and CAP_PERFMON: run as root, or see `sockstate doctor`"
    )]
    Privilege {
        /// What was refused.
        reason: String,
    },
    /// The user's BTF does not serve.
    #[error("cannot use the BTF given with --btf: {0}")]
    Btf(#[from] btf::BtfError),
    /// No hook works.
    #[error("cannot trace on this kernel: {reason}; see `sockstate doctor`")]
    Unsupported {
        /// Every attempt and what came of it.
        reason: String,
    },
}

/// What ties the programs to their tracepoints; dropping it detaches them.
#[derive(Default)]
pub struct Links {
    tp_btf: Vec<BtfTracePointLink>,
    _tracepoint: Option<TracePointLink>,
}

/// Programs that run.
pub struct Loaded {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// What keeps them running.
    pub links: Links,
    /// The hook that works.
    pub hook: Hook,
    /// Everything that was tried.
    pub attempts: Vec<Attempt>,
    /// What works less than it could, why, and what to do.
    pub degraded: Vec<String>,
    /// The kernel's types, for the iterators; none without.
    pub btf: Option<Btf>,
}

macro_rules! pod {
    ($name:ident, $inner:ty) => {
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        struct $name($inner);
        // SAFETY: repr(C), fixed-width integers, no padding (checked where it is defined), any bits are valid.
        unsafe impl aya::Pod for $name {}
    };
}
pod!(PodOffsets, Offsets);
pod!(PodFilter, KernelFilter);
pod!(PodFormat, TracepointFormat);

/// Loads and attaches what works.
///
/// # Errors
/// No hook works, or it is not permitted; everything that was tried is in the message.
pub fn load(request: &Request) -> Result<Loaded, KernelError> {
    // Kernels before 5.11 charge maps to this limit. Where it cannot be raised, the load itself will tell.
    let unlimited = Rlimit { current: None, maximum: None };
    let _ = setrlimit(Resource::Memlock, unlimited);
    let mut attempts = Vec::new();
    let mut degraded = Vec::new();
    let mut offsets = resolve(request, &mut attempts, &mut degraded)?;
    if request.hook != HookChoice::Tracepoint && offsets.valid != 0 {
        // The second try is for kernels before 5.11, which lack bpf_get_current_task_btf.
        for task_btf in [1, 0] {
            offsets.task_btf = task_btf;
            match try_tp_btf(request, offsets, &mut attempts) {
                Ok((ebpf, links, btf)) => {
                    let hook = Hook::TpBtf;
                    return Ok(Loaded { ebpf, links, hook, attempts, degraded, btf: Some(btf) });
                }
                Err(error) if is_privilege(&error) => return Err(privilege(&error)),
                Err(error) => record(&mut attempts, TP_BTF, Some(chain(&*error))),
            }
        }
        degraded.push(format!(
            "no tp_btf ({}): the slower classic tracepoint is used, and interrupts may hide transitions from it",
            attempts.last().and_then(|attempt| attempt.error.clone()).unwrap_or_default()
        ));
    }
    if request.hook == HookChoice::TpBtf {
        return Err(unsupported(&attempts));
    }
    match try_tracepoint(request, offsets) {
        Ok((ebpf, links)) => {
            record(&mut attempts, TRACEPOINT, None);
            let btf = (offsets.valid != 0).then(|| Btf::from_sys_fs().ok()).flatten();
            Ok(Loaded { ebpf, links, hook: Hook::Tracepoint, attempts, degraded, btf })
        }
        Err(error) if is_privilege(&error) => Err(privilege(&error)),
        Err(error) => {
            record(&mut attempts, TRACEPOINT, Some(chain(&*error)));
            Err(unsupported(&attempts))
        }
    }
}

const BTF: (&str, &str) = ("btf", "where the fields are in this kernel's structures");
const TP_BTF: (&str, &str) = ("tp_btf/inet_sock_set_state", "every transition, fastest");
const COMPANION: (&str, &str) =
    ("tp_btf/inet_sock_set_state (companion)", "transitions that interrupts hide from the first");
const RETRANSMIT: (&str, &str) =
    ("tp_btf/tcp_retransmit_skb", "the local port of a connect that gets no answer");
const TRACEPOINT: (&str, &str) = ("tracepoint/sock/inet_sock_set_state", "every transition, without BTF");

fn record(attempts: &mut Vec<Attempt>, (hook, purpose): (&'static str, &'static str), error: Option<String>) {
    attempts.push(Attempt { hook, purpose, error });
}

fn resolve(
    request: &Request,
    attempts: &mut Vec<Attempt>,
    degraded: &mut Vec<String>,
) -> Result<Offsets, KernelError> {
    let path = request.btf.as_deref().unwrap_or(Path::new(KERNEL_BTF));
    match btf::offsets(path) {
        Ok(offsets) => {
            record(attempts, BTF, None);
            Ok(offsets)
        }
        Err(error) if request.btf.is_some() => Err(error.into()),
        Err(error) => {
            record(attempts, BTF, Some(error.to_string()));
            degraded.push(format!(
                "no BTF ({error}): no netns, uid, cgroup, errno, no owner of accepted connections, no snapshot; use a kernel with CONFIG_DEBUG_INFO_BTF"
            ));
            Ok(Offsets::NONE)
        }
    }
}

type LoadError = Box<dyn std::error::Error>;

fn try_tp_btf(
    request: &Request,
    offsets: Offsets,
    attempts: &mut Vec<Attempt>,
) -> Result<(Ebpf, Links, Btf), LoadError> {
    let btf = match &request.btf {
        Some(path) => Btf::parse_file(path, aya::Endianness::default())?,
        None => Btf::from_sys_fs()?,
    };
    let mut ebpf = load_object(request, offsets, TracepointFormat::default())?;
    let mut links = Links::default();
    links.tp_btf.push(attach_tp_btf(&mut ebpf, "set_state", "inet_sock_set_state", &btf)?);
    record(attempts, TP_BTF, None);
    // Behind the first program: it must see what that one has not finished.
    for (name, tracepoint, hook) in [
        ("companion", "inet_sock_set_state", COMPANION),
        ("syn_retransmitted", "tcp_retransmit_skb", RETRANSMIT),
    ] {
        match attach_tp_btf(&mut ebpf, name, tracepoint, &btf) {
            Ok(link) => {
                links.tp_btf.push(link);
                record(attempts, hook, None);
            }
            Err(error) => record(attempts, hook, Some(chain(&*error))),
        }
    }
    Ok((ebpf, links, btf))
}

fn attach_tp_btf(
    ebpf: &mut Ebpf,
    name: &str,
    tracepoint: &str,
    btf: &Btf,
) -> Result<BtfTracePointLink, LoadError> {
    let program: &mut BtfTracePoint =
        ebpf.program_mut(name).ok_or("the object lacks the program")?.try_into()?;
    program.load(tracepoint, btf)?;
    let link = program.attach()?;
    Ok(program.take_link(link)?)
}

fn try_tracepoint(request: &Request, offsets: Offsets) -> Result<(Ebpf, Links), LoadError> {
    let format = tracefs::format()?;
    let mut ebpf = load_object(request, Offsets { task_btf: 0, ..offsets }, format)?;
    let program: &mut TracePoint =
        ebpf.program_mut("set_state_classic").ok_or("the object lacks the program")?.try_into()?;
    program.load()?;
    let link = program.attach("sock", "inet_sock_set_state")?;
    let _tracepoint = Some(program.take_link(link)?);
    Ok((ebpf, Links { _tracepoint, ..Links::default() }))
}

fn load_object(request: &Request, offsets: Offsets, format: TracepointFormat) -> Result<Ebpf, LoadError> {
    let offsets = PodOffsets(offsets);
    let constants = PodFilter(filter::constants(&request.filter));
    let format = PodFormat(format);
    let mut ebpf = EbpfLoader::new()
        .override_global("OFFSETS", &offsets, true)
        .override_global("FILTER", &constants, true)
        .override_global("FORMAT", &format, true)
        .map_max_entries("EVENTS", request.ring_bytes)
        .load(OBJECT)?;
    let mut ports: Array<_, u64> =
        ebpf.map_mut("PORTS").ok_or("the object lacks the map of ports")?.try_into()?;
    for (index, word) in filter::port_words(&request.filter) {
        ports.set(index, word, 0)?;
    }
    Ok(ebpf)
}

/// Whether the kernel refused because of who asks.
fn is_privilege(error: &LoadError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = source {
        let refused = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        // The verifier says EACCES too, but then it has written why.
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
            return refused(io_error) && verifier_log.to_string().is_empty();
        }
        if error.downcast_ref::<io::Error>().is_some_and(refused) {
            return true;
        }
        source = error.source();
    }
    false
}

fn privilege(error: &LoadError) -> KernelError {
    KernelError::Privilege { reason: chain(&**error) }
}

fn unsupported(attempts: &[Attempt]) -> KernelError {
    let failed = attempts
        .iter()
        .filter_map(|attempt| attempt.error.as_ref().map(|error| format!("{}: {error}", attempt.hook)));
    KernelError::Unsupported { reason: failed.collect::<Vec<_>>().join("; ") }
}

/// An error with its reasons, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        let reason_text = reason.to_string();
        if !text.contains(&reason_text) {
            text = format!("{text}: {reason_text}");
        }
        source = reason.source();
    }
    // A verifier's log says what is wrong at its end; its last line counts instructions.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("processed ")).collect();
    match lines[..] {
        [first, .., last] => format!("{first} ... {last}"),
        [line] => line.to_owned(),
        [] => text,
    }
}
