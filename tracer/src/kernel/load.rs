//! Loading and attaching: the best hook that this kernel and these privileges allow, chosen by trying.

use std::path::{Path, PathBuf};

use aya::{
    Btf, BtfError, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::Array,
    programs::{BtfTracePoint, TracePoint, tp_btf::BtfTracePointLink, trace_point::TracePointLink},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use sockstate_abi::abi::{
    Filter as KernelFilter, Hooks, Hunt as KernelHunt, ORPHANS, Offsets, TracepointFormat,
};

use super::{
    btf::{self, KernelTypes},
    failure::{KernelError, LoadError, chain, is_privilege, privilege, unsupported},
    filter,
    hunt::{self, Hunt},
    lifecycle::{self, Tier},
    links::Links,
    pin::Adopted,
    pod::pod,
    symbols, tracefs,
};
use crate::{files, model::Filter};

/// The programs; rebuilt by `cargo xtask build-ebpf`.
#[cfg(target_arch = "x86_64")]
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/sockstate-x86_64.bpf.o");
/// The programs; rebuilt by `cargo xtask build-ebpf`.
#[cfg(target_arch = "aarch64")]
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/sockstate-aarch64.bpf.o");

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

    /// The program that it runs.
    #[must_use]
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::TpBtf => "set_state",
            Self::Tracepoint => "set_state_classic",
        }
    }
}

/// What to load.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which hook.
    pub hook: HookChoice,
    /// Which hooks for mini-sockets; the best that work if none is named.
    pub tier: Option<Tier>,
    /// BTF in place of the kernel's own.
    pub btf: Option<PathBuf>,
    /// Size of the ring in bytes, a power of two.
    pub ring_bytes: u32,
    /// What is wanted.
    pub filter: Filter,
    /// Whose stacks [`Loaded::hunt`] is to take.
    pub hunt: Option<Hunt>,
}

/// One hook that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub hook: String,
    /// What it is for.
    pub purpose: &'static str,
    /// The reason if it failed.
    pub error: Option<String>,
}

/// Programs that run.
pub struct Loaded {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// What keeps them running.
    pub links: Links,
    /// The hook that works.
    pub hook: Hook,
    /// What shows mini-sockets.
    pub tier: Tier,
    /// Resets that are sent are seen.
    pub sees_resets: bool,
    /// The running kernel's names of `enum sk_rst_reason`, without their prefix.
    pub reset_reasons: Vec<String>,
    /// Everything that was tried.
    pub attempts: Vec<Attempt>,
    /// What works less than it could, why, and what to do.
    pub degraded: Vec<String>,
    /// The kernel's types, for the iterators; none without.
    pub btf: Option<Btf>,
    /// What another sockstate has left running.
    pub adopted: Option<Adopted>,
}

pod!(PodOffsets, Offsets);
pod!(PodFilter, KernelFilter);
pod!(PodHooks, Hooks);
pod!(PodHunt, KernelHunt);
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
    let types = resolve(request, &mut attempts, &mut degraded)?;
    let mut attempt = Loader { request, types, attempts, degraded };
    if request.hook != HookChoice::Tracepoint && attempt.types.offsets.valid != 0 {
        // The second try is for kernels before 5.11, which lack bpf_get_current_task_btf.
        for task_btf in [1, 0] {
            attempt.types.offsets.task_btf = task_btf;
            match attempt.hook(Hook::TpBtf) {
                Ok(loaded) => return Ok(loaded),
                Err(error) if is_privilege(&error) => return Err(privilege(&error)),
                Err(error) => attempt.note(TP_BTF, Some(chain(&*error))),
            }
        }
        attempt.degraded.push(format!(
            "no tp_btf ({}): the slower classic tracepoint is used, and interrupts may hide transitions from it",
            attempt.attempts.last().and_then(|attempt| attempt.error.clone()).unwrap_or_default()
        ));
    }
    if request.hook == HookChoice::TpBtf {
        return Err(unsupported(&attempt.attempts));
    }
    match attempt.hook(Hook::Tracepoint) {
        Ok(loaded) => Ok(loaded),
        Err(error) if is_privilege(&error) => Err(privilege(&error)),
        Err(error) => {
            attempt.note(TRACEPOINT, Some(chain(&*error)));
            Err(unsupported(&attempt.attempts))
        }
    }
}

/// The object with nothing attached, beside programs that run already: for the iterators.
pub(super) fn unattached(request: &Request, hook: Hook, tier: Tier) -> Result<Loaded, KernelError> {
    let (mut attempts, mut degraded) = (Vec::new(), Vec::new());
    let types = resolve(request, &mut attempts, &mut degraded)?;
    // Its own ring stays empty.
    let request = &Request { ring_bytes: 4096, ..request.clone() };
    let mut loader = Loader { request, types, attempts, degraded };
    let load =
        |loader: &Loader<'_>| -> Result<_, LoadError> { Ok((loader.object(hook, tier)?, loader.btf()?)) };
    let (ebpf, btf) = load(&loader).map_err(|error| match is_privilege(&error) {
        true => privilege(&error),
        false => KernelError::Unsupported { reason: chain(&*error) },
    })?;
    Ok(Loaded {
        ebpf,
        links: Links::default(),
        hook,
        tier,
        sees_resets: false,
        reset_reasons: std::mem::take(&mut loader.types.reset_reasons),
        attempts: Vec::new(),
        degraded: Vec::new(),
        btf,
        adopted: None,
    })
}

