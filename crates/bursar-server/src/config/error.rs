//! Errors in a configuration, as sentences for the operator.

use std::io;
use std::path::PathBuf;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is not TOML.
    #[error("{place} is not valid TOML: {message}")]
    Invalid {
        /// The file and the line.
        place: String,
        /// What the parser said.
        message: String,
    },
    /// The file or the environment has an unknown name.
    #[error("{name} is not a setting{hint} (`bursar config example` prints all settings)")]
    Unknown {
        /// The name: a key with its file and line, or a variable.
        name: String,
        /// A suggestion, as a part of the sentence.
        hint: String,
    },
    /// A setting has an invalid value.
    #[error("{name}{problem}")]
    Wrong {
        /// The key with its file and line, or the variable.
        name: String,
        /// The rest of the sentence.
        problem: String,
    },
}

/// Turns a message of serde into the rest of a sentence that begins with the name of a setting.
///
/// `path` leads into the value. A message that begins with a dot continues the path.
pub(super) fn rest_of_sentence(path: &str, said: &str, is_secret: bool) -> String {
    let pair = |kind: &str| said.strip_prefix(kind)?.rsplit_once(", expected ");
    let wrong = pair("invalid type: ").or(pair("invalid value: ")).or(pair("unknown variant "));
    let said = if let Some((found, expected)) = wrong {
        let expected = in_words(expected);
        match is_secret {
            true => format!("must be {expected}"),
            false => format!("is {}; it must be {expected}", in_words(found)),
        }
    } else if let Some((key, known)) = pair("unknown field ") {
        let known = known.trim_start_matches("one of ");
        match path.ends_with(&format!(".{}", key.trim_matches('`'))) {
            true => format!("is not a known key; the known keys are {known}"),
            false => format!("has the unknown key {key}; the known keys are {known}"),
        }
    } else if let Some(key) = said.strip_prefix("missing field ") {
        format!("lacks the key {key}")
    } else {
        said.to_owned()
    };
    let path = if path == "." { "" } else { path };
    let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
    let space = if said.starts_with(['.', '[']) { "" } else { " " };
    format!("{dot}{path}{space}{said}")
}

/// A value or a type in the terms of TOML.
fn in_words(said: &str) -> &str {
    const KINDS: [&str; 4] = ["string ", "integer ", "boolean ", "floating point "];
    match said {
        "sequence" | "a sequence" => "a list",
        "map" | "a map" => "a table",
        _ => KINDS.iter().find_map(|kind| said.strip_prefix(kind)).unwrap_or(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, said: &str, expected: &str) {
        assert_eq!(rest_of_sentence(path, said, false), expected);
    }

    #[test]
    fn what_serde_says_becomes_a_sentence() {
        let said = "invalid value: integer `601`, expected a whole number from 1 to 600";
        check(".", said, " is `601`; it must be a whole number from 1 to 600");
        check(".", "invalid type: map, expected a sequence", " is a table; it must be a list");
        check("[1]", "missing field `audience`", "[1] lacks the key `audience`");
        let said = "unknown field `isuer`, expected one of `issuer`, `audience`";
        let known = "the known keys are `issuer`, `audience`";
        check("[0]", said, &format!("[0] has the unknown key `isuer`; {known}"));
        check("[0].isuer", said, &format!("[0].isuer is not a known key; {known}"));
        check("[0]", ".tenant must be an id", "[0].tenant must be an id");
        check("a.b", "must not be empty", ".a.b must not be empty");
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let said = "invalid type: integer `12345`, expected a string";
        assert_eq!(rest_of_sentence(".", said, true), " must be a string");
    }
}
