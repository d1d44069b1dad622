//! A model call as a client reports it. It is checked once, where it enters.

use std::fmt;

use crate::id::{IntegrationId, KeyId};
use crate::money::Nanos;
use crate::subject::Subject;
use crate::tags::Tags;
use crate::text::is_control;
use crate::time::Timestamp;
use crate::tokens::TokenBuckets;
use crate::units::Units;
use crate::usage_error::UsageError;

/// Error messages are cut to this length, because a long message is no reason to refuse a record.
const ERROR_MESSAGE_CHARS_MAX: usize = 4_000;
/// The longest accepted latency: 10^9 ms, about eleven days.
pub const LATENCY_MS_MAX: i64 = 1_000_000_000;

/// Checks a text of 1 to `chars_max` characters without NUL.
fn check_text(field: &'static str, text: &str, chars_max: usize) -> Result<(), UsageError> {
    if text.is_empty() {
        return Err(UsageError::new(field, "must not be empty"));
    }
    // A character takes at least one byte, so short texts need no counting.
    if text.len() > chars_max && text.chars().count() > chars_max {
        return Err(UsageError::new(field, format!("must have at most {chars_max} characters")));
    }
    if text.as_bytes().contains(&0) {
        return Err(UsageError::new(field, "must not contain the character NUL"));
    }
    Ok(())
}

fn check_optional(
    field: &'static str,
    text: Option<&str>,
    chars_max: usize,
) -> Result<(), UsageError> {
    text.map_or(Ok(()), |text| check_text(field, text, chars_max))
}

/// The client's idempotency key of a call: 1 to 256 characters, without control characters, and
/// without white space around it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(Box<str>);

impl CallId {
    /// Checks a call id.
    ///
    /// # Errors
    /// [`UsageError`] if `call_id` is empty, too long, or contains a control character. It is
    /// refused and not replaced, because a replacement could make two call ids equal.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, UsageError> {
        let text = text.into();
        let trimmed = text.trim();
        check_text("call_id", trimmed, 256)?;
        if trimmed.chars().any(is_control) {
            return Err(UsageError::new("call_id", "must not contain control characters"));
        }
        Ok(Self(if trimmed.len() == text.len() { text } else { trimmed.into() }))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({})", self.0)
    }
}

/// The short key of a call id within its tenant: a hash that storage computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub u128);

/// The decision of the caller's own policy about the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyResult {
    #[default]
    Allowed,
    Warned,
    /// The call was not made, so it never counts against the rate limit.
    Blocked,
}

impl PolicyResult {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Blocked => "blocked",
        }
    }
}

/// How far a record's token figures can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageStatus {
    /// They are those of the whole call.
    Final,
    /// They are those of a part of it, because the call or its response was cut off.
    Partial,
    /// They are estimates, because the provider sent none.
    Estimated,
    /// They are unknown.
    Missing,
}

impl UsageStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Partial => "partial",
            Self::Estimated => "estimated",
            Self::Missing => "missing",
        }
    }
}

/// How a record reached Bursar. Today all records have [`RecordSource::Api`]; the others are
/// reserved for ways that do not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordSource {
    /// A client sent it.
    Api,
    /// It was imported from a file.
    Import,
    /// The gateway wrote it for a call that it passed on.
    Gateway,
    /// It was read from a trace.
    Otlp,
}

impl RecordSource {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Import => "import",
            Self::Gateway => "gateway",
            Self::Otlp => "otlp",
        }
    }
}

