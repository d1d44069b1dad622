//! Detects text that looks like a provider's key, so that Bursar refuses it before it is stored.
//!
//! Only well-known forms are detected. A rule based on entropy would refuse trace ids.

use crate::auth::secret::OPERATOR_PREFIX;

/// The prefixes of keys and what must follow, as the providers document them.
const FORMS: &[(&str, KeyTail)] = &[
    ("sk-", KeyTail::WithRun), // OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek
    ("xai-", KeyTail::WithRun), // xAI
    ("pplx-", KeyTail::WithRun), // Perplexity
    ("nvapi-", KeyTail::WithRun), // NVIDIA
    ("gsk_", KeyTail::WithRun), // Groq
    ("hf_", KeyTail::Run(30)), // Hugging Face
    ("r8_", KeyTail::Run(30)), // Replicate
    ("fw_", KeyTail::Run(20)), // Fireworks
    ("ghp_", KeyTail::WithRun), // GitHub
    ("github_pat_", KeyTail::WithRun),
    ("glpat-", KeyTail::WithRun),        // GitLab
    ("xoxb-", KeyTail::WithRun),         // Slack
    ("hvs.", KeyTail::WithRun),          // Vault
    ("AIza", KeyTail::OfLength(35)),     // Google
    ("ABSK", KeyTail::OfLength(40)),     // Amazon Bedrock
    ("AKIA", KeyTail::OfLength(16)),     // Amazon, long-lived
    ("ASIA", KeyTail::OfLength(16)),     // Amazon, temporary
    ("bur_", KeyTail::OfLength(100)),    // Bursar: API keys
    ("bur_operator_", KeyTail::WithRun), // Bursar: the operator's token
    ("bur_metrics_", KeyTail::WithRun),  // Bursar: the token for metrics
    ("bur_secret_", KeyTail::WithRun),   // Bursar: the secret key
];

/// What must follow the prefix of a key.
#[derive(Clone, Copy)]
enum KeyTail {
    /// At least [`RUN_MIN`] letters and digits in a row, anywhere in the same word.
    WithRun,
    /// At least this many letters and digits at once. For prefixes that short words also have.
    Run(usize),
    /// At least this many characters.
    OfLength(usize),
}

/// A run of letters and digits longer than in any word.
///
/// Prefixes that ask for it end with another character, so that the run is whole.
const RUN_MIN: usize = 16;

/// The first letters of keys as a bit set, to skip most words quickly.
const FIRST_LETTERS: u128 = first_letters(FORMS) | 1 << b'e';

const fn first_letters(forms: &[(&str, KeyTail)]) -> u128 {
    let [(prefix, _), rest @ ..] = forms else { return 0 };
    let [first, ..] = prefix.as_bytes() else { return first_letters(rest) };
    1 << *first | first_letters(rest)
}

/// Names of configuration fields that hold secrets.
const SECRET_NAMES: &[&str] = &[
    "api_key",
    "apikey",
    "api-key",
    "x-api-key",
    "authorization",
    "secret",
    "client_secret",
    "secret_access_key",
    "aws_secret_access_key",
    "password",
    "access_token",
    "token",
];

/// The replacement for a key in a stored text.
const REDACTED: &str = "[redacted]";

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// The words of a text that can be a key, with their positions.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at + rest.bytes().position(in_word)?;
        let word = text.get(start..)?;
        let length = word.bytes().position(|byte| !in_word(byte)).unwrap_or(word.len());
        at = start + length;
        Some((start, word.get(..length)?))
    })
}

/// Facts about a word that prefixes are compared with.
///
/// They are computed once per word, so the time is linear in the length of the text.
struct WordScan {
    /// Where the last long run of letters and digits starts.
    last_run: Option<usize>,
    /// Where the last dot but one is.
    last_dot_but_one: Option<usize>,
}

impl WordScan {
    fn of(word: &str) -> Self {
        let mut at = word.len();
        let mut last_run = None;
        for run in word.rsplit(|character: char| !character.is_ascii_alphanumeric()) {
            at = at.saturating_sub(run.len());
            if run.len() >= RUN_MIN {
                last_run = Some(at);
                break;
            }
            at = at.saturating_sub(1);
        }
        Self { last_run, last_dot_but_one: word.rmatch_indices('.').nth(1).map(|(at, _)| at) }
    }
}

