//! Loads and attaches the best hook and tier that this kernel and these privileges allow, chosen by trying.

use std::path::{Path, PathBuf};

use aya::{Btf, BtfError, Ebpf, EbpfLoader, maps::Array};
use rustix::process::{Resource, Rlimit, setrlimit};
use sockstate_abi::abi::{
    Filter as KernelFilter, Hooks, Hunt as KernelHunt, ORPHANS, Offsets, TracepointFormat,
};

use super::{
    attach,
    attempt::Attempt,
    bpf_links::{Attached, Links},
    btf::{self, KERNEL_BTF, KernelTypes},
    error::{KernelError, LoadError, chain, refusal},
    filter_constants,
    hunt::{self, Hunt},
    loaded::{Hook, Loaded},
    mini_sockets::{self, ESTIMATED, Tier},
    object::OBJECT,
    pod::pod,
    symbols, tracefs,
};
use crate::{files, filter::Filter};

/// The hook that the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// The best hook that works.
    #[default]
    Auto,
    TpBtf,
    Tracepoint,
}

/// What to load.
#[derive(Clone, Debug)]
pub struct Request {
    pub hook: HookChoice,
    /// The tier for mini-sockets; `None` for the best one that works.
    pub tier: Option<Tier>,
    /// A file with BTF that replaces the kernel's own.
    pub btf: Option<PathBuf>,
    /// Size of the ring in bytes, a power of two.
    pub ring_bytes: u32,
    pub filter: Filter,
    /// Report resets for which there is no socket.
    pub resets: bool,
    /// The processes whose stacks [`Loaded::hunt`] copies.
    pub hunt: Option<Hunt>,
}

pod!(PodOffsets, Offsets);
pod!(PodFilter, KernelFilter);
pod!(PodHooks, Hooks);
pod!(PodHunt, KernelHunt);
pod!(PodFormat, TracepointFormat);

/// Loads and attaches the programs.
///
/// # Errors
/// No hook works, or privileges are missing. The message has all hooks that were tried.
pub fn load(request: &Request) -> Result<Loaded, KernelError> {
    load_beside(request, &mut || {})
}

/// Does the same while other programs are attached. Calls `attached` as soon as the new programs see every transition; if another tier
/// must be tried then, calls it again.
///
/// # Errors
/// As [`load`].
pub fn load_beside(request: &Request, attached: &mut dyn FnMut()) -> Result<Loaded, KernelError> {
    // Kernels before 5.11 charge maps to this limit. If it cannot be raised, the load reports the error.
    let unlimited = Rlimit { current: None, maximum: None };
    let _ = setrlimit(Resource::Memlock, unlimited);
    let mut attempts = Vec::new();
    let mut degraded = Vec::new();
    let types = resolve(request, &mut attempts, &mut degraded)?;
    let mut loader = Loader { request, types, attempts, degraded, attached };
    if request.hook != HookChoice::Tracepoint && loader.types.offsets.valid != 0 {
        // The second try is for kernels before 5.11, which lack bpf_get_current_task_btf.
        for task_btf in [1, 0] {
            loader.types.offsets.task_btf = task_btf;
            match loader.hook(Hook::TpBtf) {
                Ok(loaded) => return Ok(loaded),
                Err(error) => match refusal(&error) {
                    Some(refusal) => return Err(refusal),
                    None => loader.note(TP_BTF, Some(chain(&*error))),
                },
            }
        }
        loader.degraded.push(format!(
            "no tp_btf ({}): the classic tracepoint is used; it is slower, and misses a transition that happens in an interrupt while the program runs on that CPU (counted as lost, place recursion)",
            loader.attempts.last().and_then(|attempt| attempt.error.clone()).unwrap_or_default()
        ));
    }
    if request.hook == HookChoice::TpBtf {
        return Err(unsupported(&loader.attempts));
    }
    match loader.hook(Hook::Tracepoint) {
        Ok(loaded) => Ok(loaded),
        Err(error) => Err(refusal(&error).unwrap_or_else(|| {
            loader.note(TRACEPOINT, Some(chain(&*error)));
            unsupported(&loader.attempts)
        })),
    }
}

