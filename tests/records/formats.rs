//! What each format writes of every kind of record. The files of tests/golden/formats were written by the converters
//! that read JSON by key names, before there were types for it.

use std::collections::BTreeMap;

use sockstate::format::{
    Format, Json, Stamp,
    convert::{Syslog, ecs, journal, otlp_json, otlp_protobuf},
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
    check("ecs.ndjson", ecs);
    check("otlp.ndjson", otlp_json);
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
