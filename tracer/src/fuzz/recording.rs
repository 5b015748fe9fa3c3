//! Recordings: plain or in zstd, read as `replay` reads them; each record written and read again; and all of them as `report`,
//! `timeline` and `diagram` show them.

use crate::{
    draw::{self, Diagram, Timeline, Weights},
    format::{Csv, Format, Json, Table},
    model::Record,
    source::Recording,
    story::Story,
    wire::Parser,
};

/// Connections in a timeline.
const MOST: usize = 50;

pub(super) fn read(bytes: &[u8]) {
    let Some((_file, path)) = super::file(bytes) else { return };
    let Ok(mut recording) = Recording::open(&path) else { return };
    let (mut parser, mut story, mut line) = (Parser::default(), Story::default(), Vec::new());
    while recording.next(&mut line).is_ok_and(|more| more) {
        let Ok(Some(record)) = parser.parse(&line) else { continue };
        write_again(&mut parser, &record);
        story.record(&record);
    }
    assert!(!draw(&story, bytes.len()).is_empty());
}

/// One of the pictures: all of them would take most of the time.
fn draw(story: &Story, which: usize) -> String {
    let timeline = || Timeline::new(story, "any".into(), MOST);
    let diagram = || Diagram::weighed(Weights::of(story), "any".into());
    let first = story.in_order().into_iter().next();
    match (which % 8, first) {
        (0, _) => draw::report(story, "any"),
        (1, _) => timeline().text(80, true),
        (2, _) => timeline().svg(),
        (3, _) => timeline().html(),
        (4, Some(life)) => Timeline::of_one(life, story, "any".into()).svg(),
        (5, Some(life)) => Diagram::path(life, "any".into()).text(true),
        (6, _) => diagram().svg(),
        (7, _) => diagram().mermaid() + &diagram().dot(),
        _ => diagram().text(true),
    }
}

/// A record that was read can be written, and reading it again gives the same record.
pub(super) fn write_again(parser: &mut Parser, record: &Record) {
    let write = |format: &mut dyn Format, record: &Record| {
        let mut out = Vec::new();
        format.record(1, record, &mut out);
        out
    };
    write(&mut Csv::default(), record);
    write(&mut Table::new(true, Some(|| Some(40))), record);
    let json = write(&mut Json::default(), record);
    let again = parser.parse(&json);
    assert!(again.is_ok(), "{again:?}: {}", String::from_utf8_lossy(&json));
    let again = again.ok().flatten().map(|record| write(&mut Json::default(), &record));
    let shown = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
    assert_eq!(again.as_deref().map(shown), Some(shown(&json)));
}
