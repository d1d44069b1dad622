//! A usage record on the wire, and what it means.
//!
//! A record is a fact about a call that was made, so it is not refused for its spelling: numbers are
//! read in any notation, labels are cleaned, and unknown fields are named in the response. An
//! old server must not lose a newer client's records.

use std::fmt;

use bursar_core::{
    CallId, IntegrationId, Nanos, ParseIdError, PolicyResult, TokenBuckets, TokenCounts, Usage,
    UsageStatus,
};
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::telemetry::ignored_fields::IgnoredFields;
use crate::api::telemetry::tags_and_units::{read_tags, read_units};
use crate::credentials::raw_key;
use crate::wire::body::parse;
use crate::wire::enums;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::freeform_json::check_metadata;
use crate::wire::label::{clean_label, clean_message};
use crate::wire::numbers::{read_cents, read_millis, read_tokens, read_usd};
use crate::wire::scalars;
use crate::wire::scalars::{
    AmountCents, AmountUsd, FreeObject, Id, Instant, Label, Message, Millis, ModelLabel,
    ProviderLabel, RegionLabel, RequestLabel, SentUsageStatus, ShortLabel, TagValues, TierLabel,
    TokenCount, UnitAmounts,
};
use crate::wire::text::refuse_key;
use crate::wire::timestamps;

/// The longest id of a provider's request, in characters.
const REQUEST_ID_CHARS_MAX: usize = 256;

/// A usage record.
///
/// Numbers may be JSON numbers in any notation or decimal strings. Labels are trimmed, and control
/// characters in them are replaced with U+FFFD.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct UsageRecord<'a> {
    /// Required unless the caller uses an integration key.
    #[schema(value_type = Option<Id>)]
    integration_id: Option<Box<str>>,
    /// Makes the record safe to repeat, and settles the reservation with this call id.
    #[schema(value_type = scalars::CallId)]
    call_id: Option<Box<str>>,
    #[schema(value_type = Option<Label>)]
    session_id: Option<Box<str>>,
    #[schema(value_type = Option<Label>)]
    agent_id: Option<Box<str>>,
    /// The provider that served the call. Kept in lower case.
    #[schema(value_type = ProviderLabel)]
    provider: Option<Box<str>>,
    /// The requested model.
    #[schema(value_type = ModelLabel)]
    model: Option<Box<str>>,
    /// The model that the response names, if it is another.
    #[schema(value_type = Option<Label>)]
    response_model: Option<Box<str>>,
    /// The region that served the call.
    #[schema(value_type = Option<RegionLabel>)]
    region: Option<Box<str>>,
    /// The provider's id of the request. One that cannot be kept is ignored.
    #[schema(value_type = Option<RequestLabel>)]
    provider_request_id: Option<Box<str>>,
    /// The service tier that served the call, as the provider names it.
    #[schema(value_type = Option<TierLabel>)]
    service_tier: Option<Box<str>>,
    /// Tokens of the prompt, including those read from and written to a cache. With `error_code` it
    /// may be left out, which means 0.
    #[schema(value_type = Option<TokenCount>)]
    tokens_in: Option<&'a RawValue>,
    /// Tokens of the response, including reasoning. Defaults to 0.
    #[schema(value_type = Option<TokenCount>)]
    tokens_out: Option<&'a RawValue>,
    /// The part of `tokens_in` that was read from a cache.
    #[schema(value_type = Option<TokenCount>)]
    tokens_cache_read: Option<&'a RawValue>,
    /// The part of `tokens_in` that was written to a cache.
    #[schema(value_type = Option<TokenCount>)]
    tokens_cache_write: Option<&'a RawValue>,
    /// The part of `tokens_cache_write` that is kept for an hour or longer.
    #[schema(value_type = Option<TokenCount>)]
    tokens_cache_write_long: Option<&'a RawValue>,
    /// The part of `tokens_in` that is audio.
    #[schema(value_type = Option<TokenCount>)]
    tokens_audio_in: Option<&'a RawValue>,
    /// The part of `tokens_in` that is images.
    #[schema(value_type = Option<TokenCount>)]
    tokens_image_in: Option<&'a RawValue>,
    /// The part of `tokens_out` that was spent on reasoning.
    #[schema(value_type = Option<TokenCount>)]
    tokens_reasoning: Option<&'a RawValue>,
    /// The part of `tokens_out` that is audio.
    #[schema(value_type = Option<TokenCount>)]
    tokens_audio_out: Option<&'a RawValue>,
    /// The part of `tokens_out` that is images.
    #[schema(value_type = Option<TokenCount>)]
    tokens_image_out: Option<&'a RawValue>,
    /// How far the token figures can be relied on. Defaults to `final`.
    #[schema(value_type = Option<SentUsageStatus>)]
    usage_status: Option<Box<str>>,
    /// Amounts of billed units other than tokens.
    #[schema(value_type = Option<UnitAmounts>)]
    units: Option<&'a RawValue>,
    /// Names and values of your own, such as a team, a feature or an end customer.
    #[schema(value_type = Option<TagValues>)]
    tags: Option<&'a RawValue>,
    /// The cost of the call in cents. If no cost is sent, the reserved amount counts; without a
    /// reservation the cost is unknown.
    #[schema(value_type = Option<AmountCents>)]
    cost_cents: Option<&'a RawValue>,
    /// The cost of the call in dollars. It counts if `cost_cents` is sent too.
    #[schema(value_type = Option<AmountUsd>)]
    cost_usd: Option<&'a RawValue>,
    /// Rounded to a millisecond.
    #[schema(value_type = Option<Millis>)]
    latency_ms: Option<&'a RawValue>,
    /// Defaults to `allowed`. A blocked call does not count towards the rate.
    #[schema(value_type = Option<enums::PolicyResult>)]
    policy_result: Option<Box<str>>,
    /// The error that the call ended with.
    #[schema(value_type = Option<ShortLabel>)]
    error_code: Option<Box<str>>,
    /// Cut after 4,000 characters. Bursar removes keys from it.
    #[schema(value_type = Option<Message>)]
    error_message: Option<Box<str>>,
    /// Other facts about the call.
    #[schema(value_type = Option<FreeObject>)]
    metadata: Option<&'a RawValue>,
    /// When the call was made, at most 5 minutes ahead. Defaults to the time of its reservation, or
    /// now.
    #[schema(value_type = Option<Instant>)]
    occurred_at: Option<Box<str>>,
    #[schema(ignore)]
    ignored_fields: IgnoredFields,
}

