//! Mini-sockets: the best hooks for them that work here, chosen by trying.

use aya::{Btf, Ebpf, programs::FEntry};

use super::{
    attach,
    attempt::Attempt,
    error::{LoadError, chain},
    links::{Attached, Links},
    symbols,
};

/// What shows mini-sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// fentry and fexit on the functions that make and end them.
    Fentry,
    /// kprobes on the same functions.
    Kprobe,
    /// Their timers' tracepoints.
    Timers,
    /// Nothing: the full socket's flags allow an estimate.
    Estimate,
    /// Nothing, and no estimate either.
    None,
}

impl Tier {
    /// The order in which they are tried.
    pub(super) const ORDER: [Self; 5] =
        [Self::Fentry, Self::Kprobe, Self::Timers, Self::Estimate, Self::None];

    /// As records and doctor show it.
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

    /// Whether mini-sockets are seen as they are.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Fentry | Self::Kprobe | Self::Timers)
    }
}

/// How a function is hooked.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Entry,
    Exit,
}

/// What becomes of the tier without a hook.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// It does not work.
    Always,
    /// It works if this kernel has no such function.
    IfThere,
    /// It works, and says less.
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

/// One hook of a set: the functions that it may be called, our programs, and what it is for.
struct Piece {
    functions: &'static [&'static str],
    fentry: (&'static str, At),
    kprobe: &'static [&'static str],
    need: Need,
    purpose: &'static str,
}

const CALLS: [Piece; 10] = [
    Piece {
        // Renamed in 6.12, commit b334b924c9b7.
        functions: &["inet_twsk_hashdance_schedule", "inet_twsk_hashdance"],
        fentry: ("tw_begins", At::Entry),
        kprobe: &["tw_begins_probe"],
        need: Need::Always,
        purpose: "TIME_WAIT and orphaned FIN_WAIT2 begin",
    },
    Piece {
        functions: &["__inet_twsk_schedule"],
        fentry: ("tw_again", At::Entry),
        kprobe: &["tw_again_probe"],
        need: Need::Always,
        purpose: "orphaned FIN_WAIT2 becomes TIME_WAIT",
    },
    Piece {
        functions: &["inet_twsk_kill"],
        fentry: ("tw_ends", At::Entry),
        kprobe: &["tw_ends_probe"],
        need: Need::Always,
        purpose: "TIME_WAIT and orphaned FIN_WAIT2 end",
    },
    Piece {
        functions: &["tw_timer_handler"],
        fentry: ("tw_expires", At::Entry),
        kprobe: &["tw_expires_probe"],
        need: Need::Always,
        purpose: "they end because their time is over",
    },
    Piece {
        functions: &["inet_csk_reqsk_queue_hash_add"],
        fentry: ("req_begins", At::Exit),
        kprobe: &["req_begins_probe", "req_begun_probe"],
        need: Need::Always,
        purpose: "half-open connections begin",
    },
    Piece {
        functions: &["tcp_v4_reqsk_destructor"],
        fentry: ("req_ends", At::Entry),
        kprobe: &["req_ends_probe"],
        need: Need::Always,
        purpose: "half-open connections end",
    },
    Piece {
        functions: &["tcp_v6_reqsk_destructor"],
        fentry: ("req_ends_v6", At::Entry),
        kprobe: &["req_ends_v6_probe"],
        need: Need::IfThere,
        purpose: "the same over IPv6",
    },
    Piece {
        functions: &["reqsk_timer_handler"],
        fentry: ("req_expires", At::Entry),
        kprobe: &["req_expires_probe", "req_expired_probe"],
        need: Need::Always,
        purpose: "they end because nobody answered",
    },
    Piece {
        functions: &["inet_ehash_insert"],
        fentry: ("req_moves", At::Entry),
        kprobe: &["req_moves_probe"],
        need: Need::Optional,
        purpose: "half-open connections that move to another listener",
    },
    Piece {
        functions: &["tcp_get_cookie_sock"],
        fentry: ("req_cookie", At::Entry),
        kprobe: &["req_cookie_probe"],
        need: Need::Optional,
        purpose: "connections that begin with a SYN cookie",
    },
];

