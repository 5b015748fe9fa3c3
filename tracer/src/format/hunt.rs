//! The call paths that opened stuck connections: as text, as folded stacks, or as a flame graph.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
};

use super::{
    Format,
    flame::{self, Note},
    path::{one_part, opened_at, steps},
    time::Times,
};
use crate::{
    display::{duration, endpoints, lower_bound},
    model::{ConnId, MissingStack, Record, Resolved, Stack, Stuck, printable},
};

/// The form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HuntStyle {
    /// A line for each socket when it becomes stuck, and at the end the call paths with the number of sockets of each.
    Text,
    /// At the end, a line `comm;outermost;...;innermost COUNT` for each call path.
    Folded,
    /// At the end, a flame graph.
    Svg,
}

/// A call path, and the number of stuck sockets that it opened.
struct Site {
    opened: Opened,
    /// The number of sockets that are still stuck, by state.
    now: BTreeMap<&'static str, usize>,
    ever: usize,
}

/// The call path, or why it is not known.
type Opened = Result<Arc<Stack>, MissingStack>;
/// The id of the call path.
type SiteId = Result<u64, MissingStack>;

pub struct HuntReport {
    style: HuntStyle,
    times: Times,
    sites: BTreeMap<SiteId, Site>,
    /// The call path that opened each stuck connection.
    stuck: HashMap<ConnId, SiteId>,
}

impl HuntReport {
    /// An empty report in this style.
    #[must_use]
    pub fn new(style: HuntStyle) -> Self {
        Self { style, times: Times::clock(), sites: BTreeMap::new(), stuck: HashMap::new() }
    }

    fn stuck(&mut self, stuck: &Stuck, out: &mut Vec<u8>) {
        let opened = stuck.opened.clone().unwrap_or(Err(MissingStack::NotSeen));
        let id = opened.as_ref().map(|stack| stack.id).map_err(|why| *why);
        if self.stuck.insert(stuck.conn.id, id).is_some() {
            return;
        }
        let site = self.sites.entry(id).or_insert_with(|| Site {
            opened: opened.clone(),
            now: BTreeMap::new(),
            ever: 0,
        });
        site.ever += 1;
        *site.now.entry(stuck.state.name()).or_default() += 1;
        if self.style == HuntStyle::Text {
            self.times.write(stuck.time_ns, 3, out);
            let (local, remote) = endpoints(&stuck.conn.tuple, None);
            let opened = match &opened {
                Ok(stack) => format!("opened by {} at {}", printable(&stack.comm), opened_at(stack)),
                Err(why) => why.text().to_owned(),
            };
            let age = format!("{}{}", lower_bound(stuck.age), duration(stuck.age.ns));
            let line = format!(" {:<11} {age:>6} {local:<22} {remote:<22} {opened}\n", stuck.state.name());
            out.extend_from_slice(line.as_bytes());
        }
    }

    fn resolved(&mut self, resolved: &Resolved) {
        let Some(id) = self.stuck.remove(&resolved.conn.id) else { return };
        if let Some(count) = self.sites.get_mut(&id).and_then(|site| site.now.get_mut(resolved.state.name()))
        {
            *count = count.saturating_sub(1);
        }
    }

    fn finish(&self, out: &mut Vec<u8>) {
        match self.style {
            HuntStyle::Text => out.extend_from_slice(self.text().as_bytes()),
            HuntStyle::Folded => self.folded().iter().for_each(|line| {
                out.extend_from_slice(line.as_bytes());
                out.push(b'\n');
            }),
            HuntStyle::Svg => flame::write(&self.folded(), &self.note(), out),
        }
    }

