//! The lines of a stream that comes in pieces.

/// Joins pieces to lines. A line that is too long is left out.
#[derive(Debug)]
pub(super) struct Lines {
    most: usize,
    buffer: Vec<u8>,
    /// The rest of a line that is too long is skipped.
    is_skipping: bool,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Complete(Vec<u8>),
    TooLong,
}

impl Lines {
    /// Lines of up to `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { most, buffer: Vec::new(), is_skipping: false }
    }

    /// The lines that end in `piece`.
    pub(super) fn add(&mut self, piece: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            if !self.is_skipping && self.buffer.len() + text.len() > self.most {
                self.is_skipping = true;
                self.buffer = Vec::new();
            }
            if !self.is_skipping {
                self.buffer.extend_from_slice(text);
            }
            if ends {
                let line = std::mem::take(&mut self.buffer);
                lines.push(if self.is_skipping { Line::TooLong } else { Line::Complete(line) });
                self.is_skipping = false;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(text: &str) -> Line {
        Line::Complete(text.into())
    }

    #[test]
    fn a_long_line_is_skipped_to_its_end() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.add(b"ab"), []);
        assert_eq!(lines.add(b"cd\n\nab"), [complete("abcd"), complete("")]);
        assert_eq!(lines.add(b"cde"), []);
        assert_eq!(lines.add(b"f\nab\n"), [Line::TooLong, complete("ab")]);
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(text in "[ab\n]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..8)) {
            let mut whole = Lines::new(5);
            let all = whole.add(text.as_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.sort_unstable();
            let (mut pieces, mut found, mut from) = (Lines::new(5), Vec::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                found.extend(pieces.add(&text.as_bytes()[from..cut]));
                from = cut;
            }
            prop_assert_eq!(found, all);
        }
    }
}
