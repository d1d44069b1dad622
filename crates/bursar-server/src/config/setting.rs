//! The declaration of a setting, and the trait of its type.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Value;
use toml::de::ValueDeserializer;

/// The prefix of all environment variables.
pub(crate) const PREFIX: &str = "BURSAR_";

/// A setting, which [`section!`](super::section) creates from its declaration.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in the file, with its section.
    pub key: &'static str,
    /// The default as TOML.
    pub(crate) default: &'static str,
    /// Its documentation.
    pub(crate) about: &'static str,
    /// Whether messages must not quote a value.
    pub(crate) is_secret: bool,
    /// The smallest and the largest number, if the type limits them.
    pub(crate) bounds: Option<(i64, i64)>,
    /// The part of a value that may be shown.
    pub(crate) shown: fn(&str) -> String,
}

/// The type of a setting's value.
///
/// It is deserialized from a value of the file or from a text of the environment
/// ([`SettingText`](super::setting_text::SettingText)). Its errors are the rest of a sentence that
/// begins with the key: "must be human or json".
pub(crate) trait SettingValue: DeserializeOwned {
    /// Whether messages must not quote a value.
    const IS_SECRET: bool = false;
    /// The smallest and the largest number, if the type limits them.
    const BOUNDS: Option<(i64, i64)> = None;

    /// The part of a value that may be shown.
    fn shown(text: &str) -> String {
        if Self::IS_SECRET { "(set)".to_owned() } else { text.to_owned() }
    }
}

impl SettingValue for bool {}
impl SettingValue for String {}
impl SettingValue for PathBuf {}

/// An empty text is `None`.
impl<T: SettingValue> SettingValue for Option<T> {
    const IS_SECRET: bool = T::IS_SECRET;
    const BOUNDS: Option<(i64, i64)> = T::BOUNDS;

    fn shown(text: &str) -> String {
        T::shown(text)
    }
}

/// A list in the file. In the environment, texts separated by commas, or JSON.
impl<T: SettingValue> SettingValue for Vec<T> {
    const IS_SECRET: bool = T::IS_SECRET;
}

impl Setting {
    /// The environment variable.
    pub fn env(&self) -> String {
        env_name(self.key)
    }

    /// The section, which may be empty, and the name in it.
    pub(crate) fn section_and_name(&self) -> (&'static str, &'static str) {
        self.key.rsplit_once('.').unwrap_or(("", self.key))
    }

    /// The documentation with the bounds.
    pub(crate) fn help(&self) -> String {
        let about = self.about.trim();
        match self.bounds {
            Some((min, max)) => format!("{about} Range: {min} to {max}."),
            None => about.to_owned(),
        }
    }

    /// The default as a TOML value.
    pub(crate) fn default_value(&self) -> Value {
        let value = ValueDeserializer::parse(self.default).and_then(Value::deserialize);
        // A test reads every default.
        value.unwrap_or_else(|_| Value::from(self.default))
    }

    /// The default as a text for the environment.
    pub fn default_text(&self) -> String {
        text_of(&self.default_value())
    }
}

/// The environment variable of a key.
pub(crate) fn env_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// A value as a text for the environment. Lists of tables become JSON.
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
