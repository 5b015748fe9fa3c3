//! Limits for texts and lists that other processes choose. docs/events.md and the JSON schemas have the same limits.
//!
//! A text is measured in the bytes that JSON writes for it. A reader keeps one character more than a record shows, so that
//! the code that writes the record can see that the text was cut.

use std::collections::BTreeMap;

/// Most states in the path of a connection, without a last TIME_WAIT. TCP's longest path has five.
pub const MOST_STEPS: usize = 8;

/// A path: of an executable, a cgroup, a library, a source file.
pub const PATH: usize = 1024;
/// A command line.
pub const COMMAND_LINE: usize = 4096;
/// A name: of a process, a container, a pod, a unit, an interface, a language's runtime.
pub const NAME: usize = 256;
/// The labels of a pod that a record has, with the bytes that JSON writes for names and values. Kubernetes allows 317 bytes
/// for a name and 63 for a value.
pub const LABELS: ListLimit = ListLimit { items: 8, bytes: 1 << 10 };
/// The name of a container's image, with its tag and its digest.
pub const IMAGE: usize = 512;
/// A function of a call path.
pub const FUNCTION: usize = 2048;
/// A sentence that names processes.
pub const SENTENCE: usize = 1024;
/// A key that sockets are grouped by: processes, or a place in the code.
pub const GROUP: usize = 4096;
/// A command: a longer one is left out, because a part of it would do something else.
pub const COMMAND: usize = 512;

/// The limit of a list: how many items, and how many bytes in OTLP's JSON, the longest of the formats.
#[derive(Clone, Copy, Debug)]
pub struct ListLimit {
    pub items: usize,
    pub bytes: usize,
}

/// The limits of the lists that belong to one socket.
#[derive(Clone, Copy, Debug)]
pub struct ListLimits {
    pub holders: ListLimit,
    /// Listeners, with their holders.
    pub listeners: ListLimit,
    /// Holders of one listener.
    pub listening: ListLimit,
    /// Unix sockets with descriptors in their queues.
    pub messages: ListLimit,
}

/// Limits for a record of the stream, so that the whole record fits into one UDP datagram (65,507 bytes) in every format.
pub const STREAM: ListLimits = ListLimits {
    holders: ListLimit { items: 64, bytes: 32 << 10 },
    listeners: ListLimit { items: 16, bytes: 8 << 10 },
    listening: ListLimit { items: 16, bytes: 4 << 10 },
    messages: ListLimit { items: 16, bytes: 2 << 10 },
};
/// Limits for a line of a look (`sockstate stuck`, `sockets`), which no datagram has to carry.
pub const LOOK: ListLimits = ListLimits {
    holders: ListLimit { items: 1024, bytes: 1 << 20 },
    listeners: ListLimit { items: 256, bytes: 256 << 10 },
    listening: ListLimit { items: 256, bytes: 64 << 10 },
    messages: ListLimit { items: 256, bytes: 64 << 10 },
};
/// Reasons why a look is not complete.
pub const GAPS: ListLimit = ListLimit { items: 256, bytes: 256 << 10 };
/// How many commands that inspect holders a diagnosis has.
pub const COMMANDS: usize = 32;
/// Frames of a call path.
pub const FRAMES: ListLimit = ListLimit { items: 256, bytes: 512 << 10 };
/// Descriptors of one process that are looked at for one socket.
pub const DESCRIPTORS: usize = 4;

/// A field of which a record shows only a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The key in the record.
    pub field: &'static str,
    /// The full length of a list; `None` for a text.
    pub total: Option<usize>,
}

/// The part of `text` that a record shows, and whether that is the whole text.
#[must_use]
pub fn shown(text: &str, limit: usize) -> (&str, bool) {
    let end = end(text, limit);
    (text.get(..end).unwrap_or(text), end == text.len())
}

/// The part of `text` that a reader keeps: one character more than [`shown`].
#[must_use]
pub fn kept(text: &str, limit: usize) -> &str {
    let end = end(text, limit);
    let next = text.get(end..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    text.get(..end + next).unwrap_or(text)
}

/// [`kept`] for an owned text.
#[must_use]
pub fn keep(mut text: String, limit: usize) -> String {
    let len = kept(&text, limit).len();
    if len < text.len() {
        text.truncate(len);
        text.shrink_to_fit();
    }
    text
}

/// The first of `labels` that fit into a record. None of them is cut.
#[must_use]
pub fn labels<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let mut left = LABELS.bytes;
    let mut kept = BTreeMap::new();
    for (name, value) in labels {
        let bytes = name.chars().chain(value.chars()).map(json_bytes).sum();
        if let Some(rest) = left.checked_sub(bytes)
            && kept.len() < LABELS.items
        {
            left = rest;
            kept.insert(name.to_owned(), value.to_owned());
        }
    }
    kept
}

/// The end of the longest prefix that JSON writes in at most `limit` bytes.
fn end(text: &str, limit: usize) -> usize {
    // JSON writes at most 6 bytes for one byte of text (`\u001b`), so a text this short always fits.
    if text.len() <= limit / 6 {
        return text.len();
    }
    let mut bytes = 0;
    for (at, c) in text.char_indices() {
        bytes += json_bytes(c);
        if bytes > limit {
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
        for (text, limit, part, is_all) in [
            ("", 0, "", true),
            ("abc", 3, "abc", true),
            ("abcd", 3, "abc", false),
            ("aé", 2, "a", false),
            ("aé", 3, "aé", true),
            ("\u{1b}\u{1b}", 11, "\u{1b}", false),
            ("a\n\"", 4, "a\n", false),
        ] {
            assert_eq!(shown(text, limit), (part, is_all), "{text:?}");
        }
        assert_eq!(kept("aéb", 1), "aé");
    }

    proptest! {
        #[test]
        fn what_is_shown_fits_and_what_is_kept_says_whether_it_is_all(text in ".{0,60}|[\u{0}-\u{ff}]{0,60}", limit in 0_usize..80) {
            let (part, is_all) = shown(&text, limit);
            let json = serde_json::to_string(part).expect("a text");
            prop_assert!(json.len() - 2 <= limit);
            prop_assert!(text.starts_with(part));
            prop_assert_eq!(is_all, part == text);
            let all = keep(text.clone(), limit);
            prop_assert_eq!(shown(&all, limit), (part, is_all));
            prop_assert_eq!(kept(&text, limit), all);
        }
    }
}
