use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Memory, Python, Run, caller, lines::line_at, merge, named, offsets::Offsets, only};
use crate::{
    model::{Frame, PythonFrame, PythonLayout, PythonStack},
    unwind::process::CallSite,
};

/// The table of CPython 3.13.0 for x86-64.
const V3_13: [u64; 81] = [
    0x7970_6775_6265_6478,
    0x30d_00f0,
    0,
    283_320,
    608,
    632,
    194_968,
    7272,
    7264,
    7344,
    7400,
    7656,
    7640,
    7648,
    16,
    7752,
    0,
    7768,
    7760,
    304,
    0,
    8,
    16,
    72,
    152,
    160,
    232,
    32,
    80,
    8,
    0,
    56,
    72,
    70,
    208,
    112,
    120,
    128,
    136,
    68,
    52,
    96,
    104,
    200,
    16,
    8,
    416,
    24,
    88,
    168,
    32,
    24,
    16,
    40,
    24,
    16,
    48,
    32,
    40,
    24,
    16,
    32,
    16,
    24,
    40,
    16,
    32,
    64,
    32,
    16,
    40,
    240,
    200,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
];
/// The table of CPython 3.14.10 for x86-64.
const V3_14: [u64; 81] = [
    0x7970_6775_6265_6478,
    0x30e_0af0,
    0,
    316_616,
    784,
    808,
    225_864,
    7280,
    7272,
    7344,
    7360,
    7408,
    7688,
    7672,
    7680,
    16,
    7784,
    0,
    7800,
    7792,
    7992,
    0,
    832,
    0,
    8,
    16,
    72,
    152,
    160,
    232,
    32,
    88,
    8,
    0,
    56,
    80,
    74,
    64,
    0,
    216,
    112,
    120,
    128,
    136,
    68,
    52,
    96,
    104,
    208,
    0,
    16,
    8,
    416,
    24,
    88,
    168,
    40,
    32,
    16,
    40,
    24,
    16,
    200,
    24,
    40,
    32,
    48,
    32,
    40,
    24,
    16,
    32,
    16,
    24,
    40,
    16,
    32,
    64,
    32,
    16,
    40,
];

const BASE: u64 = 0x10_0000;
const RUNTIME: u64 = BASE;
const TYPES: u64 = BASE + 0x1000;
const CODE: u64 = BASE + 0x4000;
const NAME: u64 = BASE + 0x5000;
const FILE: u64 = BASE + 0x6000;
const LINES: u64 = BASE + 0x7000;
/// The size of the part that belongs to the file of the interpreter.
const OWN: std::ops::Range<u64> = BASE..CODE;

struct Image(Vec<u8>);

impl Memory for Image {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let part = address.checked_sub(BASE).and_then(|at| self.0.get(at as usize..)?.get(..bytes.len()));
        part.inspect(|part| bytes.copy_from_slice(part)).is_some()
    }
}

impl Image {
    /// Memory with a runtime, three types, and the code object of the function `f` of `f.py`, which has 69 code units.
    fn new(words: &[u64]) -> Self {
        let mut image = Self(vec![0; 0x8000]);
        words.iter().zip(0..).for_each(|(word, index)| image.word(RUNTIME + index * 8, *word));
        for (name, at) in [("code", 0), ("str", 0x200), ("bytes", 0x400)] {
            image.word(TYPES + at + 24, TYPES + at + 0x100);
            image.put(TYPES + at + 0x100, name.as_bytes());
        }
        image.word(CODE + 8, TYPES);
        image.word(CODE + 16, 69);
        image.put(CODE + 68, &1u32.to_ne_bytes());
        image.word(CODE + 112, FILE);
        image.word(CODE + 128, NAME);
        image.word(CODE + 136, LINES);
        image.text(NAME, 1, true, b"f");
        image.text(FILE, 1, true, b"f.py");
        image.word(LINES + 8, TYPES + 0x400);
        image.word(LINES + 16, TABLE.len() as u64);
        image.put(LINES + 32, &TABLE);
        image
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - BASE) as usize;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&mut self, address: u64, word: u64) {
        self.put(address, &word.to_ne_bytes());
    }

    fn text(&mut self, address: u64, width: u32, is_ascii: bool, bytes: &[u8]) {
        self.word(address + 8, TYPES + 0x200);
        self.word(address + 16, bytes.len() as u64 / u64::from(width));
        self.put(address + 32, &(width << 2 | 0x20 | if is_ascii { 0x40 } else { 0 }).to_ne_bytes());
        self.put(address + if is_ascii { 40 } else { 56 }, bytes);
    }

    fn frame_at(&self, unit: u64) -> Option<Frame> {
        self.frame(CODE + 200 + unit * 2)
    }

    fn frame(&self, instruction: u64) -> Option<Frame> {
        let frames = vec![function(instruction), PythonFrame::Loop(0x9000)];
        let runs = self.runs(PythonStack { runtime: RUNTIME, frames, complete: true })?;
        runs.into_iter().next()?.functions.into_iter().next()
    }

    fn runs(&self, stack: PythonStack) -> Option<Vec<Run>> {
        Python::read(self, RUNTIME)?.runs(&stack, 0x8000, self, |address| OWN.contains(&address))
    }
}