/// The object with nothing attached: for the iterators alone.
///
/// # Errors
/// This kernel cannot, or it is not permitted.
pub fn for_walks() -> Result<Loaded, KernelError> {
    let request = Request {
        hook: HookChoice::TpBtf,
        tier: Some(Tier::None),
        btf: None,
        ring_bytes: 4096,
        filter: Filter::default(),
        hunt: None,
    };
    unattached(&request, Hook::TpBtf, Tier::None)
}

const BTF: (&str, &str) = ("btf", "where the fields are in this kernel's structures");
const TP_BTF: (&str, &str) = ("tp_btf/inet_sock_set_state", "every transition, fastest");
const TRACEPOINT: (&str, &str) = ("tracepoint/sock/inet_sock_set_state", "every transition, without BTF");

/// Programs beside the one that sees the transitions, each for itself.
const OPTIONAL: [(&str, &str, &str); 6] = [
    ("syn_retransmitted", "tcp_retransmit_skb", "the local port of a connect that gets no answer"),
    ("reset_received", "tcp_receive_reset", "resets as the cause of an end"),
    ("reset_sent", "tcp_send_reset", "resets as the cause of an end, and why"),
    ("process_exits", "sched_process_exit", "listeners whose owner has ended"),
    ("process_executes", "sched_process_exec", "owners that run another program"),
    ("process_renamed", "task_rename", "owners that have another name"),
];

fn resolve(
    request: &Request,
    attempts: &mut Vec<Attempt>,
    degraded: &mut Vec<String>,
) -> Result<KernelTypes, KernelError> {
    let path = request.btf.as_deref().unwrap_or(Path::new(KERNEL_BTF));
    let (types, error) = match btf::read(path) {
        Ok(types) => (types, None),
        Err(error) if request.btf.is_some() => return Err(error.into()),
        Err(error) => (KernelTypes::NONE, Some(error.to_string())),
    };
    if let Some(error) = &error {
        degraded.push(format!(
            "no BTF ({error}): no netns, uid, cgroup, errno, no owner of accepted connections, no mini-sockets, no snapshot; use a kernel with CONFIG_DEBUG_INFO_BTF"
        ));
    }
    attempts.push(Attempt { hook: BTF.0.into(), purpose: BTF.1, error });
    Ok(types)
}

/// What is known and was tried so far.
struct Loader<'a> {
    request: &'a Request,
    types: KernelTypes,
    attempts: Vec<Attempt>,
    degraded: Vec<String>,
}

