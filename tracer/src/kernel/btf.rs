//! Field offsets from the running kernel's type information (`/sys/kernel/btf/vmlinux`).
//!
//! Format: Documentation/bpf/btf.rst. Parses only what "struct.field.field" paths need.

use std::{collections::HashMap, io, path::Path};

use sockstate_abi::abi::{ABSENT, OFFSET_PATHS, Offsets};
use thiserror::Error;

use crate::files;

/// The kernel's BTF.
pub(super) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// A limit well above the size of any kernel's BTF, which is about 10 MiB.
pub(super) const MAX_BYTES: u64 = 256 << 20;
const MAGIC: u16 = 0xeb9f;
const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;

/// Types other than structures that are looked up, by kind and name.
const NAMED: [(u32, &str); 4] = [
    (KIND_FUNC, "inet_csk_reqsk_queue_hash_add"),
    (KIND_TYPEDEF, "btf_trace_tcp_send_reset"),
    (KIND_ENUM, "sk_rst_reason"),
    (KIND_ENUM, "skb_drop_reason"),
];
/// Typedef, volatile, const, restrict, type tag: they refer to another type.
const KIND_MODIFIERS: [u32; 5] = [8, 9, 10, 11, 18];

/// Limit of references from type to type: in a damaged file a type may refer to itself.
const MAX_STEPS: usize = 32;
/// Limit of members that are searched for one field: the kernel's structures have hundreds.
const MAX_MEMBERS: u32 = 16_384;

