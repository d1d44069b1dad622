//! Usage records: an accepted record has the values that were sent, within the documented limits; a
//! refusal never contains a key.

use std::collections::BTreeMap;

use bursar_core::{IntegrationId, Nanos, Usage, is_control};
use bursar_server::api::telemetry::usage_record::{CheckedRecord, check_record};
use bursar_server::credentials::raw_key::contains_key;
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fuzz::raw_keys::KEYS;

/// Fields of records with valid and invalid values.
const FIELDS: &[(&str, &[&str])] = &[
    ("call_id", &["\"call-1\"", "\"\u{e4}\"", "\"a/b?c\"", "\"\""]),
    ("provider", &["\"openai\"", "\"anthropic\"", "\"\\u0000\""]),
    ("model", &["\"gpt-4o\"", "\"claude-sonnet-4\"", "\"\\ud83d\\ude00\"", "\"\\ud83d\""]),
    ("tokens_in", &["800", "1000000000", "801.0", "1000000001", "-1", "1.5", "8e2"]),
    ("tokens_out", &["200", "0", "\"200\"", "null", "2.0e2"]),
    ("tokens_cache_read", &["400", "0", "null", "801"]),
    ("tokens_cache_write", &["400", "null", "9223372036854775807"]),
    ("tokens_reasoning", &["200", "0", "201"]),
    ("cost_cents", &["1.25", "0", "1e-05", "100000000", "null", "\"1\"", "1.23456789", "[1]"]),
    ("cost_usd", &["\"0.0125\"", "59.699999999999996", "3.5e-9", "null", "1000001", "\"-1\""]),
    ("response_model", &["\"gpt-4o-2024-08-06\"", "\"a\\nb\"", "null", "1"]),
    ("region", &["\"eu-central-1\"", "\" \"", "null"]),
    ("provider_request_id", &["\"req_1\"", "\"a\\nb\"", "null", "1"]),
    ("service_tier", &["\"priority\"", "\" \"", "null"]),
    ("tokens_cache_write_long", &["0", "400", "null", "401"]),
    ("tokens_audio_in", &["0", "1", "null", "800"]),
    ("tokens_image_in", &["0", "null", "\"1\""]),
    ("tokens_audio_out", &["0", "100", "null", "201"]),
    ("tokens_image_out", &["0", "100", "null"]),
    ("usage_status", &["\"final\"", "\"reported\"", "\"partial\"", "\"estimated\"", "\"done\""]),
    (
        "units",
        &[
            "{\"web_search\":2,\"seconds\":\"12.5\"}",
            "{\"A\":[],\"a\":1,\"a\":2}",
            "{\"a\":-1}",
            "[]",
        ],
    ),
    (
        "tags",
        &[
            "{\"team\":\"a\",\"feature\":\" b\\n \"}",
            "{\"team\":1,\"\":\"a\",\"bursar.x\":\"a\",\"import\":\"a\",\"a\":\"\\\"\\\\\"}",
            "{\"a\":\"b\",\"a\":\"c\",\"b\":\"\"}",
            "null",
            "[]",
        ],
    ),
    ("session_id", &["\"session-1\"", "null", "7"]),
    ("agent_id", &["\"agent-1\"", "null"]),
    ("latency_ms", &["412", "null", "1000000001", "812.4", "\"812.5\""]),
    ("policy_result", &["\"allowed\"", "\"blocked\"", "null", "\"maybe\""]),
    ("error_code", &["\"429\"", "null"]),
    (
        "error_message",
        &["\"Incorrect API key provided: sk-abcdefghijklmnopqrst.\"", "\"x\"", "null"],
    ),
    ("metadata", &["{}", "{\"team\":\"a\",\"n\":[1,{}]}", "null", "[]", "{\"\\u0000\":1}"]),
    ("occurred_at", &["\"2026-03-14T09:00:00Z\"", "null", "\"2026-03-14\""]),
    ("not_known_yet", &["{\"a\":[[[1]]]}", "true"]),
];
const WORDS: &[&str] = &["\"", "\\\"", "{", "}", "[", "]", ",", ":", "\"call_id\":", "1e400", " "];

fn integration_id() -> IntegrationId {
    IntegrationId::from_number(1_763_600_000_000_007).expect("in range")
}

/// A value for a field, sometimes invalid.
fn any_value(choices: &mut Choices<'_>, values: &[&str]) -> String {
    match choices.below(24) {
        0 => choices.one_of(values).to_owned(),
        1 => choices.integer().to_string(),
        2 => format!("\"{}\"", choices.one_of(KEYS)),
        3 => format!("{{\"{}\":1}}", choices.one_of(KEYS)),
        4 => {
            format!("\"{}\"", "\u{e4}".repeat(choices.one_of(&[64, 65, 100, 101, 256, 257, 4_001])))
        }
        5 => {
            let depth = choices.one_of(&[2, 62, 63, 64, 65, 130]);
            format!("{}{}", "[".repeat(depth), "]".repeat(depth))
        }
        _ => values.first().copied().unwrap_or_default().to_owned(),
    }
}

fn any_record(choices: &mut Choices<'_>) -> String {
    let mut fields = vec![format!("\"integration_id\":\"{}\"", integration_id())];
    for (index, (field, values)) in FIELDS.iter().enumerate() {
        let is_needed = (0..5).contains(&index);
        let is_left_out = if is_needed { choices.one_in(40) } else { choices.one_in(2) };
        if is_left_out {
            continue;
        }
        let field = if choices.one_in(60) { choices.one_of(KEYS) } else { field };
        fields.push(format!("\"{field}\":{}", any_value(choices, values)));
        if choices.one_in(60) {
            fields.push(format!("\"{field}\":{}", any_value(choices, values)));
        }
    }
    let text = format!("{{{}}}", fields.join(","));
    if choices.one_in(3) { choices.mutated(&text, WORDS) } else { text }
}

