//! Bodies of management routes, parsed into their types.

use bursar_server::api::integrations::integration::{IntegrationCreate, IntegrationUpdate};
use bursar_server::api::keys::create_key::KeyCreate;
use bursar_server::api::tenants::tenant::TenantCreate;
use bursar_server::credentials::raw_key::contains_key;
use bursar_server::wire::body::parse;
use bursar_server::wire::error::ApiError;
use bursar_server::wire::error_code::ErrorCode;
use bursar_testing::fuzzing::{Effort, Outcome, fuzz};

use crate::fuzz::raw_keys::KEYS;

/// Parses a body into one type.
type Read = fn(&str) -> Result<(), ApiError>;

/// Bodies with their parsers.
const BODIES: &[(&str, Read)] = &[
    (r#"{"name":"a"}"#, |text| parse::<TenantCreate>(text).map(drop)),
    (r#"{"name":"k","scopes":["telemetry:*"],"expires_at":"2027-01-01T00:00:00Z"}"#, |text| {
        parse::<KeyCreate>(text).map(drop)
    }),
    (
        r#"{"name":"i","provider_type":"openai","credential_ref":"vault://a/b","config":{"a":[1]},
            "budget_limit_cents":100,"token_limit_month":0,"rate_limit_rpm":60}"#,
        |text| parse::<IntegrationCreate>(text).map(drop),
    ),
    (
        r#"{"name":"i","credential_ref":null,"config":{"base_url":"https://a"},"rate_limit_rpm":1}"#,
        |text| parse::<IntegrationUpdate>(text).map(drop),
    ),
];
const WORDS: &[&str] =
    &["\"", "\\\"", "{", "[", "]", ",", ":", "null", "\"name\":", "1e400", "\"x\":1,"];

#[test]
fn a_body_is_read_or_refused_with_a_documented_error() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (text, read) = choices.one_of(BODIES);
        let words = if choices.one_in(2) { KEYS } else { WORDS };
        let text = choices.mutated(text, words);
        let read = read(&text);
        if let Err(error) = &read {
            let shown = serde_json::to_string(error).expect("JSON");
            assert!(!contains_key(&shown), "{shown}");
            let of_bodies =
                [ErrorCode::InvalidField, ErrorCode::UnknownField, ErrorCode::InvalidJson];
            assert!(of_bodies.contains(&error.code()), "{shown}");
            assert!(!error.message().is_empty());
        }
        Outcome::of(&read)
    });
}
