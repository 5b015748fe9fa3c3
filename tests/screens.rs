//! The screens of `sockstate top`, without a terminal: in every size, and after keys and mouse events.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    style::Color,
};
use sockstate::{explain::Texts, model::Record, tui::App, wire::Parser};
use testkit::golden;

/// A screen that has read the recording, up to a number of lines before its end.
struct Screen {
    app: App,
    terminal: Terminal<TestBackend>,
    now_ns: i64,
}

impl Screen {
    fn new(width: u16, height: u16, coloured: bool) -> Self {
        let text =
            fs::read_to_string(golden::file("fixtures/recordings/sockstate-1.ndjson")).expect("recording");
        let mut app = App::new("test".into(), Texts::of("en"), coloured);
        let mut parser = Parser::default();
        let (mut second_ns, mut now_ns) = (0, 0);
        for line in text.lines() {
            let record = parser.parse(line.as_bytes()).expect("record").expect("a known kind");
            if !matches!(record, Record::Snapshot(_)) {
                now_ns = record.time_ns();
                second_ns = if second_ns == 0 { now_ns } else { second_ns };
            }
            app.record(&record);
            if now_ns - second_ns >= 1_000_000_000 {
                app.second(now_ns);
                second_ns = now_ns;
            }
        }
        app.second(now_ns);
        let terminal = Terminal::new(TestBackend::new(width, height)).expect("terminal");
        let mut screen = Self { app, terminal, now_ns };
        screen.draw();
        screen
    }

    fn draw(&mut self) {
        let app = &mut self.app;
        self.terminal.draw(|frame| app.draw(frame)).expect("drawn");
    }

    fn key(&mut self, code: KeyCode) -> bool {
        let ends = self.app.key(KeyEvent::new(code, KeyModifiers::NONE));
        self.draw();
        ends
    }

    fn keys(&mut self, text: &str) {
        for c in text.chars() {
            assert!(!self.key(KeyCode::Char(c)), "{c} ends it");
        }
    }

    fn click(&mut self, column: u16, row: u16) {
        let kind = MouseEventKind::Down(MouseButton::Left);
        self.app.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
        self.draw();
    }

    fn text(&self) -> String {
        let buffer = self.terminal.backend().buffer();
        let mut text = String::new();
        for row in buffer.content().chunks(buffer.area().width.into()) {
            let line: String = row.iter().map(|cell| cell.symbol()).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Rows of the table, as the screen shows them.
    fn rows(&self) -> Vec<String> {
        let text = self.text();
        let below = text.lines().skip_while(|line| !line.starts_with("STATE       AGE")).skip(1);
        let rows = below
            .take_while(|line| !line.is_empty() && !line.starts_with("Enter") && !line.starts_with("search"));
        rows.map(ToOwned::to_owned).collect()
    }
}

#[test]
fn screens_are_as_they_were_looked_at() {
    for (name, width, height, keys) in [
        ("top-60x20.txt", 60, 20, ""),
        ("top-80x24.txt", 80, 24, ""),
        ("top-120x40.txt", 120, 40, ""),
        ("top-240x60.txt", 240, 60, ""),
        ("top-help.txt", 80, 24, "?"),
        ("top-diagram.txt", 120, 44, "d"),
        ("top-by-local.txt", 120, 30, "5r"),
    ] {
        let mut screen = Screen::new(width, height, true);
        screen.keys(keys);
        golden::check(name, &screen.text());
    }
    let mut screen = Screen::new(100, 40, true);
    screen.key(KeyCode::Enter);
    golden::check("top-detail.txt", &screen.text());
}

#[test]
fn no_size_is_too_small() {
    for (width, height) in [(1, 1), (5, 3), (20, 5), (59, 19), (500, 200)] {
        let mut screen = Screen::new(width, height, true);
        for keys in ["?", "d", "d", "c", "/x"] {
            screen.keys(keys);
        }
    }
}

#[test]
fn keys_search_sort_and_select() {
    let mut screen = Screen::new(120, 40, true);
    let all = screen.rows();
    assert!(all.len() > 5, "{all:?}");
    // The stuck ones come first.
    assert!(all[0].starts_with("CLOSE_WAIT") && all[0].contains("STUCK"), "{}", all[0]);
    screen.keys("c");
    let rows = screen.rows();
    assert!(rows.len() < all.len() && rows.iter().all(|row| row.starts_with("CLOSE_WAIT")), "{rows:?}");
    screen.keys("c");
    assert_eq!(screen.rows(), all);
    screen.keys("/LISTEN 8080");
    let rows = screen.rows();
    assert!(rows.len() == 1 && rows[0].contains("127.0.0.1:8080"), "{rows:?}");
    screen.key(KeyCode::Esc);
    assert_eq!(screen.rows(), all);
    screen.keys("3");
    let states: Vec<String> =
        screen.rows().iter().map(|row| row.split(' ').next().expect("state").to_owned()).collect();
    screen.keys("r");
    let mut reversed: Vec<String> =
        screen.rows().iter().map(|row| row.split(' ').next().expect("state").to_owned()).collect();
    reversed.reverse();
    assert_eq!(states, reversed);
    // What is selected is what Enter shows.
    let mut screen = Screen::new(120, 40, true);
    screen.keys("jj");
    let peer = screen.rows()[2]
        .split_whitespace()
        .find(|word| word.starts_with("127.0.0.1:") && !word.ends_with(":8080"))
        .map(ToOwned::to_owned);
    screen.key(KeyCode::Enter);
    let text = screen.text();
    assert!(text.contains(&peer.expect("a peer")) && text.contains("What it means"), "{text}");
    assert!(screen.key(KeyCode::Char('q')));
}

#[test]
fn the_mouse_sorts_and_opens() {
    let mut screen = Screen::new(120, 40, true);
    let head =
        screen.text().lines().position(|line| line.starts_with("STATE       AGE")).expect("a table") as u16;
    screen.click(14, head);
    assert!(screen.text().contains("by age"), "{}", screen.text());
    screen.click(3, head + 2);
    screen.click(3, head + 2);
    assert!(screen.text().contains("What it means"), "{}", screen.text());
}

#[test]
fn what_is_frozen_stays() {
    let mut screen = Screen::new(120, 40, true);
    screen.keys("f");
    let before = screen.rows();
    let later_ns = screen.now_ns + 60_000_000_000;
    screen.app.second(later_ns);
    screen.draw();
    assert!(screen.text().contains("FROZEN"));
    assert_eq!(screen.rows(), before);
    screen.keys("f");
    screen.app.second(later_ns);
    screen.draw();
    assert_ne!(screen.rows(), before);
}

#[test]
fn without_colours_nothing_is_coloured_and_what_is_stuck_is_still_seen() {
    let colours = |coloured| {
        let screen = Screen::new(120, 40, coloured);
        let cells = screen.terminal.backend().buffer().content().to_vec();
        cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(true) > 100);
    assert_eq!(colours(false), 0);
    assert!(Screen::new(120, 40, false).text().contains("STUCK"));
}