/// Where a key starts in a word: at its start or after a separator.
fn key_in(word: &str) -> Option<usize> {
    let mut scan = None;
    let mut before = None;
    for (at, byte) in word.bytes().enumerate() {
        let begins = before.is_none_or(|before: u8| !before.is_ascii_alphanumeric());
        before = Some(byte);
        if begins && begins_key(word, at, &mut scan) {
            return Some(at);
        }
    }
    None
}

fn begins_key(word: &str, at: usize, scan: &mut Option<WordScan>) -> bool {
    let Some(text) = word.get(at..) else { return false };
    let first = text.bytes().next().unwrap_or_default();
    if FIRST_LETTERS >> first & 1 == 0 {
        return begins_integration_key(text);
    }
    let known = FORMS.iter().any(|(prefix, rest)| {
        let Some(after) = text.strip_prefix(prefix) else { return false };
        match *rest {
            KeyTail::OfLength(length) => after.len() >= length,
            KeyTail::Run(length) => {
                after.bytes().take_while(u8::is_ascii_alphanumeric).take(length).count() == length
            }
            KeyTail::WithRun => {
                let last = scan.get_or_insert_with(|| WordScan::of(word)).last_run;
                last.is_some_and(|run| run >= at + prefix.len())
            }
        }
    });
    known || begins_token(word, at, text, scan) || begins_integration_key(text)
}

/// Whether a signed token starts here: three parts, the first of which is JSON in base64.
///
/// An encrypted token has five parts. More parts are accepted, so that text after a token does not
/// hide it.
fn begins_token(word: &str, at: usize, text: &str, scan: &mut Option<WordScan>) -> bool {
    text.len() > 40 && text.starts_with("eyJ") && {
        let scan = scan.get_or_insert_with(|| WordScan::of(word));
        scan.last_dot_but_one.is_some_and(|dot| dot >= at)
    }
}

/// Whether the end of an integration key follows: the id of the key and its secret.
fn begins_integration_key(text: &str) -> bool {
    const ID: usize = 36;
    const SECRET: usize = 56;
    if text.len() <= ID + SECRET {
        return false;
    }
    let mut bytes = text.bytes().enumerate();
    bytes.by_ref().take(ID + 1 + SECRET).all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        ID => byte == b'_',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    })
}

/// Whether a text is an operator token in the form that is always detected.
pub(crate) fn is_operator_token(token: &str) -> bool {
    token.starts_with(OPERATOR_PREFIX) && key_in(token) == Some(0)
}

/// Whether a text contains what looks like a key.
pub fn contains_key(text: &str) -> bool {
    text.len() >= 16
        && (text.contains("PRIVATE KEY-----")
            || words(text).any(|(_, word)| key_in(word).is_some()))
}

/// The text with everything that looks like a key replaced. `None` if there is nothing to replace.
pub fn redact(text: &str) -> Option<String> {
    if !contains_key(text) {
        return None;
    }
    if text.contains("PRIVATE KEY-----") {
        return Some(REDACTED.to_owned());
    }
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    for (start, word) in words(text) {
        let Some(key) = key_in(word) else { continue };
        clean.push_str(text.get(at..start + key).unwrap_or_default());
        clean.push_str(REDACTED);
        at = start + word.len();
    }
    clean.push_str(text.get(at..).unwrap_or_default());
    Some(clean)
}

/// The path of the first string in a JSON value that contains a key.
pub fn find_key(value: &serde_json::Value) -> Option<String> {
    find(value, &|_, text| contains_key(text))
}

/// The path of a secret in a configuration, found by its form or by the name of its field.
pub fn find_secret(value: &serde_json::Value) -> Option<String> {
    find(value, &|name, text| {
        let telling = SECRET_NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret));
        (telling && !text.is_empty()) || contains_key(text)
    })
}

