//! The filter by addresses and ports.

use clap::Args;
use ipnet::IpNet;

use super::Verdict;
use crate::{
    model::{Address, Ports, Tuple},
    values::{parse_ports, parse_prefix},
};

/// The flags. [`Ends::conditions`] has an entry for each.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Only IPv4; v4-mapped addresses count as IPv4.
    #[arg(long, short = '4', conflicts_with = "ipv6", help_heading = "Filter")]
    pub ipv4: bool,
    /// Only IPv6.
    #[arg(long, short = '6', help_heading = "Filter")]
    pub ipv6: bool,
    /// Local or remote port: 443, 80,443, 8000-8099.
    #[arg(long, short, value_name = "PORTS", value_parser = parse_ports, help_heading = "Filter")]
    pub port: Option<Ports>,
    /// Local port.
    #[arg(long, short = 'L', value_name = "PORTS", value_parser = parse_ports, visible_alias = "localport", help_heading = "Filter")]
    pub local_port: Option<Ports>,
    /// Remote port.
    #[arg(long, short = 'D', value_name = "PORTS", value_parser = parse_ports, visible_alias = "remoteport", help_heading = "Filter")]
    pub remote_port: Option<Ports>,
    /// Local address or prefix, e.g. 10.0.0.0/8.
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, value_delimiter = ',', help_heading = "Filter")]
    pub local: Vec<IpNet>,
    /// Remote address or prefix.
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, value_delimiter = ',', help_heading = "Filter")]
    pub remote: Vec<IpNet>,
}

/// One condition on the ends of a connection.
#[derive(Clone, Copy, Debug)]
pub enum EndsCondition<'a> {
    /// 4 or 6; v4-mapped addresses count as 4.
    Version(u8),
    LocalPort(&'a Ports),
    RemotePort(&'a Ports),
    /// The local or the remote port.
    EitherPort(&'a Ports),
    /// The local address is in one of the prefixes.
    Local(&'a [IpNet]),
    Remote(&'a [IpNet]),
}

impl Ends {
    /// The conditions of the flags that are set. All must hold.
    pub fn conditions(&self) -> impl Iterator<Item = EndsCondition<'_>> {
        use EndsCondition::{EitherPort, Local, LocalPort, Remote, RemotePort, Version};
        [
            self.ipv4.then_some(Version(4)),
            self.ipv6.then_some(Version(6)),
            self.port.as_ref().map(EitherPort),
            self.local_port.as_ref().map(LocalPort),
            self.remote_port.as_ref().map(RemotePort),
            (!self.local.is_empty()).then_some(Local(&self.local)),
            (!self.remote.is_empty()).then_some(Remote(&self.remote)),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether no flag is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions().next().is_none()
    }

    /// Compares the ends; `local_port_open` if the local port is not known yet.
    #[must_use]
    pub fn verdict(&self, tuple: &Tuple, local_port_open: bool) -> Verdict {
        let verdicts = self.conditions().map(|condition| condition.verdict(tuple, local_port_open));
        verdicts.fold(Verdict::Yes, Verdict::and)
    }

    /// Whether the kernel programs drop the events of a connection with these ends.
    pub(super) fn hides(&self, tuple: &Tuple) -> bool {
        let misses = |condition: EndsCondition<'_>| condition.verdict(tuple, false) == Verdict::No;
        tuple.is_complete() && self.conditions().filter(EndsCondition::is_for_kernel).any(misses)
    }
}

impl EndsCondition<'_> {
    /// Whether the kernel programs decide the condition. They know one prefix for each end.
    #[must_use]
    pub fn is_for_kernel(&self) -> bool {
        match self {
            Self::Version(_) | Self::LocalPort(_) | Self::RemotePort(_) | Self::EitherPort(_) => true,
            Self::Local(nets) | Self::Remote(nets) => nets.len() == 1,
        }
    }

    fn verdict(&self, tuple: &Tuple, local_port_open: bool) -> Verdict {
        let has_local_port = |ports: &Ports| {
            if local_port_open { Verdict::Open } else { Verdict::of(ports.contains(tuple.local_port)) }
        };
        match self {
            Self::Version(version) => Verdict::of((*version == 4) == tuple.is_v4()),
            Self::LocalPort(ports) => has_local_port(ports),
            Self::RemotePort(ports) => Verdict::of(ports.contains(tuple.remote_port)),
            Self::EitherPort(ports) if ports.contains(tuple.remote_port) => Verdict::Yes,
            Self::EitherPort(ports) => has_local_port(ports),
            Self::Local(nets) => Verdict::of(in_any(nets, tuple.local)),
            Self::Remote(nets) => Verdict::of(in_any(nets, tuple.remote)),
        }
    }
}

fn in_any(nets: &[IpNet], address: Address) -> bool {
    nets.iter().any(|net| net.contains(&address.canonical()))
}
