//! Recording usage: one record, or a batch of up to 1,000.
//!
//! Unknown fields are ignored on purpose: an old server must not lose a newer client's records.

use std::fmt;

use axum::extract::State;
use bursar_core::{
    CallId, IntegrationId, OnboardingState, ParseIdError, PolicyResult, RecordMode, RecordOutcome,
    RecordRefusal, TenantId, TokenBuckets, Usage,
};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::enforcement::estimate::check_cents;
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::INGEST;
use crate::auth::authorize::Authorized;
use crate::credentials::raw_key;
use crate::protection::protector::RecordsProtection;
use crate::wire::body::{BATCH, BATCH_RECORDS_MAX, SMALL, Text, parse, parse_envelope};
use crate::wire::enums;
use crate::wire::enums::{ACCEPTED, CONFLICT, DUPLICATE, ERROR};
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::freeform_json::check_metadata;
use crate::wire::scalars;
use crate::wire::scalars::{Cents, FreeObject, Id, Instant, Label, Message, ShortLabel, Tokens};
use crate::wire::schema::{BatchRecord, EXAMPLE_ID};
use crate::wire::text::refuse_key;
use crate::wire::timestamps;

/// A usage record.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct UsageRecord<'a> {
    /// Required unless the caller uses an integration key.
    #[schema(value_type = Option<Id>)]
    integration_id: Option<String>,
    /// Makes the record safe to repeat, and settles the reservation with this call id.
    #[schema(value_type = scalars::CallId)]
    call_id: Box<str>,
    #[schema(value_type = Option<Label>)]
    session_id: Option<Box<str>>,
    #[schema(value_type = Option<Label>)]
    agent_id: Option<Box<str>>,
    /// The provider that served the call.
    #[schema(value_type = ShortLabel)]
    provider: Box<str>,
    /// The model that answered.
    #[schema(value_type = Label)]
    model: Box<str>,
    /// Tokens of the prompt, including those read from and written to a cache.
    #[schema(value_type = Tokens)]
    tokens_in: i64,
    /// Tokens of the response, including reasoning.
    #[schema(value_type = Tokens)]
    tokens_out: i64,
    /// The part of `tokens_in` that was read from a cache.
    #[schema(value_type = Option<Tokens>)]
    #[serde(default)]
    tokens_cache_read: Option<i64>,
    /// The part of `tokens_in` that was written to a cache.
    #[schema(value_type = Option<Tokens>)]
    #[serde(default)]
    tokens_cache_write: Option<i64>,
    /// The part of `tokens_out` that was spent on reasoning.
    #[schema(value_type = Option<Tokens>)]
    #[serde(default)]
    tokens_reasoning: Option<i64>,
    /// The cost of the call. If it is absent, the reserved amount counts; without a reservation the
    /// cost is unknown.
    #[schema(value_type = Option<Cents>)]
    #[serde(borrow, default)]
    cost_cents: Option<&'a RawValue>,
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    latency_ms: Option<i64>,
    /// Defaults to `allowed`. A blocked call does not count towards the rate.
    #[schema(value_type = Option<enums::PolicyResult>)]
    policy_result: Option<String>,
    /// The error that the call ended with.
    #[schema(value_type = Option<ShortLabel>)]
    error_code: Option<Box<str>>,
    /// Cut after 4,000 characters. Bursar removes keys from it.
    #[schema(value_type = Option<Message>)]
    error_message: Option<Box<str>>,
    /// Other facts about the call.
    #[schema(value_type = Option<FreeObject>)]
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    /// When the call was made, at most 5 minutes ahead. Defaults to the time of its reservation, or
    /// now.
    #[schema(value_type = Option<Instant>)]
    occurred_at: Option<String>,
}

/// A batch of usage records.
#[derive(Debug, Deserialize, ToSchema)]
struct Batch<'a> {
    #[schema(value_type = Vec<BatchRecord>, min_items = 1, max_items = 1000)]
    #[serde(borrow)]
    records: Records<'a>,
}

/// The records of a batch, up to the limit. The rest is skipped without being kept.
#[derive(Debug)]
struct Records<'a> {
    kept: Vec<&'a RawValue>,
    too_many: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Records<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Records<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Records<'de>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < BATCH_RECORDS_MAX
                    && let Some(record) = items.next_element()?
                {
                    kept.push(record);
                }
                let mut too_many = false;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    too_many = true;
                }
                Ok(Records { kept, too_many })
            }
        }

        deserializer.deserialize_seq(Bounded)
    }
}