fn find(value: &serde_json::Value, is_secret: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    fn walk(
        name: &str,
        value: &serde_json::Value,
        is_secret: &dyn Fn(&str, &str) -> bool,
    ) -> Option<String> {
        match value {
            serde_json::Value::String(text) => is_secret(name, text).then(String::new),
            serde_json::Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| {
                walk(name, item, is_secret).map(|rest| format!("[{at}]{rest}"))
            }),
            serde_json::Value::Object(fields) => fields.iter().find_map(|(key, item)| {
                if contains_key(key) {
                    return Some(format!(".{REDACTED}"));
                }
                walk(key, item, is_secret).map(|rest| format!(".{key}{rest}"))
            }),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
                None
            }
        }
    }
    walk("", value, is_secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::secret;

    #[test]
    fn known_forms_are_recognised_wherever_they_stand() {
        for key in [
            "sk-proj-abcdefghijklmnopqrst",
            "my-sk-abcdefghijklmnopqrst",
            concat!("Bearer sk-", "ant-", "abcdefghijklmnop"),
            "{\"k\":\"AIzaSyA1234567890abcdefghijklmnopqrstuv\"}",
            "AKIAABCDEFGHIJKLMNOP",
            "key=gsk_abcdefghijklmnopqrstuvwxyz",
            "-----BEGIN RSA PRIVATE KEY-----\nabc",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
        ] {
            assert!(contains_key(key), "{key}");
        }
        for plain in [
            "sk-short",
            "sk-customer-support-bot-2026",
            "hf_hub_download_failed_retry",
            "fw_65f1a2b3c4d5e6f7",
            "fw_call-4bf92f3577b34da6a3ce929d0e0e4736",
            "r8_00660b79-1e72-8c3a-87e1-65583f7b7206",
            "00660b79-1e72-8c3a-87e1-65583f7b7206_4bf92f3577b34da6a3ce929d0e0e4736",
            "bur_operator_of_the_night_shift",
            "ask-me-anything-about-it-please",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "gpt-4o-mini-2024-07-18",
            "vault://secret/llm#key",
            "grüße an alle, die das lesen können",
        ] {
            assert!(!contains_key(plain), "{plain}");
        }
    }

    #[test]
    fn what_this_server_makes_is_recognised() {
        let digits = secret::random_digits().expect("random");
        let tenant_id = bursar_core::TenantId::from_number(7).expect("in range");
        let key_id = bursar_core::KeyId::from_number(8).expect("in range");
        let integration_id = bursar_core::IntegrationId::from_number(9);
        let api_key = secret::KeyPrefix { tenant_id, integration_id: None, key_id };
        for prefix in [api_key, secret::KeyPrefix { integration_id, ..api_key }] {
            assert!(contains_key(prefix.with_digits(&digits).expose()));
        }
        for kind in ["operator", "metrics", "secret"] {
            assert!(contains_key(&format!("bur_{kind}_{}", digits.expose())));
        }
        // What may be shown of a key is not a key.
        assert!(!contains_key(&api_key.to_string()));
    }

    #[test]
    fn a_token_of_the_operator_is_known_by_its_form() {
        let digits = secret::random_digits().expect("random");
        assert!(is_operator_token(&format!("bur_operator_{}", digits.expose())));
        assert!(is_operator_token("bur_operator_Ab1-0123456789abcdef"));
        for other in [digits.expose(), "bur_operator_of_the_night_shift", "bur_operator_", ""] {
            assert!(!is_operator_token(other));
        }
    }

    #[test]
    fn a_text_that_begins_a_key_at_every_step_takes_no_longer_than_another() {
        let began = std::time::Instant::now();
        for part in ["sk-", "eyJ-", "eyJ.", "sk-.", "bur_", "hf_", "00660b79-"] {
            contains_key(&part.repeat(2_000_000 / part.len()));
        }
        // Each takes milliseconds. A quadratic scan would take hours.
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[test]
    fn redacting_keeps_the_rest() {
        assert_eq!(
            redact("Incorrect API key provided: sk-abcdefghijklmnopqrst. See ä docs.").as_deref(),
            Some("Incorrect API key provided: [redacted] See ä docs.")
        );
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij";
        let sentence = format!("token={token}.gsk_abcdefghijklmnopqrstuvwxyz, refused");
        assert_eq!(redact(&sentence).as_deref(), Some("token=[redacted], refused"));
        assert_eq!(redact("nothing to see"), None);
    }

    #[test]
    fn secrets_are_found_by_name_and_by_form() {
        let config = serde_json::json!({"base_url": "https://a", "auth": {"api_key": "hunter2"}});
        assert_eq!(find_secret(&config).as_deref(), Some(".auth.api_key"));
        assert_eq!(find_key(&config), None);
        let metadata = serde_json::json!({"a": [1, {"b": "sk-abcdefghijklmnopqrst"}]});
        assert_eq!(find_key(&metadata).as_deref(), Some(".a[1].b"));
    }
}
