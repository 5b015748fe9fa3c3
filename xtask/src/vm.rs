//! The live tests on other kernels: Debian's, each booted under QEMU without hardware acceleration, with the statically
//! linked test program in its initramfs.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{arch::Arch, command, cross, kernels, output, root, setup};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Series of kernels, such as 5.10 or 7 (the newest of each is taken) [default: 5.10 6.1 6.12 6.18 7].
    kernels: Vec<String>,
    /// The machine; aarch64 by default on 6.12 only.
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Only tests whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// Only these tiers.
    #[arg(long, value_delimiter = ',', default_values_t = TIERS.map(str::to_owned))]
    tiers: Vec<String>,
    /// Run this shell command there in place of the tests.
    #[arg(long)]
    shell: Option<String>,
    /// How many virtual machines at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run tests that failed this many times more, in a new virtual machine: under emulation one may run out of time.
    #[arg(long, default_value_t = 0)]
    again: usize,
    /// Seconds until a virtual machine is given up.
    #[arg(long, default_value_t = 900)]
    timeout: u64,
}

/// How the tests run there: mini-sockets by each of these, and all of it on the classic tracepoint.
const TIERS: [&str; 5] = ["fentry", "kprobe", "timers", "estimate", "tracepoint"];

/// Runs the tests on every kernel; fails if one fails, or cannot be had.
pub(crate) fn all(args: &Args) -> Result<()> {
    setup::virtual_machines()?;
    let programs = build(args.arch)?;
    let series = match (&args.kernels[..], args.arch) {
        ([], Arch::X86_64) => kernels::SERIES.map(str::to_owned).to_vec(),
        ([], Arch::Aarch64) => vec!["6.12".to_owned()],
        (given, _) => given.to_vec(),
    };
    let mut machines = Vec::new();
    for series in &series {
        machines.push(kernels::get(args.arch, series)?);
    }
    let jobs: Vec<(&kernels::Kernel, String)> = match &args.shell {
        Some(shell) => machines.iter().map(|kernel| (kernel, shell.clone())).collect(),
        None => machines
            .iter()
            .flat_map(|kernel| args.tiers.iter().map(move |tier| (kernel, tests(tier, &args.filter))))
            .collect(),
    };
    let queue = std::sync::Mutex::new(jobs.into_iter().enumerate());
    let results = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let Ok(Some((number, (kernel, script)))) = queue.lock().map(|mut queue| queue.next())
                    else {
                        break;
                    };
                    let what = script.lines().next().unwrap_or_default().to_owned();
                    let start = Instant::now();
                    let limit = Duration::from_secs(args.timeout);
                    let run = |script: &str| boot(args.arch, kernel, &programs, script, number, limit);
                    let mut result = run(&script);
                    for _ in 0..args.again {
                        if let Err(error) = &result {
                            let error = format!("{error:#}");
                            println!("== {} {what}: once more, after {error}", kernel.release);
                            result = run(&once_more(&script, &error));
                        }
                    }
                    let took = start.elapsed().as_secs();
                    let passed = result.is_ok();
                    let text = match result {
                        Ok(text) => {
                            let last = text
                                .lines()
                                .rfind(|line| line.starts_with("test result"))
                                .unwrap_or_default();
                            if args.shell.is_some() { text.clone() } else { last.to_owned() }
                        }
                        Err(error) => format!("{error:#}"),
                    };
                    println!("== {} {what}: {} s\n{text}", kernel.release, took);
                    if let Ok(mut results) = results.lock() {
                        results.push(passed);
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_default();
    if results.iter().any(|passed| !passed) || results.is_empty() {
        bail!("{} of {} runs failed", results.iter().filter(|passed| !**passed).count(), results.len());
    }
    Ok(())
}

/// The live tests with one tier, as a shell script; its first line names it. What does not depend on the tier runs once.
fn tests(tier: &str, filter: &str) -> String {
    let filter = if filter.is_empty() && tier != TIERS[0] { "lifecycle" } else { filter };
    // Bursts measure the machine, and this one has none to speak of.
    format!("export SOCKSTATE_TEST_TIER={tier}\n/live {filter} --skip burst && echo PASSED")
}

/// Only the tests that failed, by the list at the end of what `script` printed; all of it where there is none.
fn once_more(script: &str, printed: &str) -> String {
    let list = printed.rsplit_once("\nfailures:\n").map_or("", |(_, list)| list);
    let failed = list.lines().map_while(|line| line.strip_prefix("    "));
    let commands: Vec<String> =
        failed.map(|name| format!("/live --exact '{}'", name.replace('\'', r"'\''"))).collect();
    match script.lines().next() {
        Some(first) if !commands.is_empty() => format!("{first}\n{} && echo PASSED", commands.join(" && ")),
        _ => script.to_owned(),
    }
}

/// What goes into the initramfs: paths here and there.
struct Programs {
    busybox: PathBuf,
    others: Vec<(PathBuf, String)>,
}

/// Builds the binary and the live tests, statically linked.
fn build(arch: Arch) -> Result<Programs> {
    let directory = root().join("target/vm/build");
    let build = |verb: &str, extra: &[&str]| -> Result<Command> {
        let mut build = cross::cargo_for(arch)?;
        build.args([verb, "--profile", "checked", "--package", "tracer", "--target", &arch.target()]);
        build.arg("--target-dir").arg(&directory).args(extra);
        Ok(build)
    };
    command(&mut build("build", &["--bin", "sockstate"])?)?;
    let messages = output(&mut build("test", &["--test", "live", "--no-run", "--message-format", "json"])?)?;
    let live = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "live")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no test program")?;
    let binary = directory.join(arch.target()).join("checked/sockstate");
    // The tests know the binary by the path that cargo told them.
    let known_as = binary.display().to_string();
    let others = vec![(live, "/live".into()), (binary, known_as)];
    Ok(Programs { busybox: cross::busybox(arch)?, others })
}

