//! Recognises texts that look like a provider's key, so that they are refused before they are kept.
//!
//! Only well-known forms are recognised: a rule that guesses by randomness would refuse trace ids.

/// What keys begin with, and how long the rest is at least. Forms as the providers document them.
const FORMS: &[(&str, usize)] = &[
    ("sk-", 16),    // OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek
    ("AIza", 30),   // Google
    ("AKIA", 16),   // Amazon, long-lived
    ("ASIA", 16),   // Amazon, temporary
    ("ABSK", 30),   // Amazon Bedrock
    ("gsk_", 20),   // Groq
    ("xai-", 20),   // xAI
    ("hf_", 20),    // Hugging Face
    ("r8_", 20),    // Replicate
    ("pplx-", 20),  // Perplexity
    ("nvapi-", 20), // NVIDIA
    ("fw_", 20),    // Fireworks
    ("ghp_", 20),   // GitHub
    ("github_pat_", 20),
    ("glpat-", 16), // GitLab
    ("xoxb-", 16),  // Slack
    ("hvs.", 20),   // Vault
    ("bur_", 60),   // Bursar
];

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

fn is_key(word: &str) -> bool {
    let form = FORMS.iter().any(|(prefix, rest_min)| {
        word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *rest_min)
    });
    // A signed token: three parts, the first of which is JSON in base64.
    form || (word.starts_with("eyJ") && word.len() > 40 && word.matches('.').count() == 2)
}

/// Whether a text contains what looks like a key.
pub fn contains_key(text: &str) -> bool {
    text.len() >= 16
        && (text.contains("PRIVATE KEY-----") || words(text).any(|(_, word)| is_key(word)))
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
    for (start, word) in words(text).filter(|(_, word)| is_key(word)) {
        clean.push_str(text.get(at..start).unwrap_or_default());
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
