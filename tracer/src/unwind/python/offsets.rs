//! `_Py_DebugOffsets`: the table in which CPython 3.13 and 3.14 describe the offsets of the fields of their structures. Every
//! value is checked, because the process may have overwritten the table.

use super::Memory;
use crate::model::PythonLayout;

const COOKIE: u64 = u64::from_le_bytes(*b"xdebugpy");
/// The limit for a structure: the largest one, `_PyRuntimeState`, has 300 KB.
const MOST_BYTES: u64 = 16 << 20;
/// The limit for an object that is read as a whole.
const MOST_OBJECT_BYTES: u64 = 1024;
/// The number of words of the table that are read; the table of 3.14 has more.
const WORDS: usize = 81;

/// The first word of each structure's part of the table. The part has the size of the structure, then the offsets of its fields.
struct Parts {
    thread: usize,
    frame: usize,
    code: usize,
    object: usize,
    type_object: usize,
    tuple: usize,
    bytes: usize,
    unicode: usize,
}

const RUNTIME: usize = 3;
const INTERPRETER: usize = 6;
const V3_13: Parts =
    Parts { thread: 19, frame: 28, code: 34, object: 44, type_object: 46, tuple: 50, bytes: 64, unicode: 67 };
const V3_14: Parts =
    Parts { thread: 22, frame: 31, code: 39, object: 50, type_object: 52, tuple: 56, bytes: 74, unicode: 77 };

/// The offsets of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    /// The offsets that the kernel programs need.
    pub(super) layout: PythonLayout,
    /// The size of a code object without its instructions.
    pub(super) code_bytes: usize,
    pub(super) filename: usize,
    pub(super) qualname: usize,
    pub(super) linetable: usize,
    pub(super) firstlineno: usize,
    pub(super) instructions: usize,
    /// `ob_size`, which every object of variable size has.
    pub(super) ob_size: usize,
    pub(super) ob_type: usize,
    pub(super) tp_name: u64,
    /// Where the contents of a `bytes` object begin.
    pub(super) bytes_value: usize,
    pub(super) unicode_state: usize,
    pub(super) unicode_length: usize,
    /// Where the characters of an ASCII string begin.
    pub(super) ascii_bytes: usize,
}

impl Offsets {
    /// Reads the table of the runtime at this address; `None` if its version or build is not known.
    pub(super) fn read(memory: &impl Memory, runtime: u64) -> Option<Self> {
        let mut bytes = [0; WORDS * 8];
        memory.read(runtime, &mut bytes).then_some(())?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().ok()?);
        }
        Self::parse(&words, runtime)
    }

    fn parse(words: &[u64; WORDS], runtime: u64) -> Option<Self> {
        let [cookie, version, free_threaded, ..] = *words;
        // Builds without the global lock (GIL) have another layout of objects and instructions.
        if cookie != COOKIE || free_threaded != 0 {
            return None;
        }
        let parts = parts(version)?;
        // The offset of a field of this part, if the field is within the structure.
        let field = |part: usize, field: usize, width: u64| {
            let (size, offset) = (*words.get(part)?, *words.get(part + field)?);
            let fits = size <= MOST_BYTES && offset.checked_add(width)? <= size;
            fits.then(|| u32::try_from(offset).ok()).flatten()
        };
        let small = |part: usize, at: usize, width: u64| {
            let is_small = *words.get(part)? <= MOST_OBJECT_BYTES;
            field(part, at, width).filter(|_| is_small).map(|offset| offset as usize)
        };
        let layout = PythonLayout {
            runtime,
            version,
            interpreters: field(RUNTIME, 2, 8)?,
            next_interpreter: field(INTERPRETER, 2, 8)?,
            threads: field(INTERPRETER, 3, 8)?,
            next_thread: field(parts.thread, 2, 8)?,
            current_frame: field(parts.thread, 4, 8)?,
            native_thread_id: field(parts.thread, 6, 8)?,
            previous: field(parts.frame, 1, 8)?,
            executable: field(parts.frame, 2, 8)?,
            instruction: field(parts.frame, 3, 8)?,
            owner: field(parts.frame, 5, 1)?,
            qualname: field(parts.code, 3, 8)?,
        };
        Some(Self {
            layout,
            filename: small(parts.code, 1, 8)?,
            qualname: small(parts.code, 3, 8)?,
            linetable: small(parts.code, 4, 8)?,
            firstlineno: small(parts.code, 5, 4)?,
            instructions: small(parts.code, 9, 1)?,
            code_bytes: usize::try_from(*words.get(parts.code)?).ok()?,
            ob_size: small(parts.tuple, 2, 8)?,
            ob_type: small(parts.object, 1, 8)?,
            tp_name: small(parts.type_object, 1, 8)? as u64,
            bytes_value: small(parts.bytes, 2, 1)?,
            unicode_state: small(parts.unicode, 1, 4)?,
            unicode_length: small(parts.unicode, 2, 8)?,
            ascii_bytes: small(parts.unicode, 3, 0)?,
        })
    }
}

/// The parts of the table by `PY_VERSION_HEX`. From its first release candidate on, a minor version does not change its table.
fn parts(version: u64) -> Option<&'static Parts> {
    const RELEASE_CANDIDATE: u64 = 0xc;
    let is_released = version >> 4 & 0xf >= RELEASE_CANDIDATE;
    match version >> 16 {
        0x30d if is_released => Some(&V3_13),
        0x30e if is_released => Some(&V3_14),
        _ => None,
    }
}
