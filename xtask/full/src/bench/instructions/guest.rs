//! What runs in the virtual machine: connections with a tracer beside them, and the smallest tracer.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{Btf, Ebpf, programs::BtfTracePoint};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use testkit::netns::{self, sysctl};

use super::rows::Ends;
use crate::measure::Running;

/// The paths of the programs in the virtual machine.
pub(super) const LOAD: &str = "/bin/xtask-full";
pub(super) const SOCKSTATE: &str = "/bin/sockstate";
pub(super) const TCPSTATES: &str = "/bin/tcpstates";

/// Connections that are measured, after others that fill caches and tables. Only equal numbers can be compared.
const CONNECTIONS: u32 = 2000;
const WARM_UP: u32 = 500;

const PORT: u16 = 7701;

/// Until a tracer has started, or a network namespace has ended. The clock of the machine jumps over idle time.
const START: Duration = Duration::from_secs(5);
/// Until a tracer has read what the kernel programs have written.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The beginning of the line that says why a tracer cannot be measured.
const ENDED: &str = "the tracer ended: ";

/// Connections, with a tracer beside them.
#[derive(clap::Args)]
pub(crate) struct Churn {
    /// How the connections end; each kind has a network namespace of its own.
    #[arg(long, value_enum, value_delimiter = ',')]
    ends: Vec<Ends>,
    /// The file that gets the tracer's standard output.
    #[arg(long)]
    stdout: PathBuf,
    /// The tracer, and its arguments.
    #[arg(last = true)]
    tracer: Vec<OsString>,
}

/// Nanoseconds of the machine's clock, each of them an executed instruction, for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(super) ends: Ends,
    /// Everything that was executed until the last connection was closed, and what the tracer did after that.
    pub(super) all: f64,
    /// The tracer's share of it, in its own process.
    pub(super) tracer: f64,
}

impl Churn {
    /// Measures, and prints a line for each kind of connections.
    pub(crate) fn run(&self) -> Result<()> {
        const ERRORS: &str = "/tmp/errors";
        let mut tracer = match &self.tracer[..] {
            [] => None,
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).stdin(Stdio::null()).stdout(File::create(&self.stdout)?);
                let child = command.stderr(File::create(ERRORS)?).spawn();
                match child {
                    Ok(child) => Some(Running(child)),
                    Err(error) => {
                        println!("{ENDED}it cannot be started: {error}");
                        return Ok(());
                    }
                }
            }
        };
        thread::sleep(START);
        for ends in &self.ends {
            let result = netns::in_new_netns(|| measure(*ends, tracer.as_ref()))?;
            if let Some(status) = tracer.as_mut().and_then(|tracer| tracer.0.try_wait().transpose()) {
                let printed = fs::read_to_string(ERRORS)?;
                println!("{ENDED}{}: {}", status?, printed.lines().next_back().unwrap_or_default());
                return Ok(());
            }
            println!("{}", serde_json::to_string(&result?)?);
            thread::sleep(START);
        }
        Ok(())
    }
}

/// Measures in this thread's network namespace.
fn measure(ends: Ends, tracer: Option<&Running>) -> Result<Measured> {
    sysctl("ipv4/ip_local_port_range", "10000 65000")?;
    sysctl("ipv4/tcp_max_tw_buckets", "262144")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let cpu = || tracer.map_or(Ok(0.0), Running::cpu);
    churn(&listener, ends, WARM_UP)?;
    thread::sleep(CATCH_UP);
    let before = cpu()?;
    let begin = Instant::now();
    churn(&listener, ends, CONNECTIONS)?;
    let took = begin.elapsed().as_secs_f64();
    let during = cpu()?;
    thread::sleep(CATCH_UP);
    let after = cpu()?;
    let each = |seconds: f64| seconds * 1e9 / f64::from(CONNECTIONS);
    Ok(Measured { ends, all: each(took + after - during), tracer: each(after - before) })
}

