//! Loads and attaches one program: a function for each program type in the object.

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, ProgramError, TracePoint, iter::IterLink,
    },
};

use super::{bpf_links::Attached, error::LoadError, tracefs};

/// The object's program of this name.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object lacks the program {name}"))?;
    Ok(program.try_into()?)
}

/// Loads the program `$name` unless it is loaded already, attaches it, and returns its link.
macro_rules! attach {
    ($ebpf:expr, $name:expr, $type:ty, load($($load:expr),*), attach($($attach:expr),*) $(,)?) => {{
        let program: &mut $type = program($ebpf, $name)?;
        if program.fd().is_err() {
            program.load($($load),*)?;
        }
        let link = program.attach($($attach),*)?;
        program.take_link(link)?
    }};
}

pub(super) fn tp_btf(
    ebpf: &mut Ebpf,
    name: &str,
    tracepoint: &str,
    btf: &Btf,
) -> Result<Attached, LoadError> {
    Ok(attach!(ebpf, name, BtfTracePoint, load(tracepoint, btf), attach()).into())
}

pub(super) fn tracepoint(
    ebpf: &mut Ebpf,
    name: &str,
    group: &str,
    event: &str,
) -> Result<Attached, LoadError> {
    // aya reports a tracefs that this process may not read as one that is not there.
    tracefs::mount()?;
    Ok(attach!(ebpf, name, TracePoint, load(), attach(group, event)).into())
}

pub(super) fn fentry(ebpf: &mut Ebpf, name: &str, function: &str, btf: &Btf) -> Result<Attached, LoadError> {
    Ok(attach!(ebpf, name, FEntry, load(function, btf), attach()).into())
}

pub(super) fn fexit(ebpf: &mut Ebpf, name: &str, function: &str, btf: &Btf) -> Result<Attached, LoadError> {
    Ok(attach!(ebpf, name, FExit, load(function, btf), attach()).into())
}

pub(super) fn kprobe(ebpf: &mut Ebpf, name: &str, function: &str) -> Result<Attached, LoadError> {
    Ok(attach!(ebpf, name, KProbe, load(), attach(function, 0)).into())
}

/// `btf` is needed when the program is not loaded yet.
pub(super) fn iterator(
    ebpf: &mut Ebpf,
    name: &str,
    kind: &str,
    btf: Option<&Btf>,
) -> Result<IterLink, LoadError> {
    Ok(attach!(ebpf, name, Iter, load(kind, btf.ok_or("no BTF")?), attach()))
}
