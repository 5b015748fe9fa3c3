//! Fits texts into a number of columns. What is shortened has an ellipsis, and keeps what identifies it: the port, the pid.

use textwrap::{Options, WordSeparator, WordSplitter, core::display_width};

/// How many columns a text takes. textwrap believes that an ellipsis takes two.
pub(super) fn columns(text: &str) -> usize {
    display_width(text) - text.matches('…').count()
}

/// The text, or its beginning and an ellipsis.
pub(super) fn start(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    if width == 0 { String::new() } else { beginning(text, width - 1) + "…" }
}

/// As much of the text as fits.
fn beginning(text: &str, width: usize) -> String {
    let fits = |(at, c): &(usize, char)| columns(&text[..at + c.len_utf8()]) <= width;
    text.char_indices().take_while(fits).map(|(_, c)| c).collect()
}

/// The text with spaces up to this width.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// An address and a port; shortened, it keeps the port.
pub(super) fn endpoint(text: &str, width: usize) -> String {
    let port = text.rfind(':').map_or("", |at| &text[at..]);
    with_end(text, port, width)
}

/// A process and its pid; shortened, it keeps the pid, or has only the name where there is no room for both.
pub(super) fn process(text: &str, width: usize) -> String {
    let (name, pid) = text.rfind(" (").map_or((text, ""), |at| text.split_at(at));
    let has_room = columns(pid) + 3 <= width;
    if has_room { with_end(text, pid, width) } else { start(name, width) }
}

/// The text; shortened, it ends with `end`, where that leaves a few characters of the beginning.
fn with_end(text: &str, end: &str, width: usize) -> String {
    let length = columns(end);
    if columns(text) <= width || length + 3 > width {
        return start(text, width);
    }
    format!("{}…{end}", beginning(text, width - length - 1))
}

/// The text in lines of at most `width` columns. Only a word that is longer than a line is broken.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(1))
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// The first of these parts that fit, with a separator between them. Parts come by their importance; they are shown in the
/// order of their numbers.
pub(super) fn parts(mut parts: Vec<(u8, String)>, separator: &str, width: usize) -> String {
    let mut used = 0;
    parts.retain(|(_, part)| {
        let gap = if used == 0 { 0 } else { columns(separator) };
        let needed = columns(part) + gap;
        let fits = used + needed <= width;
        used += if fits { needed } else { 0 };
        fits
    });
    parts.sort_by_key(|(at, _)| *at);
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shortened_keeps_its_end() {
        assert_eq!(start("abcdef", 6), "abcdef");
        assert_eq!(start("abcdef", 5), "abcd…");
        assert_eq!(start("abc", 0), "");
        assert_eq!(endpoint("[2001:db8::1234:5678]:8080", 14), "[2001:db…:8080");
        assert_eq!(endpoint("127.0.0.1:8080", 14), "127.0.0.1:8080");
        assert_eq!(endpoint("127.0.0.1:8080", 5), "127.…");
        assert_eq!(process("a-long-name (4194000)", 15), "a-lo… (4194000)");
        assert_eq!(process("python3 (4194000)", 10), "python3");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(start("漢字漢字", 5), "漢字…");
        assert_eq!(padded("漢", 4), "漢  ");
        assert_eq!(padded("a…", 4), "a…  ");
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("0123456789abcdef x", 10), ["0123456789", "abcdef x"]);
    }

    #[test]
    fn the_important_parts_are_kept() {
        let all = || vec![(1, "bb".to_owned()), (0, "aaaa".to_owned()), (2, "c".to_owned())];
        assert_eq!(parts(all(), "  ", 80), "aaaa  bb  c");
        assert_eq!(parts(all(), "  ", 6), "bb  c");
        assert_eq!(parts(all(), "  ", 1), "c");
    }
}
