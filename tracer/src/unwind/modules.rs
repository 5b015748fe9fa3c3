//! The unwind tables of executables and libraries. Each file is read once.

use std::{collections::HashMap, fs::File, ops::Range, sync::Arc};

use framehop::{ExplicitModuleSectionInfo, Module};
use object::{
    CompressionFormat, Object, ObjectSection, ObjectSegment, SegmentFlags, elf::PF_X, read::File as ElfFile,
};

use super::{
    files::{CachedFile, FileId},
    mapped::Opened,
};

/// Limit of the size of a section.
const MOST_BYTES: u64 = 128 << 20;
/// Limit of files with cached tables.
const MODULES: usize = 4096;

/// The bytes of a section, which processes share.
pub(super) type Bytes = Arc<[u8]>;

/// The unwind tables of one file.
pub(super) struct Tables {
    sections: ExplicitModuleSectionInfo<Bytes>,
    /// File offsets and addresses of executable segments, rounded to pages. Other segments may share these pages.
    segments: Vec<(Range<u64>, u64)>,
    /// Address of CPython's `_PyRuntime`, which has a section of its own (3.13).
    python: Option<u64>,
}

/// Cached tables.
#[derive(Default)]
pub(super) struct Modules(HashMap<FileId, Option<Arc<Tables>>>);

impl Modules {
    /// Bytes of memory of all tables.
    pub(super) fn bytes(&self) -> usize {
        let sections = |tables: &Arc<Tables>| {
            let Tables {
                sections: ExplicitModuleSectionInfo { eh_frame, eh_frame_hdr, debug_frame, .. },
                ..
            } = &**tables;
            [eh_frame, eh_frame_hdr, debug_frame]
                .into_iter()
                .flatten()
                .map(|bytes| bytes.len())
                .sum::<usize>()
        };
        self.0.values().flatten().map(sections).sum()
    }

    /// Clears the cache.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The tables of this file; `None` if it is not ELF.
    pub(super) fn tables(&mut self, opened: Opened) -> Option<Arc<Tables>> {
        if self.0.len() >= MODULES {
            self.0.clear();
        }
        self.0.entry(opened.id).or_insert_with(|| read(opened.file).map(Arc::new)).clone()
    }
}

impl Tables {
    /// The module of a process that has mapped this file at `range`, from `offset` in the file on.
    pub(super) fn at(&self, range: Range<u64>, offset: u64) -> Option<Module<Bytes>> {
        let base = self.base(range.start, offset)?;
        Some(Module::new(String::new(), range, base, self.sections.clone()))
    }

    /// Address of `_PyRuntime` in such a process; `None` if the file has no `_PyRuntime`.
    pub(super) fn python(&self, start: u64, offset: u64) -> Option<u64> {
        Some(self.base(start, offset)?.wrapping_add(self.python?))
    }

    /// The difference between addresses in the process and in the file.
    fn base(&self, start: u64, offset: u64) -> Option<u64> {
        let (file, address) = self.segments.iter().find(|(file, _)| file.contains(&offset))?;
        Some(start.wrapping_sub(offset - file.start).wrapping_sub(*address))
    }
}

pub(super) fn read(file: File) -> Option<Tables> {
    let pieces = CachedFile::of(file);
    let elf = ElfFile::parse(&pieces).ok()?;
    let range = |name: &str| {
        let section = elf.section_by_name(name)?;
        Some(section.address()..section.address().checked_add(section.size())?)
    };
    let data = |name: &str| {
        let section = elf.section_by_name(name).filter(|section| section.size() <= MOST_BYTES)?;
        let plain = section.compressed_file_range().ok()?.format == CompressionFormat::None;
        // In Debian's separate debug files .eh_frame is empty.
        section.data().ok().filter(|data| plain && !data.is_empty()).map(Bytes::from)
    };
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        debug_frame: data(".debug_frame"),
        ..ExplicitModuleSectionInfo::default()
    };
    let segments = elf
        .segments()
        .filter(|segment| matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0))
        .filter_map(|segment| {
            let (offset, len) = segment.file_range();
            Some((offset & !0xfff..offset.checked_add(len)?, segment.address().checked_sub(offset & 0xfff)?))
        })
        .collect();
    Some(Tables { sections, segments, python: range(PYTHON).map(|range| range.start) })
}

/// The section of `_PyRuntime`.
const PYTHON: &str = ".PyRuntime";

/// Whether this file contains CPython 3.13 or newer.
pub(super) fn has_python(opened: &Opened) -> bool {
    let pieces = opened.file.try_clone().map(CachedFile::of);
    let has = |elf: ElfFile<'_, &CachedFile>| elf.section_by_name(PYTHON).is_some();
    pieces.is_ok_and(|pieces| ElfFile::parse(&pieces).is_ok_and(has))
}