fn function(instruction: u64) -> PythonFrame {
    PythonFrame::Function { code: CODE, instruction, qualname: NAME }
}

/// `co_linetable` of a function with a `try` over several lines, from CPython 3.13.
const TABLE: [u8; 88] = [
    128, 0, 225, 20, 21, 243, 0, 1, 9, 15, 145, 65, 136, 113, 220, 12, 13, 247, 3, 0, 10, 11, 145, 65, 128,
    65, 240, 0, 1, 9, 15, 240, 6, 7, 5, 13, 220, 15, 16, 216, 12, 13, 216, 12, 13, 243, 5, 2, 16, 15, 240,
    12, 0, 9, 13, 249, 242, 21, 1, 9, 15, 248, 244, 14, 0, 12, 20, 243, 0, 1, 5, 14, 216, 8, 13, 251, 240, 3,
    1, 5, 14, 251, 240, 6, 0, 9, 13, 250,
];
/// `co_lines()` of the same function.
const LINES_OF_TABLE: [(u64, u64, Option<u32>); 20] = [
    (0, 1, Some(1)),
    (1, 10, Some(3)),
    (10, 15, Some(4)),
    (15, 27, Some(3)),
    (27, 28, Some(6)),
    (28, 33, Some(7)),
    (33, 34, Some(8)),
    (34, 35, Some(9)),
    (35, 39, Some(7)),
    (39, 40, Some(13)),
    (40, 42, None),
    (42, 45, Some(3)),
    (45, 46, None),
    (46, 55, Some(10)),
    (55, 56, Some(11)),
    (56, 60, None),
    (60, 61, Some(10)),
    (61, 65, None),
    (65, 66, Some(13)),
    (66, 69, None),
];

#[test]
fn tables_of_real_interpreters() {
    let layout = |words: &[u64; 81]| Offsets::read(&Image::new(words), RUNTIME).map(|offsets| offsets.layout);
    let v3_13 = PythonLayout {
        runtime: RUNTIME,
        version: 0x30d_00f0,
        interpreters: 632,
        next_interpreter: 7264,
        threads: 7344,
        next_thread: 8,
        native_thread_id: 160,
        current_frame: 72,
        previous: 8,
        executable: 0,
        instruction: 56,
        owner: 70,
        qualname: 128,
    };
    assert_eq!(layout(&V3_13), Some(v3_13));
    let v3_14 =
        PythonLayout { version: 0x30e_0af0, interpreters: 808, next_interpreter: 7272, owner: 74, ..v3_13 };
    assert_eq!(layout(&V3_14), Some(v3_14));
}

#[test]
fn other_tables_are_not_believed() {
    let changed = |index: usize, word: u64| {
        let mut words = V3_13;
        words[index] = word;
        Python::read(&Image::new(&words), RUNTIME).is_some()
    };
    assert!(changed(1, 0x30d_0ff0) && changed(1, 0x30d_00c1), "3.13.15, and a release candidate");
    // 3.12, 3.15, an alpha version, an invalid one; a build without the lock; a field outside its structure; a structure that is
    // too large.
    for (index, word) in [
        (0, 0),
        (1, 0x30c_00f0),
        (1, 0x30f_00f0),
        (1, 0x30d_00a4),
        (1, 1 << 40 | 0x30d_00f0),
        (2, 1),
        (5, 283_320),
        (8, 194_961),
        (25, u64::MAX),
        (33, 80),
        (39, 205),
        (34, 4096),
        (3, 1 << 40),
    ] {
        assert!(!changed(index, word), "{index}: {word:#x}");
    }
    assert!(Python::read(&Image(vec![0; 100]), RUNTIME).is_none(), "unreadable");
    assert!(Python::read(&Image::new(&V3_13), 0).is_none());
}

