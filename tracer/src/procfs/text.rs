//! Files of /proc of any length: tables of sockets, locks or mounts, `fdinfo` of an epoll instance.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// The lines of a file, one at a time; no line if the file cannot be read. The kernel limits the length of a line. Names in a
/// line need not be UTF-8.
pub fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let file = File::open(path).ok().map(BufReader::new);
    let lines = file.into_iter().flat_map(|file| file.split(b'\n').map_while(Result::ok));
    lines.map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// The first `limit` bytes of a file; an empty text if the file cannot be read.
#[must_use]
pub fn head(path: &Path, limit: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // After an error, the bytes that were read before it are the beginning of the file.
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_that_is_no_utf8_hides_nothing() {
        let file = tempfile::NamedTempFile::new().expect("file");
        fs::write(file.path(), b"one\ntw\xff\nthree").expect("text");
        assert_eq!(lines(file.path()).collect::<Vec<_>>(), ["one", "tw\u{fffd}", "three"]);
        assert_eq!(head(file.path(), 6), "one\ntw");
        let missing = file.path().with_extension("missing");
        assert_eq!((lines(&missing).count(), head(&missing, 6).len()), (0, 0));
    }
}
