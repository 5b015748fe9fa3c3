//! `sockstate doctor`: tries all hooks, and shows the results and what to do.

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

mod finding;
mod findings;
mod privileges;
mod surroundings;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{exit, terminal_width};
use crate::{
    display::paragraph,
    filter::{Filter, Place},
    format,
    kernel::{self, Attempt, HookChoice, HostInfo, HuntGap, IterKind, KernelError, Request},
    look::look,
    model::{Destroy, Gap, Transport},
    source::{Destroys, Mptcp},
    values::parse_ring_size,
};
use finding::Finding;
use privileges::Privileges;
use surroundings::Surroundings;

const EXAMPLES: &str = "\
Examples:
  sockstate doctor
      what works here, and what to do about the rest
  sockstate doctor --ring-size 64M
      does a larger ring fit?
  sockstate doctor --privileges
      what may each thread of the daemon do?
  sockstate doctor --format json
      for a script";

/// Check what works on this host, and what to do.
///
/// Tries the kernel, BTF, hooks, capabilities and limits.
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
    /// Only show what each thread of the running daemon, or of the process PID, may do.
    #[arg(long, value_name = "PID")]
    pub privileges: Option<Option<u32>>,
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
struct Results {
    facts: HostInfo,
    surroundings: Surroundings,
    ring_bytes: u32,
    attempts: Vec<Attempt>,
    /// The hook that trace would use.
    hook: Option<&'static str>,
    /// The tier for mini-sockets that trace would use.
    tier: Option<&'static str>,
    degraded: Vec<String>,
    /// What `hunt` does not see.
    hunt: Option<HuntGap>,
    /// What a look at all sockets cannot see.
    gaps: Vec<Gap>,
    /// Whether `ss -K` ends a socket.
    destroy: Destroy,
    mptcp: Mptcp,
    /// Why nothing can be traced.
    error: Option<KernelError>,
}

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    if let Some(pid) = args.privileges {
        let privileges = Privileges::find(pid)?;
        match args.format {
            DoctorFormat::Text => super::print([privileges.text(terminal_width())])?,
            DoctorFormat::Json => super::print([format!("{}\n", privileges.json())])?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let results = examine(args);
    match args.format {
        DoctorFormat::Text => super::print([results.text(terminal_width())])?,
        DoctorFormat::Json => super::print([format!("{}\n", results.json())])?,
    }
    let works = results.hook.is_some();
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

fn examine(args: &DoctorArgs) -> Results {
    let request = |hook| Request {
        hook,
        tier: None,
        btf: args.btf.clone(),
        ring_bytes: args.ring_size,
        // Nothing is traced while the hooks are tried: no namespace has this number.
        filter: Filter { place: Place { netns: Some(1), ..Place::default() }, ..Filter::default() },
        resets: true,
        hunt: None,
    };
    let looked = look(None, |_| false, |_| {});
    let destroy = if looked.is_blind { Destroy::Unknown } else { Destroys::default().of(Transport::Tcp) };
    let mut results = Results {
        facts: HostInfo::gather(),
        surroundings: Surroundings::below(Path::new("/")),
        ring_bytes: args.ring_size,
        attempts: Vec::new(),
        hook: None,
        tier: None,
        degraded: Vec::new(),
        hunt: None,
        gaps: looked.gaps,
        destroy,
        mptcp: Mptcp::find(),
        error: None,
    };
    match kernel::load(&request(HookChoice::Auto)) {
        Ok(mut loaded) => {
            results.hook = Some(loaded.hook.name());
            results.tier = Some(loaded.tier.name());
            results.degraded.append(&mut loaded.degraded);
            results.attempts.append(&mut loaded.attempts);
            for (hook, purpose, walk) in [
                ("iter/tcp", "sockets that existed before the trace", IterKind::Sockets),
                ("iter/task_file", "owners of sockets that existed before the trace", IterKind::Files),
                ("iter/tcp (of the kernel)", "sockets that the kernel itself uses", IterKind::OfKernel),
            ] {
                let error = loaded.iterate(walk).err();
                if let Some(error) = &error {
                    results.degraded.push(format!("no {purpose} ({hook}: {error})"));
                }
                results.attempts.push(Attempt::new(hook, purpose, error));
            }
            results.hunt = loaded.hunt().unwrap_or_else(|error| Some(without_hunt(&error)));
            results.attempts.append(&mut loaded.attempts);
        }
        Err(error) => results.error = Some(error),
    }
    if results.hook != Some("tracepoint") {
        let without_btf = Request { btf: None, ..request(HookChoice::Tracepoint) };
        let error = kernel::load(&without_btf).err().map(|error| error.reason());
        let (hook, purpose) =
            ("tracepoint/sock/inet_sock_set_state", "instead of tp_btf, where that is not available");
        results.attempts.push(Attempt::new(hook, purpose, error));
    }
    results.degraded.extend(results.gaps.iter().map(ToString::to_string));
    results
}

impl Results {
    fn text(&self, width: Option<usize>) -> String {
        let mut out = String::new();
        let mut line =
            |key: &str, value: &str| out.push_str(&paragraph(&format!("{key:<14} "), value, width));
        let facts = &self.facts;
        let bytes = |count: Option<u64>, none: &str| {
            count.map_or_else(|| none.into(), |count| format!("{count} bytes"))
        };
        let files = facts.open_files.map_or_else(|| "unlimited".into(), |count| count.to_string());
        let tracefs = match &facts.tracefs {
            Ok(path) => path.clone(),
            Err(error) => error.to_string(),
        };
        line("kernel", &format!("{} {}", facts.kernel, facts.machine));
        line("BTF", &bytes(facts.btf_bytes, "none"));
        line("tracefs", &tracefs);
        line("cgroup", facts.cgroup);
        line("memlock", &bytes(facts.memlock_bytes, "unlimited"));
        line("open files", &files);
        line("security", &self.surroundings.line());
        line("ring", &format!("{} bytes", self.ring_bytes));
        for capability in &facts.capabilities {
            let held = yes_or_no(Some(capability.held));
            line("capability", &format!("{held}  {:<20} {}", capability.name, capability.purpose));
        }
        for attempt in &self.attempts {
            let works = yes_or_no(Some(attempt.error.is_none()));
            line("hook", &format!("{works}  {} ({})", attempt.hook, attempt.purpose));
        }
        let is_complete = self.gaps.is_empty();
        let seen = "every process and every network namespace can be seen";
        let seen = if is_complete { seen.to_owned() } else { format!("not {seen}") };
        line("look", &format!("{}  {seen}", yes_or_no(Some(is_complete))));
        let (works, why) = destroy_of(self.destroy);
        line("ss -K", &format!("{}  {why}", yes_or_no(works)));
        let (works, why) = mptcp_of(&self.mptcp);
        line("MPTCP", &format!("{}  {why}", yes_or_no(works)));
        let findings = self.findings();
        for finding in &findings {
            line("finding", &finding.to_string());
        }
        line("verdict", &self.verdict(findings.len()));
        out
    }

    fn verdict(&self, findings: usize) -> String {
        let (Some(hook), Some(tier)) = (self.hook, self.tier) else {
            return "tracing does not work here".into();
        };
        let mini_sockets = match tier {
            "none" => "not seen".into(),
            "estimate" => "estimated".into(),
            hooks => format!("seen by {hooks}"),
        };
        let limits = match findings {
            0 => String::new(),
            1 => ", with the limitation in the line `finding` above".into(),
            count => format!(", with the limitations in the {count} lines `finding` above"),
        };
        format!("tracing works (hook {hook}; mini-sockets {mini_sockets}){limits}")
    }

    fn json(&self) -> Value {
        let (facts, destroy, findings) = (&self.facts, destroy_of(self.destroy), self.findings());
        let hunt = self.hunt.iter().map(|gap| format!("hunt: {gap}"));
        json!({
            "schema": "sockstate/1",
            "kind": "doctor",
            "works": self.hook.is_some(),
            "hook": self.hook,
            "tier": self.tier,
            "kernel": {"release": facts.kernel, "machine": facts.machine},
            "btf_bytes": facts.btf_bytes,
            "tracefs": facts.tracefs.as_ref().ok(),
            "cgroup": facts.cgroup,
            "memlock_bytes": facts.memlock_bytes,
            "open_files": facts.open_files,
            "unprivileged_bpf_disabled": self.surroundings.unprivileged_bpf_disabled,
            "surroundings": self.surroundings.json(),
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
            "degraded": self.degraded.iter().cloned().chain(hunt).collect::<Vec<_>>(),
            "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "advice": findings.iter().filter_map(Finding::advice).collect::<Vec<_>>(),
        })
    }
}

/// The gap if a hunt cannot begin.
fn without_hunt(error: &KernelError) -> HuntGap {
    let todo = "use Linux 5.15 or newer with CONFIG_DEBUG_INFO_BTF".to_owned();
    let what = format!("stacks cannot be copied ({})", error.reason());
    HuntGap { what, cost: "`sockstate hunt` does not work", todo }
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
