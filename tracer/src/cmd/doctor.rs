//! `sockstate doctor`: tries all hooks, and shows the results and what to do.

use std::{fmt::Write, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::exit;
use crate::{
    format,
    kernel::{self, Attempt, HookChoice, HostInfo, IterKind, Request},
    look::look,
    model::{Destroy, Filter, Gap, Transport},
    source::{Destroys, Mptcp},
    values::parse_ring_size,
};

const EXAMPLES: &str = "\
Examples:
  sockstate doctor                                what works here, and what to do about the rest
  sockstate doctor --ring-size 64M                does a larger ring fit?
  sockstate doctor --format json                  for a script";

/// Check what works on this host (kernel, BTF, hooks, capabilities, limits), and what to do about the rest.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Format of the output.
    #[arg(long, value_enum, default_value_t)]
    pub format: DoctorFormat,
    /// Try a ring buffer of this size.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_ring_size)]
    pub ring_size: u32,
    /// Try this BTF instead of the kernel's.
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
}

/// The format of `doctor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// The results of all checks.
struct Findings {
    facts: HostInfo,
    ring_bytes: u32,
    attempts: Vec<Attempt>,
    /// The hook that trace would use.
    hook: Option<&'static str>,
    /// The tier for mini-sockets that trace would use.
    tier: Option<&'static str>,
    degraded: Vec<String>,
    /// What a look at all sockets cannot see.
    gaps: Vec<Gap>,
    /// Whether `ss -K` ends a socket.
    destroy: Destroy,
    mptcp: Mptcp,
    advice: Vec<String>,
}

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let findings = examine(args);
    match args.format {
        DoctorFormat::Text => super::print([findings.text()])?,
        DoctorFormat::Json => super::print([format!("{}\n", findings.json())])?,
    }
    let works = findings.hook.is_some();
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

fn examine(args: &DoctorArgs) -> Findings {
    let request = |hook| Request {
        hook,
        tier: None,
        btf: args.btf.clone(),
        ring_bytes: args.ring_size,
        // Nothing is traced while the hooks are tried: no namespace has this number.
        filter: Filter { netns: Some(1), ..Filter::default() },
        hunt: None,
    };
    let looked = look(None, |_| false, |_| {});
    let destroy = if looked.is_blind { Destroy::Unknown } else { Destroys::default().of(Transport::Tcp) };
    let mut findings = Findings {
        facts: HostInfo::gather(),
        ring_bytes: args.ring_size,
        attempts: Vec::new(),
        hook: None,
        tier: None,
        degraded: Vec::new(),
        gaps: looked.gaps,
        destroy,
        mptcp: Mptcp::find(),
        advice: Vec::new(),
    };
    match kernel::load(&request(HookChoice::Auto)) {
        Ok(mut loaded) => {
            findings.hook = Some(loaded.hook.name());
            findings.tier = Some(loaded.tier.name());
            findings.degraded.append(&mut loaded.degraded);
            findings.attempts.append(&mut loaded.attempts);
            for (hook, purpose, walk) in [
                ("iter/tcp", "sockets that existed before the trace", IterKind::Sockets),
                ("iter/task_file", "owners of sockets that existed before the trace", IterKind::Files),
                ("iter/tcp (of the kernel)", "sockets that the kernel itself uses", IterKind::OfKernel),
            ] {
                let error = loaded.iterate(walk).err();
                if let Some(error) = &error {
                    findings.degraded.push(format!("no {purpose} ({hook}: {error})"));
                }
                findings.attempts.push(Attempt::new(hook, purpose, error));
            }
            let hunt = loaded.hunt().err().map(|error| error.to_string());
            findings.attempts.append(&mut loaded.attempts);
            findings
                .degraded
                .extend(hunt.into_iter().chain(loaded.degraded).map(|why| format!("hunt: {why}")));
        }
        Err(error) => findings.advice.push(error.to_string()),
    }
    if findings.hook != Some("tracepoint") {
        let without_btf = Request { btf: None, ..request(HookChoice::Tracepoint) };
        let error = kernel::load(&without_btf).err().map(|error| error.to_string());
        let (hook, purpose) =
            ("tracepoint/sock/inet_sock_set_state", "instead of tp_btf, where that is not available");
        findings.attempts.push(Attempt::new(hook, purpose, error));
    }
    findings.degraded.extend(findings.gaps.iter().map(ToString::to_string));
    findings.advise();
    findings
}

