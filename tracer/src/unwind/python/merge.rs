//! Inserts Python's functions into the native call path.

use super::Run;
use crate::{
    model::{Frame, bounds},
    unwind::process::CallSite,
};

/// The only runtime of a process; `None` if there are several, because it is not known which of them runs the program.
pub(in crate::unwind) fn only(runtimes: &std::collections::BTreeSet<u64>) -> Option<u64> {
    runtimes.first().copied().filter(|_| runtimes.len() == 1)
}

/// The call whose part of the stack contains the address `stack`; `None` if the address is beyond the end of the known path.
pub(in crate::unwind) fn caller(path: &[CallSite], stack: u64) -> Option<CallSite> {
    let part = path.windows(2).find(|places| matches!(places, [_, next] if stack < next.stack));
    part.and_then(|places| places.first()).copied()
}

/// The call path with Python's functions: those of a run stand before the native call that runs them. Runs whose call is beyond the
/// end of the known path come last.
pub(in crate::unwind) fn merge(
    path: &[CallSite],
    frames: Vec<Vec<Frame>>,
    runs: Option<Vec<Run>>,
) -> Vec<Frame> {
    let Some(runs) = runs else { return frames.concat() };
    let mut runs = runs.into_iter().peekable();
    let mut merged = Vec::new();
    let ends = path.iter().skip(1).map(|next| next.stack).chain([0]);
    for (frames, end) in frames.into_iter().zip(ends) {
        while let Some(run) = runs.next_if(|run| run.stack < end) {
            merged.extend(run.functions);
        }
        // Functions that a perf map names are the same ones as those of the run.
        merged.extend(frames.into_iter().filter(|frame| frame.language.is_none()));
    }
    merged.extend(runs.flat_map(|run| run.functions));
    merged
}

/// The frame of a function by its name in a perf map. CPython writes `py::NAME:FILE`.
pub(in crate::unwind) fn named(name: &str) -> Frame {
    let python = name.strip_prefix("py::").and_then(|name| name.split_once(':'));
    match python {
        Some((function, file)) => Frame {
            function: Some(bounds::kept(function, bounds::FUNCTION).to_owned()),
            file: Some(bounds::kept(file, bounds::PATH).to_owned()),
            language: Some("python"),
            ..Frame::default()
        },
        None => Frame { function: Some(bounds::kept(name, bounds::FUNCTION).to_owned()), ..Frame::default() },
    }
}
