//! The screen of `sockstate top`. [`App`] has the state, handles keys and draws; its caller passes records and keys.

mod detail;
mod examination;
mod fit;
mod input;
mod overview;
mod rates;
mod rows;
mod samples;
mod table;
mod totals;
mod view;

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

pub use rows::Sort;

use examination::Examination;
use rates::Rates;
use rows::Rows;
use samples::Samples;
use table::Columns;
use totals::Totals;

use crate::{
    explain::Texts,
    model::{ConnId, Record},
    story::{ConnHistory, Story},
};

/// An automatic refresh of the counts and rows may use at most one part in this many of the time.
const SHARE: u32 = 50;
/// A refresh that is faster than this is always allowed.
const LITTLE: Duration = Duration::from_millis(5);

/// The view in the lower part of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum View {
    /// The table of sockets.
    #[default]
    Sockets,
    /// The socket that is selected.
    Detail,
    /// The state machine, with the current counts.
    Diagram,
    /// The keys and what they do.
    Help,
}

/// The state of the screen.
pub struct App {
    story: Story,
    /// A copy of the story from the moment when the user paused the screen.
    frozen: Option<Rc<Story>>,
    texts: Texts,
    coloured: bool,
    view: View,
    rows: Rows,
    totals: Totals,
    /// A record has come since the last count.
    changed: bool,
    /// When the last automatic refresh began, and how long it took.
    refreshed: Option<(Instant, Duration)>,
    samples: Samples,
    /// The search text, and whether the user is typing it.
    search: String,
    typing: bool,
    /// How many lines of a long view are above the screen.
    scroll: u16,
    /// Where the records come from.
    source: String,
    ended: bool,
    /// The current time for ages, ns since the epoch.
    now_ns: i64,
    /// The area of the table, with its header.
    table_at: ratatui::layout::Rect,
    /// The columns of the table.
    columns: Columns,
    examination: Examination,
    rates: Rates,
}

impl App {
    /// An empty screen; `source` names the source of records.
    #[must_use]
    pub fn new(source: String, texts: Texts, coloured: bool) -> Self {
        Self {
            story: Story::forgetful(),
            frozen: None,
            texts,
            coloured,
            view: View::default(),
            rows: Rows::default(),
            totals: Totals::default(),
            changed: false,
            refreshed: None,
            samples: Samples::default(),
            search: String::new(),
            typing: false,
            scroll: 0,
            source,
            ended: false,
            now_ns: 0,
            table_at: ratatui::layout::Rect::ZERO,
            columns: Columns::default(),
            examination: Examination::default(),
            rates: Rates::default(),
        }
    }

    /// Sets the limit of memory for the connections, approximately, in bytes.
    pub fn bound(&mut self, bytes: usize) {
        self.story.bound(bytes);
    }

    /// Whether the connections exceed the memory limit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.story.is_full()
    }

    /// Where the records come from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Adds a record.
    pub fn record(&mut self, record: &Record) {
        self.changed = true;
        if let Record::Transition(transition) = record {
            self.samples.transition(transition.to);
        }
        self.story.record(record);
    }

    /// No more records will come.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Once per second: updates rates, and counts and sorts rows again, less often if that is slow.
    pub fn second(&mut self, now_ns: i64) {
        let is_due = |(at, cost): &(Instant, Duration)| *cost < LITTLE || at.elapsed() >= *cost * SHARE;
        if self.changed && self.refreshed.as_ref().is_none_or(is_due) {
            let begin = Instant::now();
            self.refresh(now_ns);
            self.refreshed = Some((begin, begin.elapsed()));
        }
        if !self.ended {
            self.samples.second(&self.totals.states);
        }
        if self.frozen.is_none() {
            self.now_ns = now_ns;
        }
        self.rates.second();
    }

    /// Counts, sorts and filters again.
    pub fn refresh(&mut self, now_ns: i64) {
        if self.frozen.is_none() {
            self.now_ns = now_ns;
        }
        let story = self.frozen.clone();
        let story = story.as_deref().unwrap_or(&self.story);
        self.totals = Totals::of(story);
        self.rows.arrange(story, &self.search);
        self.changed = false;
    }

    fn shown(&self) -> &Story {
        self.frozen.as_deref().unwrap_or(&self.story)
    }

    fn selected(&self) -> Option<&ConnHistory> {
        self.shown().histories.get(&self.rows.selected()?)
    }

    /// How long a connection has been in its state, ns.
    fn age_ns(&self, history: &ConnHistory) -> u64 {
        u64::try_from(self.now_ns - history.since_ns).unwrap_or(0)
    }

    fn freeze(&mut self) {
        self.frozen = match self.frozen.take() {
            None => Some(Rc::new(self.story.clone())),
            Some(_) => None,
        };
    }

    fn select(&mut self, conn: ConnId) {
        self.rows.select(conn);
    }
}
