//! Detects text that looks like a provider's key, so that Bursar refuses it before it is stored.
//!
//! Only well-known forms are detected. A rule based on entropy would refuse trace ids.

use crate::auth::secret::OPERATOR_PREFIX;

/// The prefixes of keys and what must follow, as the providers document them or as their keys are.
const FORMS: &[(&str, KeyTail)] = &[
    ("sk-", KeyTail::Random), // OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek, LiteLLM
    ("sk-lf-", KeyTail::OfLength(36)), // Langfuse
    ("sk-helicone-", KeyTail::OfLength(20)), // Helicone
    ("csk-", KeyTail::Random), // Cerebras
    ("xai-", KeyTail::Random), // xAI
    ("pplx-", KeyTail::Random), // Perplexity
    ("nvapi-", KeyTail::Random), // NVIDIA
    ("gsk_", KeyTail::Random), // Groq
    ("hf_", KeyTail::Run(30)), // Hugging Face
    ("r8_", KeyTail::Run(30)), // Replicate
    ("fw_", KeyTail::Run(20)), // Fireworks
    ("tgp_v1_", KeyTail::Random), // Together
    ("lsv2_", KeyTail::Random), // LangSmith
    ("dapi", KeyTail::Run(32)), // Databricks
    ("sk_live_", KeyTail::Random), // Stripe
    ("ghp_", KeyTail::Random), // GitHub
    ("gho_", KeyTail::Random),
    ("ghs_", KeyTail::Random),
    ("github_pat_", KeyTail::Random),
    ("glpat-", KeyTail::Random),           // GitLab
    ("xoxb-", KeyTail::Random),            // Slack
    ("xoxp-", KeyTail::Random),            // Slack
    ("hvs.", KeyTail::Random),             // Vault
    ("AIza", KeyTail::OfLength(35)),       // Google
    ("AQ.Ab", KeyTail::OfLength(40)),      // Google, since 2025
    ("ya29.", KeyTail::OfLength(40)),      // Google, OAuth
    ("GOCSPX-", KeyTail::OfLength(28)),    // Google, OAuth clients
    ("ABSK", KeyTail::Run(40)),            // Amazon Bedrock
    ("bedrock-api-key-", KeyTail::Random), // Amazon Bedrock, short-lived
    ("AKIA", KeyTail::UpperCase(16)),      // Amazon, long-lived
    ("ASIA", KeyTail::UpperCase(16)),      // Amazon, temporary
    ("bur_", KeyTail::OfLength(100)),      // Bursar: API keys
    ("bur_operator_", KeyTail::Random),    // Bursar: the operator's token
    ("bur_metrics_", KeyTail::Random),     // Bursar: the token for metrics
    ("bur_secret_", KeyTail::Random),      // Bursar: the secret key
];

/// What must follow the prefix of a key.
#[derive(Clone, Copy)]
enum KeyTail {
    /// Either at least [`RUN_MIN`] letters and digits in a row, anywhere in the same word, or what
    /// looks like random base64url ([`looks_random`]).
    Random,
    /// At least this many letters and digits at once. For prefixes that short words also have.
    Run(usize),
    /// Exactly this many upper-case letters and digits.
    UpperCase(usize),
    /// At least this many characters.
    OfLength(usize),
}

/// A run of letters and digits longer than in any word.
///
/// Prefixes that ask for it end with another character, so that the run is whole.
const RUN_MIN: usize = 16;

/// The fewest characters of random base64url that are a key: GitLab's have 20, LiteLLM's 22.
const RANDOM_MIN: usize = 20;
/// How many characters behind a prefix are looked at. It keeps a scan linear.
const RANDOM_SEEN: usize = 48;

/// The fewest letters of a word that tells a name from random text.
const WORD_MIN: usize = 4;

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
pub(crate) const REDACTED: &str = "[redacted]";

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
            KeyTail::OfLength(length) => {
                after.bytes().take(length).filter(|byte| is_base64url(*byte)).count() == length
            }
            KeyTail::Run(length) => {
                after.bytes().take_while(u8::is_ascii_alphanumeric).take(length).count() == length
            }
            KeyTail::UpperCase(length) => {
                let is_part = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                let part = after.bytes().take_while(is_part).take(length + 1).count();
                part == length
                    && !after.as_bytes().get(length).is_some_and(u8::is_ascii_alphanumeric)
            }
            KeyTail::Random => {
                let last = scan.get_or_insert_with(|| WordScan::of(word)).last_run;
                last.is_some_and(|run| run >= at + prefix.len()) || looks_random(after)
            }
        }
    });
    known || begins_token(word, at, text, scan) || begins_integration_key(text)
}