const TIMERS: [(&str, &str, &str); 4] = [
    ("timer_start", "timer_start", "mini-sockets begin"),
    ("timer_cancel", "timer_cancel", "mini-sockets end"),
    ("timer_expire", "timer_expire_entry", "mini-sockets end because their time is over"),
    ("packet_freed", "kfree_skb", "orphaned FIN_WAIT2 becomes TIME_WAIT, at once"),
];

/// Where perf events of kprobes are announced.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Fails where `tier` cannot work, before the large programs are loaded for it: their verification is most of a start.
pub(super) fn probe(
    tier: Tier,
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    attempts: &mut Vec<Attempt>,
) -> Result<(), LoadError> {
    let piece = &CALLS[0];
    let result = match tier {
        Tier::Fentry => load_fentry(ebpf, btf, piece),
        Tier::Kprobe => {
            std::fs::metadata(KPROBES).map(drop).map_err(|error| format!("{KPROBES}: {error}").into())
        }
        Tier::Timers | Tier::Estimate | Tier::None => return Ok(()),
    };
    if result.is_err() {
        let hook = format!("{}/{}", tier.name(), piece.functions[0]);
        attempts.push(Attempt::of(hook, piece.purpose, &result));
    }
    result
}

/// Loads the program of `piece`, and attaches nothing.
fn load_fentry(ebpf: &mut Ebpf, btf: Option<&Btf>, piece: &Piece) -> Result<(), LoadError> {
    let btf = btf.ok_or("no BTF")?;
    let program: &mut FEntry = attach::program(ebpf, piece.fentry.0)?;
    let mut errors = Vec::new();
    for function in piece.functions {
        match program.load(function, btf) {
            Ok(()) => return Ok(()),
            Err(error) => errors.push(chain(&error)),
        }
    }
    Err(errors.join("; ").into())
}

/// Attaches all of `tier`, or nothing.
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
            for piece in &CALLS {
                let result = attach_piece(tier, piece, ebpf, btf, hash_add_result);
                let hook = format!("{}/{}", tier.name(), piece.functions[0]);
                attempts.push(Attempt::of(hook, piece.purpose, &result));
                match result {
                    Ok(attached) => attached.into_iter().for_each(|link| links.keep(link)),
                    Err(_) if piece.need.allows_failure(|| symbols::lacks(piece.functions)) => {}
                    Err(error) => return Err(error),
                }
            }
            if tier == Tier::Fentry {
                // Behind its entry: else a later reset of the same request would read as its time being over.
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

fn attach_piece(
    tier: Tier,
    piece: &Piece,
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    hash_add_result: u32,
) -> Result<Vec<Attached>, LoadError> {
    let mut errors = Vec::new();
    for function in piece.functions {
        let attached = if tier == Tier::Fentry {
            let btf = btf.ok_or("no BTF")?;
            let (name, at) = piece.fentry;
            let link = match at {
                At::Entry => attach::fentry(ebpf, name, function, btf),
                // The one that finds the function's result.
                At::Exit if hash_add_result > 0 => {
                    attach::fexit(ebpf, &format!("{name}_result{hash_add_result}"), function, btf)
                }
                At::Exit => attach::fexit(ebpf, name, function, btf),
            };
            link.map(|link| vec![link])
        } else {
            piece.kprobe.iter().map(|name| attach::kprobe(ebpf, name, function)).collect()
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
                .filter(|piece| !piece.need.allows_failure(|| lacks))
                .flat_map(|piece| piece.functions)
                .filter(|function| function.contains("v6"))
                .count()
        };
        assert_eq!((needed(false), needed(true)), (1, 0));
        let others = |lacks: bool| CALLS.iter().filter(|call| !call.need.allows_failure(|| lacks)).count();
        assert_eq!((others(false), others(true)), (8, 7));
    }
}
