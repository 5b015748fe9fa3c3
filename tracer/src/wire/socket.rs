//! The keys of all lines about a socket: its two ends and its owner.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::schema_types;
use super::{Labels, Text, community_id::community_id, cuts::Cuts, names::named};
use crate::model::{self, Address, OwnerSource, Subject, Transport, Tuple, bounds};

/// The two ends of a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Ends<'a> {
    /// The protocols, and an identity of the connection that both hosts compute alike.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Network<'a>"))]
    pub network: Option<Network<'a>>,
    /// This side.
    #[cfg_attr(feature = "schema", schemars(with = "End"))]
    pub local: Option<End>,
    /// The other side.
    #[cfg_attr(feature = "schema", schemars(with = "End"))]
    pub remote: Option<End>,
    /// The interface that the socket is bound to (`sk_bound_dev_if`); absent if it is bound to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface<'a>>,
    /// The ends beyond the translations of conntrack; absent if there are none, or if they are not known (yet).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<Nat<'a>>,
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
            nat: None,
        }
    }

    /// The ends of a connection, with those beyond translations.
    #[must_use]
    pub fn of(conn: &model::Connection, interface: Option<&'a str>) -> Self {
        Self::new(&conn.tuple, Transport::Tcp, interface).beyond(conn.nat.as_deref())
    }

    /// The same with the ends beyond translations.
    #[must_use]
    pub fn beyond(self, nat: Option<&model::Nat>) -> Self {
        Self { nat: nat.map(Nat::new), ..self }
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

/// The protocols of a connection, and its Community ID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Network<'a> {
    /// The transport protocol.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Transport"))]
    pub transport: Text<'a>,
    /// The network protocol. A v4-mapped address counts as IPv4.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["ipv4", "ipv6"])))]
    pub r#type: Text<'a>,
    /// Community ID v1, seed 0; null until both ports are known.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^1:[A-Za-z0-9+/]{27}=$")))]
    pub community_id: Option<Text<'a>>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct End {
    #[cfg_attr(feature = "schema", schemars(with = "schema_types::Address"))]
    pub address: IpAddr,
    /// The port; null if there is none yet, and for the other side of a listener.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: Option<u16>,
}

impl End {
    fn new(address: Address, port: u16) -> Self {
        Self { address: address.canonical(), port: (port != 0).then_some(port) }
    }
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Interface<'a> {
    /// The number of the interface.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub index: u32,
    /// The name of the interface; null if it is not known.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
}

/// A connection as the other end, or the next host, sees it: beyond the translations that conntrack makes on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Nat<'a> {
    /// This side.
    pub local: End,
    /// The other side.
    pub remote: End,
    /// Community ID v1, seed 0, of these ends. The other end has the same id, unless another host translates, too.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^1:[A-Za-z0-9+/]{27}=$")))]
    pub community_id: Text<'a>,
}

/// What Kubernetes has at the remote address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ClusterPeer<'a> {
    /// Whether it is a pod, or a service, which stands for its pods.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["pod", "service"])))]
    pub kind: Text<'a>,
    /// The namespace of the object.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub namespace: Text<'a>,
    /// The name of the object.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub name: Text<'a>,
    /// What manages the pod; absent if nothing does, and for a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<PodWorkload<'a>>,
}

impl<'a> ClusterPeer<'a> {
    /// The peer of a connection, if it has one.
    pub(super) fn of(conn: &'a model::Connection) -> Option<Self> {
        conn.peer.as_deref().map(Self::new)
    }

    #[must_use]
    pub fn new(peer: &'a model::ClusterPeer) -> Self {
        Self {
            kind: peer.kind.name().into(),
            namespace: peer.namespace.as_str().into(),
            name: peer.name.as_str().into(),
            workload: peer.workload.as_ref().map(|workload| PodWorkload {
                kind: workload.kind.as_str().into(),
                name: workload.name.as_str().into(),
            }),
        }
    }

    /// `None` for a kind that is not known, or with a text that is too long.
    pub(super) fn peer(&self) -> Option<model::ClusterPeer> {
        let workload = self.workload.as_ref();
        let peer = model::ClusterPeer {
            kind: named(&self.kind)?,
            namespace: self.namespace.to_string(),
            name: self.name.to_string(),
            workload: workload.map(|workload| model::PodWorkload {
                kind: workload.kind.to_string(),
                name: workload.name.to_string(),
            }),
        };
        peer.checked()
    }
}

impl Nat<'_> {
    #[must_use]
    pub fn new(nat: &model::Nat) -> Self {
        Self {
            local: End::new(nat.local, nat.local_port),
            remote: End::new(nat.remote, nat.remote_port),
            community_id: String::from_utf8_lossy(&community_id(&nat.tuple())).into_owned().into(),
        }
    }

    #[must_use]
    pub fn nat(&self) -> model::Nat {
        model::Nat {
            local: self.local.address.into(),
            remote: self.remote.address.into(),
            local_port: self.local.port.unwrap_or(0),
            remote_port: self.remote.port.unwrap_or(0),
        }
    }
}

