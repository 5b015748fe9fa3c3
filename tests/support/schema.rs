//! The JSON Schema of the stream, docs/events.schema.json.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(include_str!("../../docs/events.schema.json")).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
});

/// Fails where a record is not as the schema says.
pub(crate) fn check(record: &Value) {
    let errors: Vec<String> = SCHEMA.iter_errors(record).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {record}");
}
