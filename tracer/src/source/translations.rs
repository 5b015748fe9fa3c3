//! How conntrack translates connections, in the network namespace of the socket and in those that forward its packets.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs::File,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{conntrack::Conntrack, links::Links, namespace_paths::NamespacePaths, snapshot};
use crate::model::{Nat, SocketInfo, Tuple};

/// A socket by its network namespace and its ends.
type NetnsTuple = (u32, Tuple);

/// The limit of the namespaces beside the socket's own that are asked for one connection.
const MOST_ROUTERS: usize = 8;
/// The limit of the namespaces whose interfaces are read to find these.
const MOST_VISITS: usize = 64;
/// For how long interfaces and zones of a namespace count as known.
const FRESH: Duration = Duration::from_secs(10);
/// For how long a table stays open: its netlink socket keeps the namespace alive.
pub(super) const OPEN: Duration = Duration::from_millis(50);

/// What is known about the translation of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Translation {
    /// No namespace on its way has an entry of any connection.
    Unused,
    /// It is not translated, or the entry does not exist any more.
    None,
    Found(Nat),
    /// Its network namespace gives no answer.
    Unknown,
}

/// The translations of those of the `sockets` that are translated. `namespaces` has a path to each network namespace.
pub fn translations<'a>(
    sockets: impl Iterator<Item = &'a SocketInfo>,
    namespaces: &BTreeMap<u32, PathBuf>,
) -> HashMap<NetnsTuple, Nat> {
    let mut tables = Translations { namespaces: namespaces.clone().into(), ..Translations::default() };
    let find = |socket: &SocketInfo| match tables.find(socket.netns, None, &socket.tuple) {
        Translation::Found(nat) => Some(((socket.netns, socket.tuple), nat)),
        _ => None,
    };
    sockets.filter_map(find).collect()
}

/// Asks the tables of conntrack. Belongs to one thread.
#[derive(Default)]
pub(super) struct Translations {
    namespaces: NamespacePaths,
    links: HashMap<u32, (Instant, Rc<Links>)>,
    routers: HashMap<u32, (Instant, Rc<[u32]>)>,
    zones: HashMap<u32, (Instant, Rc<[u16]>)>,
    tables: HashMap<u32, (Instant, Option<Conntrack>)>,
    loaded: Option<(Instant, bool)>,
}

