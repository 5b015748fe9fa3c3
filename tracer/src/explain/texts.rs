//! The texts of all languages.

use std::collections::BTreeMap;

use toml::Value;

/// A language is one file.
const LANGUAGES: [(&str, &str); 2] =
    [("en", include_str!("../../texts/en.toml")), ("uk", include_str!("../../texts/uk.toml"))];

/// The texts of one language, by key, with dots between the parts.
#[derive(Debug)]
pub struct Texts(BTreeMap<String, String>);

impl Texts {
    /// The codes of the languages.
    pub const CODES: [&str; LANGUAGES.len()] = [LANGUAGES[0].0, LANGUAGES[1].0];

    /// The texts of the language with this code, in any case, or English.
    #[must_use]
    pub fn of(code: &str) -> Self {
        let is_meant = |(known, _): &&(&str, _)| known.eq_ignore_ascii_case(code);
        let (_, text) = LANGUAGES.iter().find(is_meant).unwrap_or(&LANGUAGES[0]);
        let mut all = BTreeMap::new();
        // The files are valid TOML: a test parses them.
        if let Ok(table) = text.parse::<toml::Table>() {
            flatten("", &Value::Table(table), &mut all);
        }
        Self(all)
    }

    /// The language of the user's locale, as `setlocale` looks for it.
    #[must_use]
    pub fn of_locale() -> Self {
        let variables = ["LC_ALL", "LC_MESSAGES", "LANG"];
        let locale = variables
            .iter()
            .find_map(|variable| std::env::var(variable).ok().filter(|value| !value.is_empty()));
        Self::of(locale.unwrap_or_default().split(['_', '.', '@']).next().unwrap_or_default())
    }

    /// The text of `key`; the key itself if there is no text.
    #[must_use]
    pub fn get<'a>(&'a self, key: &'a str) -> &'a str {
        self.find(key).unwrap_or(key)
    }

    /// The text of a key that not every state has.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The text of `key`, with names in braces replaced by values.
    #[must_use]
    pub fn with(&self, key: &str, words: &[(&str, &str)]) -> String {
        words
            .iter()
            .fold(self.get(key).to_owned(), |text, (name, word)| text.replace(&format!("{{{name}}}"), word))
    }
}

fn flatten(prefix: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, all);
            }
        }
        Value::String(text) => {
            all.insert(prefix.to_owned(), text.clone());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        explain::ends_directly,
        knowledge::{EDGES, EndEvent, STATES, Segment, WALKS},
        model::StateSet,
    };

    /// Everything that the knowledge asks for.
    fn wanted() -> Vec<String> {
        let mut keys: Vec<String> =
            EDGES.iter().map(|edge| format!("edges.{} {}", edge.from.name(), edge.to.name())).collect();
        for facts in &STATES {
            let parts = ["short", "means", "side", "turn", "fault"];
            keys.extend(parts.map(|part| format!("states.{}.{part}", facts.state.name())));
            keys.extend(facts.settings.iter().map(|setting| format!("timers.{}", setting.text)));
            if ends_directly(facts.state) {
                keys.push(format!("ends.{}", facts.state.name()));
            }
        }
        for walk in WALKS {
            keys.push(format!("walks.titles.{}", walk.name));
            keys.extend(walk.ends.map(|end| format!("walks.{end}")));
            for (left, way, right) in walk.moments {
                for at in [left, right] {
                    if let EndEvent::Note(key) = at {
                        keys.push(format!("walks.{key}"));
                    }
                }
                if *way == Segment::Both("data") {
                    keys.push("walks.data".into());
                }
            }
        }
        keys.extend(StateSet::GROUPS.map(|group| format!("groups.{group}")));
        keys
    }

    /// The names in braces, which `with` replaces.
    fn names(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect()
    }

    #[test]
    fn every_language_says_everything() {
        let english = Texts::of("en");
        for key in wanted() {
            assert!(english.0.contains_key(&key), "{key}");
        }
        for code in Texts::CODES {
            let texts = Texts::of(code);
            assert!(texts.0.keys().eq(english.0.keys()), "{code} has other keys");
            for (key, text) in &texts.0 {
                assert!(!text.trim().is_empty(), "{code}: {key}");
                assert_eq!(names(text), names(english.get(key)), "{code}: {key}");
                // Which of the lines of `turns` is meant, and no text for people.
                if key.ends_with(".by") {
                    assert_eq!(text, english.get(key), "{code}: {key}");
                }
            }
        }
    }
}