    fn text(&self) -> String {
        let mut sites: Vec<&Site> = self.sites.values().collect();
        sites.sort_by_key(|site| std::cmp::Reverse((site.now.values().sum::<usize>(), site.ever)));
        let mut out = String::new();
        for site in sites {
            let now: Vec<String> = site
                .now
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(state, count)| format!("{count} {} stuck in {state}", sockets(*count)))
                .collect();
            let still: usize = site.now.values().sum();
            let were = match site.ever - still {
                0 => String::new(),
                count => format!("{count} {} no longer stuck", sockets(count)),
            };
            let count =
                [now.join(", "), were].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
            let count = count.join(", and ");
            // Writing to a string does not fail.
            let stack = match &site.opened {
                Ok(stack) => stack,
                Err(why) => {
                    let _ = writeln!(out, "\n{count}: {}", why.text());
                    continue;
                }
            };
            let were = if site.ever == 1 { "was" } else { "were" };
            let _ = writeln!(
                out,
                "\n{count} {were} opened here, by {} in {} (path {:016x}):",
                stack.by.name(),
                printable(&stack.comm),
                stack.id
            );
            for (depth, step) in steps(stack).iter().enumerate() {
                let _ = writeln!(out, "  {depth:>3}  {}", step.line());
            }
            if !stack.complete {
                out.push_str("       ... (the rest of the path is not known)\n");
            }
        }
        if out.is_empty() {
            out.push_str("\nnothing was stuck\n");
        }
        out
    }

    /// How many sockets the flame graph shows, and how many it leaves out, with the reasons: sockets without a path are a number
    /// in its heading, because a frame for them would take most of the width.
    fn note(&self) -> Note {
        let shown: usize = self.sites.values().filter(|site| site.opened.is_ok()).map(|site| site.ever).sum();
        let unseen = self.sites.iter().filter_map(|(id, site)| Some((site.ever, id.err()?)));
        let mut unseen: Vec<(usize, MissingStack)> = unseen.collect();
        unseen.sort_by_key(|(count, why)| (std::cmp::Reverse(*count), *why));
        // One line has room for two reasons.
        let others: usize = unseen.iter().skip(2).map(|(count, _)| count).sum();
        let named = unseen.iter().take(2).map(|(count, why)| format!("{count} ({})", why.text()));
        let named: Vec<String> =
            named.chain((others > 0).then(|| format!("{others} (other reasons)"))).collect();
        let shown = format!("{shown} {}", sockets(shown));
        if named.is_empty() {
            return Note { wide: shown.clone(), narrow: shown };
        }
        let count: usize = unseen.iter().map(|(count, _)| count).sum();
        Note {
            wide: format!("{shown}. Not shown: {}", named.join(", ")),
            narrow: format!("{shown}. Not shown: {count}"),
        }
    }

    fn folded(&self) -> Vec<String> {
        let site = |site: &Site| {
            let stack = site.opened.as_ref().ok()?;
            let mut parts = vec![one_part(&stack.comm)];
            if !stack.complete {
                parts.push("[not known]".to_owned());
            }
            parts.extend(steps(stack).iter().rev().map(|step| one_part(&step.name())));
            Some(format!("{} {}", parts.join(";"), site.ever))
        };
        self.sites.values().filter_map(site).collect()
    }
}

impl Format for HuntReport {
    fn header(&mut self, _: &mut Vec<u8>) {}

    fn record(&mut self, _: u64, record: &Record, out: &mut Vec<u8>) {
        match record {
            Record::Stuck(stuck) => self.stuck(stuck, out),
            Record::Resolved(resolved) => self.resolved(resolved),
            Record::Lost(lost) if self.style == HuntStyle::Text => {
                let line = format!("lost: {} ({})\n", lost.count, lost.place.name());
                out.extend_from_slice(line.as_bytes());
            }
            Record::Stop(_) => self.finish(out),
            Record::Transition(_)
            | Record::Connection(_)
            | Record::Aggregate(_)
            | Record::Reset(_)
            | Record::Lost(_)
            | Record::Start(_)
            | Record::Snapshot(_)
            | Record::Resync(_) => {}
        }
    }
}

fn sockets(count: usize) -> &'static str {
    if count == 1 { "socket" } else { "sockets" }
}