/// The keys of the subject that a socket belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SubjectKeys<'a> {
    /// The process that owns the socket; null if it is not known.
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Owner<'a> {
    /// The command line, only with `--cmdline`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::COMMAND_LINE)))]
    pub cmdline: Option<Text<'a>>,
    /// The name of the process.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub comm: Text<'a>,
    /// The executable of the process; null if sockstate could not read it.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::PATH)))]
    pub exe: Option<Text<'a>>,
    /// The process id, in the initial pid namespace.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub pid: u32,
    /// How sockstate knows the owner.
    #[cfg_attr(feature = "schema", schemars(with = "OwnerSource"))]
    pub source: Text<'a>,
    /// The uid of the socket; null if it is not known.
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Placement<'a> {
    /// The inode number of the network namespace; null if it is not known.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub netns: Option<u32>,
    /// The cgroup (v2) of the socket; null if it is not known.
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

/// A cgroup of the hierarchy v2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Cgroup<'a> {
    /// The id of the cgroup.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9]+$")))]
    pub id: Text<'a>,
    /// The path in the mounted hierarchy; null if it is not known.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::PATH)))]
    pub path: Option<Text<'a>>,
}

/// Container, pod and unit, if there are any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Workload<'a> {
    /// The container, by the path of the cgroup.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container<'a>>,
    /// The Kubernetes pod, by the path of the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod<'a>>,
    /// The systemd unit, by the path of the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub unit: Option<Text<'a>>,
}

/// What `truncated` calls container, pod and unit, by the object that has them.
#[derive(Clone, Copy)]
pub(super) struct WorkloadFields {
    container: &'static str,
    container_name: &'static str,
    image: &'static str,
    pod: &'static str,
    pod_name: &'static str,
    namespace: &'static str,
    kind: &'static str,
    workload: &'static str,
    unit: &'static str,
}

macro_rules! workload_fields {
    ($object:literal) => {
        WorkloadFields {
            container: concat!($object, "container.id"),
            container_name: concat!($object, "container.name"),
            image: concat!($object, "container.image"),
            pod: concat!($object, "pod.uid"),
            pod_name: concat!($object, "pod.name"),
            namespace: concat!($object, "pod.namespace"),
            kind: concat!($object, "pod.workload.kind"),
            workload: concat!($object, "pod.workload.name"),
            unit: concat!($object, "unit"),
        }
    };
}

impl WorkloadFields {
    pub(super) const PLACE: Self = workload_fields!("");
    pub(super) const MADE_IN: Self = workload_fields!("made_in.");
    pub(super) const HOLDER: Self = workload_fields!("holders[].");
    pub(super) const SERVES: Self = workload_fields!("holders[].serves.");
}

impl<'a> Workload<'a> {
    pub(super) fn new(workload: model::Workload<'a>, fields: WorkloadFields, cuts: &mut Cuts) -> Self {
        let mut name = |field, text: &'a str| cuts.text(field, text, bounds::NAME).into();
        let mut container = workload.container.map(|container| Container {
            id: name(fields.container, &container.id),
            runtime: container.runtime.map(Text::from),
            name: container.name.as_deref().map(|text| name(fields.container_name, text)),
            image: None,
        });
        let pod = workload.pod.map(|pod| Pod {
            uid: name(fields.pod, &pod.uid),
            name: pod.name.as_deref().map(|text| name(fields.pod_name, text)),
            namespace: pod.namespace.as_deref().map(|text| name(fields.namespace, text)),
            workload: pod.workload.as_ref().map(|workload| PodWorkload {
                kind: name(fields.kind, &workload.kind),
                name: name(fields.workload, &workload.name),
            }),
            labels: pod
                .labels
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
        });
        let unit = workload.unit.map(|unit| name(fields.unit, unit));
        let image = workload.container.and_then(|container| container.image.as_deref());
        if let (Some(container), Some(image)) = (&mut container, image) {
            container.image = Some(cuts.text(fields.image, image, bounds::IMAGE).into());
        }
        Self { container, pod, unit }
    }
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Container<'a> {
    /// The id or the name of the container.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub id: Text<'a>,
    /// The runtime of the container; null if it is not known.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = [
        "docker", "containerd", "cri-o", "cri", "podman", "ecs", "lxc", "nspawn", "libvirt", null,
    ])))]
    pub runtime: Option<Text<'a>>,
    /// The name of the container: in its pod, otherwise the name that the runtime has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub name: Option<Text<'a>>,
    /// The image of the container, as the runtime was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::IMAGE)))]
    pub image: Option<Text<'a>>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Pod<'a> {
    /// The uid of the pod.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub uid: Text<'a>,
    /// The name of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub name: Option<Text<'a>>,
    /// The namespace of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub namespace: Option<Text<'a>>,
    /// What manages the pod, as the API server says; only with `[kubernetes]` in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<PodWorkload<'a>>,
    /// The labels of the pod that the configuration allows; absent if there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(extend("maxProperties" = bounds::LABELS.items)))]
    pub labels: Labels<'a>,
}

/// The object of Kubernetes that manages a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PodWorkload<'a> {
    /// The kind, as Kubernetes writes it: `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob` and so on.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub kind: Text<'a>,
    /// The name.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub name: Text<'a>,
}