/// Reads a record field by field, as the derived code would, and notes the names it does not know.
macro_rules! read_fields {
    ($($field:ident)+) => {
        #[expect(non_camel_case_types, reason = "variants are named as fields on the wire")]
        #[derive(Deserialize)]
        #[serde(field_identifier)]
        enum Field {
            $($field,)+
            Unknown(String),
        }

        impl<'de> Visitor<'de> for RecordVisitor {
            type Value = UsageRecord<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("struct UsageRecord")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut record = UsageRecord::default();
                $(let mut $field = false;)+
                while let Some(name) = map.next_key::<Field>()? {
                    match name {
                        $(Field::$field => {
                            if std::mem::replace(&mut $field, true) {
                                return Err(A::Error::duplicate_field(stringify!($field)));
                            }
                            record.$field = map.next_value()?;
                        })+
                        Field::Unknown(name) => {
                            map.next_value::<IgnoredAny>()?;
                            record.ignored_fields.add(&name);
                        }
                    }
                }
                Ok(record)
            }
        }
    };
}

struct RecordVisitor;

read_fields! {
    integration_id call_id session_id agent_id provider model response_model region
    provider_request_id service_tier tokens_in tokens_out tokens_cache_read tokens_cache_write
    tokens_cache_write_long tokens_audio_in tokens_image_in tokens_reasoning tokens_audio_out
    tokens_image_out usage_status units tags
    cost_cents cost_usd latency_ms policy_result error_code error_message metadata occurred_at
}

