//! How long the texts and lists of others may be in a record: any process may choose its own. docs/events.md and the JSON schemas
//! say the same.
//!
//! A text counts as many bytes as JSON writes for it. What is read keeps one character more than what is shown, so that whatever
//! shows it knows that there is more.

/// A path: of an executable, a cgroup, a library, a source file.
pub const PATH: usize = 1024;
/// A command line.
pub const COMMAND_LINE: usize = 4096;
/// A name: of a process, a container, a pod, a unit, an interface, a language's runtime.
pub const NAME: usize = 256;
/// A function of a call path.
pub const FUNCTION: usize = 2048;
/// A sentence that names processes.
pub const SENTENCE: usize = 1024;
/// What sockets are counted by: processes, or a place in the code.
pub const GROUP: usize = 4096;
/// A command: a longer one is left out, because a part of it would do something else.
pub const COMMAND: usize = 512;

/// Room for a list: how many items, and how many bytes in OTLP's JSON, which takes the most.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Items.
    pub items: usize,
    /// Bytes.
    pub bytes: usize,
}

/// Room for the lists of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Rooms {
    /// Holders.
    pub holders: Room,
    /// Listeners, with their holders.
    pub listeners: Room,
    /// Holders of one listener.
    pub listening: Room,
    /// Unix sockets with descriptors in their queues.
    pub messages: Room,
}

/// In a record of the stream: together with everything else it fits into one datagram of UDP (65,507 bytes), in every format.
pub const STREAM: Rooms = Rooms {
    holders: Room { items: 64, bytes: 32 << 10 },
    listeners: Room { items: 16, bytes: 8 << 10 },
    listening: Room { items: 16, bytes: 4 << 10 },
    messages: Room { items: 16, bytes: 4 << 10 },
};
/// In a line of a look, which no datagram has to carry.
pub const LOOK: Rooms = Rooms {
    holders: Room { items: 1024, bytes: 1 << 20 },
    listeners: Room { items: 256, bytes: 256 << 10 },
    listening: Room { items: 256, bytes: 64 << 10 },
    messages: Room { items: 256, bytes: 64 << 10 },
};
/// Reasons why a look is not complete.
pub const GAPS: Room = Room { items: 256, bytes: 256 << 10 };
/// Commands to look at holders.
pub const COMMANDS: usize = 32;
/// Frames of a call path.
pub const FRAMES: Room = Room { items: 256, bytes: 512 << 10 };
/// Descriptors of one process that are looked at for one socket.
pub const DESCRIPTORS: usize = 4;

/// Something that a record shows a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which key of the record.
    pub field: &'static str,
    /// Of a list: how many there are. `None` for a text.
    pub total: Option<usize>,
}

/// The part of `text` that is shown, and whether that is all of it.
#[must_use]
pub fn shown(text: &str, most: usize) -> (&str, bool) {
    let end = end(text, most);
    (text.get(..end).unwrap_or(text), end == text.len())
}

/// The part of `text` that is kept.
#[must_use]
pub fn kept(text: &str, most: usize) -> &str {
    let end = end(text, most);
    let next = text.get(end..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    text.get(..end + next).unwrap_or(text)
}

/// The same for a text that is owned.
#[must_use]
pub fn keep(mut text: String, most: usize) -> String {
    let len = kept(&text, most).len();
    if len < text.len() {
        text.truncate(len);
        text.shrink_to_fit();
    }
    text
}

/// Where the longest part ends that takes up to `most` bytes.
fn end(text: &str, most: usize) -> usize {
    // `\u001b` is the longest that a character becomes for each of its bytes.
    if text.len() <= most / 6 {
        return text.len();
    }
    let mut bytes = 0;
    for (at, c) in text.char_indices() {
        bytes += json_bytes(c);
        if bytes > most {
            return at;
        }
    }
    text.len()
}

fn json_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, most, part, is_all) in [
            ("", 0, "", true),
            ("abc", 3, "abc", true),
            ("abcd", 3, "abc", false),
            ("aé", 2, "a", false),
            ("aé", 3, "aé", true),
            ("\u{1b}\u{1b}", 11, "\u{1b}", false),
            ("a\n\"", 4, "a\n", false),
        ] {
            assert_eq!(shown(text, most), (part, is_all), "{text:?}");
        }
        assert_eq!(kept("aéb", 1), "aé");
    }

    proptest! {
        #[test]
        fn what_is_shown_fits_and_what_is_kept_says_whether_it_is_all(text in ".{0,60}|[\u{0}-\u{ff}]{0,60}", most in 0_usize..80) {
            let (part, is_all) = shown(&text, most);
            let json = serde_json::to_string(part).expect("a text");
            prop_assert!(json.len() - 2 <= most);
            prop_assert!(text.starts_with(part));
            prop_assert_eq!(is_all, part == text);
            let all = keep(text.clone(), most);
            prop_assert_eq!(shown(&all, most), (part, is_all));
            prop_assert_eq!(kept(&text, most), all);
        }
    }
}
