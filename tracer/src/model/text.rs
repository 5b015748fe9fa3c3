//! Texts from other processes.

/// `text` without characters that control a terminal: other processes choose their names, and may hide commands in them.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_active(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a character is more than visible text: control characters, and those that change the direction of text or are
/// invisible (Unicode category Cf), so that one text can look like another.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}"), "a\u{fffd}[2J\u{fffd}b\u{fffd}");
        assert_eq!(
            printable("gnp.\u{202e}txt\u{200b}\u{2066}\u{e0041}"),
            "gnp.\u{fffd}txt\u{fffd}\u{fffd}\u{fffd}"
        );
        assert_eq!(printable("зв'язок é 中"), "зв'язок é 中");
    }
}