/// Asserts the limits of docs/api.md.
fn check_bounds(usage: &Usage) {
    let of = |text: &str, most: usize| {
        assert!((1..=most).contains(&text.chars().count()), "{text}");
        assert!(!text.contains(is_control) && text.trim() == text, "{text:?}");
    };
    of(usage.call_id.as_str(), 256);
    of(&usage.provider, 100);
    of(&usage.model, 256);
    let optional = [
        (&usage.session_id, 256),
        (&usage.agent_id, 256),
        (&usage.response_model, 256),
        (&usage.region, 64),
        (&usage.error_code, 100),
    ];
    for (text, most) in optional {
        text.iter().for_each(|text| of(text, most));
    }
    if let Some(message) = &usage.error_message {
        assert!((1..=4_000).contains(&message.chars().count()) && !message.contains('\0'));
    }
    let tokens = usage.tokens;
    assert!((0..=1_000_000_000).contains(&tokens.tokens_in()));
    assert!((0..=1_000_000_000).contains(&tokens.tokens_out()));
    let counts = tokens.counts();
    let parts = counts.cache_read + counts.cache_write + counts.audio_in + counts.image_in;
    assert!(parts <= counts.tokens_in && counts.cache_write_long <= counts.cache_write);
    assert!((0..=counts.tokens_out).contains(&counts.reasoning));
    assert!(counts.audio_out + counts.image_out <= counts.tokens_out);
    assert!(usage.tags.iter().len() <= 16 && usage.units.iter().len() <= 16);
    for (name, value) in usage.tags.iter() {
        of(name, 64);
        of(value, 256);
        assert!(name != "import" && !name.starts_with("bursar."), "{name}");
        assert!(!contains_key(name) && !contains_key(value));
    }
    let of_json =
        |text: Option<String>| serde_json::from_str::<Value>(&text.unwrap_or("{}".into()));
    let tags = of_json(usage.tags.json()).expect("JSON");
    assert!(usage.tags.iter().all(|(name, value)| tags[name] == value));
    let units = of_json(usage.units.json()).expect("JSON");
    assert_eq!(units.as_object().map(|units| units.len()), Some(usage.units.iter().len()));
    assert!(usage.cost.is_none_or(|cost| (Nanos::ZERO..=Nanos::RECORD_MAX).contains(&cost)));
    assert!(usage.latency_ms.is_none_or(|latency_ms| (0..=1_000_000_000).contains(&latency_ms)));
    assert!(usage.error_message.iter().all(|message| !contains_key(message)));
    if let Some(metadata) = &usage.metadata {
        let value: Value = serde_json::from_str(metadata).expect("JSON");
        assert!(value.is_object() && metadata.len() <= 32 * 1024 && !contains_key(metadata));
    }
}

/// Asserts that `serde_json` reads the same values.
fn check_meaning(text: &str, usage: &Usage) {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("an object");
    let value = |field: &str| {
        let raw = fields.get(field).map_or("null", |raw| raw.get());
        serde_json::from_str::<Value>(raw).expect("JSON")
    };
    // Only labels that need no cleaning are compared; other tests cover cleaning.
    let clean = |field: &str| {
        let label = value(field).as_str().unwrap_or_default().trim().to_owned();
        label.replace(is_control, "\u{fffd}")
    };
    let number = |field: &str| match value(field) {
        Value::Null => 0.0,
        Value::String(text) => text.trim().parse().expect("a number for others too"),
        Value::Number(number) => number.as_f64().expect("a number"),
        other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_)) => panic!("{other}"),
    };
    assert_eq!(clean("call_id"), usage.call_id.as_str());
    assert_eq!(clean("provider").to_lowercase(), *usage.provider);
    assert_eq!(clean("model"), *usage.model);
    let differs = |field: &str, figure: i64| (number(field) - figure as f64).abs();
    assert!(differs("tokens_in", usage.tokens.tokens_in()) < 1e-3);
    assert!(differs("tokens_out", usage.tokens.tokens_out()) < 1e-3);
    assert!(differs("latency_ms", usage.latency_ms.unwrap_or(0)) <= 0.500_001);
    assert_eq!(clean("session_id"), usage.session_id.as_deref().unwrap_or_default());
    let has_cost = !(value("cost_cents").is_null() && value("cost_usd").is_null());
    assert_eq!(has_cost, usage.cost.is_some());
    assert_eq!(value("occurred_at").is_null(), usage.occurred_at.is_none());
}

#[test]
fn a_record_keeps_its_values_and_a_refusal_shows_no_key() {
    let effort = Effort { seconds: 15, ..Effort::PLAIN };
    fuzz(bolero::check!(), effort, |choices| {
        let text = any_record(choices);
        let only = choices.one_in(4).then(integration_id);
        let read = check_record(&text, only);
        match &read {
            Ok(CheckedRecord { usage, ignored_fields }) => {
                assert_eq!(usage.integration_id, integration_id());
                check_bounds(usage);
                check_meaning(&text, usage);
                let again = check_record(&text, only).ok().map(|again| again.usage);
                assert_eq!(again.as_ref(), Some(usage));
                let names = ignored_fields.clone().into_names();
                assert!(names.len() <= 20, "{names:?}");
                assert!(names.iter().all(|name| !contains_key(name) && name.chars().count() <= 64));
            }
            Err(error) => {
                let shown = serde_json::to_string(error).expect("JSON");
                assert!(!contains_key(&shown), "{shown}");
                assert!(matches!(error.code().status().as_u16(), 400 | 404 | 422), "{shown}");
            }
        }
        Outcome::of(&read)
    });
}
