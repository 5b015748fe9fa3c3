//! Hooks for mini-sockets. Each tier is a set of hooks; the loader takes the first tier that works.

use aya::{Btf, Ebpf, programs::FEntry};

use super::{
    attach,
    attempt::Attempt,
    bpf_links::{Attached, Links},
    error::{LoadError, chain},
    symbols,
};

/// The set of hooks that shows mini-sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// fentry and fexit on the functions that create and end mini-sockets.
    Fentry,
    /// kprobes on the same functions.
    Kprobe,
    /// Tracepoints of the mini-sockets' timers.
    Timers,
    /// No hooks: the full socket's flags allow an estimate.
    Estimate,
    /// No hooks and no estimate.
    None,
}

/// What the tier `estimate` costs, in `start.degraded`.
pub const ESTIMATED: &str =
    "half-open connections are not seen, TIME_WAIT and FIN_WAIT2 after close() are estimated";

impl Tier {
    /// The order in which the tiers are tried.
    pub(super) const ORDER: [Self; 5] =
        [Self::Fentry, Self::Kprobe, Self::Timers, Self::Estimate, Self::None];

    /// The name in records and `doctor`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Timers => "timers",
            Self::Estimate => "estimate",
            Self::None => "none",
        }
    }

    /// Whether mini-sockets are seen, not estimated.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Fentry | Self::Kprobe | Self::Timers)
    }
}

/// The point of a function where the program runs.
#[derive(Clone, Copy, PartialEq)]
enum ProbePoint {
    Entry,
    Exit,
}

/// Whether the tier works without a hook.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// The tier does not work without the hook.
    Always,
    /// The tier works without the hook if this kernel does not have the function.
    IfThere,
    /// The tier works without the hook, with less information.
    Optional,
}

impl Need {
    /// Whether the tier works although the hook failed.
    fn allows_failure(self, lacks: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Always => false,
            Self::IfThere => lacks(),
            Self::Optional => true,
        }
    }
}

/// One hook of a tier: the possible names of the kernel function, our programs, and the purpose.
struct FunctionHooks {
    functions: &'static [&'static str],
    fentry: (&'static str, ProbePoint),
    kprobe: &'static [&'static str],
    need: Need,
    purpose: &'static str,
}

const CALLS: [FunctionHooks; 10] = [
    FunctionHooks {
        // Renamed in 6.12, commit b334b924c9b7.
        functions: &["inet_twsk_hashdance_schedule", "inet_twsk_hashdance"],
        fentry: ("tw_begins", ProbePoint::Entry),
        kprobe: &["tw_begins_probe"],
        need: Need::Always,
        purpose: "TIME_WAIT and orphaned FIN_WAIT2 begin",
    },
    FunctionHooks {
        functions: &["__inet_twsk_schedule"],
        fentry: ("tw_again", ProbePoint::Entry),
        kprobe: &["tw_again_probe"],
        need: Need::Always,
        purpose: "orphaned FIN_WAIT2 becomes TIME_WAIT",
    },
    FunctionHooks {
        functions: &["inet_twsk_kill"],
        fentry: ("tw_ends", ProbePoint::Entry),
        kprobe: &["tw_ends_probe"],
        need: Need::Always,
        purpose: "TIME_WAIT and orphaned FIN_WAIT2 end",
    },
    FunctionHooks {
        functions: &["tw_timer_handler"],
        fentry: ("tw_expires", ProbePoint::Entry),
        kprobe: &["tw_expires_probe"],
        need: Need::Always,
        purpose: "TIME_WAIT and orphaned FIN_WAIT2 expire",
    },
    FunctionHooks {
        functions: &["inet_csk_reqsk_queue_hash_add"],
        fentry: ("req_begins", ProbePoint::Exit),
        kprobe: &["req_begins_probe", "req_begun_probe"],
        need: Need::Always,
        purpose: "half-open connections begin",
    },
    FunctionHooks {
        functions: &["tcp_v4_reqsk_destructor"],
        fentry: ("req_ends", ProbePoint::Entry),
        kprobe: &["req_ends_probe"],
        need: Need::Always,
        purpose: "half-open connections end",
    },
    FunctionHooks {
        functions: &["tcp_v6_reqsk_destructor"],
        fentry: ("req_ends_v6", ProbePoint::Entry),
        kprobe: &["req_ends_v6_probe"],
        need: Need::IfThere,
        purpose: "half-open connections over IPv6 end",
    },
    FunctionHooks {
        functions: &["reqsk_timer_handler"],
        fentry: ("req_expires", ProbePoint::Entry),
        kprobe: &["req_expires_probe", "req_expired_probe"],
        need: Need::Always,
        purpose: "half-open connections expire",
    },
    FunctionHooks {
        functions: &["inet_ehash_insert"],
        fentry: ("req_moves", ProbePoint::Entry),
        kprobe: &["req_moves_probe"],
        need: Need::Optional,
        purpose: "half-open connections that move to another listener",
    },
    FunctionHooks {
        functions: &["tcp_get_cookie_sock"],
        fentry: ("req_cookie", ProbePoint::Entry),
        kprobe: &["req_cookie_probe"],
        need: Need::Optional,
        purpose: "connections that begin with a SYN cookie",
    },
];