impl<'de: 'a, 'a> Deserialize<'de> for UsageRecord<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

/// A record that was read and checked.
#[derive(Debug)]
pub struct CheckedRecord {
    pub usage: Usage,
    pub ignored_fields: IgnoredFields,
}

/// Reads and checks one record. What needs storage is checked by the ledger.
///
/// # Errors
/// [`ApiError`] that names the field.
pub fn check_record(
    text: &str,
    restricted_to: Option<IntegrationId>,
) -> Result<CheckedRecord, ApiError> {
    parse::<UsageRecord<'_>>(text)?.check(restricted_to)
}

impl UsageRecord<'_> {
    fn check(self, restricted_to: Option<IntegrationId>) -> Result<CheckedRecord, ApiError> {
        let mut ignored_fields = self.ignored_fields;
        let integration_id = check_integration(self.integration_id.as_deref(), restricted_to)?;
        let call_id = self.call_id.ok_or_else(|| missing("call_id"))?;
        refuse_key("call_id", &call_id)?;
        let error_code = optional_label("error_code", self.error_code)?;
        let counts = TokenCounts {
            tokens_in: match self.tokens_in {
                None if error_code.is_none() => return Err(missing("tokens_in")),
                sent => tokens("tokens_in", sent)?,
            },
            tokens_out: tokens("tokens_out", self.tokens_out)?,
            cache_read: tokens("tokens_cache_read", self.tokens_cache_read)?,
            cache_write: tokens("tokens_cache_write", self.tokens_cache_write)?,
            cache_write_long: tokens("tokens_cache_write_long", self.tokens_cache_write_long)?,
            audio_in: tokens("tokens_audio_in", self.tokens_audio_in)?,
            image_in: tokens("tokens_image_in", self.tokens_image_in)?,
            reasoning: tokens("tokens_reasoning", self.tokens_reasoning)?,
            audio_out: tokens("tokens_audio_out", self.tokens_audio_out)?,
            image_out: tokens("tokens_image_out", self.tokens_image_out)?,
        };
        let provider = lower_case(label("provider", self.provider)?);
        let model = label("model", self.model)?;
        let usage = Usage {
            session_id: optional_label("session_id", self.session_id)?,
            agent_id: optional_label("agent_id", self.agent_id)?,
            response_model: optional_label("response_model", self.response_model)?,
            region: optional_label("region", self.region)?,
            provider_request_id: request_id(self.provider_request_id, &mut ignored_fields),
            service_tier: optional_label("service_tier", self.service_tier)?,
            tokens: TokenBuckets::checked(counts)?,
            usage_status: check_usage_status(self.usage_status.as_deref())?,
            units: read_units(self.units, &mut ignored_fields)?,
            tags: read_tags(self.tags, &mut ignored_fields)?,
            cost: check_cost(self.cost_cents, self.cost_usd)?,
            latency_ms: self.latency_ms.map(|sent| read_millis("latency_ms", sent)).transpose()?,
            policy_result: check_policy(self.policy_result.as_deref())?,
            error_code,
            error_message: check_message(self.error_message),
            metadata: check_metadata(self.metadata)?,
            occurred_at: self
                .occurred_at
                .map(|text| timestamps::parse(&text))
                .transpose()
                .map_err(|problem| ApiError::field("occurred_at", problem))?,
            ..Usage::new(integration_id, CallId::new(call_id)?, provider, model)
        };
        Ok(CheckedRecord { usage: usage.checked()?, ignored_fields })
    }
}

fn missing(field: &str) -> ApiError {
    ApiError::field(field, "is required")
}

/// Cleans a label, and refuses keys in it: labels appear in lists, metrics and exports.
fn label(field: &str, sent: Option<Box<str>>) -> Result<Box<str>, ApiError> {
    let label = clean_label(sent.ok_or_else(|| missing(field))?);
    refuse_key(field, &label)?;
    Ok(label)
}

