//! Lays out tables for a terminal: a cell that has no room goes to the next line, and no word is cut.

use textwrap::{Options, core::display_width};

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub title: &'static str,
    /// The width of most cells. A longer cell moves the cells after it.
    pub width: usize,
    pub is_right: bool,
}

impl Column {
    #[must_use]
    pub const fn left(title: &'static str, width: usize) -> Self {
        Self { title, width, is_right: false }
    }

    #[must_use]
    pub const fn right(title: &'static str, width: usize) -> Self {
        Self { title, width, is_right: true }
    }
}

/// The columns of a table, and the width of the terminal; `None` for an output that no terminal shows.
#[derive(Clone, Debug)]
pub struct Layout {
    pub columns: Vec<Column>,
    pub width: Option<usize>,
}

impl Layout {
    /// The width of a line in which every cell fits its column.
    #[must_use]
    pub fn needs(columns: &[Column]) -> usize {
        columns.iter().map(|column| column.width + 1).sum::<usize>().saturating_sub(1)
    }

    /// The titles, with `last` as the title of the text after the columns.
    #[must_use]
    pub fn header(&self, last: &str) -> String {
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        self.row(&titles, 1, last)
    }

    /// A row, which may take several lines: cells, and after `gap` columns a text. A row may have fewer cells than the table has columns.
    /// Cells and text may contain colours.
    #[must_use]
    pub fn row(&self, cells: &[String], gap: usize, text: &str) -> String {
        let indent = self.columns.first().map_or(0, |column| column.width + 1);
        let mut line = Line { out: String::new(), at: 0, most: self.width.unwrap_or(usize::MAX), indent };
        let mut start = 0;
        for (column, cell) in self.columns.iter().zip(cells) {
            let spare = column.width.saturating_sub(display_width(cell));
            line.put(start + if column.is_right { spare } else { 0 }, 1, cell);
            start += column.width + 1;
        }
        let start = (start + gap).saturating_sub(1);
        if self.width.is_none() {
            line.put(start, gap, text);
        } else {
            for (number, word) in text.split_whitespace().enumerate() {
                line.put(if number == 0 { start } else { 0 }, if number == 0 { gap } else { 1 }, word);
            }
        }
        line.out.push('\n');
        line.out
    }
}

struct Line {
    out: String,
    /// The width of the line so far.
    at: usize,
    most: usize,
    /// Where further lines of the row begin.
    indent: usize,
}

impl Line {
    /// Writes a cell at column `start` or, if the line is already longer, after `gap` spaces.
    fn put(&mut self, start: usize, gap: usize, cell: &str) {
        let width = display_width(cell);
        if width == 0 {
            return;
        }
        let mut start = if self.at == 0 { start } else { start.max(self.at + gap) };
        if start.saturating_add(width) > self.most && self.at > 0 {
            self.out.push('\n');
            (self.at, start) = (0, self.indent.min(self.most.saturating_sub(width)));
        }
        self.out.extend(std::iter::repeat_n(' ', start - self.at));
        self.out.push_str(cell);
        self.at = start + width;
    }
}

/// A paragraph that begins with `head`; further lines are indented as much.
#[must_use]
pub fn paragraph(head: &str, text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return format!("{head}{text}\n") };
    let indent = " ".repeat(display_width(head));
    let options = Options::new(width)
        .initial_indent(head)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options) + "\n"
}

/// A shell command that begins with `head`. Where it has no room, it continues after a backslash.
#[must_use]
pub fn command(head: &str, text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return format!("{head}{text}\n") };
    let mut line = Line {
        out: String::new(),
        at: 0,
        // Room for the backslash.
        most: width.saturating_sub(2),
        indent: display_width(head) + 2,
    };
    line.put(0, 0, head.trim_end());
    let mut is_first = true;
    for word in shell_words(text) {
        let lines = line.out.len();
        let at = line.at;
        let start = if is_first { display_width(head) } else { 0 };
        line.put(start, 1, word);
        is_first = false;
        if line.out[lines..].starts_with('\n') && at > 0 {
            line.out.insert_str(lines, " \\");
        }
    }
    line.out.push('\n');
    line.out
}

/// The words of a command, with their quotes.
fn shell_words(command: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    command
        .split(move |c: char| {
            is_quoted ^= c == '\'';
            c == ' ' && !is_quoted
        })
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(width: Option<usize>) -> Layout {
        let columns = vec![Column::left("TIME", 8), Column::right("PID", 7), Column::left("LOCAL", 12)];
        Layout { columns, width }
    }

    fn row(width: Option<usize>, cells: [&str; 3], text: &str) -> String {
        layout(width).row(&cells.map(str::to_owned), 2, text)
    }

    #[test]
    fn cells_stand_below_their_titles() {
        assert_eq!(layout(None).header("WHY"), "TIME         PID LOCAL        WHY\n");
        assert_eq!(row(None, ["10:11:12", "12", "[::1]:80"], "fin"), "10:11:12      12 [::1]:80      fin\n");
        // A long cell takes the room of the next one.
        assert_eq!(row(None, ["1", "123456789", "x"], ""), "1        123456789 x\n");
    }

    #[test]
    fn what_has_no_room_goes_to_the_next_line() {
        assert_eq!(
            row(Some(34), ["10:11:12", "12", "[::1]:80"], "the peer has closed"),
            "10:11:12      12 [::1]:80      the\n         peer has closed\n"
        );
        assert_eq!(
            row(Some(25), ["10:11:12", "12", "[2001:db8::1]:80"], ""),
            "10:11:12      12\n         [2001:db8::1]:80\n"
        );
    }

    #[test]
    fn a_command_can_be_copied() {
        let kill = "ss -K -t -a 'src 127.0.0.1:80 and dst 127.0.0.1:5'";
        assert_eq!(
            command("  $ ", kill, Some(50)),
            "  $ ss -K -t -a \\\n      'src 127.0.0.1:80 and dst 127.0.0.1:5'\n"
        );
        assert_eq!(command("  $ ", kill, None), format!("  $ {kill}\n"));
    }

    proptest! {
        #[test]
        fn no_word_is_cut_and_no_line_too_long(
            width in 20..120_usize,
            cells in prop::array::uniform3("[a-z0-9:]{1,20}"),
            text in "([a-z]{1,12} ){0,12}[a-z]{1,12}",
        ) {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let row = layout(Some(width)).row(&cells, 2, &text);
            prop_assert!(row.lines().all(|line| line.len() <= width), "{row}");
            prop_assert_eq!(words(&row), words(&format!("{} {text}", cells.join(" "))));
            let told = paragraph("  why   ", &text, Some(width));
            prop_assert!(told.lines().all(|line| line.len() <= width), "{told}");
            prop_assert_eq!(words(&told), words(&format!("why {text}")));
            let run = command("  $ ", &text, Some(width));
            prop_assert!(run.lines().all(|line| line.len() <= width), "{run}");
            prop_assert_eq!(words(&run.replace(" \\\n", " ")), words(&format!("$ {text}")));
        }
    }
}
