//! What is declared of one setting, and what its type tells about its values.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Value;
use toml::de::ValueDeserializer;

/// How the names of all settings begin in the environment.
pub(crate) const PREFIX: &str = "BURSAR_";

/// One setting, as [`section!`](super::section) makes it of its declaration.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in the file, with its section.
    pub key: &'static str,
    /// The default as TOML.
    pub(crate) default: &'static str,
    /// The lines of its documentation, joined.
    pub(crate) about: &'static str,
    /// Whether messages must not repeat a value.
    pub(crate) is_secret: bool,
    /// The smallest and the largest number, where a type narrows them.
    pub(crate) bounds: Option<(i64, i64)>,
    /// What may be shown of a value.
    pub(crate) shown: fn(&str) -> String,
}

/// The type of a setting's value.
///
/// It reads what the file says, and the text that the environment gives
/// ([`SettingText`](super::setting_text::SettingText)). Its errors are the rest of a sentence that
/// begins with the key: "must be human or json".
pub(crate) trait SettingValue: DeserializeOwned {
    /// Whether messages must not repeat a value.
    const IS_SECRET: bool = false;
    /// The smallest and the largest number, where the type narrows them.
    const BOUNDS: Option<(i64, i64)> = None;

    /// What may be shown of a value.
    fn shown(text: &str) -> String {
        if Self::IS_SECRET { "(set)".to_owned() } else { text.to_owned() }
    }
}

impl SettingValue for bool {}
impl SettingValue for String {}
impl SettingValue for PathBuf {}

/// Empty is nothing.
impl<T: SettingValue> SettingValue for Option<T> {
    const IS_SECRET: bool = T::IS_SECRET;
    const BOUNDS: Option<(i64, i64)> = T::BOUNDS;

    fn shown(text: &str) -> String {
        T::shown(text)
    }
}

/// A list in the file; in the environment texts with commas between them, or JSON.
impl<T: SettingValue> SettingValue for Vec<T> {
    const IS_SECRET: bool = T::IS_SECRET;
}

impl Setting {
    /// The name in the environment.
    pub fn env(&self) -> String {
        env_name(self.key)
    }

    /// The section, empty for settings outside of sections, and the name in it.
    pub(crate) fn section_and_name(&self) -> (&'static str, &'static str) {
        self.key.rsplit_once('.').unwrap_or(("", self.key))
    }

    /// What the setting does, its bounds included.
    pub(crate) fn help(&self) -> String {
        let about = self.about.trim();
        match self.bounds {
            Some((min, max)) => format!("{about} Range: {min} to {max}."),
            None => about.to_owned(),
        }
    }

    /// The default as a value of the file.
    pub(crate) fn default_value(&self) -> Value {
        let value = ValueDeserializer::parse(self.default).and_then(Value::deserialize);
        // A test reads every default.
        value.unwrap_or_else(|_| Value::from(self.default))
    }

    /// The default as a text of the environment.
    pub fn default_text(&self) -> String {
        text_of(&self.default_value())
    }
}

/// The name of a key in the environment.
pub(crate) fn env_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// A value as the environment would give it. Lists of tables become JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_str) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            texts.join(",")
        }
        Value::Array(_) | Value::Table(_) => serde_json::to_string(value).unwrap_or_default(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            value.to_string()
        }
    }
}