/// Why the offsets of fields are not known.
#[derive(Debug, Error)]
pub enum BtfError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path} is not valid BTF: {what}")]
    Malformed { path: String, what: &'static str },
    /// A field that every supported kernel has is missing.
    #[error("{path} has no {field}")]
    NoField { path: String, field: &'static str },
}

struct Types {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type in `data`, by its id.
    at: Vec<usize>,
    structs: HashMap<Vec<u8>, u32>,
    /// Ids of [`NAMED`].
    named: [Option<u32>; NAMED.len()],
}

/// The facts about the kernel's types that the programs need.
#[derive(Clone, Debug)]
pub(super) struct KernelTypes {
    pub(super) offsets: Offsets,
    /// Index of the return value of `inet_csk_reqsk_queue_hash_add` among the arguments of fexit, which is its number of parameters;
    /// 0 if the function returns nothing.
    pub(super) hash_add_result: u32,
    /// Whether the tracepoint `tcp_send_reset` has a reason.
    pub(super) has_reset_reason: bool,
    /// Names of `enum sk_rst_reason` without their prefix.
    pub(super) reset_reasons: Vec<String>,
    /// `SKB_DROP_REASON_NO_SOCKET`; 0 where `kfree_skb` has no reason.
    pub(super) no_socket: u32,
}

impl KernelTypes {
    /// For a kernel without BTF.
    pub(super) const NONE: Self = Self {
        offsets: Offsets::NONE,
        hash_add_result: 0,
        has_reset_reason: false,
        reset_reasons: Vec::new(),
        no_socket: 0,
    };
}

/// Whether the file at `path` is BTF of a kernel that can be traced.
///
/// # Errors
/// The file is not BTF, or lacks a required field.
pub fn verify_btf(path: &Path) -> Result<(), BtfError> {
    read(path).map(drop)
}

/// Reads the types of the kernel whose BTF is at `path`.
///
/// # Errors
/// The file is missing, broken, or lacks a field that is not optional.
pub(super) fn read(path: &Path) -> Result<KernelTypes, BtfError> {
    let data = files::read(path, MAX_BYTES)
        .map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
    parse(path, data)
}

/// Parses the bytes of a BTF file; `path` is for messages.
pub(super) fn parse(path: &Path, data: Vec<u8>) -> Result<KernelTypes, BtfError> {
    let name = || path.display().to_string();
    let types = Types::parse(data).map_err(|what| BtfError::Malformed { path: name(), what })?;
    let mut offsets = Offsets { valid: 1, task_btf: 1, ..Offsets::NONE };
    for &(field, spelled) in OFFSET_PATHS {
        let (required, wanted) = match spelled.strip_suffix('?') {
            Some(wanted) => (false, wanted),
            None => (true, spelled),
        };
        match types.offset_of_any(wanted) {
            Some(offset) => {
                offsets.set(field, offset);
            }
            None if required => return Err(BtfError::NoField { path: name(), field: spelled }),
            None => {
                offsets.set(field, ABSENT);
            }
        }
    }
    let [hash_add, send_reset, reasons, drop_reasons] = types.named;
    let hash_add = hash_add.and_then(|id| types.prototype(id));
    let send_reset = send_reset.and_then(|id| types.prototype(id));
    Ok(KernelTypes {
        offsets,
        hash_add_result: hash_add.map_or(0, |(parameters, returns)| if returns { parameters } else { 0 }),
        // After the context pointer: sk, skb, and since 6.10 the reason.
        has_reset_reason: send_reset.is_some_and(|(parameters, _)| parameters > 3),
        reset_reasons: reasons.map(|id| types.enumerators(id, "SK_RST_REASON_")).unwrap_or_default(),
        no_socket: drop_reasons.map_or(0, |id| {
            let names = types.enumerators(id, "SKB_DROP_REASON_");
            names.iter().position(|name| name == "NO_SOCKET").map_or(0, |value| value as u32)
        }),
    })
}

impl Types {
    fn parse(data: Vec<u8>) -> Result<Self, &'static str> {
        let word = |at: usize| read_u32(&data, at).ok_or("it is cut short");
        if data.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err("wrong magic number");
        }
        let header = word(4)? as usize;
        let (first, len) = (header + word(8)? as usize, word(12)? as usize);
        let strings = header + word(16)? as usize;
        let named = [None; NAMED.len()];
        let mut types = Self { strings, at: vec![0], structs: HashMap::new(), named, data };
        let mut at = first;
        while at < first + len {
            let id = types.at.len() as u32;
            types.at.push(at);
            let (kind, count) = types.info(at).ok_or("it is cut short")?;
            if (kind == KIND_STRUCT || kind == KIND_UNION) && count > 0 {
                let name = types.string(at).ok_or("a name lies outside")?.to_vec();
                types.structs.entry(name).or_insert(id);
            } else if let KIND_FUNC | KIND_TYPEDEF | KIND_ENUM = kind {
                let name = types.string(at).ok_or("a name lies outside")?;
                if let Some(wanted) =
                    NAMED.iter().position(|named| named.0 == kind && named.1.as_bytes() == name)
                {
                    types.named[wanted].get_or_insert(id);
                }
            }
            at += 12 + trailer(kind, count).ok_or("it has a kind of type that is not known")?;
        }
        Ok(types)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        read_u32(&self.data, at)
    }

    /// Kind and number of members.
    fn info(&self, at: usize) -> Option<(u32, usize)> {
        let info = self.u32(at + 4)?;
        Some((info >> 24 & 31, (info & 0xffff) as usize))
    }

    /// The string whose offset is stored at `at`.
    fn string(&self, at: usize) -> Option<&[u8]> {
        let text = self.data.get(self.strings + self.u32(at)? as usize..)?;
        text.split(|&byte| byte == 0).next()
    }

    /// Number of parameters of a function, or of the function that a typedef points to, and whether it returns a value.
    fn prototype(&self, id: u32) -> Option<(u32, bool)> {
        let mut at = *self.at.get(id as usize)?;
        for _ in 0..MAX_STEPS {
            let (kind, count) = self.info(at)?;
            if !matches!(kind, KIND_FUNC | KIND_TYPEDEF | KIND_PTR) {
                return Some((count as u32, self.u32(at + 8)? != 0));
            }
            at = *self.at.get(self.u32(at + 8)? as usize)?;
        }
        None
    }

    /// The names of an enumeration, from value 0 up to the first gap.
    fn enumerators(&self, id: u32, prefix: &str) -> Vec<String> {
        let Some(&at) = self.at.get(id as usize) else { return Vec::new() };
        let count = self.info(at).map_or(0, |info| info.1);
        let name = |index: usize| {
            let at = at + 12 + index * 8;
            let name = String::from_utf8_lossy(self.string(at)?).into_owned();
            (self.u32(at + 4)? as usize == index).then(|| name.trim_start_matches(prefix).to_owned())
        };
        (0..count).map_while(name).collect()
    }

    /// Byte offset of the first of these paths that exists.
    fn offset_of_any(&self, paths: &str) -> Option<u32> {
        paths.split('|').find_map(|path| self.offset(path))
    }

    /// Byte offset of "struct.field.field", through anonymous members too.
    fn offset(&self, path: &str) -> Option<u32> {
        let mut steps = path.split('.');
        let mut id = *self.structs.get(steps.next()?.as_bytes())?;
        let mut bits = 0;
        let mut members = MAX_MEMBERS;
        for field in steps {
            let (offset, of) = self.member(id, field.as_bytes(), 0, &mut members)?;
            bits = offset.checked_add(bits)?;
            id = of;
        }
        Some(bits / 8)
    }

    /// Finds a member, also inside anonymous members. These may be nested, and many may have the same type, so `left` limits how
    /// many members are searched.
    fn member(&self, id: u32, wanted: &[u8], depth: u8, left: &mut u32) -> Option<(u32, u32)> {
        let at = self.plain(id)?;
        let (kind, count) = self.info(at)?;
        if depth > 16 || (kind != KIND_STRUCT && kind != KIND_UNION) {
            return None;
        }
        let has_bitfields = self.u32(at + 4)? >> 31 == 1;
        (0..count).find_map(|member| {
            *left = left.checked_sub(1)?;
            let member = at + 12 + member * 12;
            let (name, of) = (self.string(member)?, self.u32(member + 4)?);
            let offset = self.u32(member + 8)? & if has_bitfields { 0x00ff_ffff } else { u32::MAX };
            if name == wanted {
                return Some((offset, of));
            }
            let inner = if name.is_empty() { self.member(of, wanted, depth + 1, left) } else { None };
            inner.and_then(|(below, of)| Some((offset.checked_add(below)?, of)))
        })
    }

    /// Offset of a type in `data`, after typedefs and qualifiers are resolved.
    fn plain(&self, mut id: u32) -> Option<usize> {
        for _ in 0..MAX_STEPS {
            let at = *self.at.get(id as usize)?;
            if id == 0 || !KIND_MODIFIERS.contains(&self.info(at)?.0) {
                return Some(at);
            }
            id = self.u32(at + 8)?;
        }
        None
    }
}

