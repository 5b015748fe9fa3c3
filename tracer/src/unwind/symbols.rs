//! Names of addresses.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use blazesym::symbolize::{
    CodeInfo, Input, Symbolized, Symbolizer,
    source::{Elf, Source},
};

use crate::model::Frame;

/// Symbol tables and DWARF of the files that were asked about.
pub(super) struct Symbols {
    symbolizer: Symbolizer,
    /// Each file under one name, whoever maps it: it is read once.
    names: HashMap<(u64, u64), PathBuf>,
}

impl Default for Symbols {
    fn default() -> Self {
        // What was read stays when the process through which it was read has gone.
        let symbolizer = Symbolizer::builder().enable_auto_reload(false).build();
        Self { symbolizer, names: HashMap::new() }
    }
}

impl Symbols {
    /// The functions at `offset` of the file at `path`, which its process calls `module`: several where some are inlined,
    /// the innermost first.
    pub(super) fn find(&mut self, path: &Path, module: &str, offset: u64) -> Vec<Frame> {
        let bare = Frame { module: Some(module.to_owned()), offset, ..Frame::default() };
        let name = match fs::metadata(path) {
            Ok(it) => self.names.entry((it.dev(), it.ino())).or_insert_with(|| path.to_owned()),
            Err(_) => return vec![bare],
        };
        let source = Source::Elf(Elf::new(&*name));
        let Ok(Symbolized::Sym(symbol)) =
            self.symbolizer.symbolize_single(&source, Input::FileOffset(offset))
        else {
            return vec![bare];
        };
        let frame = |function: &str, code: Option<&CodeInfo<'_>>| Frame {
            function: Some(function.to_owned()),
            file: code.map(|code| code.to_path().display().to_string()),
            line: code.and_then(|code| code.line),
            ..bare.clone()
        };
        // Each inlined call comes with the place inside it; that of the whole function is where it calls the first.
        let mut frames = vec![frame(&symbol.name, symbol.code_info.as_deref())];
        frames.extend(symbol.inlined.iter().map(|inlined| frame(&inlined.name, inlined.code_info.as_ref())));
        frames.reverse();
        frames
    }
}

/// Names of code that a program has made itself, as it tells them in /tmp/perf-PID.map (`perf-report(1)`; JVMs with an
/// agent or `-XX:+DumpPerfMapAtExit`, Node with `--perf-basic-prof`, Python from 3.12 with `-X perf`).
#[derive(Default)]
pub(super) struct PerfMap(BTreeMap<u64, (u64, String)>);

impl PerfMap {
    /// Of the process whose /proc directory this is.
    pub(super) fn read(directory: &Path) -> Self {
        let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
        // The last one is its number in its own namespace.
        let pid = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .and_then(|pids| pids.split_ascii_whitespace().last())
            .unwrap_or_default();
        let mut name = OsString::from("perf-");
        name.push(pid);
        name.push(".map");
        let text = fs::read(directory.join("root/tmp").join(name)).unwrap_or_default();
        Self(String::from_utf8_lossy(&text).lines().filter_map(entry).collect())
    }

    /// The function at this address.
    pub(super) fn find(&self, address: u64) -> Option<&str> {
        let (start, (len, name)) = self.0.range(..=address).next_back()?;
        (address - start < *len).then_some(name)
    }
}

/// `START SIZE NAME`, hexadecimal, with 0x (JDK 17) or without.
fn entry(line: &str) -> Option<(u64, (u64, String))> {
    let mut fields = line.splitn(3, ' ');
    let mut number = || {
        let text = fields.next()?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (start, len) = (number()?, number()?);
    Some((start, (len, fields.next()?.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_maps_of_both_spellings() {
        let lines =
            "0x00007f00 0x0000000000000020 int Leak.open(int)\n8000 10 py::serve:/srv/app.py\nbroken\n";
        let map = PerfMap(lines.lines().filter_map(entry).collect());
        assert_eq!(map.find(0x7f1f), Some("int Leak.open(int)"));
        assert_eq!(map.find(0x7f20), None);
        assert_eq!(map.find(0x8000), Some("py::serve:/srv/app.py"));
        assert_eq!(map.find(0x10), None);
    }
}
