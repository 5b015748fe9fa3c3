//! The JSON Schemas of the stream (docs/events.schema.json) and of a look (docs/look.schema.json).

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static STREAM: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../../../docs/events.schema.json")));
static LOOK: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../../../docs/look.schema.json")));

fn validator(schema: &str) -> Validator {
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
}

/// Whether a record of a stream matches the schema.
pub fn is_valid(record: &Value) -> bool {
    STREAM.is_valid(record)
}

/// Whether a line of a look matches the schema.
pub fn is_valid_look(line: &Value) -> bool {
    LOOK.is_valid(line)
}

/// Fails if a record does not match its schema. Records of a stream have a number; records of a look have none.
pub fn check(record: &Value) {
    let schema = if record["seq"].is_null() { &LOOK } else { &STREAM };
    let errors: Vec<String> = schema.iter_errors(record).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {record}");
}