/// Loads the object without attaching programs, for the iterators; other programs may already run.
pub(super) fn unattached(request: &Request, hook: Hook, tier: Tier) -> Result<Loaded, KernelError> {
    let (mut attempts, mut degraded) = (Vec::new(), Vec::new());
    let types = resolve(request, &mut attempts, &mut degraded)?;
    // The ring of this object stays empty.
    let request = &Request { ring_bytes: 4096, ..request.clone() };
    let attached = &mut || {};
    let mut loader = Loader { request, types, attempts, degraded, attached };
    let load =
        |loader: &Loader<'_>| -> Result<_, LoadError> { Ok((loader.object(hook, tier)?, loader.btf()?)) };
    let (ebpf, btf) = load(&loader).map_err(|error| {
        refusal(&error).unwrap_or_else(|| KernelError::Unsupported { reason: chain(&*error) })
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

/// Loads the object for the iterators only.
///
/// # Errors
/// The kernel cannot load the object, or privileges are missing.
pub fn for_iterators() -> Result<Loaded, KernelError> {
    let request = Request {
        hook: HookChoice::TpBtf,
        tier: Some(Tier::None),
        btf: None,
        ring_bytes: 4096,
        filter: Filter::default(),
        resets: false,
        hunt: None,
    };
    unattached(&request, Hook::TpBtf, Tier::None)
}

const BTF: (&str, &str) = ("btf", "offsets of the fields in this kernel's structures");
const TP_BTF: (&str, &str) = ("tp_btf/inet_sock_set_state", "every transition, fastest");
const TRACEPOINT: (&str, &str) = ("tracepoint/sock/inet_sock_set_state", "every transition, without BTF");

/// Optional programs: name, tracepoint, purpose. Each works independently of the others.
const OPTIONAL: [(&str, &str, &str); 6] = [
    ("syn_retransmitted", "tcp_retransmit_skb", "the local port of a connect that gets no answer"),
    ("reset_received", "tcp_receive_reset", "resets as the cause of an end"),
    ("reset_sent", "tcp_send_reset", "resets as the cause of an end, and why"),
    ("process_exits", "sched_process_exit", "ends of processes that own listeners"),
    ("process_executes", "sched_process_exec", "owners that execute another program"),
    ("process_renamed", "task_rename", "owners that change their name"),
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
    attempts.push(Attempt::new(BTF.0, BTF.1, error));
    Ok(types)
}

fn unsupported(attempts: &[Attempt]) -> KernelError {
    let failed = attempts
        .iter()
        .filter_map(|attempt| attempt.error.as_ref().map(|error| format!("{}: {error}", attempt.hook)));
    KernelError::Unsupported { reason: failed.collect::<Vec<_>>().join("; ") }
}

/// The request, the kernel's types, and the attempts so far.
struct Loader<'a> {
    request: &'a Request,
    types: KernelTypes,
    attempts: Vec<Attempt>,
    degraded: Vec<String>,
    /// Called when the program that sees transitions is attached.
    attached: &'a mut dyn FnMut(),
}

impl Loader<'_> {
    fn note(&mut self, (hook, purpose): (&str, &'static str), error: Option<String>) {
        self.attempts.push(Attempt::new(hook, purpose, error));
    }

    /// Attaches all programs with this hook, and the best tier that works with it.
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
            // The probe saves time only if another tier can be tried next.
            if self.request.tier.is_none()
                && let Err(error) = mini_sockets::probe(tier, &mut ebpf, btf.as_ref(), &mut self.attempts)
            {
                failed.push(format!("{}: {}", tier.name(), chain(&*error)));
                continue;
            }
            let mark = self.attempts.len();
            let mut links = Links::default();
            let sees_resets = self.full_sockets(hook, &mut ebpf, btf.as_ref(), &mut links)?;
            match mini_sockets::attach(
                tier,
                &mut ebpf,
                btf.as_ref(),
                self.types.hash_add_result,
                &mut self.attempts,
            ) {
                Ok(others) => links.append(others),
                Err(error) => {
                    // Keep failed attempts only: the next tier tries the others again.
                    let tried: Vec<Attempt> = self.attempts.drain(mark..).collect();
                    self.attempts.extend(tried.into_iter().filter(|attempt| attempt.error.is_some()));
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
        Err(format!("no allowed tier works on this kernel: {}", failed.join("; ")).into())
    }

    /// Attaches the programs for full sockets. They come first, so that no mini-socket is seen without its full socket. Returns
    /// whether sent resets are seen.
    fn full_sockets(
        &mut self,
        hook: Hook,
        ebpf: &mut Ebpf,
        btf: Option<&Btf>,
        links: &mut Links,
    ) -> Result<bool, LoadError> {
        match hook {
            Hook::TpBtf => {
                let btf = btf.ok_or("no BTF")?;
                links.keep(attach::tp_btf(ebpf, "set_state", "inet_sock_set_state", btf)?);
                (self.attached)();
                self.note(TP_BTF, None);
                // Attached after the first program: the companion must see what that one has not finished.
                let companion = attach::tp_btf(ebpf, "companion", "inet_sock_set_state", btf);
                let hook = ("tp_btf/inet_sock_set_state (companion)", "transitions that interrupts hide");
                self.keep(links, hook, companion);
            }
            Hook::Tracepoint => {
                links.keep(attach::tracepoint(ebpf, "set_state_classic", "sock", "inet_sock_set_state")?);
                (self.attached)();
                self.note(TRACEPOINT, None);
            }
        }
        let mut sees_resets = false;
        if let Some(btf) = btf {
            for (name, tracepoint, purpose) in OPTIONAL {
                let link = attach::tp_btf(ebpf, name, tracepoint, btf);
                sees_resets |= name == "reset_sent" && link.is_ok();
                self.keep(links, (&format!("tp_btf/{tracepoint}"), purpose), link);
            }
        }
        if self.request.resets {
            self.no_socket(ebpf, btf, links);
        }
        Ok(sees_resets)
    }

    /// Attaches the program for resets without a socket.
    fn no_socket(&mut self, ebpf: &mut Ebpf, btf: Option<&Btf>, links: &mut Links) {
        let link = match btf {
            Some(_) if self.types.no_socket == 0 => {
                Err("this kernel does not tell why it drops a packet (Linux 5.17 does)".into())
            }
            Some(btf) => attach::tp_btf(ebpf, "no_socket", "kfree_skb", btf),
            None => Err("no BTF".into()),
        };
        if let Err(error) = &link {
            self.degraded.push(format!("no records of resets ({})", chain(&**error)));
        }
        self.keep(links, ("tp_btf/kfree_skb", "resets for which there is no socket"), link);
    }

    fn keep(
        &mut self,
        links: &mut Links,
        (hook, purpose): (&str, &'static str),
        link: Result<Attached, LoadError>,
    ) {
        self.attempts.push(Attempt { is_alone: true, ..Attempt::of(hook, purpose, &link) });
        if let Ok(link) = link {
            links.keep(link);
        }
    }

    /// Reports what is missing without the better tiers.
    fn explain(&mut self, tier: Tier, failed: &[String]) {
        if tier == Tier::Estimate && self.request.tier.is_none() {
            self.degraded.push(format!("{ESTIMATED} ({})", failed.join("; ")));
        }
    }

    fn btf(&self) -> Result<Option<Btf>, LoadError> {
        if self.types.offsets.valid == 0 {
            return Ok(None);
        }
        Ok(Some(match &self.request.btf {
            // The file is read again with a limit: it may have been replaced since it was checked.
            Some(path) => {
                let data = files::read(path, btf::MAX_BYTES)
                    .map_err(|error| BtfError::FileError { path: path.clone(), error })?;
                Btf::parse(&data, aya::Endianness::default())?
            }
            None => Btf::from_sys_fs()?,
        }))
    }

    /// Loads the object with its maps and constants.
    fn object(&self, hook: Hook, tier: Tier) -> Result<Ebpf, LoadError> {
        let mut hooks = Hooks {
            tw_timer: 1,
            req_timer: 1,
            hash_add_result: self.types.hash_add_result,
            reset_reason: self.types.has_reset_reason.into(),
            no_socket: self.types.no_socket,
            pad: 0,
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
        let constants = PodFilter(filter_constants::constants(&self.request.filter));
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
        for (index, word) in filter_constants::port_words(&self.request.filter) {
            ports.set(index, word, 0)?;
        }
        Ok(ebpf)
    }
}
