//! Which call paths opened what is stuck: for people, as folded stacks, as a flame graph.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
};

use inferno::flamegraph;

use super::{
    Format,
    path::{one_part, opened_at, steps},
    time::Times,
};
use crate::{
    display::{duration, endpoints, lower_bound},
    model::{ConnId, MissingStack, Record, Resolved, Stack, Stuck, printable},
};

/// How the report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HuntStyle {
    /// A line for each socket when it sticks, and the paths with their numbers at the end.
    Text,
    /// `comm;outermost;...;innermost COUNT` a line, at the end.
    Folded,
    /// A flame graph, at the end.
    Svg,
}

/// A path, and how many sockets that it opened were stuck.
struct Site {
    opened: Opened,
    /// Still are, by state.
    now: BTreeMap<&'static str, usize>,
    ever: usize,
}

/// Where, or why that is not known.
type Opened = Result<Arc<Stack>, MissingStack>;
/// By the path's id.
type SiteId = Result<u64, MissingStack>;

/// The format.
pub struct HuntReport {
    style: HuntStyle,
    times: Times,
    sites: BTreeMap<SiteId, Site>,
    /// Where each that is stuck was opened.
    stuck: HashMap<ConnId, SiteId>,
}

impl HuntReport {
    /// In this style.
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
            HuntStyle::Svg => {
                let mut options = flamegraph::Options::default();
                options.title = "Call paths that opened sockets which were stuck".into();
                options.subtitle = self.unseen();
                options.count_name = "sockets".into();
                let lines = self.folded();
                // Without a line it says so in the picture, and here.
                let _ = flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out);
            }
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

    /// Of those that no path is known of: they would fill the picture.
    fn unseen(&self) -> Option<String> {
        let unseen = self.sites.iter().filter_map(|(id, site)| Some((id.err()?, site.ever)));
        let counts: Vec<String> = unseen.map(|(why, count)| format!("{count}: {}", why.text())).collect();
        (!counts.is_empty()).then(|| format!("Not shown: {}", counts.join("; ")))
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
            | Record::Aggregate(_)
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
