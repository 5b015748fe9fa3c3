//! The JSON Schemas of the lines, made of their types: docs/events.schema.json and docs/look.schema.json, which
//! `cargo xtask generate` writes.

use schemars::{
    JsonSchema, Schema,
    generate::SchemaSettings,
    transform::{Transform, transform_subschemas},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Explained, Found, Line, LookLine, SCHEMA};
use crate::model::bounds::{self, ListLimits};

/// What both schemas say about later versions.
const VERSIONS: &str = "It describes the records of this version of sockstate exactly. A later version may add keys and \
                        values; it removes no key and changes the meaning of none. A reader of records of several versions \
                        must therefore accept keys that it does not know.";

/// The schema of the stream's records.
#[must_use]
pub fn events_schema() -> String {
    let mut kinds = Kinds::of::<Line<'_>>(&bounds::STREAM);
    kinds.examined_or_not();
    // A stream has only TCP's sockets; those of MPTCP are in a look.
    kinds.definitions.remove("transport");
    let transport = &mut kinds.definition("network")["properties"]["transport"];
    *transport = json!({ "const": "tcp", "description": transport["description"] });
    kinds.text("sockstate/1: one record of the stream")
}

/// The schema of the lines of `sockstate stuck` and `sockstate sockets`.
#[must_use]
pub fn look_schema() -> String {
    let mut kinds = Kinds::of::<LookLine<'_>>(&bounds::LOOK);
    // A list of all sockets has no threshold.
    if let Some(keys) = kinds.definition("socket")["properties"].as_object_mut() {
        keys.remove("may_be_stuck");
    }
    kinds.text("sockstate/1: one line of sockstate stuck or sockstate sockets")
}

/// A schema, in the order in which it is written.
#[derive(Serialize)]
struct Root<'a> {
    #[serde(rename = "$schema")]
    dialect: Value,
    title: &'a str,
    description: String,
    r#type: &'a str,
    #[serde(rename = "oneOf")]
    one_of: Vec<Value>,
    #[serde(rename = "$defs")]
    definitions: Map<String, Value>,
}

/// The definitions of a schema, and which of them are the kinds of its lines.
struct Kinds {
    dialect: Value,
    names: Vec<String>,
    definitions: Map<String, Value>,
}

impl Kinds {
    /// The kinds of the line `T`. `limits` are those of the lists.
    fn of<T: JsonSchema>(limits: &ListLimits) -> Self {
        let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let mut root = generator.into_root_schema_for::<T>();
        Completed { limits }.transform(&mut root);
        snake_case(&mut root);
        let mut definitions = match root.remove("$defs") {
            Some(Value::Object(definitions)) => definitions,
            _ => Map::new(),
        };
        // "anyOf" if one of the variants has no tag.
        let variants = root.remove("oneOf").or_else(|| root.remove("anyOf")).unwrap_or_default();
        let variants = variants.as_array().into_iter().flatten();
        let names = variants.filter_map(|variant| named(variant, &mut definitions)).collect();
        Self { dialect: root.remove("$schema").unwrap_or_default(), names, definitions }
    }

    fn definition(&mut self, name: &str) -> &mut Value {
        self.definitions.entry(name).or_insert_with(|| json!({}))
    }

