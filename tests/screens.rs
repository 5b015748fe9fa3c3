//! The screens of `sockstate top`, without a terminal: in every size, and after keys and mouse events.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    style::Color,
};
use sockstate::{
    explain::Texts,
    model::{ConnId, Record, Traffic},
    tui::App,
    wire::Parser,
};
use testkit::golden;

fn recording() -> String {
    fs::read_to_string(golden::file("fixtures/recordings/sockstate-1.ndjson")).expect("recording")
}

/// The recording with the longest addresses and names.
fn long_names() -> String {
    let text = recording().replace("127.0.0.1", "2001:db8:1234:5678:9abc:def0:1234:5678");
    let text = text.replace("\"comm\":\"python3\"", "\"comm\":\"a-long-name-123\"");
    text.replace("12737", "4194000").replace("\"ipv4\"", "\"ipv6\"").replace("0.0.0.0", "::")
}

/// A screen that has read a recording, up to a number of lines before its end.
struct Screen {
    app: App,
    terminal: Terminal<TestBackend>,
    now_ns: i64,
}

impl Screen {
    fn new(width: u16, height: u16, coloured: bool) -> Self {
        Self::of(&recording(), width, height, coloured)
    }

    fn of(text: &str, width: u16, height: u16, coloured: bool) -> Self {
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
                // A slow machine would leave refreshes out.
                app.refresh(now_ns);
                app.second(now_ns);
                second_ns = now_ns;
            }
        }
        app.refresh(now_ns);
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

    /// The title of the table and its rows, as the screen shows them.
    fn table(&self) -> Vec<String> {
        let text = self.text();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.pop();
        let table = lines.into_iter().skip_while(|line| !line.starts_with("STATE        AGE"));
        table.take_while(|line| !line.is_empty()).map(ToOwned::to_owned).collect()
    }

    fn rows(&self) -> Vec<String> {
        self.table().split_off(1)
    }

    /// The texts of a column.
    fn column(&self, title: &str) -> Vec<String> {
        let table = self.table();
        let titles: Vec<char> = table[0].chars().collect();
        let begin = table[0].find(title).expect(title);
        let length = titles[begin..].windows(2).position(|pair| pair[0] == ' ' && pair[1] != ' ');
        let cells = table[1..].iter().map(|row| {
            let cell = row.chars().skip(begin).take(length.map_or(usize::MAX, |length| length + 1));
            cell.collect::<String>().trim_end().to_owned()
        });
        cells.collect()
    }
}

#[test]
fn screens_are_as_they_were_looked_at() {
    for (name, width, height, keys) in [
        ("top-60x20.txt", 60, 20, ""),
        ("top-80x24.txt", 80, 24, ""),
        ("top-120x40.txt", 120, 40, ""),
        ("top-200x50.txt", 200, 50, ""),
        ("top-240x60.txt", 240, 60, ""),
        ("top-help.txt", 80, 24, "?"),
        ("top-diagram.txt", 120, 44, "d"),
        ("top-diagram-80x24.txt", 80, 24, "d"),
        ("top-diagram-60x20.txt", 60, 20, "d"),
        ("top-by-local.txt", 120, 30, "5r"),
    ] {
        let mut screen = Screen::new(width, height, true);
        screen.keys(keys);
        golden::check(name, &screen.text());
    }
    let mut screen = Screen::new(100, 40, true);
    screen.key(KeyCode::Enter);
    golden::check("top-detail.txt", &screen.text());
    let mut screen = Screen::new(80, 24, true);
    screen.key(KeyCode::Enter);
    golden::check("top-detail-80x24.txt", &screen.text());
}

/// Sizes of terminals that people have.
const SIZES: [(u16, u16); 5] = [(60, 20), (80, 24), (120, 40), (200, 50), (240, 60)];

#[test]
fn the_service_is_seen_in_every_size_and_ports_and_pids_are_whole() {
    for (width, height) in SIZES {
        let screen = Screen::of(&long_names(), width, height, true);
        let local = screen.column("LOCAL");
        let services = local.iter().filter(|local| local.ends_with(":8080")).count();
        assert!(services >= 4, "{width}: {local:?}");
        let remote = screen.column("REMOTE");
        assert!(remote.iter().any(|remote| remote.ends_with(":50778")), "{width}: {remote:?}");
        for process in screen.column("PROCESS").iter().filter(|process| !process.is_empty()) {
            // At 60 columns there is no room for both.
            let whole = if width == 60 { "a-long-na…" } else { "(4194000)" };
            assert!(process.ends_with(whole), "{width}: {process}");
        }
        // What is shortened says so.
        for text in local.iter().chain(&remote).filter(|text| !text.is_empty()) {
            assert!(
                text.contains('…')
                    || text.contains("[::1]:")
                    || text.ends_with("5678]:8080")
                    || text.contains("5678]:"),
                "{text}"
            );
        }
        assert!(screen.column("STATE").iter().any(|state| state == "CLOSE_WAIT!"), "{width}");
    }
}

