//! Tags of a call: names and values that its caller chose, such as a team or a feature.

use crate::text::is_control;

/// The most tags of a call.
pub const TAGS_MAX: usize = 16;
/// The longest name of a tag, in characters, all of them ASCII.
const NAME_CHARS_MAX: usize = 64;
/// The longest value of a tag, in characters.
const VALUE_CHARS_MAX: usize = 256;
/// Names that begin so are those of the server.
const SERVER_PREFIX: &str = "bursar.";
/// The name under which the server keeps the import that a record came with.
const IMPORT: &str = "import";

/// A tag cannot be kept. The text is the rest of a sentence about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    #[error(
        "must have a name of 1 to {NAME_CHARS_MAX} of the characters A-Z, a-z, 0-9, _, . and -"
    )]
    Name,
    #[error("must have another name, because the server uses this one")]
    ServerName,
    #[error("must have a value of 1 to {VALUE_CHARS_MAX} characters")]
    Value,
    #[error("must be one of at most {TAGS_MAX}")]
    TooMany,
    #[error("must be there once")]
    Twice,
}

/// The tags of a call, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags(Vec<(Box<str>, Box<str>)>);

impl Tags {
    /// Adds a tag of a client.
    ///
    /// # Errors
    /// [`TagError`]; the tags then stay as they were.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), TagError> {
        let of_names =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if !(1..=NAME_CHARS_MAX).contains(&name.len()) || !name.bytes().all(of_names) {
            return Err(TagError::Name);
        }
        if name == IMPORT || name.starts_with(SERVER_PREFIX) {
            return Err(TagError::ServerName);
        }
        let is_long = value.chars().nth(VALUE_CHARS_MAX).is_some();
        if value.is_empty() || is_long || value.chars().any(is_control) {
            return Err(TagError::Value);
        }
        let place = self.0.binary_search_by(|(known, _)| (**known).cmp(name));
        let Err(place) = place else { return Err(TagError::Twice) };
        if self.0.len() >= TAGS_MAX {
            return Err(TagError::TooMany);
        }
        self.0.insert(place, (name.into(), value.into()));
        Ok(())
    }

    /// The tags as they are stored, with those of the server.
    pub fn stored(mut pairs: Vec<(Box<str>, Box<str>)>) -> Self {
        pairs.sort_unstable();
        Self(pairs)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: &str, expected: Result<(), TagError>) {
        assert_eq!(Tags::default().add(name, value), expected, "{name}");
    }

    #[test]
    fn a_tag_has_a_plain_name_and_a_bounded_value() {
        check("team", "search & ads", Ok(()));
        check("A-z_0.9", "größe", Ok(()));
        check(&"x".repeat(64), &"ä".repeat(256), Ok(()));
        check(&"x".repeat(65), "a", Err(TagError::Name));
        check("", "a", Err(TagError::Name));
        check("größe", "a", Err(TagError::Name));
        check("a b", "a", Err(TagError::Name));
        check("team", "", Err(TagError::Value));
        check("team", &"ä".repeat(257), Err(TagError::Value));
        check("team", "a\nb", Err(TagError::Value));
        check("import", "a", Err(TagError::ServerName));
        check("bursar.import", "a", Err(TagError::ServerName));
        check("bursar", "a", Ok(()));
    }

    #[test]
    fn tags_are_written_as_json() {
        let mut tags = Tags::default();
        assert_eq!(tags.json(), None);
        for (name, value) in [("team", "a\"b\\c"), ("feature", "größe/1")] {
            tags.add(name, value).expect("a valid tag");
        }
        let json = r#"{"feature":"größe/1","team":"a\"b\\c"}"#;
        assert_eq!(tags.json().as_deref(), Some(json));
    }

    #[test]
    fn tags_are_bounded_ordered_and_there_once() {
        let mut tags = Tags::default();
        for number in (0..TAGS_MAX).rev() {
            tags.add(&format!("tag-{number:02}"), "a").expect("a valid tag");
        }
        assert_eq!(tags.add("one-more", "a"), Err(TagError::TooMany));
        assert_eq!(tags.add("tag-03", "b"), Err(TagError::Twice));
        assert!(tags.iter().is_sorted());
    }
}
