//! Records of whole connections say the same as the transitions that they replace.

use sockstate::{
    model::{Record, State},
    story::Story,
    track::Lifespans,
    wire::Parser,
};
use testkit::golden;

/// The records of a recording of real connections.
fn recording() -> Vec<Record> {
    let text =
        std::fs::read_to_string(golden::file("fixtures/recordings/sockstate-1.ndjson")).expect("recording");
    let mut parser = Parser::default();
    let read = |line: &str| parser.parse(line.as_bytes()).expect("a record");
    text.lines().filter_map(read).collect()
}

/// The states up to the end for both sides.
fn states(story: &Story) -> Vec<(u64, Vec<&'static str>)> {
    let mut all: Vec<_> = story
        .histories
        .values()
        .map(|history| {
            let mut states: Vec<State> = history.states().into_iter().map(|(state, _)| state).collect();
            let end = states.iter().position(|state| matches!(state, State::TimeWait | State::Close));
            states.truncate(end.map_or(states.len(), |end| end + 1));
            (history.conn.0, states.into_iter().map(State::name).collect())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_story_is_the_same_from_connections() {
    let (mut transitions, mut connections, mut both) = (Story::default(), Story::default(), Story::default());
    let mut lifespans = Lifespans::default();
    let mut ended = Vec::new();
    for record in recording() {
        transitions.record(&record);
        both.record(&record);
        if let Some(connection) = lifespans.note(&record) {
            connections.record(&connection);
            if let Record::Connection(lifespan) = &connection {
                let histories = [&transitions, &connections].map(|story| &story.histories[&lifespan.conn.id]);
                for history in histories {
                    assert_eq!(history.handshake_ns(), lifespan.handshake_ns(), "{lifespan:?}");
                    assert_eq!(history.traffic, lifespan.traffic);
                }
            }
            both.record(&connection);
            ended.extend(connection.conn().map(|conn| conn.id.0));
        }
    }
    assert!(ended.len() > 2, "{ended:?}");
    assert_eq!(both.edges.values().map(|edge| edge.count).sum::<u64>(), both.transitions);
    assert_eq!(
        (both.transitions, states(&both)),
        (transitions.transitions, states(&transitions)),
        "nothing counts twice"
    );
    let mut expected = states(&transitions);
    expected.retain(|(conn, _)| ended.contains(conn));
    assert_eq!(states(&connections), expected);
    for (edge, stats) in &connections.edges {
        assert!(stats.count <= transitions.edges[edge].count, "{edge:?}");
    }
}
