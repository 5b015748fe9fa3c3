//! BPF links, which tie the programs to their hooks.

use std::path::PathBuf;

use aya::programs::{
    fentry::FEntryLink,
    fexit::FExitLink,
    kprobe::KProbeLink,
    links::{FdLink, LinkError, PinnedLink},
    tp_btf::BtfTracePointLink,
    trace_point::TracePointLink,
};

use super::error::LoadError;

/// The links of all attached programs. Dropping this value detaches the programs that are not pinned.
#[derive(Default)]
pub struct Links {
    links: Vec<FdLink>,
    /// Attachments by perf events, which are kernel links only since 5.15.
    by_perf: Vec<ByPerf>,
}

impl Links {
    pub(super) fn keep(&mut self, link: impl Into<Attached>) {
        match link.into() {
            Attached::Link(link) => self.links.push(link),
            Attached::ByPerf(link) => self.by_perf.push(link),
        }
    }

    pub(super) fn append(&mut self, mut others: Self) {
        self.links.append(&mut others.links);
        self.by_perf.append(&mut others.by_perf);
    }

    /// Pins all links, each at the path that `path` returns for its index. After an error some links may be detached.
    pub(super) fn pin(&mut self, path: impl Fn(usize) -> PathBuf) -> Result<(), LoadError> {
        for link in self.by_perf.drain(..) {
            let link = match link {
                ByPerf::TracePoint(link) => link.try_into(),
                ByPerf::KProbe(link) => link.try_into(),
            };
            self.links.push(link.map_err(|_: LinkError| {
                                "`pin` needs Linux 5.15 for tracepoints and kprobes: on this kernel they detach when sockstate exits"
            })?);
        }
        for (at, link) in std::mem::take(&mut self.links).into_iter().enumerate() {
            self.links.push(link.pin(path(at))?.into());
        }
        Ok(())
    }
}

/// The attachment of one program.
pub(super) enum Attached {
    Link(FdLink),
    ByPerf(ByPerf),
}

pub(super) enum ByPerf {
    TracePoint(TracePointLink),
    KProbe(KProbeLink),
}

macro_rules! attached {
    ($($link:ty => $link_name:ident $make:expr),* $(,)?) => {
        $(impl From<$link> for Attached {
            fn from($link_name: $link) -> Self {
                $make
            }
        })*
    };
}
attached! {
    BtfTracePointLink => link Self::Link(link.into()),
    FEntryLink => link Self::Link(link.into()),
    FExitLink => link Self::Link(link.into()),
    PinnedLink => link Self::Link(link.into()),
    TracePointLink => link Self::ByPerf(ByPerf::TracePoint(link)),
    KProbeLink => link Self::ByPerf(ByPerf::KProbe(link)),
}
