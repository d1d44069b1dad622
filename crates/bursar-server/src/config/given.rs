//! The values in the file and the environment, before they are parsed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use zeroize::Zeroizing;

use super::environment::must_be_a_setting;
use super::error::{ConfigError, rest_of_sentence};
use super::setting::{Setting, SettingValue, env_name, text_of};
use super::setting_text::SettingText;

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    /// The configuration file.
    File {
        line: usize,
    },
    Environment,
}

/// The texts of the file and the environment. They may contain secrets, so they are wiped on drop.
pub(crate) struct Sources<'p> {
    file: Option<(&'p Path, Zeroizing<String>)>,
    environment: Vec<(String, Zeroizing<String>)>,
}

impl<'p> Sources<'p> {
    /// Reads the file, if any, and the variables of the environment that must be settings.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`].
    pub(crate) fn read(
        file: Option<&'p Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let read = |path: &'p Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok((path, Zeroizing::new(text))),
            Err(cause) => Err(ConfigError::Unreadable { path: path.to_owned(), cause }),
        };
        let meant = environment.filter(|(name, value)| must_be_a_setting(name, value));
        Ok(Self {
            file: file.map(read).transpose()?,
            environment: meant.map(|(name, value)| (name, Zeroizing::new(value))).collect(),
        })
    }
}

/// The given value of each setting. The environment takes precedence over the file.
pub(crate) struct Given<'s> {
    file: Option<(&'s Path, &'s str)>,
    values: BTreeMap<&'static str, (Value<'s>, Origin)>,
}

enum Value<'s> {
    Text(&'s str),
    Toml(Spanned<DeValue<'s>>),
}

/// Why a value cannot be parsed.
struct ParseFailure {
    /// The path within the value.
    path: String,
    /// The message of serde.
    said: String,
    /// The byte offset in the file.
    at: Option<usize>,
}

impl<'s> Given<'s> {
    /// Assigns the values of the sources to the settings.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], or [`ConfigError::Unknown`] for an unknown name.
    pub(crate) fn assign(
        sources: &'s Sources<'_>,
        settings: &[Setting],
    ) -> Result<Self, ConfigError> {
        let file = sources.file.as_ref().map(|(path, text)| (*path, text.as_str()));
        let mut given = Self { file, values: BTreeMap::new() };
        if let Some((_, text)) = file {
            let table = DeTable::parse(text).map_err(|error| {
                let line = given.line(error.span().map_or(0, |span| span.start));
                let message = error.message().to_owned();
                ConfigError::Invalid { place: given.place(line), message }
            })?;
            given.take_table("", table.into_inner(), settings)?;
        }
        for (name, value) in &sources.environment {
            let Some(setting) = settings.iter().find(|setting| setting.env() == *name) else {
                let known = settings.iter().map(Setting::env).collect::<Vec<_>>();
                return Err(unknown(name.clone(), name, &known));
            };
            given.values.insert(setting.key, (Value::Text(value), Origin::Environment));
        }
        Ok(given)
    }

    /// Takes the settings from a table of the file. Their keys begin with `prefix`.
    fn take_table(
        &mut self,
        prefix: &str,
        table: DeTable<'s>,
        settings: &[Setting],
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let line = self.line(name.span().start);
            let of_section = format!("{key}.");
            let is_section = settings.iter().any(|setting| setting.key.starts_with(&of_section));
            let setting = settings.iter().find(|setting| setting.key == key);
            match (setting, value.get_ref()) {
                (Some(setting), _) => {
                    let value = (Value::Toml(value), Origin::File { line });
                    self.values.insert(setting.key, value);
                }
                (None, DeValue::Table(inner)) if is_section => {
                    self.take_table(&of_section, inner.clone(), settings)?;
                }
                (None, _) => {
                    let name = format!("{}: {key}", self.place(line));
                    return Err(unknown(name, &key, &keys_and_sections(settings)));
                }
            }
        }
        Ok(())
    }

    /// The value of a setting, or its default.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub(crate) fn read<T: SettingValue>(&self, setting: &Setting) -> Result<T, ConfigError> {
        let read = match self.values.get(setting.key) {
            None => read_default(setting),
            Some((Value::Text(text), _)) => read_text(text),
            Some((Value::Toml(value), _)) => read_toml(value.clone()),
        };
        read.map_err(|ParseFailure { path, said, at }| {
            let line = at.map(|at| self.line(at));
            let problem = rest_of_sentence(&path, &said, setting.is_secret);
            ConfigError::Wrong { name: self.name(setting.key, line), problem }
        })
    }

    /// An error about a setting, with the place of its value.
    pub(crate) fn wrong(&self, key: &str, problem: &str) -> ConfigError {
        ConfigError::Wrong { name: self.name(key, None), problem: format!(" {problem}") }
    }

    /// Where a setting's value comes from.
    pub(crate) fn origin(&self, setting: &Setting) -> Origin {
        self.values.get(setting.key).map_or(Origin::Default, |(_, origin)| *origin)
    }

    /// The value of a setting as a text.
    pub(crate) fn text(&self, setting: &Setting) -> String {
        match self.values.get(setting.key) {
            None => setting.default_text(),
            Some((Value::Text(text), _)) => (*text).to_owned(),
            Some((Value::Toml(value), _)) => {
                let value = toml::Value::deserialize(ValueDeserializer::from(value.clone()));
                value.as_ref().map(text_of).unwrap_or_default()
            }
        }
    }

    /// The name of a setting in an error: its variable, or its key with the file and line.
    fn name(&self, key: &str, line: Option<usize>) -> String {
        match self.values.get(key) {
            Some((_, Origin::Environment)) => env_name(key),
            Some((_, Origin::File { line: of_key })) => {
                format!("{}: {key}", self.place(line.unwrap_or(*of_key)))
            }
            Some((_, Origin::Default)) | None => key.to_owned(),
        }
    }

    /// The file and a line of it.
    fn place(&self, line: usize) -> String {
        self.file.map_or_else(String::new, |(path, _)| format!("{}:{line}", path.display()))
    }

    /// The line of a byte of the file.
    fn line(&self, at: usize) -> usize {
        let text = self.file.map_or("", |(_, text)| text);
        1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }
}

