//! How much each kind of record matters, in the words of each collector.

use serde_json::Value;
use sockstate::format::convert::{Syslog, journal};

use crate::formats::converter;

fn written(mut convert: impl FnMut(&[u8], &mut Vec<u8>), line: &str) -> String {
    let mut out = Vec::new();
    convert(line.as_bytes(), &mut out);
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn each_kind_has_the_severity_that_fits() {
    let syslog = Syslog::new(3, "web1", 42);
    for (keys, number, level, otlp) in [
        (r#""kind":"lost","count":3,"place":"ring""#, 3, "error", 17),
        (r#""kind":"stuck","state":"CLOSE_WAIT""#, 4, "warning", 13),
        (r#""kind":"transition","from":"SYN_SENT","to":"TIME_WAIT","illegal":true"#, 4, "warning", 13),
        (r#""kind":"transition","from":"SYN_SENT","to":"ESTABLISHED","illegal":false"#, 6, "info", 9),
        (r#""kind":"transition","from":"SYN_SENT","to":"ESTABLISHED""#, 6, "info", 9),
        (r#""kind":"start","version":"0","degraded":["no BTF"]"#, 4, "warning", 13),
        (r#""kind":"start","version":"0","degraded":[]"#, 6, "info", 9),
        (r#""kind":"resync","state":"CLOSE""#, 5, "notice", 10),
        (r#""kind":"resolved","state":"CLOSE_WAIT","to":"LAST_ACK""#, 5, "notice", 10),
        (r#""kind":"snapshot","state":"LISTEN""#, 6, "info", 9),
        (r#""kind":"aggregate","count":3,"from":"CLOSE","to":"LISTEN""#, 6, "info", 9),
        // A `stop` record has the number of illegal transitions.
        (r#""kind":"stop","reason":"signal","illegal":1"#, 6, "info", 9),
    ] {
        let line =
            format!(r#"{{"schema":"sockstate/1",{keys},"seq":1,"time":"2026-01-01T00:00:00.000000000Z"}}"#);
        let message = written(|line, out| syslog.convert(line, out), &line);
        assert!(message.starts_with(&format!("<{}>1 ", 3 * 8 + number)), "{message}");
        let entry = written(journal, &line);
        assert!(entry.lines().any(|line| line == format!("PRIORITY={number}")), "{entry}");
        let document: Value = serde_json::from_str(&written(converter("ecs"), &line)).expect("JSON");
        assert_eq!(document["log"]["level"], level, "{line}");
        let record: Value = serde_json::from_str(&written(converter("otlp"), &line)).expect("JSON");
        assert_eq!(record["severityNumber"], otlp, "{record}");
    }
}
