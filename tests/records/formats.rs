//! What each format writes of every kind of record. The files of tests/golden/formats were written by the converters
//! that read JSON by key names, before there were types for it.

use std::collections::BTreeMap;

use sockstate::format::{
    Format, FormatName, FormatOptions, Json, Stamp,
    convert::{Syslog, journal, otlp_protobuf},
};
use testkit::{golden, schema};

use crate::corpus;

/// The corpus as our JSON: without and with what tells hosts apart.
fn lines() -> Vec<Vec<u8>> {
    let labels =
        BTreeMap::from([("env".to_owned(), "pro\"d".to_owned()), ("app.name".to_owned(), "x".to_owned())]);
    let stamp = Stamp { host: "web1", instance: 0x00_3277, labels: &labels };
    let mut lines = Vec::new();
    for mut json in [Json::default(), Json::stamped(&stamp)] {
        for (record, seq) in corpus::records().iter().zip(1..) {
            let mut line = Vec::new();
            json.record(seq, record, &mut line);
            lines.push(line);
        }
    }
    lines
}

/// Converts lines of JSON to the format `name` as the thread of a sink does.
pub(crate) fn converter(name: &str) -> impl FnMut(&[u8], &mut Vec<u8>) {
    let format = FormatName::ALL.iter().find(|format| format.name == name);
    format.and_then(FormatName::converter).expect("a format that is made from lines")
}

fn converted(mut convert: impl FnMut(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    lines().iter().for_each(|line| convert(line, &mut out));
    out
}

fn check(name: &str, convert: impl FnMut(&[u8], &mut Vec<u8>)) {
    let written = converted(convert);
    golden::check(&format!("formats/{name}"), &String::from_utf8_lossy(&written));
}

#[test]
fn every_record_of_the_corpus_is_as_the_schema_says() {
    for line in lines() {
        schema::check(&serde_json::from_slice(&line).expect("JSON"));
    }
}

#[test]
fn formats_write_what_they_wrote() {
    check("json.ndjson", |line, out| out.extend_from_slice(line));
    check("ecs.ndjson", converter("ecs"));
    check("otlp.ndjson", converter("otlp"));
    check("journal.txt", journal);
    let syslog = Syslog::new(3, "web1", 42);
    check("syslog.txt", |line, out| syslog.convert(line, out));
    check("otlp-protobuf.txt", |line, out| {
        let mut bytes = Vec::new();
        otlp_protobuf(line, &mut bytes);
        out.extend(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
        out.push(b'\n');
    });
}

/// The tracer writes in each format what a sink makes of its JSON.
#[test]
fn each_format_is_the_same_from_records_and_from_lines() {
    for name in FormatName::ALL {
        let format = || name.make(FormatOptions::default());
        let (mut of_records, mut of_lines, mut json) = (format(), format(), Json::default());
        let mut converter = name.converter();
        let (mut from_record, mut from_line, mut converted) = (Vec::new(), Vec::new(), Vec::new());
        for (record, seq) in corpus::records().iter().zip(1..) {
            let mut text = Vec::new();
            json.record(seq, record, &mut text);
            of_records.record(seq, record, &mut from_record);
            of_lines.line(record, &text, &mut from_line);
            if let Some(convert) = &mut converter {
                convert(&text, &mut converted);
            }
        }
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(shown(&from_record), shown(&from_line), "{}", name.name);
        assert_eq!(converter.is_some(), ["ecs", "otlp", "syslog"].contains(&name.name), "{}", name.name);
        assert!(converter.is_none() || shown(&converted) == shown(&from_record), "{}", name.name);
        assert!(!from_record.is_empty(), "{}", name.name);
        if name.name == "syslog" {
            // The first record says the host; which sockstate wrote it is not known.
            let first = shown(&from_record).lines().next().map(str::to_owned);
            assert!(first.is_some_and(|line| line.contains("Z web1 sockstate - start [")), "{from_record:?}");
        }
    }
}

/// ECS names the sides by who has opened the connection, and has translations beside what is translated.
#[test]
fn translated_ends_in_ecs() {
    for (role, local_side, remote_side) in
        [("client", "source", "destination"), ("server", "destination", "source")]
    {
        let line = format!(
            r#"{{"schema":"sockstate/1","kind":"transition","seq":3,"time":"2026-11-26T00:00:00Z","role":"{role}",
            "network":{{"transport":"tcp","type":"ipv4","community_id":"1:y"}},"from":"ESTABLISHED","to":"CLOSE_WAIT","local":{{"address":"10.0.0.2","port":4000}},"remote":{{"address":"10.9.0.1","port":80}},
            "nat":{{"local":{{"address":"10.0.0.2","port":4000}},"remote":{{"address":"10.0.0.3","port":8080}},"community_id":"1:x"}}}}"#
        );
        let mut out = Vec::new();
        converter("ecs")(line.replace('\n', "").as_bytes(), &mut out);
        let document: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let nat = serde_json::json!({"ip": "10.0.0.3", "port": 8080});
        assert_eq!(document[remote_side]["nat"], nat, "{document}");
        assert!(document[local_side].get("nat").is_none(), "{document}");
        assert_eq!(document["sockstate"]["nat"]["community_id"], "1:x", "{document}");
    }
}

#[test]
fn a_line_of_a_later_version_keeps_its_keys() {
    let line =
        br#"{"schema":"sockstate/1","kind":"later","seq":3,"time":"2026-11-26T00:00:00.000000001Z","x":[1]}"#;
    let mut out = Vec::new();
    converter("ecs")(line, &mut out);
    let document: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(document["@timestamp"], "2026-11-26T00:00:00.000000001Z");
    assert_eq!(document["event"]["dataset"], "sockstate.later");
    assert_eq!((&document["event"]["sequence"], &document["sockstate"]["x"][0]), (&3.into(), &1.into()));
}
