//! Function names of addresses in files.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
};

use blazesym::symbolize::{
    CodeInfo, Input, Symbolized, Symbolizer,
    source::{Elf, Source},
};
use object::{CompressionFormat, Object, ObjectSection, ObjectSegment, read::File as ElfFile};

use super::{
    files::{CachedFile, FileId},
    guard::guarded,
    mapped::Opened,
};
use crate::model::{Frame, Unnamed, bounds};

/// Limit of files with cached symbols; each one is kept open.
const FILES: usize = 256;
/// Limit of the size of a symbol table.
const MOST_SYMBOL_BYTES: u64 = 256 << 20;
/// Limit of the size of debug information; above it, only symbols are used.
const MOST_DEBUG_BYTES: u64 = 2 << 30;

/// Limit of the uncompressed size of compressed debug information.
const MOST_UNPACKED_BYTES: u64 = 512 << 20;

/// Cached symbol tables and DWARF.
#[derive(Default)]
pub(super) struct Symbols(HashMap<FileId, Option<FileSymbols>>);

/// The symbols of one file.
struct FileSymbols {
    symbolizer: Symbolizer,
    /// Opened at the first use, and then cached.
    path: String,
    /// Whether separate debug files may be used.
    follows_links: bool,
}

impl Symbols {
    /// The functions at `offset` of a file, which its process calls `module`: several where some are inlined, the innermost
    /// first. `open` opens the file, if it is new.
    pub(super) fn find(
        &mut self,
        id: FileId,
        open: impl FnOnce() -> Result<Opened, Unnamed>,
        module: &str,
        offset: u64,
    ) -> Vec<Frame> {
        let bare = Frame { module: Some(module.to_owned()), offset, ..Frame::default() };
        let unnamed = |why| vec![Frame { unnamed: Some(why), ..bare.clone() }];
        if self.0.len() >= FILES && !self.0.contains_key(&id) {
            self.0.clear();
        }
        // The file stays open during the first search, because its path is that of the descriptor.
        let mut opened = None;
        if !self.0.contains_key(&id) {
            match open() {
                Ok(found) if found.id == id => opened = Some(found),
                Ok(_) => return unnamed(Unnamed::Replaced),
                Err(why) => return unnamed(why),
            }
        }
        let read = || opened.as_ref().and_then(|opened| FileSymbols::read(&opened.file));
        let names = self.0.entry(id).or_insert_with(read);
        let frames = names.as_mut().and_then(|names| names.find(&bare));
        frames.unwrap_or_else(|| unnamed(Unnamed::NoSymbol))
    }
}

