//! The configuration file and the environment.

use std::path::Path;

use bursar_server::config::error::ConfigError;
use bursar_server::config::settings::{Config, settings};
use bursar_server::config::values::BearerToken;
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

const EXAMPLE: &str = include_str!("../../../../../bursar.example.toml");
/// A secret that no message may contain.
const SECRET: &str = "hush-0123456789-abcdefghij-ABCDEFGHIJ";
const WORDS: &[&str] =
    &["[", "]", "[[", "=", "\"", "'", "'''", "#", "\n", ".", "{", "}", "1979-05-27", "0x"];
/// Values that are valid for some setting.
const VALUES: &[&str] = &[
    "\"0.0.0.0:1\"",
    "1",
    "10",
    "\"json\"",
    "\"info\"",
    "\"10.0.0.0/8, ::1\"",
    "[\"10.0.0.0/8\"]",
    "\"sqlite:/d/b\"",
    "\"\"",
    "0",
    "-1",
    "1.5",
    "true",
    "[1]",
    "4294967296",
    "\"4294967295\"",
    "1979-05-27",
    "{}",
];

/// Database addresses with the secret as password, also in malformed places.
const ADDRESSES: &[&str] = &[
    "\"postgres://r:hush-0123456789-abcdefghij@h/b\"",
    "\"postgres://r@h/b?password=hush-0123456789-abcdefghij\"",
    "\"postgres://r:a@hush-0123456789-abcdefghij@h/b\"",
    "\"postgres://r:hush-0123456789-abcdefghij\"",
    "\"postgres://r:a@b/hush-0123456789-abcdefghij/c\"",
    "\"mysql://r:hush-0123456789-abcdefghij@h/b\"",
];

/// A file of settings whose values may be invalid; secret settings have the secret.
fn any_file(choices: &mut Choices<'_>) -> String {
    let settings = settings();
    let keys: Vec<&str> = settings.iter().map(|setting| setting.key).collect();
    let mut text = String::new();
    for _ in 0..choices.below(5) {
        let key = choices.one_of(&keys);
        let is_secret = key.ends_with("token") || key == "secret_key";
        let is_address = key == "database" && choices.one_in(2);
        let value = choices.one_of(if is_address { ADDRESSES } else { VALUES });
        let value = if is_secret { format!("\"{SECRET}\"") } else { value.to_owned() };
        text += &format!("{key} = {value}\n");
    }
    text
}

fn any_environment(choices: &mut Choices<'_>) -> Vec<(String, String)> {
    const NAMES: &[&str] =
        &["BURSAR_LISTEN", "BURSAR_SERVER_DRAIN_SECONDS", "BURSAR_PORT_80", "BURSAR_URL", "PATH"];
    let named = (0..choices.below(3)).map(|_| {
        let name = choices.one_of(NAMES).to_owned();
        let value = choices.one_of(&["1", "10", "a:1", "", "\u{e4}", "0"]).to_owned();
        if choices.one_in(8) { (choices.mutated(&name, &["_"]), value) } else { (name, value) }
    });
    named.collect()
}

fn check_bounds(config: &Config) {
    let limits = config.server.limits();
    assert!(limits.connections_max > 0 && limits.streams_max > 0);
    assert!(!limits.deadlines.header.is_zero() && !limits.drain.is_zero());
    let is_strong = |token: &Option<BearerToken>| {
        token.as_ref().is_none_or(|token| token.secret().expose().len() >= 16)
    };
    let (operator, metrics) = (&config.secrets.operator_token, &config.metrics.metrics_token);
    assert!(is_strong(operator) && is_strong(metrics));
    assert_ne!(config.database().file(), Some(Path::new("")));
}

#[test]
fn a_configuration_loads_or_the_error_shows_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bursar.toml");
    fuzz(bolero::check!(), Effort { inputs: 1_000, ..Effort::PLAIN }, |choices| {
        let text = if choices.one_in(4) { EXAMPLE.to_owned() } else { any_file(choices) };
        let is_broken = choices.one_in(3);
        let text = if is_broken { choices.mutated(&text, WORDS) } else { text };
        std::fs::write(&path, &text).expect("written");
        let environment = any_environment(choices);
        let read = Config::load(Some(&path), environment.clone().into_iter());
        match &read {
            Ok(config) => {
                check_bounds(config);
                let shown = config.database().to_string();
                assert!(is_broken || !shown.contains("0123456789-abc"), "{shown}");
                let rows = Config::in_force(Some(&path), environment.into_iter());
                assert_eq!(rows.expect("as before").len(), settings().len());
            }
            Err(error) => {
                let message = error.to_string();
                // A mutated file may have the secret in the place of a name.
                let may_quote = is_broken && !matches!(error, ConfigError::Invalid { .. });
                assert!(may_quote || !message.contains("0123456789-abc"), "{message}");
                assert!(!matches!(error, ConfigError::Unreadable { .. }), "{message}");
            }
        }
        Outcome::of(&read)
    });
}