/// Whether a text begins with random base64url rather than with a name.
///
/// Random text has letters of both cases, in parts that no name has: `Xq4r7tv2`. The parts of a name
/// between `-` and `_` are words (`Support`, `SK`, `v12`, `McpServer`), and most of it is words of four
/// letters or more. Of 22 random characters about one in 30,000 passes as a name.
fn looks_random(text: &str) -> bool {
    let end = text.bytes().take(RANDOM_SEEN).take_while(|byte| is_base64url(*byte)).count();
    let Some(text) = text.get(..end) else { return false };
    let has = |is_kind: fn(&u8) -> bool| text.as_bytes().iter().any(is_kind);
    text.len() >= RANDOM_MIN
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && !is_of_words(text)
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn is_of_words(text: &str) -> bool {
    let parts = || text.split(['-', '_']);
    let in_words: usize = parts().map(letters_in_words).sum();
    parts().all(is_word) && in_words * 5 >= text.len() * 3
}

/// Whether a part changes its kind of character at most once: `Support`, `SK`, `v12`, `McpServer`.
///
/// A capital before small letters begins a word, so it is of their kind.
fn is_word(part: &str) -> bool {
    let pairs = part.as_bytes().iter().zip(part.as_bytes().iter().skip(1));
    let mut capitals = 0;
    let mut changes = 0;
    for (byte, next) in pairs {
        capitals = if byte.is_ascii_uppercase() { capitals + 1 } else { 0 };
        let begins_word = capitals == 1 && next.is_ascii_lowercase();
        changes += usize::from(kind_of(*byte) != kind_of(*next) && !begins_word);
    }
    changes <= 1
}

fn kind_of(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => b'a',
        b'A'..=b'Z' => b'A',
        _ => b'0',
    }
}

