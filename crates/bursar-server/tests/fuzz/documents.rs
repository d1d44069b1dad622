//! The free objects of a request.

use bursar_server::config_object::{check_config, check_metadata};
use bursar_server::error::ApiError;
use bursar_server::raw_key::{contains_key, find_key, find_secret};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fuzzing::{Choices, Effort, Fate, fuzz};
use crate::raw_keys::KEYS;

const OBJECTS: &[&str] = &[
    r#"{"base_url":"https://API.example.com/v1?x=1","timeout":30}"#,
    r#"{"base_url":"http://[::1]:8000","headers":{"x-team":"a"},"list":[1,[2,{"a":null}]]}"#,
    r#"{"base_url":null,"region":"eu-central-1"}"#,
    r#"{"team":"a","tags":["b","\u00e4","\ud83d\ude00"],"n":1e3}"#,
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
    "%",
    "#",
];

fn any_object(choices: &mut Choices<'_>) -> String {
    let object = choices.one_of(OBJECTS);
    let words = if choices.one_in(4) { KEYS } else { WORDS };
    choices.broken(object, words)
}

fn check_words(error: &ApiError) {
    let shown = serde_json::to_string(error).expect("JSON");
    assert!(!contains_key(&shown), "{shown}");
}

#[test]
fn a_configuration_is_kept_whole_without_a_secret() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let text = any_object(choices);
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Fate::Refused };
        let read = check_config(&value);
        match &read {
            Ok(kept) => {
                // As text: a number may change in its last digit when it is read.
                assert_eq!(kept.text, value.to_string());
                assert!(
                    serde_json::from_str::<Value>(&kept.text).is_ok_and(|kept| kept.is_object())
                );
                assert!(find_secret(&value).is_none() && kept.text.len() <= 32 * 1024);
                kept.origin.iter().for_each(|origin| check_origin(origin));
            }
            Err(error) => check_words(error),
        }
        Fate::of(&read)
    });
}

/// Claims scheme, host and port and nothing else, written in one way.
fn check_origin(origin: &str) {
    let (scheme, rest) = origin.split_once("://").expect("a scheme");
    assert!(scheme == "http" || scheme == "https", "{origin}");
    let (host, port) = rest.rsplit_once(':').expect("a port");
    assert!(port.parse::<u16>().is_ok(), "{origin}");
    assert!(!host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']), "{origin}");
    assert_eq!(origin, origin.to_ascii_lowercase());
    let again = serde_json::json!({ "base_url": origin });
    let again = check_config(&again).unwrap_or_else(|_| panic!("{origin} is no URL"));
    assert_eq!(again.origin.as_deref(), Some(origin));
}

#[test]
fn metadata_is_kept_as_it_was_sent_without_a_key() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let text = any_object(choices);
        let Ok(raw) = RawValue::from_string(text) else { return Fate::Refused };
        let read = check_metadata(Some(&raw));
        match &read {
            Ok(kept) => {
                let value: Value = serde_json::from_str(raw.get()).expect("JSON");
                let is_empty = value.as_object().expect("an object").is_empty();
                assert_eq!(kept.as_deref(), (!is_empty).then(|| raw.get()));
                assert!(find_key(&value).is_none());
            }
            Err(error) => check_words(error),
        }
        Fate::of(&read)
    });
}
