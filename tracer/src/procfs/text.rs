//! Files of /proc that others make as long as they like: a table of sockets, of locks or of mounts, an epoll instance's `fdinfo`.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// The lines of a file, one at a time; none where it cannot be read. The kernel bounds a line, and others choose names in it that need not
/// be UTF-8.
pub fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let file = File::open(path).ok().map(BufReader::new);
    let lines = file.into_iter().flat_map(|file| file.split(b'\n').map_while(Result::ok));
    lines.map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// The first `most` bytes of a file; nothing where it cannot be read.
#[must_use]
pub fn head(path: &Path, most: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is the beginning all the same.
        let _ = file.take(most).read_to_end(&mut bytes);
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
