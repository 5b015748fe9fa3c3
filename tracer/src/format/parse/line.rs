//! A line as it is written.

use std::{borrow::Cow, collections::HashMap, net::IpAddr};

use serde::Deserialize;

use crate::model::{
    Address, ConnId, Diagnosis, InState, MptcpPart, Reason, Role, State, Tuple,
    bounds::{self, Cut},
};

pub(super) type Text<'a> = Cow<'a, str>;

#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub(super) schema: &'a str,
    pub(super) kind: &'a str,
    #[serde(borrow)]
    pub(super) time: Text<'a>,
    /// Absent in recordings of earlier versions.
    #[serde(borrow)]
    pub(super) since: Option<Text<'a>>,
    pub(super) conn: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) from_number: Option<u8>,
    pub(super) to: Option<&'a str>,
    pub(super) to_number: Option<u8>,
    pub(super) state: Option<&'a str>,
    pub(super) state_number: Option<u8>,
    pub(super) was: Option<&'a str>,
    pub(super) was_number: Option<u8>,
    pub(super) in_state_ns: Option<u64>,
    #[serde(default)]
    pub(super) in_state_at_least: bool,
    pub(super) age_ns: Option<u64>,
    #[serde(default)]
    pub(super) age_at_least: bool,
    #[serde(default)]
    pub(super) times: u8,
    pub(super) role: Option<&'a str>,
    pub(super) network: Option<Network<'a>>,
    pub(super) local: Option<End>,
    pub(super) remote: Option<End>,
    #[serde(borrow)]
    pub(super) interface: Option<InterfaceOf<'a>>,
    #[serde(borrow)]
    pub(super) owner: Option<OwnerOf<'a>>,
    pub(super) netns: Option<u32>,
    #[serde(borrow)]
    pub(super) cgroup: Option<CgroupOf<'a>>,
    #[serde(borrow)]
    pub(super) container: Option<ContainerOf<'a>>,
    #[serde(borrow)]
    pub(super) pod: Option<Pod<'a>>,
    #[serde(borrow)]
    pub(super) unit: Option<Text<'a>>,
    #[serde(default = "yes")]
    pub(super) exact: bool,
    #[serde(default)]
    pub(super) mini: bool,
    #[serde(default)]
    pub(super) illegal: Illegal,
    pub(super) cause: Option<&'a str>,
    #[serde(borrow)]
    pub(super) reset_why: Option<Text<'a>>,
    pub(super) errno: Option<&'a str>,
    #[serde(borrow)]
    pub(super) holders: Option<Vec<HolderOf<'a>>>,
    #[serde(borrow, default)]
    pub(super) listeners: Vec<ListenerOf<'a>>,
    pub(super) mptcp: Option<MptcpOf>,
    #[serde(default)]
    pub(super) held_by_kernel: bool,
    pub(super) unread_bytes: Option<u32>,
    pub(super) unsent_bytes: Option<u32>,
    #[serde(default)]
    pub(super) retransmits: Option<u8>,
    pub(super) unanswered_ns: Option<u64>,
    pub(super) reason: Option<&'a str>,
    #[serde(borrow)]
    pub(super) why: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) advice: Option<Text<'a>>,
    #[serde(default)]
    pub(super) commands: Vec<String>,
    #[serde(borrow)]
    pub(super) cannot_destroy: Option<Text<'a>>,
    pub(super) count: Option<u64>,
    #[serde(default)]
    pub(super) in_doubt: u64,
    pub(super) place: Option<&'a str>,
    #[serde(borrow)]
    pub(super) version: Option<Text<'a>>,
    pub(super) instance: Option<&'a str>,
    #[serde(borrow)]
    pub(super) host: Option<Host<'a>>,
    pub(super) hook: Option<&'a str>,
    pub(super) tier: Option<&'a str>,
    #[serde(default)]
    pub(super) degraded: Vec<String>,
    pub(super) transitions: Option<u64>,
    #[serde(default)]
    pub(super) lost: HashMap<String, u64>,
    #[serde(borrow, default)]
    pub(super) truncated: Vec<CutOf<'a>>,
}

#[derive(Deserialize)]
pub(super) struct CutOf<'a> {
    #[serde(borrow)]
    pub(super) field: Text<'a>,
    pub(super) total: Option<usize>,
}

/// What may be longer than it is in the record, and stays so in a line about what was stuck.
const FIELDS: [&str; 12] = [
    "cgroup.path",
    "container.id",
    "pod.uid",
    "unit",
    "holders",
    "holders[].exe",
    "listeners",
    "listeners[].holders",
    "why",
    "advice",
    "commands",
    "cannot_destroy",
];

fn yes() -> bool {
    true
}

/// A transition is illegal or not; a `stop` says how many were.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(super) enum Illegal {
    Is(bool),
    Count(u64),
}

impl Default for Illegal {
    fn default() -> Self {
        Self::Is(false)
    }
}