/// How many characters of a part are in words of at least four letters, or in numbers of four digits.
fn letters_in_words(part: &str) -> usize {
    let mut sum = 0;
    let mut length: usize = 0;
    let mut before = None;
    for byte in part.bytes() {
        let goes_on = before.is_some_and(|before: u8| {
            let begins_word =
                length == 1 && before.is_ascii_uppercase() && byte.is_ascii_lowercase();
            kind_of(before) == kind_of(byte) || begins_word
        });
        if !goes_on {
            sum += if length >= WORD_MIN { length } else { 0 };
            length = 0;
        }
        length += 1;
        before = Some(byte);
    }
    sum + if length >= WORD_MIN { length } else { 0 }
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

    /// Keys in the forms that providers and tools hand out. All are made up.
    const REAL_FORMS: &[&str] = &[
        "sk-_Xq4r7tv2-9bLmNPZ6cWsB",
        "sk-Zt-4yLw_0pQrA7nKe2bVx9",
        "sk-proj-abcdefghijklmnopqrst",
        "sk-proj-Ab3dEfGh1jKlMn0p-StUv_x8Yz2aB4cD6eF8gH0iJ2kL4",
        "sk-svcacct-Ab3dEfGh1jKlMn0p",
        concat!("sk-", "ant-", "abcdefghijklmnop"),
        concat!("sk-", "ant-", "api03-Q7w-2Rt_9Yp-4Ls_8Kd-1Fg_6Hj"),
        "sk-or-v1-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "sk-0123456789abcdef0123456789abcdef",
        "sk-lf-4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
        "sk-helicone-abc1234-def5678-ghi9012-jkl3456",
        "csk-abcdefghijklmnopqrstuvwxyz0123456789abcdefghijkl",
        "xai-Ab3dEfGh1jKlMn0pQrStUvWx",
        "pplx-0123456789abcdef0123456789abcdef0123456789abcdef",
        "nvapi-Ab3-EfGh_jKlMn0-QrStUv_x8Yz2a-4cD6e",
        "gsk_abcdefghijklmnopqrstuvwxyz",
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
        "r8_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGhIjK",
        "fw_3ZaBcDeFgHiJkLmNoPqRsTuV",
        "tgp_v1_AbCdEfGhIjKlMnOpQrStUvWxYz",
        "lsv2_pt_0123456789abcdef0123456789abcdef_0123456789",
        "dapi0123456789abcdef0123456789abcdef",
        "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
        "glpat-Xq4r7-v2_9bLmNPZ6cWs",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "AQ.Ab8RN6K-x7Qw_2Er5Ty8Ui0Op3As6Df9Gh1Jk4Lz7Xc",
        "ABSKQmVkcm9ja0FQSUtleS1hYmNkLWF0LTEyMzQ1Njc4OTAxMjpzZWNyZXQ=",
        "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9BY3Rpb249Q2Fsb",
        "AKIAABCDEFGHIJKLMNOP",
        "ASIAY34FZKBOKMUTVV7A",
        "-----BEGIN RSA PRIVATE KEY-----\nabc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
    ];

    /// What stands in real records and configurations and is no key, although it begins like one.
    const REAL_NON_KEYS: &[&str] = &[
        "sk-short",
        "sk-customer-support-bot-2026",
        "sk-Customer-Support-Bot-2026",
        "sk-SK-locale-Support-Agent-v12",
        "sk-HTTPServer-v2-Quality-Team",
        "sk-McpServer_Billing_Report_EU1",
        "sk_live_chat_agent",
        "ASIA-PACIFIC-support-bot",
        "ASIAPACIFICSUPPORTBOT",
        "ASIA_PACIFIC_SALES_2026_Q4",
        "AKIA-region-router",
        "AKIABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "gsk_Marketing_Campaign_Assistant",
        "xai-grok-4-fast-reasoning-2026-01",
        "pplx-70b-online-chat-completions",
        "nvapi-gateway-team-Europe-West",
        "glpat-rotation-Reminder-Agent",
        "hf_hub_download_failed_retry",
        "fw_65f1a2b3c4d5e6f7",
        "fw_call-4bf92f3577b34da6a3ce929d0e0e4736",
        "r8_00660b79-1e72-8c3a-87e1-65583f7b7206",
        "00660b79-1e72-8c3a-87e1-65583f7b7206_4bf92f3577b34da6a3ce929d0e0e4736",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "V1StGXR8_Z5jdHi6B-myT",
        "bur_operator_of_the_night_shift",
        "ask-me-anything-about-it-please",
        "task-4bf92f3577b34da6a3ce929d0e0e4736",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "gpt-4o-mini-2024-07-18",
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
        "projects/my-project/locations/us-central1/publishers/google/models/gemini-2.5-pro",
        "accounts/fireworks/models/llama-v3p1-405b-instruct",
        "dapi-latency-dashboard",
        "vault://secret/llm#key",
        "grüße an alle, die das lesen können",
    ];

    #[test]
    fn a_real_form_of_a_key_is_found_wherever_it_stands() {
        for key in REAL_FORMS {
            for text in [(*key).to_owned(), format!("Bearer {key}"), format!("{{\"k\":\"{key}\"}}")]
            {
                assert!(contains_key(&text), "{text}");
                let clean = redact(&text).expect("a key is taken out");
                assert!(!clean.contains(key) && !contains_key(&clean), "{clean}");
            }
        }
        assert!(contains_key("my-sk-abcdefghijklmnopqrst"));
    }

    #[test]
    fn what_is_no_key_passes_wherever_it_stands() {
        for plain in REAL_NON_KEYS {
            for text in [(*plain).to_owned(), format!("agent={plain}."), format!("(\"{plain}\")")] {
                assert!(!contains_key(&text), "{text}");
                assert_eq!(redact(&text), None);
            }
        }
    }

    #[test]
    fn random_base64url_is_a_key_and_almost_never_a_name() {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = blake3::Hasher::new().update(b"the same keys each time").finalize_xof();
        let mut missed = 0;
        for _ in 0..20_000 {
            let mut bytes = [0_u8; 22];
            random.fill(&mut bytes);
            let tail: String =
                bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect();
            missed += usize::from(!contains_key(&format!("sk-{tail}")));
        }
        assert!(missed <= 4, "{missed} of 20,000 keys were missed");
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
