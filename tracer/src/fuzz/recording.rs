//! Recordings: plain or in zstd, read as `replay` reads them; each record written and read again; and all of them as `report`,
//! `timeline` and `diagram` show them.

use crate::{
    draw::{self, Diagram, Timeline, Weights},
    format::{Csv, Format, Json, Parser, Table, Told},
    source::Recording,
    story::Story,
};

/// Connections in a timeline.
const MOST: usize = 50;

pub(super) fn read(bytes: &[u8]) {
    let Some((_file, path)) = super::file(bytes) else { return };
    let Ok(mut recording) = Recording::open(&path) else { return };
    let (mut parser, mut story, mut line) = (Parser::default(), Story::default(), Vec::new());
    while recording.next(&mut line).is_ok_and(|more| more) {
        let Ok(Some(told)) = parser.parse(&line) else { continue };
        write_again(&mut parser, &told);
        match &told {
            Told::Transition(it) => story.transition(it),
            Told::Notice(it) => story.notice(it),
        }
    }
    let mut shown = vec![draw::report(&story, "any")];
    let timeline = Timeline::new(&story, "any".into(), MOST);
    shown.extend([timeline.text(80, true), timeline.svg(), timeline.html()]);
    let diagram = Diagram::weighed(Weights::of(&story), "any".into());
    shown.extend([diagram.text(true), diagram.svg(), diagram.mermaid(), diagram.dot()]);
    for life in story.in_order().into_iter().take(4) {
        shown.push(Timeline::of_one(life, &story, "any".into()).text(80, true));
        shown.push(Diagram::path(life, "any".into()).text(true));
    }
    assert!(shown.iter().all(|text| !text.is_empty()));
}

/// What was read can be written, and read again as the same.
pub(super) fn write_again(parser: &mut Parser, told: &Told) {
    let write = |format: &mut dyn Format, told: &Told| {
        let mut out = Vec::new();
        match told {
            Told::Transition(it) => format.transition(1, it, &mut out),
            Told::Notice(it) => format.notice(1, it, &mut out),
        }
        out
    };
    write(&mut Csv, told);
    write(&mut Table::new(true), told);
    let json = write(&mut Json::default(), told);
    let again = parser.parse(&json);
    let again = again.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)));
    let again = again.map(|told| write(&mut Json::default(), &told));
    let shown = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
    assert_eq!(again.as_deref().map(shown), Some(shown(&json)));
}
