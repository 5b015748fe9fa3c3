//! A virtual machine under QEMU without hardware acceleration, with the test program in its initramfs.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{arch::Arch, command, cross, kernels::Kernel, live, output, root, testing};

/// The files of the initramfs: paths on this machine and in the initramfs.
pub(crate) struct Programs {
    busybox: PathBuf,
    others: Vec<(PathBuf, String)>,
}

/// Builds the binary and the live tests: for this machine as `cargo xtask test --all` does, for another architecture
/// statically linked.
pub(super) fn build(arch: Arch) -> Result<Programs> {
    let live = match arch {
        Arch::X86_64 => live::build(&mut testing::with_features())?,
        Arch::Aarch64 => live::build(&mut cross::tests(arch)?)?,
    };
    let known_as = live.sockstate.display().to_string();
    Programs::with(arch, vec![(live.tests, "/live".into()), (live.sockstate, known_as)])
}

impl Programs {
    /// Programs for `arch`, each with its path in the initramfs. Those for another architecture are statically linked.
    pub(crate) fn with(arch: Arch, mut others: Vec<(PathBuf, String)>) -> Result<Self> {
        if arch == Arch::X86_64 {
            let programs: Vec<&PathBuf> = others.iter().map(|(program, _)| program).collect();
            let libraries = libraries(&programs)?;
            others.extend(libraries.into_iter().map(|library| (library.clone().into(), library)));
        }
        Ok(Self { busybox: cross::busybox(arch)?, others })
    }
}

/// The paths of the shared libraries and of the dynamic linker of `programs`.
fn libraries(programs: &[&PathBuf]) -> Result<BTreeSet<String>> {
    let printed = output(Command::new("ldd").args(programs))?;
    // A line is `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7f12)`, or has the path of the dynamic linker only.
    let words =
        printed.lines().filter(|line| line.starts_with(char::is_whitespace)).flat_map(str::split_whitespace);
    Ok(words.filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// Boots a kernel, runs `script` in it, returns what it printed.
pub(super) fn boot(
    arch: Arch,
    kernel: &Kernel,
    programs: &Programs,
    script: &str,
    number: usize,
    limit: Duration,
) -> Result<String> {
    let directory = root().join(format!("target/vm/run-{number}"));
    let _ = fs::remove_dir_all(&directory);
    let initramfs = initramfs(kernel, programs, script, &directory)?;
    let machine = Machine { arch, kernel, initramfs: &initramfs, memory: "1500M", parameters: "" };
    let text = machine.run(&directory.join("log"), limit)?;
    if !text.lines().any(|line| line == "PASSED") {
        bail!("not passed:\n{}", last_lines(&text));
    }
    Ok(text)
}

/// The last lines of what a machine printed.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(120)..].join("\n")
}

/// A virtual machine.
pub(crate) struct Machine<'a> {
    pub(crate) arch: Arch,
    pub(crate) kernel: &'a Kernel,
    pub(crate) initramfs: &'a Path,
    pub(crate) memory: &'a str,
    /// Further parameters of the kernel.
    pub(crate) parameters: &'a str,
}

impl Machine<'_> {
    /// Runs until the machine ends itself or the time is over. Returns what it printed on its console, which is in the
    /// file `log`, too.
    pub(crate) fn run(&self, log: &Path, limit: Duration) -> Result<String> {
        // With a thread for each CPU, one CPU may still run a breakpoint of the kernel that another CPU has replaced.
        // Attaching to functions then ended in an unknown int3, or in a loop of them.
        self.run_with(&["-accel", "tcg,thread=single", "-smp", "2"], log, limit)
    }

    /// As [`Machine::run`], with one CPU for which a nanosecond is an executed instruction. Neither the host's clock nor
    /// random numbers change what it executes. Only for x86-64.
    pub(crate) fn count(&self, log: &Path, limit: Duration) -> Result<String> {
        let counted = [
            ["-accel", "tcg,thread=single"],
            ["-smp", "1"],
            ["-icount", "shift=0,sleep=off"],
            ["-rtc", "base=2026-01-01,clock=vm"],
            ["-seed", "1"],
            ["-cpu", "max,la57=off,-rdrand,-rdseed"],
        ];
        self.run_with(counted.as_flattened(), log, limit)
    }

    fn run_with(&self, processors: &[&str], log: &Path, limit: Duration) -> Result<String> {
        let (qemu, machine) = self.arch.qemu();
        let parameters = self.arch.parameters();
        let mut child = Command::new(qemu)
            .args(machine)
            .args(processors)
            .args(["-m", self.memory, "-nographic", "-no-reboot", "-net", "none"])
            .args(["-append", &format!("{parameters} quiet panic=-1 oops=panic {}", self.parameters)])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {qemu}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut log = File::create(log)?;
        let reader = thread::spawn(move || -> Result<String> {
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
        reader.join().unwrap_or_else(|_| bail!("the thread that reads the output has panicked"))
    }
}

/// Packs a directory as an initramfs.
pub(crate) fn pack(tree: &Path, image: &Path) -> Result<()> {
    // The same files are the same image.
    let pack =
        format!("find . | LC_ALL=C sort | cpio -o -H newc --quiet --reproducible > {}", image.display());
    command(Command::new("sh").args(["-c", &pack]).current_dir(tree))
}

/// Makes the initramfs of a machine that runs `script` in a shell.
pub(crate) fn initramfs(
    kernel: &Kernel,
    programs: &Programs,
    script: &str,
    directory: &Path,
) -> Result<PathBuf> {
    let tree = directory.join("root");
    for sub in ["bin", "proc", "sys", "dev", "tmp", "run", "etc", "modules", "on-demand"] {
        fs::create_dir_all(tree.join(sub))?;
    }
    fs::copy(&programs.busybox, tree.join("bin/busybox")).context("no busybox (Debian: busybox-static)")?;
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    for (from, to) in &programs.others {
        let to = tree.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("no directory")?)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    for (modules, to) in [(&kernel.modules, "modules"), (&kernel.on_demand, "on-demand")] {
        for module in modules {
            fs::copy(module, tree.join(to).join(module.file_name().context("no name")?))?;
        }
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
    pack(&tree, &image)?;
    fs::remove_dir_all(&tree)?;
    Ok(image)
}