#[test]
fn lines_as_python_says_them() {
    for (start, end, wanted) in LINES_OF_TABLE {
        for unit in start..end {
            assert_eq!(line_at(&TABLE, 1, unit), wanted, "{unit}");
        }
    }
    for (table, unit) in [(&[][..], 0), (&[0x80, 0], 1), (&[1, 2], 0), (&[0xf0], 0), (&[0xf0, 0x40], 0)] {
        assert_eq!(line_at(table, 1, unit), None, "{table:?}");
    }
}

#[test]
fn a_function_by_its_code_object() {
    let wanted = |line| Frame {
        function: Some("f".into()),
        file: Some("f.py".into()),
        line,
        language: Some("python"),
        ..Frame::default()
    };
    for words in [&V3_13, &V3_14] {
        let mut image = Image::new(words);
        if words == &V3_14 {
            assert_eq!(image.frame(CODE + 206), None, "in front of the instructions");
            assert_eq!(image.frame(CODE + 208 + 28 * 2), Some(wanted(Some(7))));
            continue;
        }
        assert_eq!(image.frame_at(28), Some(wanted(Some(7))));
        assert_eq!(image.frame_at(40), Some(wanted(None)));
        for unit in [69, 1 << 62] {
            assert_eq!(image.frame_at(unit), None);
        }
        assert_eq!(image.frame(CODE + 201), None, "between two instructions");
        image.word(LINES + 16, u64::MAX);
        assert_eq!(image.frame_at(28), Some(wanted(None)), "too long a table");
    }
}

#[test]
fn names_of_all_widths() {
    for (width, is_ascii, bytes, wanted) in [
        (1, true, &b"socket.accept"[..], Some("socket.accept")),
        (1, false, b"caf\xe9", Some("café")),
        (2, false, &[0x32, 0x04, 0x56, 0x04], Some("ві")),
        (4, false, &[0x0d, 0xf4, 0x01, 0], Some("\u{1f40d}")),
        // The result of os.fsdecode() for a byte that is not UTF-8.
        (2, false, &[0x80, 0xdc], Some("\u{fffd}")),
        (1, true, b"\xff", None),
        (1, true, b"", None),
        (2, true, b"ab", None),
        (3, false, b"abc", None),
    ] {
        let mut image = Image::new(&V3_13);
        image.text(NAME, width, is_ascii, bytes);
        assert_eq!(image.frame_at(1).and_then(|frame| frame.function).as_deref(), wanted, "{bytes:?}");
    }
}

#[test]
fn objects_that_are_not_what_they_should_be() {
    type Change = fn(&mut Image);
    let changes: [(&str, Change); 9] = [
        ("another type", |image| image.word(CODE + 8, TYPES + 0x200)),
        ("a type outside the interpreter", |image| {
            image.word(CODE + 8, NAME + 0x100);
            image.word(NAME + 0x100 + 24, TYPES + 0x100);
        }),
        ("a type that goes on", |image| image.put(TYPES + 0x100, b"coder")),
        ("no type", |image| image.word(CODE + 8, 0)),
        ("another name by now", |image| image.word(CODE + 128, FILE)),
        ("a name that is no string", |image| image.word(NAME + 8, TYPES)),
        ("a name without an end", |image| image.word(NAME + 16, u64::MAX)),
        ("a file that is nowhere", |image| image.word(CODE + 112, u64::MAX - 7)),
        ("no instructions", |image| image.word(CODE + 16, 0)),
    ];
    for (what, change) in changes {
        let mut image = Image::new(&V3_13);
        assert!(image.frame_at(1).is_some());
        change(&mut image);
        assert_eq!(image.frame_at(1), None, "{what}");
    }
}

