//! Connections that were stuck before the trace began: one line instead of one for each.

use std::collections::{BTreeMap, HashSet};

use crate::model::{ConnId, Stuck};

/// Up to this number of rows are shown; more are summed up in one line.
const MOST_ROWS: usize = 5;

/// The rows that are kept back, and the connections that were summed up.
#[derive(Default)]
pub(super) struct AlreadyStuck {
    rows: Vec<KeptRow>,
    /// Connections that were summed up, or are kept back: reminders of these are not shown.
    not_shown: HashSet<ConnId>,
}

struct KeptRow {
    conn: ConnId,
    state: &'static str,
    time_ns: i64,
    text: String,
}

/// What was kept back.
pub(super) enum Kept {
    Rows(Vec<String>),
    Sum { time_ns: i64, text: String },
}

impl AlreadyStuck {
    /// Keeps the row of a connection back until [`AlreadyStuck::take`].
    pub(super) fn keep(&mut self, stuck: &Stuck, row: String) {
        let Stuck { conn, state, time_ns, .. } = stuck;
        self.not_shown.insert(stuck.conn.id);
        self.rows.push(KeptRow { conn: conn.id, state: state.name(), time_ns: *time_ns, text: row });
    }

    /// Whether a connection is shown in a sum only, or is still kept back.
    pub(super) fn is_not_shown(&self, conn: ConnId) -> bool {
        self.not_shown.contains(&conn)
    }

    /// A connection is stuck no more. Returns whether its row was still kept back, so that nothing was shown of it.
    pub(super) fn forget(&mut self, conn: ConnId) -> bool {
        self.not_shown.remove(&conn);
        let count = self.rows.len();
        self.rows.retain(|row| row.conn != conn);
        self.rows.len() < count
    }

    /// What was kept back since the last time, if anything.
    pub(super) fn take(&mut self) -> Option<Kept> {
        let rows = std::mem::take(&mut self.rows);
        let time_ns = rows.last()?.time_ns;
        if rows.len() <= MOST_ROWS {
            self.not_shown.retain(|conn| !rows.iter().any(|row| row.conn == *conn));
            return Some(Kept::Rows(rows.into_iter().map(|row| row.text).collect()));
        }
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            *states.entry(row.state).or_default() += 1;
        }
        let list: Vec<String> = states.iter().map(|(state, count)| format!("{count} in {state}")).collect();
        let text = format!(
            "STUCK before the trace began: {} connections ({}); `sockstate stuck` lists them, with the same filter",
            rows.len(),
            list.join(", ")
        );
        Some(Kept::Sum { time_ns, text })
    }
}
