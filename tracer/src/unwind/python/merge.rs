//! Python's functions between the native ones.

use super::Run;
use crate::{
    model::{Frame, bounds},
    unwind::process::CallSite,
};

/// The one runtime of a process; none where it has several: which of them runs the program is not known.
pub(in crate::unwind) fn only(runtimes: &std::collections::BTreeSet<u64>) -> Option<u64> {
    runtimes.first().copied().filter(|_| runtimes.len() == 1)
}

/// The place whose part of the stack this is; none behind what is known of the path.
pub(in crate::unwind) fn caller(path: &[CallSite], stack: u64) -> Option<CallSite> {
    let part = path.windows(2).find(|places| matches!(places, [_, next] if stack < next.stack));
    part.and_then(|places| places.first()).copied()
}

/// The functions of the native places, each with those that run in it in front. Functions whose call of the loop lies behind what is
/// known of the path are its end.
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
        // What a perf map names are the same functions once more.
        merged.extend(frames.into_iter().filter(|frame| frame.language.is_none()));
    }
    merged.extend(runs.flat_map(|run| run.functions));
    merged
}

/// A function that a perf map names; CPython writes `py::NAME:FILE`.
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