fn read_default<T: SettingValue>(setting: &Setting) -> Result<T, ParseFailure> {
    let value = DeValue::parse(setting.default).map_err(|error| ParseFailure {
        path: String::new(),
        said: error.message().to_owned(),
        at: None,
    })?;
    read_toml(value)
}

/// Parses a value of the file. Strings are parsed like texts of the environment.
fn read_toml<T: SettingValue>(value: Spanned<DeValue<'_>>) -> Result<T, ParseFailure> {
    if let DeValue::String(text) = value.get_ref() {
        return read_text(text);
    }
    let read = serde_path_to_error::deserialize(ValueDeserializer::from(value));
    read.map_err(|error| ParseFailure {
        path: error.path().to_string(),
        said: error.inner().message().to_owned(),
        at: error.inner().span().map(|span| span.start),
    })
}

fn read_text<T: SettingValue>(text: &str) -> Result<T, ParseFailure> {
    serde_path_to_error::deserialize(SettingText(text)).map_err(|error| ParseFailure {
        path: error.path().to_string(),
        said: error.inner().to_string(),
        at: None,
    })
}

fn keys_and_sections(settings: &[Setting]) -> Vec<String> {
    let keys = settings.iter().map(|setting| setting.key);
    let sections = settings.iter().map(|setting| setting.section_and_name().0);
    keys.chain(sections).map(str::to_owned).collect()
}

/// The error for an unknown name, which suggests the most similar known name.
fn unknown(name: String, written: &str, known: &[String]) -> ConfigError {
    let distance = |known: &String| strsim::osa_distance(written, known);
    let nearest = known.iter().min_by_key(|known| distance(known));
    let nearest = nearest.filter(|known| distance(known) * 3 <= written.len());
    let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
    ConfigError::Unknown { name, hint }
}
