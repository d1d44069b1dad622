//! Random spellings of a record: notations of numbers, white space and escapes of texts, the order
//! of fields.

use bursar_core::{IntegrationId, Timestamp};
use bursar_server::api::telemetry::usage_record::check_record;
use bursar_server::wire::timestamps;
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

/// A value of a record, independent of its spelling.
enum Value {
    /// A number of units, and the number of decimal places of a unit.
    Figure(u64, usize),
    /// A label, in which U+FFFD is the placeholder of any control character.
    Label(String),
    /// A label that is the same in upper and lower case.
    Provider(&'static str),
    Message(&'static str),
    Policy(&'static str),
    Instant(Timestamp),
}

/// A record with its fields in the order of the documents.
fn any_record(choices: &mut Choices<'_>) -> Vec<(&'static str, Value)> {
    let figure = |choices: &mut Choices<'_>, max: u64| {
        let number = choices.integer().unsigned_abs();
        // Sometimes a number that is too large.
        if choices.one_in(60) { number } else { number % (max + 1) }
    };
    let (tokens_in, tokens_out) = (figure(choices, 1_000_000_000), figure(choices, 1_000_000_000));
    let mut record = vec![
        ("call_id", Value::Label(format!("call {}", choices.below(1_000)))),
        ("provider", Value::Provider(choices.one_of(&["openai", "anthropic", "køb"]))),
        ("model", any_label(choices)),
        ("tokens_in", Value::Figure(tokens_in, 0)),
    ];
    let parts = choices.below(4) as u64;
    let optional = [
        ("tokens_out", Value::Figure(tokens_out, 0)),
        ("tokens_cache_read", Value::Figure(tokens_in / 4 * parts.min(2), 0)),
        ("tokens_cache_write", Value::Figure(tokens_in / 2, 0)),
        ("tokens_reasoning", Value::Figure(tokens_out / 3 * parts, 0)),
        ("cost_cents", Value::Figure(figure(choices, 1_000_000_000_000_000), 7)),
        ("cost_usd", Value::Figure(figure(choices, 1_000_000_000_000), 9)),
        ("latency_ms", Value::Figure(figure(choices, 1_000_000_000), 0)),
        ("session_id", any_label(choices)),
        ("agent_id", any_label(choices)),
        ("response_model", any_label(choices)),
        ("region", Value::Label("eu-central-1".to_owned())),
        ("error_code", Value::Label(choices.one_of(&["429", "timeout"]).to_owned())),
        ("error_message", Value::Message(choices.one_of(&["over quota", "a\nb", "größer"]))),
        ("policy_result", Value::Policy(choices.one_of(&["allowed", "warned", "blocked"]))),
        ("occurred_at", Value::Instant(any_instant(choices))),
    ];
    let has_tokens_out = !choices.one_in(4);
    for (field, value) in optional {
        let is_kept = match field {
            "tokens_out" | "tokens_reasoning" => has_tokens_out,
            _ => !choices.one_in(3),
        };
        if is_kept {
            record.push((field, value));
        }
    }
    record
}

fn any_label(choices: &mut Choices<'_>) -> Value {
    const WORDS: &[&str] =
        &["gpt-4o", "a b", "a\u{fffd}b", "größe", "\u{1f680}", "x/y:z", "\u{fffd}"];
    let (first, second) = (choices.one_of(WORDS), choices.one_of(WORDS));
    Value::Label(format!("{first} {second}"))
}

fn any_instant(choices: &mut Choices<'_>) -> Timestamp {
    let seconds = choices.below(1 << 24) as i64 * 60;
    Timestamp::from_micros(seconds * 1_000_000).expect("in range")
}

/// One spelling of a record: fields in any order, nulls and unknown fields between them.
fn spelled(record: &[(&'static str, Value)], choices: &mut Choices<'_>) -> String {
    let mut fields = vec![format!("\"integration_id\":\"{}\"", integration_id())];
    for (field, value) in record {
        let place = choices.below(fields.len() + 1);
        fields.insert(place, format!("{}:{}", text(field, choices), spelled_value(value, choices)));
    }
    let absent = ["tokens_out", "agent_id", "cost_usd", "metadata", "occurred_at"];
    for field in absent.into_iter().filter(|field| record.iter().all(|(known, _)| known != field)) {
        if choices.one_in(3) {
            fields.push(format!("\"{field}\":null"));
        }
    }
    if choices.one_in(3) {
        fields.push("\"cost_cent\":[{}]".to_owned());
    }
    let between = choices.one_of(&[",", " , ", ",\n\t"]);
    format!("{{{}}}", fields.join(between))
}

fn spelled_value(value: &Value, choices: &mut Choices<'_>) -> String {
    match value {
        Value::Figure(units, places) => spelled_figure(*units, *places, choices),
        Value::Label(label) => {
            let controls = ["\u{fffd}", "\u{0}", "\u{1b}", "\n", "\u{85}", "\u{2028}"];
            let other = |part: &str, choices: &mut Choices<'_>| match part {
                "\u{fffd}" => choices.one_of(&controls).to_owned(),
                plain => plain.to_owned(),
            };
            let mut label: String =
                label.chars().map(|part| other(&part.to_string(), choices)).collect();
            // White space at an end would be trimmed instead of replaced.
            if label.trim().len() < label.len() {
                label = label.replace(char::is_control, "\u{1b}").replace('\u{2028}', "\u{1b}");
            }
            let (before, after) = (white_space(choices), white_space(choices));
            text(&format!("{before}{label}{after}"), choices)
        }
        Value::Provider(name) => {
            let cased = if choices.one_in(2) { name.to_uppercase() } else { (*name).to_owned() };
            let (before, after) = (white_space(choices), white_space(choices));
            text(&format!("{before}{cased}{after}"), choices)
        }
        Value::Message(message) => text(message, choices),
        Value::Policy(policy) => text(policy, choices),
        Value::Instant(at) => {
            let hours = choices.below(24) as i64;
            let local = Timestamp::from_micros(at.micros() + hours * 3_600_000_000);
            let local = timestamps::text(local.expect("in range"));
            let local = local.trim_end_matches('Z');
            let offset = if hours == 0 && choices.one_in(2) {
                "Z".to_owned()
            } else {
                format!("+{hours:02}:00")
            };
            text(&format!("{local}{offset}"), choices)
        }
    }
}

fn white_space(choices: &mut Choices<'_>) -> &'static str {
    choices.one_of(&["", "", " ", "\t", "\r\n", "\u{a0}", "\u{3000} "])
}

/// A number, or a string with it, with or without an exponent, zeros and a sign.
fn spelled_figure(units: u64, places: usize, choices: &mut Choices<'_>) -> String {
    // Further zeros do not change the number.
    let more = choices.one_of(&["", "", "0", "00", "000000000000000000000000"]);
    let digits = format!("{units:0>width$}{more}", width = places + 1);
    let places = places + more.len();
    let shift = choices.below(places + 4);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let significant = digits.trim_start_matches('0');
    let number = match choices.below(4) {
        0 | 1 if significant.is_empty() => format!("0e-{places}"),
        0 => format!("{significant}e-{places}"),
        1 => format!("{significant}{}E-{}", "0".repeat(shift), places + shift),
        2 if units == 0 => "-0.0".to_owned(),
        _ if fraction.is_empty() => whole.to_owned(),
        _ => format!("{whole}.{fraction}"),
    };
    if choices.one_in(2) {
        return number;
    }
    let (before, after) = (choices.one_of(&["", " "]), choices.one_of(&["", " ", "\n"]));
    text(&format!("{before}{number}{after}"), choices)
}

/// A JSON string, any of whose characters may be escaped.
fn text(plain: &str, choices: &mut Choices<'_>) -> String {
    let is_escaped = choices.one_in(3);
    let mut json = String::from('"');
    for character in plain.chars() {
        let must = character < ' ' || matches!(character, '"' | '\\');
        if must || is_escaped && choices.one_in(3) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                json.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            json.push(character);
        }
    }
    json.push('"');
    json
}

fn integration_id() -> IntegrationId {
    IntegrationId::from_number(1_763_600_000_000_007).expect("in range")
}

#[test]
fn a_record_is_the_same_in_any_spelling() {
    let effort = Effort { seconds: 15, ..Effort::PLAIN };
    fuzz(bolero::check!(), effort, |choices| {
        let record = any_record(choices);
        let (one, other) = (spelled(&record, choices), spelled(&record, choices));
        let read = [&one, &other].map(|text| check_record(text, None).map(|read| read.usage));
        match &read {
            [Ok(read), Ok(again)] => assert_eq!(read, again, "{one}\n{other}"),
            [Err(refused), Err(again)] => {
                let shown =
                    [refused, again].map(|error| serde_json::to_string(error).expect("JSON"));
                assert_eq!(shown[0], shown[1], "{one}\n{other}");
            }
            [Ok(_), Err(error)] | [Err(error), Ok(_)] => panic!("{error:?}\n{one}\n{other}"),
        }
        Outcome::of(&read[0])
    });
}