impl Loader<'_> {
    fn note(&mut self, (hook, purpose): (&str, &'static str), error: Option<String>) {
        self.attempts.push(Attempt { hook: hook.into(), purpose, error });
    }

    /// Everything with this hook, and the best tier that works with it.
    fn hook(&mut self, hook: Hook) -> Result<Loaded, LoadError> {
        let known = self.types.offsets.valid != 0;
        let tiers = match self.request.tier {
            Some(tier) => vec![tier],
            None if known => Tier::ORDER.to_vec(),
            None => vec![Tier::None],
        };
        let btf = self.btf()?;
        let mut failed = Vec::new();
        for tier in tiers {
            let mut ebpf = match self.object(hook, tier) {
                Ok(loaded) => loaded,
                Err(error) if tier == Tier::Timers && self.request.tier.is_none() => {
                    failed.push(format!("{}: {}", tier.name(), chain(&*error)));
                    continue;
                }
                Err(error) => return Err(error),
            };
            // One that was asked for has no other behind it that would begin sooner.
            if self.request.tier.is_none()
                && let Err(error) = lifecycle::probe(tier, &mut ebpf, btf.as_ref(), &mut self.attempts)
            {
                failed.push(format!("{}: {}", tier.name(), chain(&*error)));
                continue;
            }
            // First of all, so that no mini-socket is seen whose full socket was not.
            let mut links = Links::default();
            let mark = self.attempts.len();
            match hook {
                Hook::TpBtf => {
                    let btf = btf.as_ref().ok_or("no BTF")?;
                    links.keep(attach_tp_btf(&mut ebpf, "set_state", "inet_sock_set_state", btf)?);
                    self.note(TP_BTF, None);
                    // Behind the first program: it must see what that one has not finished.
                    let companion = attach_tp_btf(&mut ebpf, "companion", "inet_sock_set_state", btf);
                    let hook = ("tp_btf/inet_sock_set_state (companion)", "transitions that interrupts hide");
                    self.keep(&mut links, hook, companion);
                }
                Hook::Tracepoint => {
                    links.keep(attach_tracepoint(&mut ebpf)?);
                    self.note(TRACEPOINT, None);
                }
            }
            let mut sees_resets = false;
            if let Some(btf) = &btf {
                for (name, tracepoint, purpose) in OPTIONAL {
                    let link = attach_tp_btf(&mut ebpf, name, tracepoint, btf);
                    sees_resets |= name == "reset_sent" && link.is_ok();
                    self.keep(&mut links, (&format!("tp_btf/{tracepoint}"), purpose), link);
                }
            }
            match lifecycle::attach(
                tier,
                &mut ebpf,
                btf.as_ref(),
                self.types.hash_add_result,
                &mut self.attempts,
            ) {
                Ok(lifecycle) => links.append(lifecycle),
                Err(error) => {
                    // What failed stays in the list, what is tried again does not.
                    let tried: Vec<Attempt> = self.attempts.drain(mark..).collect();
                    self.attempts.extend(tried.into_iter().filter(|it| it.error.is_some()));
                    failed.push(format!("{}: {}", tier.name(), chain(&*error)));
                    continue;
                }
            }
            self.explain(tier, &failed);
            return Ok(Loaded {
                ebpf,
                links,
                hook,
                tier,
                sees_resets,
                reset_reasons: std::mem::take(&mut self.types.reset_reasons),
                attempts: std::mem::take(&mut self.attempts),
                degraded: std::mem::take(&mut self.degraded),
                btf,
                adopted: None,
            });
        }
        Err(format!("no such tier: {}", failed.join("; ")).into())
    }

    fn keep(
        &mut self,
        links: &mut Links,
        hook: (&str, &'static str),
        link: Result<BtfTracePointLink, LoadError>,
    ) {
        self.note(hook, link.as_ref().err().map(|error| chain(&**error)));
        if let Ok(link) = link {
            links.keep(link);
        }
    }

    /// Says what is missing without the better tiers.
    fn explain(&mut self, tier: Tier, failed: &[String]) {
        if tier == Tier::Estimate && self.request.tier.is_none() {
            self.degraded.push(format!(
                "half-open connections are not seen, TIME_WAIT and FIN_WAIT2 after close() are estimated ({})",
                failed.join("; ")
            ));
        }
    }

    fn btf(&self) -> Result<Option<Btf>, LoadError> {
        if self.types.offsets.valid == 0 {
            return Ok(None);
        }
        Ok(Some(match &self.request.btf {
            // What has the name by now may not be what was checked.
            Some(path) => {
                let data = files::read(path, btf::MOST_BYTES)
                    .map_err(|error| BtfError::FileError { path: path.clone(), error })?;
                Btf::parse(&data, aya::Endianness::default())?
            }
            // The kernel's own.
            None => Btf::from_sys_fs()?,
        }))
    }

    /// The object with its maps and constants.
    fn object(&self, hook: Hook, tier: Tier) -> Result<Ebpf, LoadError> {
        let mut hooks = Hooks {
            tw_timer: 1,
            req_timer: 1,
            hash_add_result: self.types.hash_add_result,
            reset_reason: self.types.has_reset_reason.into(),
        };
        if tier == Tier::Timers {
            [hooks.tw_timer, hooks.req_timer] =
                symbols::addresses(["tw_timer_handler", "reqsk_timer_handler"])?;
        }
        let (format, offsets) = match hook {
            Hook::TpBtf => (TracepointFormat::default(), self.types.offsets),
            Hook::Tracepoint => (tracefs::format()?, Offsets { task_btf: 0, ..self.types.offsets }),
        };
        let (hooks, offsets, format) = (PodHooks(hooks), PodOffsets(offsets), PodFormat(format));
        let constants = PodFilter(filter::constants(&self.request.filter));
        let hunt = PodHunt(hunt::constants(self.request.hunt.as_ref()));
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .override_global("FILTER", &constants, true)
            .override_global("FORMAT", &format, true)
            .override_global("HOOKS", &hooks, true)
            .override_global("HUNT", &hunt, true)
            .map_max_entries("EVENTS", self.request.ring_bytes)
            .map_max_entries("ORPHANS", if tier == Tier::Timers { ORPHANS } else { 1 })
            .load(OBJECT)?;
        let mut ports: Array<_, u64> =
            ebpf.map_mut("PORTS").ok_or("the object lacks the map of ports")?.try_into()?;
        for (index, word) in filter::port_words(&self.request.filter) {
            ports.set(index, word, 0)?;
        }
        Ok(ebpf)
    }
}

pub(super) fn attach_tp_btf(
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

fn attach_tracepoint(ebpf: &mut Ebpf) -> Result<TracePointLink, LoadError> {
    let program: &mut TracePoint =
        ebpf.program_mut("set_state_classic").ok_or("the object lacks the program")?.try_into()?;
    program.load()?;
    let link = program.attach("sock", "inet_sock_set_state")?;
    Ok(program.take_link(link)?)
}
