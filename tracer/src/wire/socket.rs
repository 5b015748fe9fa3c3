//! The keys of all lines about a socket: its two ends and its owner.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Text, community_id::community_id, cuts::Cuts, names::named};
use crate::model::{self, Address, OwnerSource, Subject, Transport, Tuple, bounds};

/// The two ends of a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ends<'a> {
    #[serde(borrow)]
    pub network: Option<Network<'a>>,
    pub local: Option<End>,
    pub remote: Option<End>,
    /// The interface that the socket is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface<'a>>,
}

impl<'a> Ends<'a> {
    /// `interface` is the name of the interface that the socket is bound to, if the name is known.
    #[must_use]
    pub fn new(tuple: &Tuple, transport: Transport, interface: Option<&'a str>) -> Self {
        let text = |id: [u8; 30]| String::from_utf8_lossy(&id).into_owned().into();
        let network = Network {
            transport: transport.name().into(),
            r#type: if tuple.is_v4() { "ipv4" } else { "ipv6" }.into(),
            community_id: tuple.is_complete().then(|| text(community_id(tuple))),
        };
        let interface = Interface { index: tuple.interface, name: interface.map(Text::from) };
        Self {
            network: Some(network),
            local: Some(End::new(tuple.local, tuple.local_port)),
            remote: Some(End::new(tuple.remote, tuple.remote_port)),
            interface: (tuple.interface != 0).then_some(interface),
        }
    }

    /// `None` if a key is missing.
    #[must_use]
    pub fn tuple(&self) -> Option<Tuple> {
        let (local, remote) = (self.local.as_ref()?, self.remote.as_ref()?);
        Some(Tuple {
            local: Address::from(local.address),
            remote: Address::from(remote.address),
            local_port: local.port.unwrap_or(0),
            remote_port: remote.port.unwrap_or(0),
            v6_socket: &*self.network.as_ref()?.r#type == "ipv6",
            interface: self.interface.as_ref().map_or(0, |interface| interface.index),
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network<'a> {
    #[serde(borrow)]
    pub transport: Text<'a>,
    pub r#type: Text<'a>,
    pub community_id: Option<Text<'a>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub address: IpAddr,
    pub port: Option<u16>,
}

impl End {
    fn new(address: Address, port: u16) -> Self {
        Self { address: address.canonical(), port: (port != 0).then_some(port) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface<'a> {
    pub index: u32,
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
}

/// The keys of the subject that a socket belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectKeys<'a> {
    #[serde(borrow)]
    pub owner: Option<Owner<'a>>,
    #[serde(flatten)]
    pub placement: Placement<'a>,
}

impl<'a> SubjectKeys<'a> {
    pub(crate) fn new(subject: &'a Subject, cuts: &mut Cuts) -> Self {
        let owner = subject.owner.as_ref().map(|owner| Owner {
            comm: cuts.text("owner.comm", &owner.comm, bounds::NAME).into(),
            exe: owner.exe.as_deref().map(|exe| cuts.text("owner.exe", exe, bounds::PATH).into()),
            cmdline: owner
                .cmdline
                .as_deref()
                .map(|text| cuts.text("owner.cmdline", text, bounds::COMMAND_LINE).into()),
            pid: owner.pid(),
            source: owner.source.name().into(),
            uid: owner.uid,
        });
        Self { owner, placement: Placement::new(subject, cuts) }
    }
}

/// The process that owns a socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<Text<'a>>,
    pub comm: Text<'a>,
    pub exe: Option<Text<'a>>,
    pub pid: u32,
    pub source: Text<'a>,
    pub uid: Option<u32>,
}

impl Owner<'_> {
    /// A source of a later version counts as a scan, which claims the least.
    pub(super) fn source(&self) -> OwnerSource {
        named(&self.source).unwrap_or(OwnerSource::Scan)
    }
}

/// Where a socket runs. A key that every socket has is null if its value is not known; a key that most sockets do not
/// have may be absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement<'a> {
    pub netns: Option<u32>,
    #[serde(borrow)]
    pub cgroup: Option<Cgroup<'a>>,
    #[serde(flatten)]
    pub workload: Workload<'a>,
}

impl<'a> Placement<'a> {
    pub(super) fn new(subject: &'a Subject, cuts: &mut Cuts) -> Self {
        Self::with(subject, model::Workload::from(subject), cuts)
    }

    /// The same where `workload` is known better.
    pub(super) fn with(subject: &'a Subject, workload: model::Workload<'a>, cuts: &mut Cuts) -> Self {
        let cgroup = subject.cgroup.as_ref().map(|cgroup| Cgroup {
            id: cgroup.id.to_string().into(),
            path: cgroup.path.as_deref().map(|path| cuts.text("cgroup.path", path, bounds::PATH).into()),
        });
        Self { netns: subject.netns, cgroup, workload: Workload::new(workload, WorkloadFields::PLACE, cuts) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup<'a> {
    #[serde(borrow)]
    pub id: Text<'a>,
    pub path: Option<Text<'a>>,
}

/// Container, pod and unit, if there are any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Text<'a>>,
}

/// What `truncated` calls container, pod and unit, by the object that has them.
#[derive(Clone, Copy)]
pub(super) struct WorkloadFields {
    container: &'static str,
    pod: &'static str,
    unit: &'static str,
}

impl WorkloadFields {
    const PLACE: Self = Self { container: "container.id", pod: "pod.uid", unit: "unit" };
    pub(super) const MADE_IN: Self =
        Self { container: "made_in.container.id", pod: "made_in.pod.uid", unit: "made_in.unit" };
    pub(super) const HOLDER: Self =
        Self { container: "holders[].container.id", pod: "holders[].pod.uid", unit: "holders[].unit" };
    pub(super) const SERVES: Self = Self {
        container: "holders[].serves.container.id",
        pod: "holders[].serves.pod.uid",
        unit: "holders[].serves.unit",
    };
}

impl<'a> Workload<'a> {
    pub(super) fn new(workload: model::Workload<'a>, fields: WorkloadFields, cuts: &mut Cuts) -> Self {
        let mut name = |field, text: &'a str| cuts.text(field, text, bounds::NAME).into();
        Self {
            container: workload.container.map(|container| Container {
                id: name(fields.container, &container.id),
                runtime: container.runtime.map(Text::from),
            }),
            pod: workload.pod_uid.map(|uid| Pod { uid: name(fields.pod, uid) }),
            unit: workload.unit.map(|unit| name(fields.unit, unit)),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container<'a> {
    #[serde(borrow)]
    pub id: Text<'a>,
    pub runtime: Option<Text<'a>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod<'a> {
    #[serde(borrow)]
    pub uid: Text<'a>,
}