impl Translations {
    /// Looks for the connection with the ends `tuple` in the namespace `netns`. `pid` may be a process in it.
    pub(super) fn find(&mut self, netns: u32, pid: Option<u32>, tuple: &Tuple) -> Translation {
        if !tuple.is_complete() {
            return Translation::Unknown;
        }
        if !self.is_loaded() {
            return Translation::Unused;
        }
        let own = tuple.of_any_interface();
        let (mut seen, mut is_used, mut passed) = (own, false, HashSet::new());
        // Each namespace translates a connection at most once.
        'translated: loop {
            // Packets with loopback addresses stay in their namespace.
            let stays = seen.local.is_loopback() || seen.remote.is_loopback();
            let routers = if stays { Rc::default() } else { self.routers(netns, pid) };
            for at in std::iter::once(netns).chain(routers.iter().copied()) {
                if passed.contains(&at) {
                    continue;
                }
                match self.ask(at, pid.filter(|_| at == netns), &seen) {
                    Answer::Beyond(beyond) => {
                        seen = beyond;
                        passed.insert(at);
                        continue 'translated;
                    }
                    Answer::Same => is_used = true,
                    Answer::Refused if at == netns => return Translation::Unknown,
                    Answer::Empty | Answer::Refused => {}
                }
            }
            break;
        }
        if seen != own {
            Translation::Found(Nat::of(&seen))
        } else if is_used {
            Translation::None
        } else {
            Translation::Unused
        }
    }

    /// Closes tables that have been open for a while. Returns whether some are still open.
    pub(super) fn close_old(&mut self) -> bool {
        self.tables.retain(|_, (since, _)| since.elapsed() < OPEN);
        !self.tables.is_empty()
    }

    fn is_loaded(&mut self) -> bool {
        match self.loaded {
            Some((since, is_loaded)) if since.elapsed() < OPEN => is_loaded,
            _ => self.loaded.insert((Instant::now(), Conntrack::is_loaded())).1,
        }
    }

    /// Asks the table of one namespace.
    fn ask(&mut self, at: u32, pid: Option<u32>, seen: &Tuple) -> Answer {
        let is_open = self.tables.get(&at).is_some_and(|(since, _)| since.elapsed() < OPEN);
        if !is_open && self.open(at, pid).is_none() {
            return Answer::Refused;
        }
        let Some((_, Some(table))) = self.tables.get(&at) else { return Answer::Empty };
        let zones = self.zones.get(&at).map_or(&[0][..], |(_, zones)| zones);
        match table.beyond(seen, zones) {
            Ok(beyond) => beyond.map_or(Answer::Same, Answer::Beyond),
            Err(_) => {
                // An answer that comes later must not be taken for that of another question.
                self.tables.remove(&at);
                Answer::Refused
            }
        }
    }

    fn open(&mut self, at: u32, pid: Option<u32>) -> Option<()> {
        let namespace = self.namespace(at, pid)?;
        let needs_zones = self.zones.get(&at).is_none_or(|(since, _)| since.elapsed() >= FRESH);
        let opened = snapshot::run_in(at, &namespace, || {
            let table = Conntrack::open().map_err(|error| error.to_string())?;
            let zones = if needs_zones && table.is_some() { Conntrack::zones().ok() } else { None };
            Ok((table, zones))
        });
        let ((table, zones), now) = (opened.ok()?, Instant::now());
        if let Some(zones) = zones {
            self.zones.insert(at, (now, zones.into()));
        }
        self.tables.insert(at, (now, table));
        Some(())
    }

    /// Namespaces that forward packets and that the interfaces of `netns` lead to, also through others, the nearest first.
    fn routers(&mut self, netns: u32, pid: Option<u32>) -> Rc<[u32]> {
        if let Some((since, known)) = self.routers.get(&netns)
            && since.elapsed() < FRESH
        {
            return Rc::clone(known);
        }
        let (mut found, mut seen, mut todo) = (Vec::new(), HashSet::from([netns]), VecDeque::from([netns]));
        // The only neighbour may be a host that translates packets for itself.
        let mut has_one_way = false;
        for _ in 0..MOST_VISITS {
            let Some(at) = todo.pop_front().filter(|_| found.len() < MOST_ROUTERS) else { break };
            let links = self.links(at, pid.filter(|_| at == netns));
            if at == netns {
                has_one_way = links.up < 2;
            } else if links.up >= 2 || has_one_way && self.links(netns, pid).leads_to.contains(&at) {
                found.push(at);
            } else {
                continue;
            }
            todo.extend(links.leads_to.iter().filter(|next| seen.insert(**next)));
        }
        let found: Rc<[u32]> = found.into();
        self.routers.insert(netns, (Instant::now(), Rc::clone(&found)));
        found
    }

    /// The interfaces of a namespace; none if it cannot be entered.
    fn links(&mut self, at: u32, pid: Option<u32>) -> Rc<Links> {
        if let Some((since, known)) = self.links.get(&at)
            && since.elapsed() < FRESH
        {
            return Rc::clone(known);
        }
        let mut links = self.read_links(at, pid);
        if links.is_incomplete && self.search() {
            links = self.read_links(at, pid);
        }
        let links = Rc::new(links);
        self.links.insert(at, (Instant::now(), Rc::clone(&links)));
        links
    }

    fn read_links(&mut self, at: u32, pid: Option<u32>) -> Links {
        let Some(namespace) = self.namespace(at, pid) else { return Links::default() };
        let read = || Links::read(self.namespaces.known()).map_err(|error| error.to_string());
        snapshot::run_in(at, &namespace, read).unwrap_or_default()
    }

    /// The file of a namespace, by a path that is known, by the process, or by a search.
    fn namespace(&mut self, at: u32, pid: Option<u32>) -> Option<File> {
        let known = self.namespaces.open(at, pid);
        if known.is_some() {
            return known;
        }
        self.search();
        self.namespaces.open(at, None)
    }

    /// Lists the namespaces of the host. Returns whether it did.
    fn search(&mut self) -> bool {
        let is_done = self.namespaces.search();
        if is_done {
            let namespaces = std::mem::take(&mut self.namespaces);
            *self = Self { namespaces, ..Self::default() };
        }
        is_done
    }
}

/// What the table of one namespace says.
enum Answer {
    /// It has no entry at all.
    Empty,
    /// It does not translate the connection.
    Same,
    /// How the connection goes on.
    Beyond(Tuple),
    /// The namespace cannot be found or entered, or the kernel refuses to answer.
    Refused,
}
