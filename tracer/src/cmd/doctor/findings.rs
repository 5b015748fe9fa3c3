//! What is wrong here, from the results of all checks.

use super::{Results, finding::Finding, surroundings::Evidence};
use crate::{
    kernel::{ESTIMATED, KernelError, TracefsError},
    model::{Destroy, Gap, GapKind},
};

/// How to get capabilities.
const GRANT: &str =
    "run as root, or grant what is missing with setcap or AmbientCapabilities of the systemd unit";

impl Results {
    /// Everything that does not work, the worst first. What another hook replaces is no finding.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        all.extend(self.error.as_ref().map(of_load));
        all.extend(self.gaps.iter().map(of_gap));
        self.capabilities(&mut all);
        all.extend(self.surroundings.findings(self.evidence()));
        all.extend(self.tracefs());
        if self.facts.btf_bytes.is_none() {
            let todo = "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as all large distributions build it";
            all.push(Finding::new("the kernel has no BTF", "most fields of records are null", todo));
        }
        if matches!(self.facts.cgroup, "v1" | "none") {
            let cost = "containers are found by the cgroups of owners only, and --cgroup does not work";
            all.push(Finding::new(
                "there is no cgroup v2",
                cost,
                "boot with systemd.unified_cgroup_hierarchy=1",
            ));
        }
        let gaps: Vec<String> = self.gaps.iter().map(Gap::to_string).collect();
        let degraded = self.degraded.iter().filter(|why| !gaps.contains(why) && !why.starts_with(ESTIMATED));
        all.extend(degraded.map(|why| Finding::new(why.as_str(), "", "")));
        all.extend(self.tier.and_then(of_tier));
        all.extend(
            self.hunt.iter().map(|gap| Finding::new(format!("hunt: {}", gap.what), gap.cost, &*gap.todo)),
        );
        for attempt in self.attempts.iter().filter(|attempt| attempt.is_alone) {
            if let Some(error) = &attempt.error {
                let what = format!("{} does not work ({error})", attempt.hook);
                all.push(Finding::new(what, format!("not seen: {}", attempt.purpose), ""));
            }
        }
        if self.destroy == Destroy::NotSupported {
            let what = "this kernel is built without CONFIG_INET_DIAG_DESTROY";
            let todo = "end or restart the process that holds a socket";
            all.push(Finding::new(what, "`ss -K` does nothing", todo));
        }
        all.extend(self.mptcp.unlisted.as_ref().filter(|_| self.mptcp.enabled.is_some()).map(|error| {
            Finding::new(error.as_str(), "stuck and sockets do not show them", "modprobe mptcp_diag")
        }));
        all
    }

    fn evidence(&self) -> Evidence<'_> {
        let holds = |name: &str| {
            self.facts.capabilities.iter().any(|capability| capability.name == name && capability.held)
        };
        let unread = self.facts.tracefs == Err(TracefsError::NotReadable) && holds("CAP_DAC_READ_SEARCH");
        let is_unloaded = matches!(self.error, Some(KernelError::Refused { .. }));
        Evidence {
            traces: self.hook.is_some(),
            tier: self.tier,
            lacks_bpf: matches!(self.error, Some(KernelError::Privilege { .. })),
            is_refused: unread
                || is_unloaded
                || self.gaps.iter().any(|gap| gap.why.contains("a security module")),
        }
    }

    /// Capabilities that are missing, unless another finding names them.
    fn capabilities(&self, all: &mut Vec<Finding>) {
        for capability in self.facts.capabilities.iter().filter(|capability| !capability.held) {
            if !all.iter().any(|finding| finding.to_string().contains(capability.name)) {
                let cost = format!("it cannot {}", capability.purpose);
                all.push(Finding::new(format!("{} is missing", capability.name), cost, GRANT));
            }
        }
    }

    fn tracefs(&self) -> Option<Finding> {
        let error = *self.facts.tracefs.as_ref().err()?;
        let cost = match self.hook {
            Some("tp_btf") => "nothing for a trace, which uses tp_btf; hunt may not see accept()",
            _ => "the classic tracepoint does not work",
        };
        let todo = match error {
            TracefsError::NotMounted => "mount -t tracefs tracefs /sys/kernel/tracing",
            TracefsError::NotReadable => "run as root, or grant CAP_DAC_READ_SEARCH",
        };
        Some(Finding::new(error.to_string(), cost, todo))
    }
}

/// The finding if nothing can be traced.
fn of_load(error: &KernelError) -> Finding {
    let cost = "no trace, record, top, hunt or run; stuck and sockets work without";
    let todo = match error {
        KernelError::Privilege { .. } => GRANT,
        KernelError::Refused { .. } => "look at lockdown, seccomp, security modules and user namespaces",
        KernelError::Btf(_) => "give the BTF of this kernel with --btf",
        KernelError::Unsupported { .. } | KernelError::Adopt { .. } => {
            "see docs/operations.md for what a kernel needs"
        }
    };
    Finding::new(error.reason(), cost, todo)
}

/// What a tier costs that is not the best one.
fn of_tier(tier: &str) -> Option<Finding> {
    let todo = "use a kernel with fentry (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS) or kprobes (CONFIG_KPROBE_EVENTS), whose programs \
                run for mini-sockets only";
    match tier {
        "timers" => Some(Finding::new(
            "fentry and kprobes do not work for mini-sockets, and the tier `timers` is used",
            "the records are exact but have no `syncookie`, and a program runs at every timer of the kernel (docs/performance.md)",
            todo,
        )),
        "estimate" => Some(Finding::new(
            "no hook shows mini-sockets, and the tier `estimate` is used",
            format!("{ESTIMATED}, with 60 s for each (`exact`: false, docs/events.md)"),
            "grant CAP_SYSLOG with kernel.kptr_restrict at 0 or 1 for the tier `timers`, or use a kernel with fentry or kprobes",
        )),
        _ => None,
    }
}

fn of_gap(gap: &Gap) -> Finding {
    let cost = match gap.kind {
        GapKind::Processes | GapKind::Descriptors => "stuck does not see who holds their sockets",
        GapKind::NetworkNamespaces | GapKind::Sockets => "stuck and sockets do not show their sockets",
    };
    match gap.why.split_once(": ") {
        Some((what, todo)) => Finding::new(what, cost, todo),
        None => Finding::new(gap.why.as_str(), cost, ""),
    }
}