/// The result of one record.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordAnswer {
    #[schema(value_type = enums::RecordStatus)]
    status: &'static str,
    #[schema(value_type = Id)]
    id: String,
    #[schema(value_type = scalars::CallId)]
    call_id: String,
}

/// The results of a batch.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    accepted: u32,
    duplicates: u32,
    conflicts: u32,
    errors: u32,
    total: usize,
    results: Vec<BatchResult>,
}

/// The result of one record of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct BatchResult {
    index: usize,
    #[schema(required)]
    call_id: Option<String>,
    #[schema(value_type = enums::BatchRecordStatus)]
    status: &'static str,
    #[schema(value_type = Id, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[schema(value_type = ApiError, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// Records one model call
///
/// A success means that the record is on stable storage. The record settles the reservation with
/// the same call id. Unknown fields are ignored. Sending the same call id with different content
/// changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/telemetry/llm-usage",
    tag = "telemetry",
    request_body(content = UsageRecord, example = example_record),
    responses(
        (status = 200, body = RecordAnswer, description = "A duplicate; nothing changed."),
        (status = 201, body = RecordAnswer, description = "Accepted."),
    ),
    extensions(("x-refuses" = json!([
        ErrorCode::IntegrationNotFound,
        ErrorCode::CallIdConflict,
        ErrorCode::SecretRefused,
        ErrorCode::TotalsOverflow,
        ErrorCode::StoredBytesExceeded,
    ]))),
)]
pub(crate) async fn record_usage(
    State(app): State<App>,
    caller: Authorized,
    protection: RecordsProtection,
    body: Text<SMALL>,
) -> Result<Answer<RecordAnswer>, ApiError> {
    let only = caller.only;
    let read = body.read(move |text| check_record(text, only));
    let usage = read.await?;
    let call_id = usage.call_id.as_str().to_owned();
    let (mode, records) = (protection.mode(), vec![usage]);
    let outcomes = match app.ledger.record_as(mode, caller.tenant_id, records).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            protection.note_overload(&app.protection, &error);
            return Err(error.into());
        }
    };
    protection.conclude(&app.protection, &outcomes)?;
    complete_onboarding(&app, &caller, &outcomes).await;
    let outcome = outcomes.into_iter().next().ok_or_else(|| ApiError::of(ErrorCode::Internal))?;
    match outcome {
        RecordOutcome::Accepted(id) => {
            let id = id.to_string();
            Ok(Answer::created(RecordAnswer { status: ACCEPTED, id, call_id }))
        }
        RecordOutcome::Duplicate(id) => {
            let id = id.to_string();
            Ok(Answer::ok(RecordAnswer { status: DUPLICATE, id, call_id }))
        }
        RecordOutcome::Conflict => Err(conflict()),
        RecordOutcome::Refused(refusal) => Err(refused(refusal)),
    }
}

/// Records up to 1,000 model calls
///
/// Each record is handled on its own. The result at the same position tells what became of it; an
/// invalid record does not affect the others.
#[utoipa::path(
    post,
    path = "/api/v1/telemetry/llm-usage/batch",
    tag = "telemetry",
    request_body(content = Batch, example = json!({ "records": [example_record()] })),
    responses((status = 200, body = BatchAnswer, description = "What became of each.")),
)]
pub(crate) async fn record_usage_batch(
    State(app): State<App>,
    caller: Authorized,
    protection: RecordsProtection,
    body: Text<BATCH>,
) -> Result<Answer<BatchAnswer>, ApiError> {
    let (tenant_id, only, mode) = (caller.tenant_id, caller.only, protection.mode());
    let reading = app.clone();
    // The body is dropped here: records that wait in the queue are not kept twice.
    let checked = body.read(move |text| check_batch(&reading, (tenant_id, mode), only, text));
    let CheckedBatch { slots, records } = checked.await?;
    let outcomes = match records.len() {
        0 => Vec::new(),
        _ => match app.ledger.record_as(mode, tenant_id, records).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                protection.note_overload(&app.protection, &error);
                return Err(error.into());
            }
        },
    };
    let throttled = protection.conclude(&app.protection, &outcomes)?;
    complete_onboarding(&app, &caller, &outcomes).await;
    let mut outcomes = outcomes.into_iter();
    let mut results = Vec::with_capacity(slots.len());
    for (index, slot) in slots.into_iter().enumerate() {
        results.push(match slot {
            Slot::Refused { call_id, error } => BatchResult::refused(index, call_id, error),
            Slot::Sent { call_id } => {
                let outcome = outcomes.next().ok_or_else(|| ApiError::of(ErrorCode::Internal))?;
                BatchResult::recorded(index, call_id, outcome, throttled.as_ref())
            }
        });
    }
    Ok(Answer::ok(BatchAnswer::of(results)))
}