/// Like [`label`]. A blank label counts as absent.
fn optional_label(field: &str, sent: Option<Box<str>>) -> Result<Option<Box<str>>, ApiError> {
    let label = sent.map(|sent| label(field, Some(sent))).transpose()?;
    Ok(label.filter(|label| !label.is_empty()))
}

/// The provider's id of the request, which is never a reason to refuse a record.
fn request_id(sent: Option<Box<str>>, ignored: &mut IgnoredFields) -> Option<Box<str>> {
    let id = sent.map(clean_label).filter(|id| !id.is_empty())?;
    if id.chars().nth(REQUEST_ID_CHARS_MAX).is_some() || raw_key::contains_key(&id) {
        ignored.add("provider_request_id");
        return None;
    }
    Some(id)
}

fn lower_case(provider: Box<str>) -> Box<str> {
    if provider.chars().any(char::is_uppercase) { provider.to_lowercase().into() } else { provider }
}

fn tokens(field: &str, sent: Option<&RawValue>) -> Result<i64, ApiError> {
    sent.map_or(Ok(0), |sent| read_tokens(field, sent))
}

/// Reads the cost. Both fields are checked, and dollars count.
fn check_cost(cents: Option<&RawValue>, usd: Option<&RawValue>) -> Result<Option<Nanos>, ApiError> {
    let cents = cents.map(|sent| read_cents("cost_cents", sent)).transpose()?;
    let usd = usd.map(|sent| read_usd("cost_usd", sent)).transpose()?;
    Ok(usd.or(cents))
}

/// Removes keys from a message, because providers quote them in their errors.
fn check_message(message: Option<Box<str>>) -> Option<Box<str>> {
    let message = message.map(clean_message).filter(|message| !message.is_empty());
    message.map(|message| raw_key::redact(&message).map_or(message, Box::from))
}

/// The integration of a record: named, implied by an integration key, or both and equal.
fn check_integration(
    named: Option<&str>,
    restricted_to: Option<IntegrationId>,
) -> Result<IntegrationId, ApiError> {
    let named = named.map(IntegrationId::parse).transpose();
    match (named, restricted_to) {
        (Err(ParseIdError::NotUuid), _) => Err(ApiError::field("integration_id", "must be a UUID")),
        (Err(ParseIdError::Unknown), None) => Err(ApiError::of(ErrorCode::IntegrationNotFound)
            .on("integration_id", "names no integration of this tenant")),
        (Ok(None), None) => Err(missing("integration_id")),
        (Ok(Some(named)), None) => Ok(named),
        (Ok(None), Some(own)) => Ok(own),
        (Ok(Some(named)), Some(own)) if named == own => Ok(own),
        (Ok(Some(_)) | Err(ParseIdError::Unknown), Some(_)) => {
            Err(ApiError::field("integration_id", "must be the integration of the key"))
        }
    }
}

fn check_policy(text: Option<&str>) -> Result<PolicyResult, ApiError> {
    let Some(text) = text else { return Ok(PolicyResult::Allowed) };
    [PolicyResult::Allowed, PolicyResult::Warned, PolicyResult::Blocked]
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or_else(|| ApiError::field("policy_result", "must be allowed, warned or blocked"))
}

/// The status of the token figures; `reported` is an older word for `final`.
fn check_usage_status(text: Option<&str>) -> Result<UsageStatus, ApiError> {
    const ALL: [UsageStatus; 4] =
        [UsageStatus::Final, UsageStatus::Partial, UsageStatus::Estimated, UsageStatus::Missing];
    match text {
        None | Some("reported") => Ok(UsageStatus::Final),
        Some(text) => ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            ApiError::field("usage_status", "must be final, partial, estimated or missing")
        }),
    }
}

/// The call id of a refused record, if it can be read, so that a client can find the record.
pub(crate) fn sent_call_id(record: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyCallId {
        call_id: String,
    }
    let read: OnlyCallId = serde_json::from_str(record).ok()?;
    let call_id = CallId::new(read.call_id).ok()?;
    Some(call_id.as_str().to_owned()).filter(|call_id| !raw_key::contains_key(call_id))
}