/// Opens and closes connections, and never sleeps: what one processor executes meanwhile is the cost of them.
fn churn(listener: &TcpListener, ends: Ends, count: u32) -> io::Result<()> {
    for number in 0..count {
        // Many addresses, so that ports in TIME_WAIT do not run out.
        let address = Ipv4Addr::new(127, 0, 0, 1 + (number % 250) as u8);
        let client = TcpStream::connect((address, PORT))?;
        let (server, _) = listener.accept()?;
        if ends == Ends::Rst {
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        }
        drop(client);
        drop(server);
    }
    Ok(())
}

/// The smallest tracer: a program that does nothing, on the tracepoint of the transitions, until a signal ends it.
pub(crate) fn empty() -> Result<()> {
    const TRACEPOINT: &str = "inet_sock_set_state";
    let mut programs = Ebpf::load(&empty_object(TRACEPOINT)?)?;
    let program = programs.program_mut(TRACEPOINT).context("the object has no program")?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(TRACEPOINT, &Btf::from_sys_fs()?)?;
    program.attach()?;
    loop {
        thread::park();
    }
}

/// An object with one program, which has the name of its tracepoint.
fn empty_object(tracepoint: &str) -> Result<Vec<u8>> {
    // r0 = 0; exit
    const PROGRAM: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let endian = if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big };
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, endian);
    let licence = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(licence, b"GPL\0", 1);
    let name = format!("tp_btf/{tracepoint}").into_bytes();
    let section = object.add_section(Vec::new(), name, SectionKind::Text);
    object.append_section_data(section, &PROGRAM, 8);
    object.add_symbol(Symbol {
        name: tracepoint.as_bytes().to_vec(),
        value: 0,
        size: PROGRAM.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}

/// Why the tracer ended in a machine that has printed this; `None` if it did not.
pub(super) fn ended_early(printed: &str) -> Option<String> {
    printed.lines().find_map(|line| line.strip_prefix(ENDED)).map(str::to_owned)
}

/// What a machine that has printed this has measured.
pub(super) fn measured(printed: &str) -> Result<Vec<Measured>> {
    let lines = printed.lines().filter(|line| line.starts_with("{\"ends\""));
    let found: Vec<Measured> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    for one in &found {
        let is_plausible = one.tracer >= 0.0 && one.all > one.tracer;
        ensure!(is_plausible, "{one:?} is no result: does the machine count its instructions?");
    }
    if found.is_empty() {
        bail!("the machine has measured nothing:\n{}", super::last_lines(printed));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_are_found_between_other_lines() {
        let printed = "booted 6.12 in 4.1 s\n{\"ends\":\"Fin\",\"all\":43.5,\"tracer\":12.0}\n\
                       cannot load a module\n{\"ends\":\"Rst\",\"all\":30.0,\"tracer\":0.0}\nreboot: Power down\n";
        let fin = Measured { ends: Ends::Fin, all: 43.5, tracer: 12.0 };
        let rst = Measured { ends: Ends::Rst, all: 30.0, tracer: 0.0 };
        assert_eq!(measured(printed).expect("results"), [fin, rst]);
        assert_eq!(ended_early(printed), None);
        assert!(measured("booted\n").expect_err("nothing").to_string().contains("booted"));
        assert!(measured(&printed.replace("12.0", "50.0")).is_err(), "a part is not more than all");
        assert!(measured(&printed.replace("43.5}", "x}").replace("12.0}", "}")).is_err(), "a broken line");
    }

    #[test]
    fn a_tracer_that_ends_says_why() {
        let printed = "booted\nthe tracer ended: exit status: 2: no BTF\n";
        assert_eq!(ended_early(printed).as_deref(), Some("exit status: 2: no BTF"));
    }

    #[test]
    fn the_empty_program_is_an_object_that_can_be_parsed() {
        let object = empty_object("inet_sock_set_state").expect("an object");
        let file = object::File::parse(&*object).expect("an ELF file");
        let program = object::Object::section_by_name(&file, "tp_btf/inet_sock_set_state");
        assert_eq!(object::ObjectSection::size(&program.expect("a section")), 16);
    }
}
