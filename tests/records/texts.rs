//! From records to text: every format, with nasty names.

use serde_json::Value;
use sockstate::{
    format::{Csv, Format, Json, Table as TableFormat},
    model::{Event, Lost, LostPlace, Record, State},
    track::{Table, Visibility},
    wire::Parser,
};
use testkit::schema;

use crate::{Names, connect_by, event, transition, written};

/// A program chooses its own name; no format may fall for it.
#[test]
fn nasty_names() {
    for comm in [
        &b"say \"hi\""[..],
        b"two\nlines",
        b"a,b",
        b"tab\tcr\r",
        b"esc\x1b[2J",
        b"\xff\xfe\x80bad",
        b"back\\slash",
        b"\xc2\x9b31m",
    ] {
        let transition = connect_by(comm);
        let readable = String::from_utf8_lossy(comm);
        let json = written(&mut Json::default(), &transition);
        assert_eq!(json.matches('\n').count(), 1, "{json}");
        let record: Value = serde_json::from_str(&json).expect("JSON");
        schema::check(&record);
        assert_eq!(record["owner"]["comm"], *readable);

        let csv = written(&mut Csv::default(), &transition);
        assert_eq!(csv.matches('\n').count(), 1, "{csv}");
        assert!(!csv.trim_end().chars().any(char::is_control), "{csv:?}");
        assert_eq!(fields(csv.trim_end()), 11, "{csv}");

        let table = written(&mut TableFormat::new(false, None), &transition);
        assert_eq!(table.matches('\n').count(), 1);
        assert!(!table.trim_end().chars().any(char::is_control), "{table:?}");
    }
}

/// Number of fields of a CSV line (RFC 4180).
fn fields(line: &str) -> usize {
    let mut quoted = false;
    1 + line
        .chars()
        .filter(|&c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        })
        .count()
}

#[test]
fn csv_has_the_columns_of_tcpstates() {
    let mut out = Vec::new();
    Csv::default().header(&mut out);
    let header = String::from_utf8(out).expect("text");
    assert_eq!(header, "SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS\n");
    let line = written(&mut Csv::default(), &connect_by(b"curl"));
    assert_eq!(line, "0000010000000001,7,curl,4,127.0.0.1,1000,127.0.0.1,2000,CLOSE,SYN_SENT,\n");
}

#[test]
fn colours_only_when_asked_for() {
    let transition = connect_by(b"curl");
    assert!(written(&mut TableFormat::new(true, None), &transition).contains("\x1b["));
    assert!(!written(&mut TableFormat::new(false, None), &transition).contains('\x1b'));
}

#[test]
fn unknown_states_keep_their_number() {
    let mut transition = connect_by(b"x");
    transition.to = State::Unknown(13);
    transition.errno = 4095;
    let record: Value = serde_json::from_str(&written(&mut Json::default(), &transition)).expect("JSON");
    schema::check(&record);
    assert_eq!((&record["to"], &record["to_number"]), (&"UNKNOWN".into(), &13.into()));
    assert_eq!(record["errno"], "E4095");
    assert!(written(&mut TableFormat::new(false, None), &transition).contains("UNKNOWN(13)"));
}

#[test]
fn what_tcp_does_not_do_is_marked() {
    let mut table = Table::new(1, 0, Visibility::default());
    let mut names = Names::default();
    let mut line = |event: &Event| {
        let record = transition(&mut table, event, &mut names).expect("a transition");
        let text = written(&mut Json::default(), &record);
        let record: Value = serde_json::from_str(&text).expect("JSON");
        schema::check(&record);
        record["illegal"].clone()
    };
    assert_eq!(line(&event(10, 1, State::Close, State::SynSent)), Value::Null);
    assert_eq!(line(&event(20, 1, State::SynSent, State::TimeWait)), true);
    assert_eq!(line(&event(30, 1, State::TimeWait, State::Close)), Value::Null);
    assert_eq!(table.illegal(), 1);
}

#[test]
fn losses_are_records() {
    let lost = |since_ns| {
        Record::Lost(Lost {
            time_ns: 1_500_000_000,
            since_ns,
            count: 12,
            in_doubt: 0,
            place: LostPlace::Ring,
        })
    };
    let mut out = Vec::new();
    Json::default().record(3, &lost(None), &mut out);
    let record: Value = serde_json::from_slice(&out).expect("JSON");
    schema::check(&record);
    assert_eq!(record["since"], Value::Null);
    let lost = lost(Some(1_250_000_000));
    let mut out = Vec::new();
    Json::default().record(3, &lost, &mut out);
    let record: Value = serde_json::from_slice(&out).expect("JSON");
    schema::check(&record);
    assert_eq!((&record["count"], &record["place"], &record["seq"]), (&12.into(), &"ring".into(), &3.into()));
    assert_eq!(record["time"], "1970-01-01T00:00:01.500000000Z");
    assert_eq!(record["since"], "1970-01-01T00:00:01.250000000Z");
    let read = Parser::default().parse(&out).expect("a record").expect("known");
    assert_eq!(read, lost);
    let mut out = Vec::new();
    TableFormat::new(false, None).record(3, &lost, &mut out);
    assert!(String::from_utf8(out).expect("text").contains("LOST 12 transitions (ring)"));
}