#[derive(Deserialize)]
pub(super) struct Network<'a> {
    pub(super) r#type: &'a str,
}

#[derive(Deserialize)]
pub(super) struct End {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

#[derive(Deserialize)]
pub(super) struct InterfaceOf<'a> {
    pub(super) index: u32,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct OwnerOf<'a> {
    pub(super) pid: u32,
    #[serde(borrow)]
    pub(super) comm: Text<'a>,
    #[serde(borrow)]
    pub(super) exe: Option<Text<'a>>,
    pub(super) uid: Option<u32>,
    pub(super) source: &'a str,
    #[serde(borrow)]
    pub(super) cmdline: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct CgroupOf<'a> {
    pub(super) id: &'a str,
    #[serde(borrow)]
    pub(super) path: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ContainerOf<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    pub(super) runtime: Option<&'a str>,
}

#[derive(Deserialize)]
pub(super) struct Pod<'a> {
    #[serde(borrow)]
    pub(super) uid: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct HolderOf<'a> {
    pub(super) pid: u32,
    pub(super) fd: Option<u32>,
    pub(super) ring_fd: Option<u32>,
    pub(super) tid: Option<u32>,
    #[serde(borrow)]
    pub(super) comm: Text<'a>,
    #[serde(borrow)]
    pub(super) exe: Option<Text<'a>>,
    pub(super) epoll: Option<Vec<&'a str>>,
}

#[derive(Deserialize)]
pub(super) struct ListenerOf<'a> {
    pub(super) queued: u32,
    pub(super) limit: u32,
    #[serde(borrow)]
    pub(super) holders: Vec<ProcessOf<'a>>,
}

#[derive(Deserialize)]
pub(super) struct MptcpOf {
    pub(super) token: Option<String>,
    pub(super) subflows: Option<usize>,
}

impl MptcpOf {
    pub(super) fn part(&self) -> MptcpPart {
        let token = self.token.as_deref().and_then(|token| u32::from_str_radix(token, 16).ok());
        match self.subflows {
            Some(subflows) => MptcpPart::Whole { token, subflows },
            None => MptcpPart::Subflow { token },
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ProcessOf<'a> {
    pub(super) pid: u32,
    #[serde(borrow)]
    pub(super) comm: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Host<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) kernel: Option<Text<'a>>,
}

impl Line<'_> {
    pub(super) fn conn(&self) -> Option<ConnId> {
        u64::from_str_radix(self.conn?, 16).ok().map(ConnId)
    }

    pub(super) fn state(&self) -> Option<State> {
        State::named(self.state?, self.mini, self.state_number)
    }

    pub(super) fn age(&self) -> Option<InState> {
        Some(InState { ns: self.age_ns?, at_least: self.age_at_least })
    }

    pub(super) fn diagnosis(&self, reason: Reason) -> Diagnosis {
        let is_whole = |command: &&String| bounds::shown(command, bounds::COMMAND).1;
        let commands = self.commands.iter().filter(is_whole).take(bounds::COMMANDS + 1).cloned();
        let commands: Vec<String> = commands.collect();
        let known = self.cuts().find(|cut| cut.field == "commands").and_then(|cut| cut.total);
        let total = known.unwrap_or(0).max(self.commands.len());
        Diagnosis {
            reason,
            why: sentence(self.why.as_deref().unwrap_or_default()),
            advice: sentence(self.advice.as_deref().unwrap_or_default()),
            more_commands: total - commands.len(),
            commands,
            cannot_destroy: self.cannot_destroy.as_deref().map(sentence),
        }
    }

    pub(super) fn cuts(&self) -> impl Iterator<Item = Cut> {
        FIELDS.into_iter().filter_map(|field| {
            let cut = self.truncated.iter().find(|cut| cut.field == field)?;
            Some(Cut { field, total: cut.total })
        })
    }

    pub(super) fn role(&self) -> Option<Role> {
        Role::ALL.into_iter().find(|role| Some(role.name()) == self.role)
    }

    pub(super) fn tuple(&self) -> Option<Tuple> {
        let (local, remote) = (self.local.as_ref()?, self.remote.as_ref()?);
        Some(Tuple {
            local: Address::from(local.address),
            remote: Address::from(remote.address),
            local_port: local.port.unwrap_or(0),
            remote_port: remote.port.unwrap_or(0),
            v6_socket: self.network.as_ref()?.r#type == "ipv6",
            interface: self.interface.as_ref().map_or(0, |interface| interface.index),
        })
    }
}

pub(super) fn name(text: &str) -> String {
    bounds::kept(text, bounds::NAME).to_owned()
}

pub(super) fn path(text: &str) -> String {
    bounds::kept(text, bounds::PATH).to_owned()
}

pub(super) fn sentence(text: &str) -> String {
    bounds::kept(text, bounds::SENTENCE).to_owned()
}
