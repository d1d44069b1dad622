//! Metadata and configurations, which are free JSON objects.

use bursar_server::credentials::raw_key::{contains_key, find_key, find_secret};
use bursar_server::wire::error::ApiError;
use bursar_server::wire::freeform_json::{check_config, check_metadata};
use bursar_server::wire::json_object::JsonObject;
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fuzz::raw_keys::KEYS;

const OBJECTS: &[&str] = &[
    r#"{"base_url":"https://API.example.com/v1?x=1","timeout":30}"#,
    r#"{"base_url":"http://[::1]:8000","headers":{"x-team":"a"},"list":[1,[2,{"a":null}]]}"#,
    r#"{"base_url":null,"region":"eu-central-1"}"#,
    r#"{"team":"a","tags":["b","\u00e4","\ud83d\ude00"],"n":1e3}"#,
    "{\n  \"a\": \"x\\u0008\\u2028\",\r\n\t\"b\": { \"a\": 1, \"a\": [ 2, 3.10 ] },\n  \"a\": \"\u{2029}\"\n}",
    "{}",
];
const WORDS: &[&str] = &[
    "\"api_key\":\"a\",",
    "\"",
    "{",
    "}",
    "[",
    ",",
    ":",
    "@",
    "/",
    "://",
    ":0",
    ":99999",
    "[::",
    "\\u0000",
    "\\u0073",
    "\\",
    "\n",
    "\u{2028}",
    "\"a\":1,",
    "\"a\":\"sk-proj-abcdefghijklmnopqrst\",",
    "%",
    "#",
];

fn any_object(choices: &mut Choices<'_>) -> String {
    let object = choices.one_of(OBJECTS);
    let words = if choices.one_in(4) { KEYS } else { WORDS };
    choices.mutated(object, words)
}

fn check_words(error: &ApiError) {
    let shown = serde_json::to_string(error).expect("JSON");
    assert!(!contains_key(&shown), "{shown}");
}

/// Asserts that a stored object is one line, has each name once and no key, and equals what
/// `serde_json` reads from the text that was sent.
fn check_stored(sent: &RawValue, stored: &str) {
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    // `serde_json` takes the last member of a repeated name too. It cannot read a number beyond the
    // range of a float, which may be in a member that is not stored.
    match serde_json::from_str::<Value>(sent.get()) {
        Ok(meant) => assert_eq!(read(stored), meant, "{stored}"),
        Err(error) => assert!(error.to_string().starts_with("number out of range"), "{error}"),
    }
    assert!(!stored.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']), "{stored}");
    assert!(stored.len() <= 32 * 1024 && !contains_key(stored), "{stored}");
    assert!(find_key(&read(stored)).is_none(), "{stored}");
    let again = JsonObject::parse(&RawValue::from_string(stored.to_owned()).expect("JSON"));
    let again = again.expect("an object");
    assert_eq!((again.text(), again.duplicate_key()), (stored, None));
}

#[test]
fn a_stored_configuration_keeps_its_value_and_has_no_secret() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let Ok(raw) = RawValue::from_string(any_object(choices)) else { return Outcome::Refused };
        let read = check_config(&raw);
        match &read {
            Ok(kept) => {
                check_stored(&raw, &kept.text);
                let value: Value = serde_json::from_str(&kept.text).expect("JSON");
                assert!(value.is_object() && find_secret(&value).is_none());
                kept.origin.iter().for_each(|origin| check_origin(origin));
            }
            Err(error) => check_words(error),
        }
        Outcome::of(&read)
    });
}

/// Asserts that an origin is scheme, host and port in normal form.
fn check_origin(origin: &str) {
    let (scheme, rest) = origin.split_once("://").expect("a scheme");
    assert!(scheme == "http" || scheme == "https", "{origin}");
    let (host, port) = rest.rsplit_once(':').expect("a port");
    assert!(port.parse::<u16>().is_ok(), "{origin}");
    assert!(!host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']), "{origin}");
    assert_eq!(origin, origin.to_ascii_lowercase());
    let again = serde_json::json!({ "base_url": origin }).to_string();
    let again = check_config(&RawValue::from_string(again).expect("JSON"))
        .unwrap_or_else(|_| panic!("{origin} is no URL"));
    assert_eq!(again.origin.as_deref(), Some(origin));
}

#[test]
fn stored_metadata_keeps_its_value_and_has_no_key() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let Ok(raw) = RawValue::from_string(any_object(choices)) else { return Outcome::Refused };
        let read = check_metadata(Some(&raw));
        match &read {
            Ok(kept) => check_stored(&raw, kept.as_deref().unwrap_or("{}")),
            Err(error) => check_words(error),
        }
        Outcome::of(&read)
    });
}