#[test]
fn calls_of_the_loop_in_their_order() {
    let image = Image::new(&V3_13);
    let f = function(CODE + 200);
    let of = |frames: &[PythonFrame], complete| {
        let runs = image.runs(PythonStack { runtime: RUNTIME, frames: frames.to_vec(), complete })?;
        Some(runs.iter().map(|run| (run.stack, run.functions.len())).collect::<Vec<_>>())
    };
    let [low, high, higher] = [0x9000, 0xa000, 0xb000].map(PythonFrame::Loop);
    let other = PythonFrame::Interpreter;
    assert_eq!(of(&[f, f, low, f, high], true), Some(vec![(0x9000, 2), (0xa000, 1)]));
    assert_eq!(
        of(&[f, high, other, f, f, low, f, higher], true),
        Some(vec![(0x9000, 2), (0xa000, 1), (0xb000, 1)])
    );
    // Code in the file of the interpreter.
    let own = PythonFrame::Function { code: TYPES, instruction: 0, qualname: 0 };
    assert_eq!(of(&[f, own, f, low], true), Some(vec![(0x9000, 2)]));
    assert_eq!(of(&[f, low, f], false), Some(vec![(0x9000, 1)]), "cut where the loop's call is not known");
    let wild = PythonFrame::Function { code: 1, instruction: 2, qualname: 3 };
    for frames in [
        &[f, high, f, low][..],
        &[f, low, f, low],
        &[f, PythonFrame::Loop(0x7fff)],
        &[f, other, f, low],
        &[f, low, wild, high],
        &[f],
        &[],
    ] {
        assert_eq!(of(frames, true), None, "{frames:?}");
    }
    let elsewhere = PythonStack { runtime: 1, frames: vec![f, low], complete: true };
    assert!(image.runs(elsewhere).is_none(), "another program by now");
}

#[test]
fn functions_stand_in_front_of_their_loop() {
    let frame = |name: &str| Frame { function: Some(name.into()), ..Frame::default() };
    let path = [0x100, 0x200, 0x300, 0x400].map(|stack| CallSite { address: 0, stack });
    let native = || ["accept", "loop", "c", "loop"].map(|name| vec![frame(name)]).to_vec();
    let run = |stack, name: &str| Run { stack, functions: vec![frame(name)] };
    let names = |frames: Vec<Frame>| -> Vec<String> {
        frames.into_iter().filter_map(|frame| frame.function).collect()
    };
    let merged = merge(&path, native(), Some(vec![run(0x210, "inner"), run(0x4f0, "outer")]));
    assert_eq!(names(merged), ["accept", "inner", "loop", "c", "loop", "outer"]);
    assert_eq!(names(merge(&path, native(), None)), ["accept", "loop", "c", "loop"]);
    let mut with_map = native();
    with_map.insert(2, vec![named("py::inner:/srv/app.py")]);
    let longer = [0x100, 0x200, 0x280, 0x300, 0x400].map(|stack| CallSite { address: 0, stack });
    let merged = merge(&longer, with_map, Some(vec![run(0x210, "inner")]));
    assert_eq!(names(merged), ["accept", "inner", "loop", "c", "loop"]);
    assert_eq!(caller(&path, 0x3ff).map(|place| place.stack), Some(0x300));
    assert!(caller(&path, 0x400).is_none());
    assert_eq!((only(&BTreeSet::from([1])), only(&BTreeSet::from([1, 2]))), (Some(1), None));
}

#[test]
fn names_in_perf_maps() {
    let python = named("py::C.f.<locals>.g:/srv/a:b.py");
    assert_eq!((python.function.as_deref(), python.language), (Some("C.f.<locals>.g"), Some("python")));
    assert_eq!(python.file.as_deref(), Some("/srv/a:b.py"));
    let other = named("int Leak.open(int)");
    assert_eq!((other.function.as_deref(), other.language), (Some("int Leak.open(int)"), None));
}

proptest! {
    #[test]
    fn any_memory_is_harmless(bytes in proptest::collection::vec(any::<u8>(), 0x3000), at in 0u64..0x3000) {
        let mut image = Image::new(&V3_13);
        // The objects that a frame refers to come after the types.
        image.put(CODE, &bytes);
        for address in [CODE, CODE + at, at] {
            let frames = vec![
                PythonFrame::Function { code: address, instruction: address + 200, qualname: NAME },
                PythonFrame::Loop(0x9000),
            ];
            let _ = image.runs(PythonStack { runtime: RUNTIME, frames, complete: true });
        }
        let _ = line_at(&bytes, 1, at);
    }

    #[test]
    fn any_table_is_harmless(index in 2usize..81, word in any::<u64>(), small in 0u64..2048) {
        for word in [word, small] {
            let mut words = V3_13;
            words[index] = word;
            let _ = Image::new(&words).frame_at(1);
        }
    }
}