#[test]
fn titles_hints_and_counts_are_whole_in_every_size() {
    for (width, height) in SIZES {
        let screen = Screen::new(width, height, true);
        let text = screen.text();
        let foot = text.lines().last().expect("a line");
        for part in foot.split("  ") {
            let is_place = part.contains(" of ") && part.ends_with("by stuck");
            let is_hint = [
                "Enter detail",
                "/ search",
                "s sort",
                "c CLOSE_WAIT",
                "d diagram",
                "f freeze",
                "? help",
                "q quit",
            ]
            .contains(&part);
            assert!(is_place || is_hint, "{width}: {part} in {foot}");
        }
        assert!(foot.contains("? help  q quit"), "{width}: {foot}");
        let head = text.lines().next().expect("a line");
        assert!(head.contains("10 sockets") && head.contains("0/s"), "{width}: {head}");
        for title in screen.table()[0].split_whitespace() {
            let titles =
                ["STATE", "AGE", "PROCESS", "LOCAL", "REMOTE", "ROLE", "UNIT", "STATES", "BEFORE", "WHY"];
            assert!(titles.contains(&title), "{width}: {title}");
        }
        if width < 100 {
            assert!(text.contains("CLOSE_WAIT 2(2 stuck)"), "{text}");
        }
    }
}

#[test]
fn a_wide_screen_is_used() {
    for (width, height) in [(200, 50), (240, 60)] {
        let text = Screen::new(width, height, true).text();
        for what in [
            "STUCK the peer has closed, and the application has not read the end of file",
            "STATES BEFORE",
            ":8080 python3",
        ] {
            assert!(text.contains(what), "{width}: {what}: {text}");
        }
        // The rows of what is stuck fill most of the width.
        let longest =
            text.lines().filter(|line| line.starts_with("CLOSE_WAIT!")).map(|line| line.chars().count());
        assert!(longest.max() > Some(usize::from(width) * 7 / 10), "{text}");
        // The sparklines do not.
        let column = |what: &str| text.lines().find_map(|line| line.find(what)).expect(what);
        assert!(column("PROCESS") - column("LAST TWO") < usize::from(width) * 2 / 3, "{text}");
    }
}