impl Findings {
    fn advise(&mut self) {
        let missing: Vec<&str> = self
            .facts
            .capabilities
            .iter()
            .filter(|capability| !capability.held)
            .map(|capability| capability.name)
            .collect();
        if !missing.is_empty() {
            self.advice.push(format!(
                                "capabilities are missing: {}; run as root, or grant them with setcap or with AmbientCapabilities of the systemd unit",
                missing.join(", ")
            ));
        }
        if self.facts.tracefs.is_none() {
            self.advice.push(
                                "tracefs is not mounted; only the classic tracepoint needs it: mount -t tracefs tracefs /sys/kernel/tracing"
                    .into(),
            );
        }
        if self.facts.btf_bytes.is_none() {
            self.advice.push(
                "no BTF: use a kernel with CONFIG_DEBUG_INFO_BTF=y, as all large distributions build it"
                    .into(),
            );
        }
        if self.facts.cgroup == "v1" || self.facts.cgroup == "none" {
            self.advice.push(
                "no cgroup v2: containers are found by the owner's cgroups only, and --cgroup does not work"
                    .into(),
            );
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key:<14} {value}");
        };
        let facts = &self.facts;
        let limit = |value: Option<u64>| value.map_or("unlimited".into(), |value| value.to_string());
        let memlock = facts.memlock_bytes.map_or("unlimited".into(), |bytes| format!("{bytes} bytes"));
        let btf = facts.btf_bytes.map_or("none".into(), |bytes| format!("{bytes} bytes"));
        line("kernel", format!("{} {}", facts.kernel, facts.machine));
        line("BTF", btf);
        line("tracefs", facts.tracefs.clone().unwrap_or_else(|| "not mounted".into()));
        line("cgroup", facts.cgroup.into());
        line("memlock", memlock);
        line("open files", limit(facts.open_files));
        line("ring", format!("{} bytes", self.ring_bytes));
        for capability in &facts.capabilities {
            let held = if capability.held { "yes" } else { "NO " };
            line("capability", format!("{held}  {:<20} {}", capability.name, capability.purpose));
        }
        for attempt in &self.attempts {
            let result = if attempt.error.is_some() { "NO " } else { "yes" };
            let why = attempt.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            line("hook", format!("{result}  {} ({}){why}", attempt.hook, attempt.purpose));
        }
        if self.gaps.is_empty() {
            line("look", "yes  every process and every network namespace can be seen".into());
        }
        for gap in &self.gaps {
            line("look", format!("NO   {}: {gap}", gap.kind.name()));
        }
        let (works, why) = destroy_of(self.destroy);
        line("ss -K", format!("{}  {why}", yes_or_no(works)));
        let (works, why) = mptcp_of(&self.mptcp);
        line("MPTCP", format!("{}  {why}", yes_or_no(works)));
        for why in &self.degraded {
            line("degraded", why.clone());
        }
        for advice in &self.advice {
            line("advice", advice.clone());
        }
        let missing = if self.degraded.is_empty() {
            ""
        } else {
            ", with the limitations in the lines `degraded` above"
        };
        let verdict = match (self.hook, self.tier) {
            (Some(hook), Some(tier)) => {
                let mini_sockets = match tier {
                    "none" => "not seen".into(),
                    "estimate" => "estimated".into(),
                    hooks => format!("seen by {hooks}"),
                };
                format!("tracing works (hook {hook}; mini-sockets {mini_sockets}){missing}")
            }
            _ => "tracing does not work here".into(),
        };
        line("verdict", verdict);
        out
    }

    fn json(&self) -> Value {
        let (facts, destroy) = (&self.facts, destroy_of(self.destroy));
        json!({
            "schema": "sockstate/1",
            "kind": "doctor",
            "works": self.hook.is_some(),
            "hook": self.hook,
            "tier": self.tier,
            "kernel": {"release": facts.kernel, "machine": facts.machine},
            "btf_bytes": facts.btf_bytes,
            "tracefs": facts.tracefs,
            "cgroup": facts.cgroup,
            "memlock_bytes": facts.memlock_bytes,
            "open_files": facts.open_files,
            "unprivileged_bpf_disabled": facts.unprivileged_bpf_disabled,
            "ring_bytes": self.ring_bytes,
            "capabilities": facts.capabilities.iter().map(|capability| json!({
                "name": capability.name, "held": capability.held, "required": capability.required, "purpose": capability.purpose,
            })).collect::<Vec<_>>(),
            "hooks": self.attempts.iter().map(|attempt| json!({
                "hook": attempt.hook, "works": attempt.error.is_none(), "error": attempt.error, "purpose": attempt.purpose,
            })).collect::<Vec<_>>(),
            "look": {
                "complete": self.gaps.is_empty(),
                "reasons": format::gaps_json(&self.gaps),
            },
            "destroy": { "works": destroy.0, "why": destroy.1 },
            "mptcp": {
                "available": self.mptcp.enabled.is_some(),
                "enabled": self.mptcp.enabled,
                "listed": self.mptcp.enabled.map(|_| self.mptcp.unlisted.is_none()),
                "why": mptcp_of(&self.mptcp).1,
            },
            "degraded": self.degraded,
            "advice": self.advice,
        })
    }
}

fn yes_or_no(works: Option<bool>) -> &'static str {
    match works {
        Some(true) => "yes",
        Some(false) => "NO ",
        None => "?  ",
    }
}

/// Whether the commands that `stuck` prints end a socket.
fn destroy_of(destroy: Destroy) -> (Option<bool>, &'static str) {
    match destroy {
        Destroy::Works => (Some(true), "ends a socket from outside (SOCK_DESTROY)"),
        Destroy::NeedsNetAdmin => (
            Some(true),
            "ends a socket from outside (SOCK_DESTROY); it needs CAP_NET_ADMIN, which this process lacks",
        ),
        Destroy::NotSupported => (
            Some(false),
            "does nothing: this kernel is built without CONFIG_INET_DIAG_DESTROY; end or restart the process that holds a socket",
        ),
        Destroy::Unknown => (None, "not known: the kernel does not answer (sock_diag)"),
    }
}

fn mptcp_of(mptcp: &Mptcp) -> (Option<bool>, String) {
    const LIMIT: &str = "a trace sees its subflows only, and not the closes of MPTCP connections";
    let works = Some(mptcp.enabled.is_some() && mptcp.unlisted.is_none());
    let why = match (mptcp.enabled, &mptcp.unlisted) {
        (None, _) => "this kernel has no MPTCP; nothing is missed".into(),
        (Some(true), None) => {
            format!("enabled (net.mptcp.enabled), and stuck and sockets list its sockets; {LIMIT}")
        }
        (Some(false), None) => {
            "not enabled here (net.mptcp.enabled is 0); stuck and sockets would list its sockets".into()
        }
        (Some(_), Some(error)) => format!("{error}; {LIMIT}"),
    };
    (works, why)
}
