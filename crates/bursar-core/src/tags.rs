//! Tags of a call: names and values that its caller chose, such as a team or a feature.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::is_control;
use crate::usage_error::UsageError;

/// The most tags of a call.
const TAGS_MAX: usize = 16;
/// The longest name of a tag, in characters, all of them ASCII.
const NAME_CHARS_MAX: usize = 64;
/// The longest value of a tag, in characters.
const VALUE_CHARS_MAX: usize = 256;
/// The prefix of names that are reserved for the server.
const SERVER_PREFIX: &str = "bursar.";
/// A name that is reserved for the server.
const IMPORT: &str = "import";
/// The most tag names of a tenant whose usage is added up.
const NAMES_MAX: usize = 20;

fn is_name(name: &str) -> bool {
    let of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(of_names)
}

/// Whether a tag is one of the server's, which clients cannot set and which is never added up.
fn is_reserved(name: &str) -> bool {
    name == IMPORT || name.starts_with(SERVER_PREFIX)
}

/// The tags of a call, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags(Vec<(Box<str>, Box<str>)>);

impl Tags {
    /// Adds a tag of a client. Returns whether it is kept.
    ///
    /// A tag is kept if its name and value are valid, the name is not there yet and not reserved for
    /// the server, and there are fewer than 16 tags.
    pub fn add(&mut self, name: &str, value: &str) -> bool {
        let is_kept_name = is_name(name) && !is_reserved(name);
        let is_long = value.chars().nth(VALUE_CHARS_MAX).is_some();
        let is_value = !value.is_empty() && !is_long && !value.chars().any(is_control);
        let place = self.0.binary_search_by(|(known, _)| (**known).cmp(name));
        match place {
            Err(place) if is_kept_name && is_value && self.0.len() < TAGS_MAX => {
                self.0.insert(place, (name.into(), value.into()));
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Tags from storage, which are not checked again.
    pub fn stored(pairs: BTreeMap<Box<str>, Box<str>>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// The value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.0.get(place).map(|(_, value)| &**value)
    }

    /// Names and values, ordered by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// A JSON object of the tags; `None` if there are none.
    pub fn json(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let pair = |(name, value): &(Box<str>, Box<str>)| {
            // Neither has control characters, so nothing else needs an escape.
            format!("\"{name}\":\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let pairs: Vec<String> = self.0.iter().map(pair).collect();
        Some(format!("{{{}}}", pairs.join(",")))
    }

    /// The length of [`Tags::json`] in bytes; 0 if there are none.
    pub fn json_bytes(&self) -> usize {
        let escapes =
            |value: &str| value.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        // Four quotes and a colon, and a comma or the closing brace. Then the opening one.
        let pair =
            |(name, value): &(Box<str>, Box<str>)| name.len() + value.len() + escapes(value) + 6;
        let pairs: usize = self.0.iter().map(pair).sum();
        if pairs == 0 { 0 } else { pairs + 1 }
    }
}

/// The tag names of a tenant whose usage is added up by value: up to 20, none of the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagNames(BTreeSet<Box<str>>);

impl TagNames {
    /// Checks a list of names; a repeated name counts once.
    ///
    /// # Errors
    /// [`UsageError`] if a name is invalid or reserved for the server, or if there are too many.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, UsageError> {
        let mut known = BTreeSet::new();
        for name in names {
            if !is_name(name) {
                let problem = "must have 1 to 64 of the characters a-z, A-Z, 0-9, _, . and -";
                return Err(UsageError::new("names", problem));
            }
            if is_reserved(name) {
                let problem = "must not have \"import\" or a name that begins with \"bursar.\"";
                return Err(UsageError::new("names", problem));
            }
            known.insert(name.into());
        }
        if known.len() > NAMES_MAX {
            return Err(UsageError::new("names", format!("must have at most {NAMES_MAX} names")));
        }
        Ok(Self(known))
    }

    /// Names from storage, which are not checked again.
    pub fn stored(names: BTreeSet<Box<str>>) -> Self {
        Self(names)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The names in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: &str, is_kept: bool) {
        assert_eq!(Tags::default().add(name, value), is_kept, "{name}");
    }

    #[test]
    fn a_tag_has_a_plain_name_and_a_bounded_value() {
        check("team", "search & ads", true);
        check("A-z_0.9", "größe", true);
        check(&"x".repeat(64), &"ä".repeat(256), true);
        check(&"x".repeat(65), "a", false);
        check("", "a", false);
        check("größe", "a", false);
        check("a b", "a", false);
        check("team", "", false);
        check("team", &"ä".repeat(257), false);
        check("team", "a\nb", false);
        check("import", "a", false);
        check("bursar.import", "a", false);
        check("bursar", "a", true);
    }

    #[test]
    fn tags_are_written_as_json() {
        let mut tags = Tags::default();
        assert_eq!(tags.json(), None);
        for (name, value) in [("team", "a\"b\\c"), ("feature", "größe/1")] {
            assert!(tags.add(name, value));
        }
        assert!(!tags.add("team", "other"), "a name occurs once");
        let json = r#"{"feature":"größe/1","team":"a\"b\\c"}"#;
        assert_eq!(tags.json().as_deref(), Some(json));
        assert_eq!((Tags::default().json_bytes(), tags.json_bytes()), (0, json.len()));
    }

    #[test]
    fn tags_are_bounded_and_ordered() {
        let mut tags = Tags::default();
        for number in (0..TAGS_MAX).rev() {
            assert!(tags.add(&format!("tag-{number:02}"), "a"));
        }
        assert!(!tags.add("one-more", "a"));
        assert_eq!(tags.iter().len(), TAGS_MAX);
        assert!(tags.iter().is_sorted());
    }

    #[track_caller]
    fn check_names(names: &[&str], is_valid: bool) {
        assert_eq!(TagNames::new(names.iter().copied()).is_ok(), is_valid, "{names:?}");
    }

    #[test]
    fn listed_names_are_valid_and_bounded_and_not_of_the_server() {
        check_names(&[], true);
        check_names(&["team", "feature", "team"], true);
        check_names(&["a b"], false);
        check_names(&[""], false);
        check_names(&["import"], false);
        check_names(&["bursar.trace"], false);
        let many: Vec<String> = (0..=NAMES_MAX).map(|number| format!("tag-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check_names(&many, false);
        check_names(&many[1..], true);
    }
}