#[test]
fn the_diagram_and_the_help_are_whole_in_every_size() {
    for (width, height) in SIZES {
        let all = |keys: &str, last: &str| {
            let mut screen = Screen::new(width, height, true);
            screen.keys(keys);
            let mut seen = screen.text();
            for _ in 0..80 {
                screen.key(KeyCode::Down);
                seen.push_str(&screen.text());
            }
            assert!(seen.contains(last), "{width}: {seen}");
            seen
        };
        let diagram = all("d", "ESTABLISHED -> CLOSE");
        for state in ["LISTEN", "SYN_SENT", "ESTABLISHED", "FIN_WAIT2", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"]
        {
            assert!(diagram.contains(state), "{width}: {state}");
        }
        assert!(diagram.contains("close() 4x 19ms") && diagram.contains("2 STUCK"), "{width}: {diagram}");
        if width >= 80 {
            // Each row of boxes is whole: three of them between the edges.
            assert!(
                diagram.lines().any(|line| line.matches('╭').count() == 3 && line.matches('╮').count() == 3)
            );
        }
        let help = all("?", "q ");
        let words: Vec<&str> = help.split_whitespace().collect();
        for word in ["scroll;", "CLOSE_WAIT;", "median", "times", "sorts", "local,", "remote"] {
            assert!(words.contains(&word), "{width}: {word}: {help}");
        }
    }
}

#[test]
fn a_socket_that_is_not_reported_as_stuck_is_looked_at() {
    // Without its `stuck` record, as a socket that was stuck before the start.
    let stuck = recording()
        .lines()
        .find(|line| line.contains("\"kind\":\"stuck\"") && line.contains("CLOSE_WAIT"))
        .expect("a record")
        .to_owned();
    let text: Vec<String> = recording()
        .lines()
        .filter(|line| !line.contains("\"kind\":\"stuck\""))
        .map(ToOwned::to_owned)
        .collect();
    let mut screen = Screen::of(&text.join("\n"), 80, 40, true);
    screen.keys("c");
    assert!(screen.app.question().is_none(), "no socket is shown yet");
    screen.key(KeyCode::Enter);
    assert!(!screen.text().contains("held by"), "{}", screen.text());
    let question = screen.app.question().expect("a question");
    assert_eq!(question.state.name(), "CLOSE_WAIT");
    assert!(screen.app.question().is_none(), "it is asked once");
    screen.draw();
    assert!(screen.text().contains("is under way"), "{}", screen.text());
    // The answer about another socket is not shown.
    let Some(Record::Stuck(found)) = Parser::default().parse(stuck.as_bytes()).expect("record") else {
        panic!("{stuck}")
    };
    let other = ConnId(1);
    let mut wrong = found.clone();
    wrong.conn.id = other;
    screen.app.answer(wrong);
    screen.draw();
    assert!(!screen.text().contains("held by"), "{}", screen.text());
    let answer = sockstate::model::Stuck { found: found.found.clone(), ..question.clone() };
    screen.app.answer(answer);
    screen.draw();
    let text = screen.text();
    for what in [
        "held by python3 (12737), fd 5, in no epoll",
        "has not read the end of file",
        "What to do",
        "ls -l /proc/12737/fd/5",
    ] {
        assert!(text.contains(what), "{what}: {text}");
    }
    assert!(!text.contains("│STUCK"), "it is not reported as stuck: {text}");
    // A look that did not find the socket says so, and opening the view again asks again.
    screen.key(KeyCode::Esc);
    assert!(screen.app.question().is_none());
    screen.key(KeyCode::Enter);
    let question = screen.app.question().expect("a question");
    screen.app.answer(question);
    screen.draw();
    assert!(screen.text().contains("no longer in the kernel's tables"), "{}", screen.text());
}

/// The lines with numbers in the view of a socket.
fn numbers(screen: &Screen) -> Vec<String> {
    let text = screen.text();
    let is_number = |line: &&str| {
        ["bytes sent", "bytes received", "retransmits", "RTT, least RTT"]
            .iter()
            .any(|what| line.contains(what))
    };
    let words = |line: &str| line.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().filter(is_number).map(words).collect()
}

#[test]
fn the_view_of_a_socket_has_rates_from_two_readings() {
    for (width, height) in SIZES {
        let mut screen = Screen::new(width, height, true);
        screen.keys("c");
        assert!(screen.app.uncounted().is_none(), "no socket is shown yet");
        screen.key(KeyCode::Enter);
        assert!(numbers(&screen).is_empty(), "{}", screen.text());
        let asked = screen.app.uncounted().expect("the socket");
        assert!(screen.app.uncounted().is_none(), "once for each refresh");
        screen.draw();
        let unknown = ["bytes sent - -", "bytes received - -", "retransmits - -", "RTT, least RTT - -"];
        assert_eq!(numbers(&screen), unknown, "{width}");
        let reading = |bytes_sent, bytes_received, retransmits| Traffic {
            bytes_sent,
            bytes_received,
            retransmits,
            rtt_smoothed_ns: Some(45_000),
            rtt_min_ns: Some(30_000),
            ..Traffic::default()
        };
        screen.app.counted(asked.id, Some(reading(1_000_000, 500, 1)), 5_000_000_000);
        screen.draw();
        let totals =
            ["bytes sent 1000000 -", "bytes received 500 -", "retransmits 1 -", "RTT, least RTT 45us 30us"];
        assert_eq!(numbers(&screen), totals, "{width}");
        screen.app.second(screen.now_ns);
        assert_eq!(screen.app.uncounted().map(|conn| conn.id), Some(asked.id));
        // Half a second later. An answer about another socket does not matter, and one that failed changes nothing.
        screen.app.counted(ConnId(1), Some(reading(9, 9, 9)), 5_400_000_000);
        screen.app.counted(asked.id, Some(reading(1_250_000, 500, 4)), 5_500_000_000);
        screen.app.counted(asked.id, None, 5_600_000_000);
        screen.draw();
        let rates = [
            "bytes sent 1250000 500k/s",
            "bytes received 500 0/s",
            "retransmits 4 6/s",
            "RTT, least RTT 45us 30us",
        ];
        assert_eq!(numbers(&screen), rates, "{width}");
        if width == 80 {
            golden::check("top-rates-80x24.txt", &screen.text());
        }
        // Another socket begins without a rate.
        screen.key(KeyCode::Right);
        let other = screen.app.uncounted().expect("the other one");
        assert_ne!(other.id, asked.id);
        screen.draw();
        assert_eq!(numbers(&screen), unknown, "{width}");
        screen.key(KeyCode::Esc);
        assert!(screen.app.uncounted().is_none());
    }
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
    assert!(rows.len() < all.len() && rows.iter().all(|row| row.starts_with("CLOSE_WAIT!")), "{rows:?}");
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
    // Enter shows the selected connection.
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
        screen.text().lines().position(|line| line.starts_with("STATE        AGE")).expect("a table") as u16;
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
