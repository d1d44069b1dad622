//! The scanner for raw keys.

use bursar_server::credentials::raw_key::{contains_key, find_key, find_secret, redact};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use serde_json::json;

/// A key of each format.
pub(crate) const KEYS: &[&str] = &[
    "sk-abcdefghijklmnopqrst",
    "sk-proj-a-b_c-abcdefghijklmnop",
    "xai-0123456789abcdef0",
    "gsk_abcdefghijklmnopqrstuvwxyz",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "ABSKabcdefghijklmnopqrstuvwxyzabcdefghijklmn",
    "AKIAABCDEFGHIJKLMNOP",
    "hf_abcdefghijklmnopqrstuvwxyzabcdefgh",
    "bur_operator_0123456789abcdef0123456789abcdef",
    concat!(
        "00660b79-1e72-8c3a-87e1-65583f7b7206_",
        "0123456789abcdef0123456789abcdef0123456789abcdef01234567",
    ),
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
];
const PARTS: &[&str] = &[
    "",
    "sk-",
    "-sk-",
    "eyJ",
    ".",
    "...",
    "_",
    "-",
    " ",
    "AKIA",
    "AIza",
    "ABSK",
    "hvs.",
    "bur_",
    "abcdefghijklmnopqrst",
    "0123456789",
    "\u{e4}",
    "\n",
    "Bearer ",
    "key=",
    "[redacted]",
    "api_key",
    "-----BEGIN PRIVATE KEY-----",
];

fn any_text(choices: &mut Choices<'_>) -> String {
    let parts = 1 + choices.below(8);
    let parts = (0..parts).map(|_| match choices.below(4) {
        0 => choices.one_of(KEYS),
        _ => choices.one_of(PARTS),
    });
    let text: String = parts.collect();
    if choices.one_in(3) { choices.mutated(&text, PARTS) } else { text }
}

#[test]
fn redaction_removes_every_key_and_nothing_else() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let text = any_text(choices);
        let clean = redact(&text);
        assert_eq!(clean.is_some(), contains_key(&text), "{text}");
        assert_eq!(find_key(&json!({ "a": [text] })).is_some(), contains_key(&text), "{text}");
        assert!(!contains_key(&text) || find_secret(&json!([text])).is_some(), "{text}");
        let Some(clean) = clean else { return Outcome::Refused };
        assert!(!contains_key(&clean), "{text} became {clean}");
        let mut rest = text.as_str();
        for kept in clean.split("[redacted]") {
            let found = rest.split_once(kept).map(|(_, rest)| rest);
            rest = found.unwrap_or_else(|| panic!("{kept} is not in this order in {text}"));
        }
        Outcome::Accepted
    });
}

#[test]
fn a_key_within_other_text_is_found() {
    const APART: &[&str] = &[" ", "\"", "/", "=", ",", "\n", "\u{e4}", "(", "'", "@"];
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let key = choices.one_of(KEYS);
        let (before, after) = (choices.one_of(APART), choices.one_of(APART));
        let text = format!("{}{before}{key}{after}{}", any_text(choices), any_text(choices));
        let clean = redact(&text).unwrap_or_else(|| panic!("{key} is not found in {text}"));
        // Directly behind a letter the same text is not taken for a key.
        assert!(clean.matches(key).count() < text.matches(key).count(), "{clean}");
        if clean == "[redacted]" { Outcome::Refused } else { Outcome::Accepted }
    });
}