/// The first accepted record completes the onboarding of its tenant.
async fn complete_onboarding(app: &App, caller: &Authorized, outcomes: &[RecordOutcome]) {
    let kept = |outcome: &RecordOutcome| {
        matches!(outcome, RecordOutcome::Accepted(_) | RecordOutcome::Duplicate(_))
    };
    if caller.onboarding < OnboardingState::Complete && outcomes.iter().any(kept) {
        app.onboarding.reach(caller.tenant(), OnboardingState::Complete, &caller.actor).await;
    }
}

/// A batch whose records were read and checked.
struct CheckedBatch {
    /// One for each record of the batch, in order.
    slots: Vec<Slot>,
    /// The records of the slots that are sent, in order.
    records: Vec<Usage>,
}

/// The place of one record in a batch.
enum Slot {
    /// Refused before it reached the ledger.
    Refused { call_id: Option<String>, error: ApiError },
    /// Sent to the ledger, which answers for it.
    Sent { call_id: String },
}

/// Reads and checks the records of a batch, if the queue has room for them.
fn check_batch(
    app: &App,
    (tenant_id, mode): (TenantId, RecordMode),
    only: Option<IntegrationId>,
    text: &str,
) -> Result<CheckedBatch, ApiError> {
    let Batch { records: Records { kept, too_many } } = parse_envelope(text)?;
    if kept.is_empty() || too_many {
        return Err(ApiError::field("records", "must have 1 to 1000 records"));
    }
    if kept.len() > 1 && !app.ledger.has_room_as(mode, tenant_id, (text.len(), kept.len())) {
        return Err(ApiError::of(ErrorCode::Overloaded));
    }
    let mut slots = Vec::with_capacity(kept.len());
    let mut records = Vec::with_capacity(kept.len());
    for record in kept {
        slots.push(match check_record(record.get(), only) {
            Ok(usage) => {
                let call_id = usage.call_id.as_str().to_owned();
                records.push(usage);
                Slot::Sent { call_id }
            }
            Err(error) => Slot::Refused { call_id: sent_call_id(record.get()), error },
        });
    }
    Ok(CheckedBatch { slots, records })
}

/// Reads and checks one record.
///
/// # Errors
/// [`ApiError`] that names the field.
pub fn check_record(text: &str, only: Option<IntegrationId>) -> Result<Usage, ApiError> {
    parse::<UsageRecord<'_>>(text)?.check(only)
}

impl BatchResult {
    /// A record that was refused before it reached the ledger.
    fn refused(index: usize, call_id: Option<String>, error: ApiError) -> Self {
        Self { index, call_id, status: ERROR, id: None, error: Some(error) }
    }

    /// A record that the ledger answered for; `throttled` is protection's answer to an unknown call.
    fn recorded(
        index: usize,
        call_id: String,
        outcome: RecordOutcome,
        throttled: Option<&ApiError>,
    ) -> Self {
        let (status, id, error) = match outcome {
            RecordOutcome::Accepted(id) => (ACCEPTED, Some(id.to_string()), None),
            RecordOutcome::Duplicate(id) => (DUPLICATE, Some(id.to_string()), None),
            RecordOutcome::Conflict => (CONFLICT, None, Some(conflict())),
            RecordOutcome::Refused(refusal) => {
                let throttled = throttled.filter(|_| refusal == RecordRefusal::UnknownCall);
                (ERROR, None, Some(throttled.cloned().unwrap_or_else(|| refused(refusal))))
            }
        };
        Self { index, call_id: Some(call_id), status, id, error }
    }
}

impl BatchAnswer {
    fn of(results: Vec<BatchResult>) -> Self {
        let count = |status: &str| {
            u32::try_from(results.iter().filter(|result| result.status == status).count())
                .unwrap_or(u32::MAX)
        };
        Self {
            accepted: count(ACCEPTED),
            duplicates: count(DUPLICATE),
            conflicts: count(CONFLICT),
            errors: count(ERROR),
            total: results.len(),
            results,
        }
    }
}

/// An example for the OpenAPI document.
fn example_record() -> serde_json::Value {
    serde_json::json!({
        "integration_id": EXAMPLE_ID,
        "call_id": "call-1",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_in": 1200,
        "tokens_out": 240,
        "cost_cents": 0.54,
    })
}

