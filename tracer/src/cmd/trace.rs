//! `sockstate trace`.

use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use super::{Failure, exit, filter, union};
use crate::{
    cli::{Colour, FormatName, HookName, TierName, TraceArgs},
    enrich::Enricher,
    examiner::Examiner,
    format::{Csv, Format, Json, Table as TableFormat},
    kernel::{self, HookChoice, Loaded, Request, Tier},
    model::{Filter, LostPlace, Start, Thresholds},
    pipeline::{self, Limits, Pipeline, Resyncer, Summary, Writer},
    route::Router,
    sinks::Output,
    source::{self, KernelSource, Walker},
    track::{self, Applied, Sight, Table},
};

/// Held while one instance traces.
const LOCK: &str = "/run/sockstate.lock";

/// Runs it.
pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    let filter = Filter { from: union(&args.from), to: union(&args.to), ..filter(&args.select)? };
    let _lock = if args.alongside { None } else { lock()? };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let summary = runtime.block_on(trace(args, filter))?;
    report(&summary);
    Ok(ExitCode::SUCCESS)
}

async fn trace(args: &TraceArgs, filter: Filter) -> Result<Summary> {
    let output = match &args.output {
        Some(path) => Output::file(path),
        None => Output::stdout(),
    };
    let output = output.map_err(|error| Failure { code: exit::FAILURE, message: error.to_string() })?;
    let request = Request {
        hook: match args.hook {
            HookName::Auto => HookChoice::Auto,
            HookName::TpBtf => HookChoice::TpBtf,
            HookName::Tracepoint => HookChoice::Tracepoint,
        },
        tier: tier(args.tier),
        btf: args.btf.clone(),
        ring_bytes: args.ring_size,
        filter: filter.clone(),
    };
    let mut loaded = kernel::load(&request).map_err(Failure::from)?;
    kernel::show_diagnostics(&mut loaded);

    let instance = instance();
    let mut table = Table::new(instance, pipeline::clock_offset_ns(), sight(&mut loaded));
    let mut enricher = Enricher::new(PathBuf::from("/"), args.cmdline);
    let found = source::take(&mut loaded, filter.netns, |event| {
        // What exists makes no transition.
        table.apply(&event, &mut enricher, &mut |_: Applied| {});
    });
    let mut degraded = loaded.degraded.clone();
    degraded.extend(found.problems);
    let can_look = loaded.btf.take().is_some();
    let start = Start {
        time_ns: pipeline::now_ns(),
        version: env!("CARGO_PKG_VERSION"),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        hook: loaded.hook.name(),
        tier: loaded.tier.name(),
        instance,
        degraded,
    };
    for reason in &start.degraded {
        eprintln!("sockstate: {reason}; see `sockstate doctor`");
    }
    let source = KernelSource::new(loaded).context("cannot read from the kernel programs")?;
    let resync = resync(args, filter.netns, can_look);
    let examiner = if args.no_stuck { Examiner::default() } else { watch(args, &mut table, filter.netns) };
    if let Err(error) = kernel::drop_privileges() {
        eprintln!("sockstate: cannot drop capabilities: {error}");
    }
    give_memory_back();

    let router = Router::new(filter);
    let writer = Writer::new(format(args, &output), args.count);
    let limits = Limits { duration: args.duration, count: args.count };
    let mut pipeline = Pipeline { source, table, enricher, router, writer, limits, resync, examiner };
    pipeline.start(start);
    if args.snapshot {
        pipeline.snapshot();
    }
    Ok(pipeline.run(output).await?)
}

/// Started before privileges are dropped; without BTF there is nothing to compare with.
fn resync(args: &TraceArgs, only: Option<u32>, can_look: bool) -> Option<Resyncer> {
    if args.resync.is_zero() || !can_look {
        return None;
    }
    match Walker::start() {
        Ok(walker) => Some(Resyncer { walker, every: args.resync, only }),
        Err(error) => {
            eprintln!("sockstate: no thread to compare with the kernel's tables: {error}");
            None
        }
    }
}

/// From now on what is stuck is said.
fn watch(args: &TraceArgs, table: &mut Table, only: Option<u32>) -> Examiner {
    table.set_thresholds(Thresholds::with(&args.threshold));
    let existing = source::dump(only).sockets;
    let ages = existing.iter().filter_map(|socket| Some((socket, track::age(socket)?.ns)));
    table.backdate(pipeline::monotonic_ns(), ages);
    Examiner::start().unwrap_or_else(|error| {
        eprintln!("sockstate: no thread to find out why connections are stuck: {error}");
        Examiner::default()
    })
}

fn tier(name: TierName) -> Option<Tier> {
    match name {
        TierName::Auto => None,
        TierName::Fentry => Some(Tier::Fentry),
        TierName::Kprobe => Some(Tier::Kprobe),
        TierName::Timers => Some(Tier::Timers),
        TierName::Estimate => Some(Tier::Estimate),
        TierName::None => Some(Tier::None),
    }
}

fn sight(loaded: &mut Loaded) -> Sight {
    // They live as long as the program, and are some dozens.
    let leak = |name: String| &*name.leak();
    Sight {
        minis: loaded.tier.is_exact(),
        estimates: loaded.tier == Tier::Estimate,
        resets: loaded.sees_resets,
        reset_reasons: std::mem::take(&mut loaded.reset_reasons).into_iter().map(leak).collect(),
    }
}

/// json for machines, table for people.
fn format(args: &TraceArgs, output: &Output) -> Box<dyn Format> {
    let default = if output.is_terminal() { FormatName::Table } else { FormatName::Json };
    match args.format.unwrap_or(default) {
        FormatName::Json => Box::new(Json::default()),
        FormatName::Csv => Box::new(Csv),
        FormatName::Table => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Box::new(TableFormat::new(match args.color {
                Colour::Always => true,
                Colour::Never => false,
                Colour::Auto => output.is_terminal() && !no_color,
            }))
        }
    }
}

/// 24 bits that tell this run's connection ids from another's.
fn instance() -> u32 {
    let seed = pipeline::now_ns() as u64 ^ u64::from(std::process::id()) << 32;
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
}

/// Loading took megabytes for BTF that nobody needs any more.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, keeps the heap as it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The lock, unless it cannot be had for lack of a /run that we may write to.
fn lock() -> Result<Option<File>> {
    let Ok(mut file) = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(LOCK)
    else {
        return Ok(None);
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        // A message without the number is still a message.
        let _ = file.read_to_string(&mut pid);
        let message = format!(
            "another sockstate (pid {}) is tracing; every transition would cost twice: end that one, read its output, or use --alongside",
            pid.trim()
        );
        return Err(Failure { code: exit::SECOND, message }.into());
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .context("cannot write the lock")?;
    Ok(Some(file))
}

/// What was lost, for whoever watches.
fn report(summary: &Summary) {
    let lost: Vec<String> = LostPlace::ALL
        .iter()
        .filter_map(|place| {
            let count = *summary.lost.get(place)?;
            (count > 0).then(|| format!("{count} ({})", place.name()))
        })
        .collect();
    if !lost.is_empty() {
        eprintln!("sockstate: {} transitions; lost {}", summary.transitions, lost.join(", "));
    } else if std::io::stderr().is_terminal() {
        eprintln!("sockstate: {} transitions; nothing lost", summary.transitions);
    }
}
