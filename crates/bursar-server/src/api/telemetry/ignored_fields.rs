//! The names of the fields, tags and units of a record that the server ignores.

use crate::credentials::raw_key;
use crate::wire::label::clean_label;

/// The most names that are kept.
const NAMES_MAX: usize = 20;
/// The longest name that is shown whole.
const NAME_CHARS_MAX: usize = 64;

/// The names of fields, tags and units of a record that the server does not know or cannot keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoredFields(Vec<String>);

impl IgnoredFields {
    pub(super) fn add(&mut self, name: &str) {
        if self.0.len() == NAMES_MAX {
            return;
        }
        // A key can stand in the place of a name by mistake.
        let shown = match raw_key::contains_key(name) {
            true => raw_key::REDACTED.to_owned(),
            false => clean_label(name).chars().take(NAME_CHARS_MAX).collect(),
        };
        if !self.0.contains(&shown) {
            self.0.push(shown);
        }
    }

    /// The bytes of all names.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }

    /// Up to 20 names, each cut after 64 characters.
    pub fn into_names(self) -> Vec<String> {
        self.0
    }
}