/// Boots a kernel, runs `script` in it, returns what it printed.
fn boot(
    arch: Arch,
    kernel: &kernels::Kernel,
    programs: &Programs,
    script: &str,
    number: usize,
    limit: Duration,
) -> Result<String> {
    let directory = root().join(format!("target/vm/run-{number}"));
    let _ = fs::remove_dir_all(&directory);
    let image = initramfs(kernel, programs, script, &directory)?;
    let (qemu, machine) = arch.qemu();
    let mut child = Command::new(qemu)
        .args(machine)
        .args(["-accel", "tcg,thread=multi", "-m", "1500M", "-smp", "2"])
        .args(["-nographic", "-no-reboot", "-net", "none"])
        .args(["-append", &format!("console={} quiet panic=-1 oops=panic", arch.console())])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {qemu}"))?;
    let stdout = child.stdout.take().context("no stdout")?;
    let log = directory.join("log");
    let reader = thread::spawn(move || -> Result<String> {
        let mut log = File::create(log)?;
        let mut text = String::new();
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            log.write_all(&line)?;
            text.push_str(&String::from_utf8_lossy(&line).replace('\r', ""));
            line.clear();
        }
        Ok(text)
    });
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let text = reader.join().unwrap_or_else(|_| bail!("the reader of its output died"))?;
    if !text.lines().any(|line| line == "PASSED") {
        let tail: Vec<&str> = text.lines().collect();
        bail!("not passed:\n{}", tail[tail.len().saturating_sub(120)..].join("\n"));
    }
    Ok(text)
}

/// Packs what the machine needs.
fn initramfs(
    kernel: &kernels::Kernel,
    programs: &Programs,
    script: &str,
    directory: &Path,
) -> Result<PathBuf> {
    let tree = directory.join("root");
    for sub in ["bin", "proc", "sys", "dev", "tmp", "run", "etc", "modules"] {
        fs::create_dir_all(tree.join(sub))?;
    }
    fs::copy(&programs.busybox, tree.join("bin/busybox")).context("no busybox (Debian: busybox-static)")?;
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    for (from, to) in &programs.others {
        let to = tree.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("no directory")?)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    for module in &kernel.modules {
        fs::copy(module, tree.join("modules").join(module.file_name().context("no name")?))?;
    }
    let init = format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ SOCKSTATE_TEST_VM=1
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
mount -t tracefs t /sys/kernel/tracing; mount -t cgroup2 c /sys/fs/cgroup
for round in 1 2 3; do for module in /modules/*.ko; do insmod $module 2>/dev/null; done; done
ip link set lo up
ulimit -n 20000
echo \"booted $(uname -r) in $(cut -d' ' -f1 /proc/uptime) s\"
(
{script}
)
sync
poweroff -f
"
    );
    fs::write(tree.join("init"), init)?;
    command(Command::new("chmod").arg("755").arg(tree.join("init")))?;
    let image = directory.join("initramfs");
    let pack = format!("find . | cpio -o -H newc --quiet > {}", image.display());
    command(Command::new("sh").args(["-c", &pack]).current_dir(&tree))?;
    fs::remove_dir_all(&tree)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_runs_once_more() {
        let script = tests("fentry", "");
        let printed = "not passed:\nfailures:\n\n---- a: b ----\ntest panicked\n\n\nfailures:\n    a: b\n    c's, d\n\ntest result: FAILED. 2 failed\n";
        let again = once_more(&script, printed);
        let expected = r"export SOCKSTATE_TEST_TIER=fentry
/live --exact 'a: b' && /live --exact 'c'\''s, d' && echo PASSED";
        assert_eq!(again, expected);
        assert_eq!(once_more(&script, "not passed:\nkernel panic"), script);
    }
}
