//! The call paths that opened stuck connections: as text, as folded stacks, or as a flame graph.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
};

use inferno::flamegraph::{
    self, Palette,
    color::{BackgroundColor, BasicPalette, Color},
};

use super::{
    Format,
    path::{one_part, opened_at, steps},
    time::Times,
};
use crate::{
    display::{duration, endpoints, lower_bound, palette},
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
            HuntStyle::Svg => self.flame_graph(out),
        }
    }

    fn flame_graph(&self, out: &mut Vec<u8>) {
        let lines = self.folded();
        let note = self.shown_and_left_out();
        if lines.is_empty() {
            out.extend_from_slice(without_paths(&note).as_bytes());
            return;
        }
        let mut options = flamegraph::Options::default();
        options.title = TITLE.into();
        options.subtitle = Some(note);
        options.count_name = "sockets".into();
        // Texts are black: the default colours are too dark for them.
        options.colors = Palette::Basic(BasicPalette::Orange);
        options.bgcolors = Some(BackgroundColor::Flat(Color::new(255, 255, 255)));
        options.deterministic = true;
        // The only error is that there are no lines, and writing to a vector does not fail.
        let _ = flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out);
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
    fn shown_and_left_out(&self) -> String {
        let shown: usize = self.sites.values().filter(|site| site.opened.is_ok()).map(|site| site.ever).sum();
        let unseen = self.sites.iter().filter_map(|(id, site)| Some((site.ever, id.err()?)));
        let mut unseen: Vec<(usize, MissingStack)> = unseen.collect();
        unseen.sort_by_key(|(count, why)| (std::cmp::Reverse(*count), *why));
        // One line has room for two reasons.
        let others: usize = unseen.iter().skip(2).map(|(count, _)| count).sum();
        let named = unseen.iter().take(2).map(|(count, why)| format!("{count} ({})", why.text()));
        let named: Vec<String> =
            named.chain((others > 0).then(|| format!("{others} (other reasons)"))).collect();
        if named.is_empty() {
            return format!("{shown} {}", sockets(shown));
        }
        format!("{shown} {}. Not shown: {}", sockets(shown), named.join(", "))
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

const TITLE: &str = "Call paths that opened sockets which were stuck";

/// The picture where no path is known.
fn without_paths(note: &str) -> String {
    let (paper, ink) = (palette::PAPER.light, palette::INK.light);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"80\" viewBox=\"0 0 1200 80\" font-family=\"monospace\" \
         text-anchor=\"middle\"><rect width=\"1200\" height=\"80\" fill=\"{paper}\"/><text x=\"600\" y=\"26\" font-size=\"17\" \
         fill=\"{ink}\">{TITLE}</text><text x=\"600\" y=\"54\" font-size=\"12\" fill=\"{ink}\">{note}</text></svg>\n"
    )
}

fn sockets(count: usize) -> &'static str {
    if count == 1 { "socket" } else { "sockets" }
}