/// The hooks of the tier `timers`: our program, the tracepoint, and the purpose.
const TIMERS: [(&str, &str, &str); 4] = [
    ("timer_start", "timer_start", "mini-sockets begin"),
    ("timer_cancel", "timer_cancel", "mini-sockets end"),
    ("timer_expire", "timer_expire_entry", "mini-sockets expire"),
    (
        "packet_freed",
        "kfree_skb",
        "orphaned FIN_WAIT2 becomes TIME_WAIT, where the kernel does not trace the restart of its timer",
    ),
];

/// The file by which the kernel announces perf events of kprobes.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Fails if `tier` cannot work. Runs before the large programs are loaded, because their verification takes most of the start.
pub(super) fn probe(
    tier: Tier,
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    attempts: &mut Vec<Attempt>,
) -> Result<(), LoadError> {
    let hooks = &CALLS[0];
    let result = match tier {
        Tier::Fentry => load_fentry(ebpf, btf, hooks),
        Tier::Kprobe => {
            std::fs::metadata(KPROBES).map(drop).map_err(|error| format!("{KPROBES}: {error}").into())
        }
        Tier::Timers | Tier::Estimate | Tier::None => return Ok(()),
    };
    if result.is_err() {
        let hook = format!("{}/{}", tier.name(), hooks.functions[0]);
        attempts.push(Attempt::of(hook, hooks.purpose, &result));
    }
    result
}

/// Loads the program of `hooks` without attaching it.
fn load_fentry(ebpf: &mut Ebpf, btf: Option<&Btf>, hooks: &FunctionHooks) -> Result<(), LoadError> {
    let btf = btf.ok_or("no BTF")?;
    let program: &mut FEntry = attach::program(ebpf, hooks.fentry.0)?;
    let mut errors = Vec::new();
    for function in hooks.functions {
        match program.load(function, btf) {
            Ok(()) => return Ok(()),
            Err(error) => errors.push(chain(&error)),
        }
    }
    Err(errors.join("; ").into())
}

/// Attaches all hooks of `tier`, or none. `hash_add_result` is the index of the result of `inet_csk_reqsk_queue_hash_add` among the
/// arguments of fexit; 0 if the function has no result.
pub(super) fn attach(
    tier: Tier,
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    hash_add_result: u32,
    attempts: &mut Vec<Attempt>,
) -> Result<Links, LoadError> {
    let mut links = Links::default();
    match tier {
        Tier::Fentry | Tier::Kprobe => {
            for hooks in &CALLS {
                let result = attach_hooks(tier, hooks, ebpf, btf, hash_add_result);
                let hook = format!("{}/{}", tier.name(), hooks.functions[0]);
                attempts.push(Attempt::of(hook, hooks.purpose, &result));
                match result {
                    Ok(attached) => attached.into_iter().for_each(|link| links.keep(link)),
                    Err(_) if hooks.need.allows_failure(|| symbols::lacks(hooks.functions)) => {}
                    Err(error) => return Err(error),
                }
            }
            if tier == Tier::Fentry {
                // At the exit of the function, too: otherwise a later reset of the same request would count as expired.
                let btf = btf.ok_or("no BTF")?;
                links.keep(attach::fexit(ebpf, "req_expired", "reqsk_timer_handler", btf)?);
            }
        }
        Tier::Timers => {
            let btf = btf.ok_or("no BTF")?;
            for (name, tracepoint, purpose) in TIMERS {
                let link = attach::tp_btf(ebpf, name, tracepoint, btf);
                attempts.push(Attempt::of(format!("tp_btf/{tracepoint}"), purpose, &link));
                links.keep(link?);
            }
        }
        Tier::Estimate | Tier::None => {}
    }
    Ok(links)
}

fn attach_hooks(
    tier: Tier,
    hooks: &FunctionHooks,
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    hash_add_result: u32,
) -> Result<Vec<Attached>, LoadError> {
    let mut errors = Vec::new();
    for function in hooks.functions {
        let attached = if tier == Tier::Fentry {
            let btf = btf.ok_or("no BTF")?;
            let (name, at) = hooks.fentry;
            let link = match at {
                ProbePoint::Entry => attach::fentry(ebpf, name, function, btf),
                // A program that reads the function's result, which fexit passes after the function's parameters.
                ProbePoint::Exit if hash_add_result > 0 => {
                    attach::fexit(ebpf, &format!("{name}_result{hash_add_result}"), function, btf)
                }
                ProbePoint::Exit => attach::fexit(ebpf, name, function, btf),
            };
            link.map(|link| vec![link])
        } else {
            hooks.kprobe.iter().map(|name| attach::kprobe(ebpf, name, function)).collect()
        };
        match attached {
            Ok(links) => return Ok(links),
            Err(error) => errors.push(chain(&*error)),
        }
    }
    Err(errors.join("; ").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ipv6_may_be_absent() {
        let needed = |lacks: bool| {
            CALLS
                .iter()
                .filter(|hooks| !hooks.need.allows_failure(|| lacks))
                .flat_map(|hooks| hooks.functions)
                .filter(|function| function.contains("v6"))
                .count()
        };
        assert_eq!((needed(false), needed(true)), (1, 0));
        let others = |lacks: bool| CALLS.iter().filter(|call| !call.need.allows_failure(|| lacks)).count();
        assert_eq!((others(false), others(true)), (8, 7));
    }
}