/// A model call as reported. [`Usage::checked`] is the only check that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The integration that the call used.
    pub integration_id: IntegrationId,
    pub call_id: CallId,
    /// The session of the call, up to 256 characters.
    pub session_id: Option<Box<str>>,
    /// The agent that made the call, up to 256 characters.
    pub agent_id: Option<Box<str>>,
    /// The provider in lower case, 1 to 100 characters.
    pub provider: Box<str>,
    /// The requested model, 1 to 256 characters.
    pub model: Box<str>,
    /// The model that the response names, up to 256 characters.
    pub response_model: Option<Box<str>>,
    /// The region that served the call, up to 64 characters.
    pub region: Option<Box<str>>,
    /// The provider's id of the request, up to 256 characters.
    pub provider_request_id: Option<Box<str>>,
    /// The service tier that served the call, as the provider names it; up to 50 characters.
    pub service_tier: Option<Box<str>>,
    pub tokens: TokenBuckets,
    /// How far the token figures can be relied on.
    pub usage_status: UsageStatus,
    /// Amounts of billed units other than tokens.
    pub units: Units,
    /// Names and values that the caller chose.
    pub tags: Tags,
    /// How the record reached Bursar.
    pub source: RecordSource,
    /// The key that wrote the record; `None` if a person or the operator did.
    pub key_id: Option<KeyId>,
    /// The key in whose accounts the call counts, unless another key reserved it: the first key of a
    /// line of rotated keys.
    pub account_key_id: Option<KeyId>,
    /// The cost that the client reported, at most a million dollars.
    pub cost: Option<Nanos>,
    pub latency_ms: Option<i64>,
    pub policy_result: PolicyResult,
    /// The error of a failed call, up to 100 characters.
    pub error_code: Option<Box<str>>,
    /// The message of the error; longer ones are cut to 4,000 characters.
    pub error_message: Option<Box<str>>,
    /// A JSON object as text; `None` means `{}`.
    pub metadata: Option<Box<str>>,
    /// When the call happened. The default is the creation of its reservation, else the arrival of
    /// the record.
    pub occurred_at: Option<Timestamp>,
}

impl Usage {
    /// An allowed call of which nothing else is known.
    pub fn new(
        integration_id: IntegrationId,
        call_id: CallId,
        provider: Box<str>,
        model: Box<str>,
    ) -> Self {
        Self {
            integration_id,
            call_id,
            session_id: None,
            agent_id: None,
            provider,
            model,
            response_model: None,
            region: None,
            provider_request_id: None,
            service_tier: None,
            tokens: TokenBuckets::default(),
            usage_status: UsageStatus::Final,
            units: Units::default(),
            tags: Tags::default(),
            source: RecordSource::Api,
            key_id: None,
            account_key_id: None,
            cost: None,
            latency_ms: None,
            policy_result: PolicyResult::Allowed,
            error_code: None,
            error_message: None,
            metadata: None,
            occurred_at: None,
        }
    }

