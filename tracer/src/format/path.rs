//! Call paths as text.

use crate::model::{Frame, Stack, Unnamed, printable};

/// A line of a call path, for people.
pub(super) enum Step<'a> {
    /// A function.
    Frame(&'a Frame),
    /// Frames of an interpreter itself: its name, and how many frames.
    Interpreter(&'a str, usize),
}

impl Step<'_> {
    /// The name of the function, or one name for the folded frames.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Frame(frame) => match (&frame.function, &frame.file) {
                // Code outside of any function has the same name in all scripts. Only the file distinguishes the
                // scripts.
                (Some(function), Some(file)) if is_interpreted(frame) => format!("{function} ({file})"),
                _ => name(frame),
            },
            Self::Interpreter(interpreter, 1) => format!("[{interpreter} interpreter, 1 frame]"),
            Self::Interpreter(interpreter, count) => format!("[{interpreter} interpreter, {count} frames]"),
        }
    }

    /// The name with the file and line, or with why the name is not known.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Frame(frame) => line(frame),
            Self::Interpreter(..) => self.name(),
        }
    }
}

/// The steps of the path, the innermost first, with the frames of an interpreter folded. Between two functions of the
/// program, these frames are left out, because they have no information there.
pub(super) fn steps(stack: &Stack) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for frame in &stack.frames {
        match (&frame.interpreter, steps.last_mut()) {
            (Some(name), Some(Step::Interpreter(last, count))) if name == last => *count += 1,
            (Some(name), _) => steps.push(Step::Interpreter(name, 1)),
            (None, _) => {
                if let [.., Step::Frame(before), Step::Interpreter(..)] = steps[..]
                    && is_interpreted(before)
                    && is_interpreted(frame)
                {
                    steps.pop();
                }
                steps.push(Step::Frame(frame));
            }
        }
    }
    steps
}

/// Whether an interpreter runs the function.
fn is_interpreted(frame: &Frame) -> bool {
    frame.language.is_some()
}

/// The innermost function of the program itself, and not of a library, that has a known line. If no function has a
/// known line, the innermost function of the program.
#[must_use]
pub fn opened_at(stack: &Stack) -> String {
    // The paths at which Rust's and Go's standard libraries were built.
    const STD: [&str; 4] = ["/rustc/", "/usr/lib/rustlib/", "/usr/lib/go-", "/usr/local/go/src/"];
    let is_std = |file: &str| STD.iter().any(|path| file.starts_with(path));
    // The standard library of CPython.
    let is_python_std = |file: &str| {
        file.starts_with("<frozen ") || (file.contains("/lib/python3") && !file.contains("-packages/"))
    };
    let is_library = |frame: &Frame| {
        let module = frame.module.as_deref().and_then(|module| module.rsplit('/').next());
        module.is_some_and(|name| {
            ["libc.", "libc-", "libpthread", "ld-"].iter().any(|library| name.starts_with(library))
        }) || frame.file.as_deref().is_some_and(is_std)
            || (is_interpreted(frame) && frame.file.as_deref().is_some_and(is_python_std))
    };
    let steps = steps(stack);
    let is_own = |step: &&Step<'_>| matches!(step, Step::Frame(frame) if !is_library(frame));
    let is_known = |step: &&Step<'_>| matches!(step, Step::Frame(frame) if frame.line.is_some() || is_interpreted(frame));
    let mut own = steps.iter().filter(is_own);
    // If an interpreter runs the program, the native functions around it do not belong to the program.
    let is_folded = |step: &&Step<'_>| matches!(step, Step::Interpreter(..));
    let found = own.clone().find(is_known).or_else(|| steps.iter().find(is_folded)).or_else(|| own.next());
    found.or(steps.first()).map_or_else(|| "an unknown place".into(), Step::line)
}

fn line(frame: &Frame) -> String {
    let name = printable(&name(frame));
    if let Some(why) = frame.unnamed.and_then(Unnamed::why) {
        return format!("{name} ({why})");
    }
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{name} ({}:{line})", printable(file)),
        (Some(file), None, _) if is_interpreted(frame) => format!("{name} ({})", printable(file)),
        (_, _, Some(module)) if frame.function.is_some() => format!("{name} ({})", printable(module)),
        _ => name,
    }
}

/// The name of the function; without one, the position of the code in its module.
fn name(frame: &Frame) -> String {
    match (&frame.function, &frame.module) {
        (Some(function), _) => function.clone(),
        (None, Some(module)) => format!("{module}+{:#x}", frame.offset),
        (None, None) => format!("{:#x}", frame.offset),
    }
}

/// The text without the separators of folded stacks, which cannot be escaped there.
pub(super) fn one_part(text: &str) -> String {
    printable(text).replace(';', ":").replace('\n', " ")
}
