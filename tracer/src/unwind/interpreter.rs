//! Finds the frames that belong to an interpreter itself, and not to the program that it runs.

use crate::model::Frame;

/// Names of the executables and libraries of interpreters, and of the functions that run the program's code.
const INTERPRETERS: [(&str, [&str; 2], &[&str]); 3] = [
    ("python", ["python", "libpython"], &["_PyEval_EvalFrame", "PyEval_EvalFrame"]),
    ("perl", ["perl", "libperl"], &["Perl_runops_"]),
    ("ruby", ["ruby", "libruby"], &["rb_vm_exec", "vm_exec"]),
];

/// Directories of the interpreters' standard extension modules, as Debian and the interpreters' makefiles install them.
const LIBRARIES: [(&str, &str); 4] =
    [("python", "/lib-dynload/"), ("perl", "/perl-base/auto/"), ("ruby", "/ruby/3."), ("ruby", "/ruby/2.")];
/// Directories of extension modules from other packages.
const OTHERS: &str = "/gems/";

/// Marks the interpreter's frames. The name of a file is not enough: one of its frames must be the function that runs the program.
pub(super) fn mark(frames: &mut [Frame]) {
    for (name, files, loops) in INTERPRETERS {
        let runs = |frame: &Frame| {
            frame.function.as_deref().is_some_and(|name| loops.iter().any(|prefix| name.starts_with(prefix)))
        };
        // A stripped executable does not name the loop; the functions that the loop runs prove it.
        let is_proven = frames.iter().any(|frame| frame.language == Some(name));
        let mut running = frames.iter().filter(|frame| is_proven || runs(frame));
        let Some(version) = running.find_map(|frame| version_of(frame, files)) else { continue };
        let label = format!("{name} {version}").trim_end().to_owned();
        let is_own = |frame: &Frame| {
            let in_library = |module: &str| {
                let is_below = |(of, directory): &(&str, &str)| *of == name && module.contains(directory);
                LIBRARIES.iter().any(is_below) && !module.contains(OTHERS)
            };
            version_of(frame, files).is_some() || frame.module.as_deref().is_some_and(in_library)
        };
        let Some(last) = frames.iter().rposition(is_own) else { continue };
        for frame in frames.iter_mut().take(last + 1) {
            // Frames between the interpreter's main() and _start().
            let starts_it = frame.function.as_deref().is_some_and(|name| name.starts_with("__libc_start"));
            if is_own(frame) || starts_it {
                frame.interpreter = Some(label.clone());
            }
        }
    }
}

fn version_of<'a>(frame: &'a Frame, files: [&str; 2]) -> Option<&'a str> {
    version(frame.module.as_deref()?, files)
}

/// The version in the file name of an interpreter, or an empty text; `None` for other files.
fn version<'a>(module: &'a str, files: [&str; 2]) -> Option<&'a str> {
    let name = module.rsplit('/').next()?;
    let rest = files.iter().find_map(|file| name.strip_prefix(file))?;
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let end = rest.find(|digit: char| !digit.is_ascii_digit() && digit != '.').unwrap_or(rest.len());
    let (version, rest) = rest.split_at(end);
    // CPython's ABI flags and the suffix of a library may follow.
    let rest = rest.trim_start_matches(|flag| "dmut".contains(flag));
    (rest.is_empty() || rest.trim_start_matches('.').starts_with("so")).then(|| version.trim_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(module: &str, function: &str) -> Frame {
        Frame {
            function: (!function.is_empty()).then(|| function.to_owned()),
            module: (!module.is_empty()).then(|| module.to_owned()),
            ..Frame::default()
        }
    }

    fn marks(frames: &[(&str, &str)]) -> Vec<Option<String>> {
        let mut frames: Vec<Frame> =
            frames.iter().map(|(module, function)| frame(module, function)).collect();
        mark(&mut frames);
        frames.into_iter().map(|frame| frame.interpreter).collect()
    }

    #[test]
    fn versions_in_names() {
        let files = ["python", "libpython"];
        for (module, wanted) in [
            ("/usr/bin/python3.11", Some("3.11")),
            ("/usr/lib/libpython3.12.so.1.0", Some("3.12")),
            ("/opt/libpython3.8m.so", Some("3.8")),
            ("/opt/python3.8m", Some("3.8")),
            ("/usr/bin/python", Some("")),
            ("/usr/bin/pythonic", None),
            ("/usr/bin/python-daemon", None),
            ("/usr/bin/ruby", None),
        ] {
            assert_eq!(version(module, files), wanted, "{module}");
        }
        assert_eq!(version("/usr/lib/libruby-3.1.so.3.1", ["ruby", "libruby"]), Some("3.1"));
        assert_eq!(version("/usr/lib/libperl.so.5.36", ["perl", "libperl"]), Some(""));
    }

    #[test]
    fn an_interpreter_is_known_by_its_loop() {
        let python = "/usr/bin/python3.11";
        let own = Some("python 3.11".to_owned());
        let frames = [
            ("/lib/libc.so.6", "accept4"),
            ("/usr/lib/python3.11/lib-dynload/_socket.cpython-311.so", ""),
            ("", "py::serve:/srv/app.py"),
            (python, "_PyEval_EvalFrameDefault"),
            ("/srv/venv/lib/python3.11/site-packages/fast.cpython-311.so", "fast_call"),
            (python, ""),
            ("/lib/libc.so.6", "__libc_start_main"),
            (python, "_start"),
        ];
        let wanted = [None, own.clone(), None, own.clone(), None, own.clone(), own.clone(), own];
        assert_eq!(marks(&frames), wanted);
        let ruby = "/usr/lib/libruby-3.1.so.3.1";
        let frames = [
            ("/usr/lib/x86_64-linux-gnu/ruby/3.1.0/socket.so", ""),
            ("/var/lib/gems/ruby/3.1.0/gems/fast/fast.so", ""),
            (ruby, "rb_vm_exec"),
        ];
        let own = Some("ruby 3.1".to_owned());
        assert_eq!(marks(&frames), [own.clone(), None, own]);
        // A program with an interpreter's name, and a program that only starts an interpreter.
        assert_eq!(marks(&[(python, "accept_one"), (python, "main")]), [None, None]);
        assert_eq!(marks(&[("/usr/bin/app", "_PyEval_EvalFrameDefault"), (python, "main")]), [None, None]);
    }
}