    /// A `stuck` record has all keys of an examination that every examined socket has, or none of them.
    fn examined_or_not(&mut self) {
        let found = required::<Found<'_>>().into_iter().chain(required::<Explained<'_>>());
        let together: Vec<Value> = found.collect();
        let stuck = self.definition("stuck");
        if let Some(required) = stuck["required"].as_array_mut() {
            required.retain(|key| !together.contains(key));
        }
        stuck["dependentRequired"] = json!({ "holders": together, "reason": together });
        // A listener has no bytes.
        stuck["if"] =
            json!({ "required": ["holders"], "properties": { "state": { "not": { "const": "LISTEN" } } } });
        stuck["then"] = json!({ "required": ["unread_bytes", "unsent_bytes"] });
    }

    fn text(self, title: &str) -> String {
        let root = Root {
            dialect: self.dialect,
            title,
            description: format!("The schema is generated from the types of sockstate. {VERSIONS}"),
            r#type: "object",
            one_of: self.names.iter().map(|name| json!({ "$ref": format!("#/$defs/{name}") })).collect(),
            definitions: self.definitions,
        };
        let mut text = serde_json::to_string_pretty(&root).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The keys that every value of the type has.
fn required<T: JsonSchema>() -> Vec<Value> {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let required = generator.into_root_schema_for::<T>().remove("required");
    required.and_then(|required| required.as_array().cloned()).unwrap_or_default()
}

/// Adds the keys `schema` and `kind`, which the types of the lines do not have, to the definition of a variant, and
/// gives the definition the name of the kind.
fn named(variant: &Value, definitions: &mut Map<String, Value>) -> Option<String> {
    let kind = variant["properties"]["kind"]["const"].as_str()?;
    let mut definition = definitions.remove(variant["$ref"].as_str()?.rsplit('/').next()?)?;
    definition["properties"]["schema"] =
        json!({ "const": SCHEMA, "description": "The format of the record." });
    definition["properties"]["kind"] = json!({ "const": kind, "description": "The kind of the record." });
    if let Some(required) = definition["required"].as_array_mut() {
        required.splice(0..0, ["schema".into(), "kind".into()]);
    }
    definitions.insert(kind.to_owned(), definition);
    Some(kind.to_owned())
}

/// Writes the names of the definitions as the keys of records are written.
fn snake_case(schema: &mut Schema) {
    let name = |name: &str| {
        let mut snake = String::new();
        for c in name.chars() {
            if c.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(c.to_lowercase());
        }
        snake
    };
    schemars::transform::RecursiveTransform(|schema: &mut Schema| {
        if let Some(Value::String(reference)) = schema.get_mut("$ref")
            && let Some((place, last)) = reference.rsplit_once('/')
        {
            *reference = format!("{place}/{}", name(last));
        }
    })
    .transform(schema);
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        let named = std::mem::take(definitions).into_iter();
        definitions.extend(named.map(|(known, definition)| (name(&known), definition)));
    }
}

/// Adds what holds for all lines, and what the types do not say.
struct Completed<'a> {
    limits: &'a ListLimits,
}

impl Transform for Completed<'_> {
    fn transform(&mut self, schema: &mut Schema) {
        // A default is what a reader assumes, and the size of an integer is what it keeps.
        schema.remove("default");
        schema.remove("format");
        if let Some(Value::String(description)) = schema.get_mut("description") {
            *description = description.replace('\n', " ");
        }
        if let Some(Value::String(list)) = schema.get("maxItems") {
            let limit = match list.as_str() {
                "holders" => self.limits.holders,
                "listeners" => self.limits.listeners,
                "listening" => self.limits.listening,
                _ => self.limits.messages,
            };
            schema.insert("maxItems".into(), limit.items.into());
        }
        let required = schema.get("required").cloned().unwrap_or_default();
        let is_required =
            |key: &str| required.as_array().is_some_and(|keys| keys.iter().any(|known| known == key));
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            for (_, property) in properties.iter_mut().filter(|(key, _)| !is_required(key)) {
                if let Some(property) = property.as_object_mut() {
                    absent(property);
                }
            }
            schema.insert("additionalProperties".into(), false.into());
        }
        transform_subschemas(self, schema);
    }
}

/// The schema of a key that is absent instead of null, false or empty.
fn absent(property: &mut Map<String, Value>) {
    if property.remove("x-or-null").is_some() {
        return;
    }
    let is_null = |value: &Value| value.is_null() || *value == "null" || value["type"] == "null";
    for key in ["type", "enum", "anyOf"] {
        if let Some(Value::Array(values)) = property.get_mut(key) {
            values.retain(|value| !is_null(value));
            if let ([value], "type" | "anyOf") = (&values[..], key) {
                let value = value.clone();
                property.remove(key);
                match value {
                    Value::Object(only) => property.extend(only),
                    only => _ = property.insert(key.into(), only),
                }
            }
        }
    }
    match property.get("type").and_then(Value::as_str) {
        Some("boolean") => {
            property.remove("type");
            property.insert("const".into(), true.into());
        }
        Some("array") => _ = property.insert("minItems".into(), 1.into()),
        _ => {}
    }
}