    /// What limits look at, if the call counts in the accounts of this key.
    pub fn subject(&self, account_key_id: Option<KeyId>) -> Subject<'_> {
        Subject {
            integration_id: self.integration_id,
            account_key_id,
            model: Some(&self.model),
            agent_id: self.agent_id.as_deref(),
            session_id: self.session_id.as_deref(),
            tags: &self.tags,
        }
    }

    /// What a record takes in storage beside its texts, in bytes.
    ///
    /// This covers its figures, its rows in indexes and sums, and the key of its call id.
    pub const FIXED_BYTES: i64 = 400;

    /// The size of the record in storage, in bytes.
    ///
    /// It is computed from the texts in UTF-8 plus [`Usage::FIXED_BYTES`], so that it is the same
    /// on every database and can be recomputed.
    pub fn stored_bytes(&self) -> i64 {
        let texts = i64::try_from(self.text_bytes()).unwrap_or(i64::MAX);
        texts.saturating_add(Self::FIXED_BYTES)
    }

    /// The bytes of all texts of the record, with tags and units as they are stored.
    pub fn text_bytes(&self) -> usize {
        let optional = [
            &self.session_id,
            &self.agent_id,
            &self.response_model,
            &self.region,
            &self.provider_request_id,
            &self.service_tier,
            &self.error_code,
            &self.error_message,
            &self.metadata,
        ];
        let optional: usize = optional.into_iter().flatten().map(|text| text.len()).sum();
        let lists = self.tags.json_bytes() + self.units.json_bytes();
        let required = self.call_id.as_str().len() + self.provider.len() + self.model.len();
        required + optional + lists
    }

    /// Checks all texts and figures of a record from a client.
    ///
    /// # Errors
    /// [`UsageError`] for the first invalid field.
    pub fn checked(mut self) -> Result<Self, UsageError> {
        check_optional("session_id", self.session_id.as_deref(), 256)?;
        check_optional("agent_id", self.agent_id.as_deref(), 256)?;
        check_text("provider", &self.provider, 100)?;
        check_text("model", &self.model, 256)?;
        check_optional("response_model", self.response_model.as_deref(), 256)?;
        check_optional("region", self.region.as_deref(), 64)?;
        check_optional("provider_request_id", self.provider_request_id.as_deref(), 256)?;
        check_optional("service_tier", self.service_tier.as_deref(), 50)?;
        check_optional("error_code", self.error_code.as_deref(), 100)?;
        check_optional("error_message", self.error_message.as_deref(), usize::MAX)?;
        if let Some(latency_ms) = self.latency_ms
            && !(0..=LATENCY_MS_MAX).contains(&latency_ms)
        {
            let problem = format!("must be between 0 and {LATENCY_MS_MAX}");
            return Err(UsageError::new("latency_ms", problem));
        }
        if let Some(message) = &self.error_message
            && let Some((end, _)) = message.char_indices().nth(ERROR_MESSAGE_CHARS_MAX)
        {
            self.error_message = message.get(..end).map(Box::from);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        let integration_id = IntegrationId::from_number(1).expect("in range");
        Usage::new(
            integration_id,
            CallId::new("call").expect("valid"),
            "openai".into(),
            "gpt".into(),
        )
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Usage), field: Option<&str>) {
        let mut record = usage();
        change(&mut record);
        assert_eq!(record.checked().err().map(|error| error.field), field);
    }

    #[test]
    fn each_field_is_limited_in_length() {
        check(|_| {}, None);
        check(|u| u.provider = "x".repeat(100).into(), None);
        check(|u| u.provider = "ä".repeat(100).into(), None);
        check(|u| u.provider = "x".repeat(101).into(), Some("provider"));
        check(|u| u.provider = "".into(), Some("provider"));
        check(|u| u.model = "a\0b".into(), Some("model"));
        check(|u| u.model = "ä".repeat(256).into(), None);
        check(|u| u.model = "x".repeat(257).into(), Some("model"));
        check(|u| u.response_model = Some("x".repeat(257).into()), Some("response_model"));
        check(|u| u.service_tier = Some("x".repeat(51).into()), Some("service_tier"));
        check(|u| u.region = Some("x".repeat(65).into()), Some("region"));
        check(|u| u.agent_id = Some("x".repeat(257).into()), Some("agent_id"));
        check(|u| u.session_id = Some("x".repeat(257).into()), Some("session_id"));
        check(|u| u.error_code = Some("x".repeat(101).into()), Some("error_code"));
        check(|u| u.error_message = Some("\0".into()), Some("error_message"));
        check(|u| u.latency_ms = Some(-1), Some("latency_ms"));
    }

    #[test]
    fn a_call_id_is_trimmed_and_has_no_control_characters() {
        let read = |text: &str| CallId::new(text).map(|call_id| call_id.as_str().to_owned());
        assert_eq!(read(" call 1\r\n").as_deref(), Ok("call 1"));
        assert_eq!(read(&"ä".repeat(256)).map(|text| text.chars().count()), Ok(256));
        for wrong in ["", " \n", "a\0b", "a\nb", "a\u{1b}[2Jb", "a\u{2028}b", "a\u{85}b"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&"x".repeat(257)).is_err());
    }

    #[test]
    fn a_long_error_message_is_cut_at_a_character() {
        let mut record = usage();
        record.error_message = Some("ä".repeat(5_000).into());
        let kept = record.checked().expect("accepted").error_message.expect("kept");
        assert_eq!(kept.chars().count(), 4_000);
    }
}
