//! Recognises texts that look like a provider's key, so that they are refused before they are kept.
//!
//! Only well-known forms are recognised: a rule that guesses by randomness would refuse trace ids.

/// What keys begin with, and what has to follow. Forms as the providers document them.
const FORMS: &[(&str, Rest)] = &[
    ("sk-", Rest::WithRun), // OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek
    ("xai-", Rest::WithRun), // xAI
    ("pplx-", Rest::WithRun), // Perplexity
    ("nvapi-", Rest::WithRun), // NVIDIA
    ("gsk_", Rest::WithRun), // Groq
    ("hf_", Rest::WithRun), // Hugging Face
    ("r8_", Rest::WithRun), // Replicate
    ("fw_", Rest::WithRun), // Fireworks
    ("ghp_", Rest::WithRun), // GitHub
    ("github_pat_", Rest::WithRun),
    ("glpat-", Rest::WithRun),     // GitLab
    ("xoxb-", Rest::WithRun),      // Slack
    ("hvs.", Rest::WithRun),       // Vault
    ("AIza", Rest::OfLength(35)),  // Google
    ("ABSK", Rest::OfLength(40)),  // Amazon Bedrock
    ("AKIA", Rest::OfLength(16)),  // Amazon, long-lived
    ("ASIA", Rest::OfLength(16)),  // Amazon, temporary
    ("bur_", Rest::OfLength(100)), // Bursar
];

/// What follows the beginning of a key.
#[derive(Clone, Copy)]
enum Rest {
    /// Somewhere at least this many letters and digits in a row, which words do not have.
    WithRun,
    /// At least so many characters.
    OfLength(usize),
}

/// Letters and digits in a row that no word has.
const RUN_MIN: usize = 16;

impl Rest {
    fn matches(self, rest: &str) -> bool {
        match self {
            Self::OfLength(length) => rest.len() >= length,
            Self::WithRun => rest
                .split(|character: char| !character.is_ascii_alphanumeric())
                .any(|run| run.len() >= RUN_MIN),
        }
    }
}

/// Names under which a configuration would carry a secret.
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

/// What stands in the place of a key in a text that is kept.
const REDACTED: &str = "[redacted]";

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// The words of a text that could be a key, as byte ranges.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|character: char| !character.is_ascii() || !in_word(character as u8)).map(
        move |word| {
            let start =
                text.get(at..).and_then(|rest| rest.find(word)).map_or(at, |found| at + found);
            at = start + word.len();
            (start, word)
        },
    )
}

/// Where in a word a key begins, if there is one: at its start, or after a separator.
fn key_in(word: &str) -> Option<usize> {
    let starts = word.char_indices().map(|(at, _)| at).filter(|at| {
        let before = at.checked_sub(1).and_then(|before| word.as_bytes().get(before));
        before.is_none_or(|byte| !byte.is_ascii_alphanumeric())
    });
    let mut starts = starts.filter_map(|at| Some((at, word.get(at..)?)));
    starts.find(|(_, rest)| begins_key(rest)).map(|(at, _)| at)
}

fn begins_key(text: &str) -> bool {
    let mut forms = FORMS.iter();
    forms.any(|(prefix, rest)| text.strip_prefix(prefix).is_some_and(|text| rest.matches(text)))
        // A signed token: three parts, the first of which is JSON in base64; an encrypted one has
        // five. A bound from below, so that whatever follows a token does not hide it.
        || (text.starts_with("eyJ") && text.len() > 40 && text.matches('.').count() >= 2)
}

/// Whether a text contains what looks like a key.
pub fn contains_key(text: &str) -> bool {
    text.len() >= 16
        && (text.contains("PRIVATE KEY-----")
            || words(text).any(|(_, word)| key_in(word).is_some()))
}

/// The text with everything that looks like a key taken out.
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

/// Where in a JSON value a key stands: the path of the first string that contains one.
pub fn find_key(value: &serde_json::Value) -> Option<String> {
    find(value, &|_, text| contains_key(text))
}

/// Where in a configuration a secret stands, by its form or by the name it is kept under.
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