/// The call id of a refused record, if it can be read, so that a client can find the record.
fn sent_call_id(record: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyCallId {
        call_id: String,
    }
    let read: OnlyCallId = serde_json::from_str(record).ok()?;
    Some(read.call_id)
        .filter(|call_id| call_id.chars().count() <= 100 && !raw_key::contains_key(call_id))
}

fn conflict() -> ApiError {
    ApiError::of(ErrorCode::CallIdConflict).on("call_id", "is taken by a record with other content")
}

fn refused(refusal: RecordRefusal) -> ApiError {
    match refusal {
        RecordRefusal::IntegrationNotFound => ApiError::of(ErrorCode::IntegrationNotFound)
            .on("integration_id", "names no integration of this tenant"),
        RecordRefusal::InTheFuture => {
            ApiError::field("occurred_at", "must not lie more than 5 minutes in the future")
        }
        RecordRefusal::TotalsOverflow => ApiError::of(ErrorCode::TotalsOverflow),
        RecordRefusal::StoredBytesExceeded => ApiError::of(ErrorCode::StoredBytesExceeded),
        // Protection has its own error for an unknown call.
        RecordRefusal::UnknownCall | RecordRefusal::NotStorable => {
            ApiError::of(ErrorCode::Internal)
        }
    }
}

impl UsageRecord<'_> {
    /// Checks everything that does not need storage.
    fn check(self, only: Option<IntegrationId>) -> Result<Usage, ApiError> {
        self.refuse_keys()?;
        let integration_id = check_integration(self.integration_id.as_deref(), only)?;
        let cost = self.cost_cents.map(|text| check_cents("cost_cents", text)).transpose()?;
        let occurred_at = self
            .occurred_at
            .map(|text| {
                timestamps::parse(&text).map_err(|problem| ApiError::field("occurred_at", problem))
            })
            .transpose()?;
        let tokens = TokenBuckets::new(
            self.tokens_in,
            self.tokens_out,
            self.tokens_cache_read.unwrap_or(0),
            self.tokens_cache_write.unwrap_or(0),
            self.tokens_reasoning.unwrap_or(0),
        )?;
        // Providers quote keys in their error messages. Bursar keeps the message and removes the
        // key.
        let error_message =
            self.error_message.map(|message| raw_key::redact(&message).map_or(message, Box::from));
        let usage = Usage {
            integration_id,
            call_id: CallId::new(self.call_id)?,
            session_id: self.session_id,
            agent_id: self.agent_id,
            provider: self.provider,
            model: self.model,
            tokens,
            cost,
            latency_ms: self.latency_ms,
            policy_result: check_policy(self.policy_result.as_deref())?,
            error_code: self.error_code,
            error_message,
            metadata: check_metadata(self.metadata)?,
            occurred_at,
        };
        Ok(usage.checked()?)
    }
}

impl UsageRecord<'_> {
    /// Refuses keys in names, which appear in lists, metrics and exports.
    fn refuse_keys(&self) -> Result<(), ApiError> {
        refuse_key("call_id", &self.call_id)?;
        refuse_key("provider", &self.provider)?;
        refuse_key("model", &self.model)?;
        let optional = [
            ("session_id", &self.session_id),
            ("agent_id", &self.agent_id),
            ("error_code", &self.error_code),
        ];
        for (field, text) in optional {
            refuse_key(field, text.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The integration of a record: named, implied by an integration key, or both and equal.
fn check_integration(
    named: Option<&str>,
    only: Option<IntegrationId>,
) -> Result<IntegrationId, ApiError> {
    let named = named.map(IntegrationId::parse).transpose();
    match (named, only) {
        (Err(ParseIdError::NotUuid), _) => Err(ApiError::field("integration_id", "must be a UUID")),
        (Err(ParseIdError::Unknown), None) => Err(refused(RecordRefusal::IntegrationNotFound)),
        (Ok(None), None) => Err(ApiError::field("integration_id", "is required")),
        (Ok(Some(named)), None) => Ok(named),
        (Ok(None), Some(only)) => Ok(only),
        (Ok(Some(named)), Some(only)) if named == only => Ok(only),
        (Ok(Some(_)) | Err(ParseIdError::Unknown), Some(_)) => {
            Err(ApiError::field("integration_id", "must be that of the integration key"))
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

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(INGEST).traffic().refused_unless_known(), routes!(record_usage))
        .add(Rule::of(INGEST).traffic().refused_unless_known(), routes!(record_usage_batch))
}
