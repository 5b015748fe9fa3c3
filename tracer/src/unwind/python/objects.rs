//! Reads the name, file and line of a function from its code object in the memory of the process. The process may have changed
//! the memory since, so each object is checked.

use super::{Memory, lines, offsets::Offsets};
use crate::model::Frame;

/// The limit for a name; a longer one is not valid.
const MOST_CHARACTERS: usize = 4096;
/// The limit for the table of lines of a function; a longer one is not read.
const MOST_LINE_BYTES: usize = 1 << 20;
/// The limit for the code units of a function.
const MOST_UNITS: u64 = 1 << 24;
/// The size of a code unit in bytes.
const UNIT: u64 = 2;

/// A function, by the pointers in its frame at the time of the copy.
pub(super) struct Function {
    pub(super) code: u64,
    pub(super) instruction: u64,
    pub(super) qualname: u64,
}

pub(super) struct Objects<'a, M> {
    pub(super) memory: &'a M,
    pub(super) offsets: &'a Offsets,
    /// Whether an address is in the file of the interpreter. The built-in types are there.
    pub(super) is_own: &'a dyn Fn(u64) -> bool,
}

impl<M: Memory> Objects<'_, M> {
    /// Name, file and line of a function; `None` if an object is not valid, or has changed since the copy.
    pub(super) fn frame(&self, function: &Function) -> Option<Frame> {
        let offsets = self.offsets;
        let code = self.object(function.code, offsets.code_bytes, "code")?;
        // Another code object may be at this address by now.
        if word(&code, offsets.qualname)? != function.qualname {
            return None;
        }
        let units = word(&code, offsets.ob_size)?;
        let first = function.code.checked_add(offsets.instructions as u64)?;
        let at = function.instruction.checked_sub(first).filter(|at| at % UNIT == 0)? / UNIT;
        if units > MOST_UNITS || at >= units {
            return None;
        }
        let begins = half(&code, offsets.firstlineno)?;
        let table = self.bytes(word(&code, offsets.linetable)?);
        Some(Frame {
            function: Some(self.text(function.qualname)?),
            file: Some(self.text(word(&code, offsets.filename)?)?),
            line: table.and_then(|table| lines::line_at(&table, begins, at)),
            language: Some("python"),
            ..Frame::default()
        })
    }

    /// The first `len` bytes of an object; `None` if the object does not have the built-in type `type_name`.
    fn object(&self, address: u64, len: usize, type_name: &str) -> Option<Vec<u8>> {
        let bytes = self.read(address, len)?;
        let type_object = word(&bytes, self.offsets.ob_type)?;
        if !(self.is_own)(type_object) {
            return None;
        }
        let name = self.read(type_object.checked_add(self.offsets.tp_name)?, 8)?;
        let name = self.read(word(&name, 0)?, type_name.len() + 1)?;
        (name.strip_suffix(b"\0") == Some(type_name.as_bytes())).then_some(bytes)
    }

    fn bytes(&self, address: u64) -> Option<Vec<u8>> {
        let value = self.offsets.bytes_value;
        let head = self.object(address, value, "bytes")?;
        let len = usize::try_from(word(&head, self.offsets.ob_size)?).ok()?;
        (len <= MOST_LINE_BYTES).then(|| self.read(address.checked_add(value as u64)?, len)).flatten()
    }

    /// The text of a string object. The bits `interned:2 kind:3 compact:1 ascii:1` of its state describe how the characters are stored.
    fn text(&self, address: u64) -> Option<String> {
        let offsets = self.offsets;
        let head = self.object(address, offsets.ascii_bytes, "str")?;
        let state = half(&head, offsets.unicode_state)?;
        let len = usize::try_from(word(&head, offsets.unicode_length)?).ok()?;
        let (width, is_compact, is_ascii) = ((state >> 2 & 7) as usize, state & 0x20 != 0, state & 0x40 != 0);
        if !is_compact || len > MOST_CHARACTERS || !matches!(width, 1 | 2 | 4) || (is_ascii && width != 1) {
            return None;
        }
        // In a string that is not ASCII, the pointer to its UTF-8 form and the length of that precede the characters.
        let begins = offsets.ascii_bytes as u64 + if is_ascii { 0 } else { 16 };
        let bytes = self.read(address.checked_add(begins)?, len * width)?;
        let character = |bytes: &[u8]| match *bytes {
            [one] => u32::from(one),
            [a, b] => u32::from(u16::from_ne_bytes([a, b])),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
            _ => 0,
        };
        // Python represents bytes of file names that are not UTF-8 as surrogates.
        let readable = |number| char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
        let text: String = bytes.chunks_exact(width).map(|bytes| readable(character(bytes))).collect();
        (!text.is_empty() && (!is_ascii || text.is_ascii())).then_some(text)
    }

    fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        (len == 0 || self.memory.read(address, &mut bytes)).then_some(bytes)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|half| u32::from_ne_bytes(*half))
}
