//! `stuck --check`: one line and an exit status for monitoring.

use super::groups::{GroupBy, groups};
use crate::{
    model::{Gap, SocketEntry, printable},
    track,
};

/// Exit codes of `--check`, as monitoring plugins have them.
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
pub(super) const UNKNOWN: u8 = 3;

/// The line and exit code of a monitoring plugin.
pub(super) fn status(warn: usize, crit: usize, stuck: &[SocketEntry], gaps: &[Gap]) -> (String, u8) {
    let certain = || stuck.iter().filter(|looked| !looked.report.may_be_stuck);
    let count = certain().count();
    let unsure = stuck.len() - count;
    let (word, code) = match count {
        _ if count >= crit => ("CRITICAL", CRITICAL),
        _ if count >= warn => ("WARNING", WARNING),
        _ if !gaps.is_empty() || stuck.len() >= warn => ("UNKNOWN", UNKNOWN),
        _ => ("OK", 0),
    };
    let oldest = stuck.first().and_then(|looked| looked.report.no_progress_ns()).unwrap_or(0) / 1_000_000_000;
    let most = groups(GroupBy::Process, certain(), None, track::reason);
    let whose =
        most.first().map(|group| format!(", {} of them {}", group.count, group.key)).unwrap_or_default();
    let gaps: String = gaps.iter().map(|gap| format!("; {}", gap.why)).collect();
    let unsure = match unsure {
        0 => String::new(),
        count => format!("; {count} may be stuck, because their ages are not known"),
    };
    // In a plugin's output, performance data follows a bar or a line feed.
    let text = printable(&format!("SOCKSTATE {word} - {count} sockets stuck{whose}{unsure}{gaps}"))
        .replace('|', "/");
    (format!("{text} | stuck={count};{warn};{crit};0 oldest={oldest}s\n"), code)
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc};

    use super::*;
    use crate::model::{Connection, Holder, Process, SocketInfo, SocketReport, State, Tuple, Via};

    #[test]
    fn only_certain_sockets_count_for_a_process() {
        let entry = |may_be_stuck, pid, comm: &str| {
            let mut report = SocketReport::new(SocketInfo::bare(1, State::CloseWait, Tuple::example()));
            report.may_be_stuck = may_be_stuck;
            let process = Arc::new(Process { pid, comm: comm.into(), ..Process::default() });
            let via = Via::Descriptor(7);
            report.holders.push(Holder { process, via, tid: None, close_on_exec: Some(false), watch: None });
            SocketEntry { report, subject: Rc::clone(&Connection::example().subject) }
        };
        let unsure = || entry(true, 12, "nginx");
        for (stuck, start, code) in [
            (
                vec![unsure(), unsure()],
                "SOCKSTATE UNKNOWN - 0 sockets stuck; 2 may be stuck, because",
                UNKNOWN,
            ),
            (
                vec![entry(false, 34, "python3"), unsure(), unsure()],
                "SOCKSTATE WARNING - 1 sockets stuck, 1 of them python3 (34); 2 may be stuck, because",
                WARNING,
            ),
        ] {
            let (line, exit) = status(1, 10, &stuck, &[]);
            assert!(line.starts_with(start) && !line.contains("nginx"), "{line}");
            assert_eq!(exit, code, "{line}");
        }
    }
}