/// Size of the data that follows the 12 bytes of a type, by kind.
fn trailer(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * count,
        6 | 13 => 8 * count,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_files_are_errors() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("sockstate-btf-{}", std::process::id()));
        for content in [
            &b""[..],
            b"\x9f\xeb",
            b"not btf at all, but long enough",
            &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            std::fs::write(&path, content).expect("write");
            assert!(matches!(read(&path), Err(BtfError::Malformed { .. })), "{content:?}");
        }
        std::fs::remove_file(&path).expect("remove");
        assert!(matches!(read(&path), Err(BtfError::Read { .. })));
    }

    /// Nested, anonymous and typedef'd members, laid out by hand.
    #[test]
    fn members_are_found_through_anonymous_structs_and_typedefs() {
        let mut strings = vec![0_u8];
        let mut name = |text: &str| {
            let at = strings.len() as u32;
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let (outer, inner, a, b, alias) = (name("outer"), name("inner"), name("a"), name("b"), name("alias"));
        let struct_info = |members: u32| KIND_STRUCT << 24 | members;
        // 1: inner { a@0, b@32 bits }; 2: anonymous { inner a@64 }; 3: typedef alias -> 1; 4: outer { anon@0; alias b@128 }
        let words = [
            inner,
            struct_info(2),
            8,
            a,
            0,
            0,
            b,
            0,
            32,
            0,
            struct_info(1),
            16,
            a,
            1,
            64,
            alias,
            8 << 24,
            1,
            outer,
            struct_info(2),
            32,
            0,
            2,
            0,
            b,
            3,
            128,
        ];
        let mut data = Vec::new();
        data.extend_from_slice(&MAGIC.to_ne_bytes());
        data.extend_from_slice(&[1, 0]);
        let len = words.len() as u32 * 4;
        for word in [24, 0, len, len, strings.len() as u32] {
            data.extend_from_slice(&u32::to_ne_bytes(word));
        }
        words.iter().for_each(|word| data.extend_from_slice(&word.to_ne_bytes()));
        data.extend_from_slice(&strings);
        let types = Types::parse(data).expect("well-formed");
        assert_eq!(types.offset("inner.b"), Some(4));
        assert_eq!(types.offset("outer.a"), Some(8));
        assert_eq!(types.offset("outer.a.b"), Some(12));
        assert_eq!(types.offset("outer.b.b"), Some(20));
        assert_eq!(types.offset("outer.c"), None);
        assert_eq!(types.offset("nothing.a"), None);
        assert_eq!(types.offset_of_any("nothing.a|outer.a.b|inner.b"), Some(12));
    }
}