impl FileSymbols {
    fn read(file: &File) -> Option<Self> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let pieces = CachedFile::of(file.try_clone().ok()?);
        let elf = ElfFile::parse(&pieces).ok().filter(offsets_fit_u64)?;
        let sections =
            |wanted: fn(&str) -> bool| elf.sections().filter(move |section| section.name().is_ok_and(wanted));
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0_u64, u64::saturating_add);
        let bytes = |wanted| sum(&mut sections(wanted).map(|section| section.size()));
        // The sizes in the file decide how much memory is allocated.
        let unpacked = |wanted| sum(&mut sections(wanted).map(|section| unpacked(&section)));
        if bytes(is_symbols) > MOST_SYMBOL_BYTES || unpacked(is_symbols) > 0 {
            return None;
        }
        let has_lines = bytes(is_debug) <= MOST_DEBUG_BYTES && unpacked(is_debug) <= MOST_UNPACKED_BYTES;
        let follows_links = has_lines && links_are_harmless(&elf, &fs::read_link(&path).ok()?);
        // Cached data stays valid after the file is removed.
        let symbolizer = Symbolizer::builder().enable_auto_reload(false).build();
        Some(Self { symbolizer, path, follows_links })
    }

    fn find(&mut self, bare: &Frame) -> Option<Vec<Frame>> {
        if self.follows_links {
            match guarded(|| self.find_in(bare, true)) {
                Some(Ok(frames)) => return frames,
                // A debug file of another version is refused as a whole, and lines may name a file that is in no list
                // (blazesym panics). The file's own symbols are still there.
                Some(Err(_)) | None => self.follows_links = false,
            }
        }
        guarded(|| self.find_in(bare, false))?.ok().flatten()
    }

    fn find_in(&self, bare: &Frame, debug_syms: bool) -> Result<Option<Vec<Frame>>, blazesym::Error> {
        let mut elf = Elf::new(&self.path);
        elf.debug_syms = debug_syms;
        let input = Input::FileOffset(bare.offset);
        let Symbolized::Sym(symbol) = self.symbolizer.symbolize_single(&Source::Elf(elf), input)? else {
            return Ok(None);
        };
        let frame = |function: &str, code: Option<&CodeInfo<'_>>| Frame {
            function: Some(bounds::kept(function, bounds::FUNCTION).to_owned()),
            file: code.map(|code| bounds::keep(code.to_path().display().to_string(), bounds::PATH)),
            line: code.and_then(|code| code.line),
            ..bare.clone()
        };
        // Each inlined call comes with the line inside it; the line of the outer function is that of its first inlined call.
        let mut frames = vec![frame(&symbol.name, symbol.code_info.as_deref())];
        frames.extend(symbol.inlined.iter().map(|inlined| frame(&inlined.name, inlined.code_info.as_ref())));
        frames.reverse();
        Ok(Some(frames))
    }
}

fn is_symbols(name: &str) -> bool {
    [".symtab", ".strtab", ".dynsym", ".dynstr"].contains(&name)
}

fn is_debug(name: &str) -> bool {
    name.starts_with(".debug_") || name.starts_with(".zdebug_")
}

/// The uncompressed size in the header of a compressed section; 0 for other sections.
fn unpacked<'data>(section: &impl ObjectSection<'data>) -> u64 {
    match section.compressed_file_range() {
        Ok(range) if range.format == CompressionFormat::None => 0,
        Ok(range) => range.uncompressed_size,
        // Unknown compression.
        Err(_) => u64::MAX,
    }
}

/// Whether the end of every segment and section fits into 64 bits: blazesym adds without a check.
fn offsets_fit_u64<'data>(elf: &impl Object<'data>) -> bool {
    let adds = |begin: u64, len: u64| begin.checked_add(len).is_some();
    let segment = |(offset, len), address| adds(offset, len) && adds(address, len);
    elf.segments().all(|segment_header| {
        segment(segment_header.file_range(), segment_header.address())
            && adds(segment_header.address(), segment_header.size())
    }) && elf.sections().all(|section| {
        adds(section.address(), section.size())
            && section.file_range().is_none_or(|(offset, len)| adds(offset, len))
    })
}

/// Whether the file that `elf` names as its debug file can be opened without blocking. Users who can write to a directory of the
/// path can replace the debug file after this check. It is therefore used only if no user but root can write to these directories.
fn links_are_harmless<'data>(elf: &impl Object<'data>, path: &Path) -> bool {
    if elf.gnu_debugaltlink().is_ok_and(|link| link.is_some()) {
        return false;
    }
    let Ok(Some((name, _))) = elf.gnu_debuglink() else { return true };
    let name = OsStr::from_bytes(name);
    let beside = path.with_file_name(name);
    Path::new(name).file_name() == Some(name)
        && fs::metadata(beside).map_or(true, |metadata| metadata.is_file())
        && path.ancestors().skip(1).all(is_roots)
}

/// Whether no user but root can change the entries of this directory.
fn is_roots(directory: &Path) -> bool {
    /// `S_IWGRP | S_IWOTH`.
    const WRITABLE: u32 = 0o022;
    fs::metadata(directory).is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & WRITABLE == 0)
}
