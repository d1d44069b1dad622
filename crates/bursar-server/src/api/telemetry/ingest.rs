//! Recording usage: one record, or a batch of up to 1,000.

use std::fmt;

use axum::extract::State;
use bursar_core::{
    CostSource, EntryId, IntegrationId, OnboardingState, RecordMode, RecordOutcome, RecordRefusal,
    TenantId, Usage,
};
use bursar_store::CostedOutcome;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::api::telemetry::ignored_fields::IgnoredFields;
use crate::api::telemetry::usage_record::{CheckedRecord, UsageRecord, check_record, sent_call_id};
use crate::app::App;
use crate::auth::access::INGEST;
use crate::auth::authorize::Authorized;
use crate::auth::caller::CallerKey;
use crate::protection::protector::RecordsProtection;
use crate::wire::body::{BATCH, BATCH_RECORDS_MAX, SMALL, Text, parse_envelope};
use crate::wire::enums;
use crate::wire::enums::{ACCEPTED, CONFLICT, DUPLICATE, ERROR};
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::scalars;
use crate::wire::scalars::Id;
use crate::wire::schema::{BatchRecord, EXAMPLE_ID};

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
    /// Where the cost of the record comes from.
    #[schema(value_type = enums::CostSource)]
    cost_source: &'static str,
    /// Fields, tags and units of the record that Bursar did not keep, up to 20 names.
    ignored_fields: Vec<String>,
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
    /// Fields, tags and units of the record that Bursar did not keep, up to 20 names. Absent if there
    /// are none, and for records after the first 64 KiB of names in a batch.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored_fields: Vec<String>,
}

/// Records one model call
///
/// A success means that the record is on stable storage. The record settles the reservation with
/// the same call id. Unknown fields are ignored, and the response names them. Sending the same call id
/// with different content changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/telemetry/llm-usage",
    tag = "telemetry",
    request_body(content = UsageRecord, example = example_record),
    responses(
        (
            status = 200,
            body = RecordAnswer,
            description = "The record is a duplicate. Nothing changed.",
        ),
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
    let author = (caller.restricted_to, caller.key);
    let read = body.read(move |text| check_record_of(author, text));
    let CheckedRecord { usage, ignored_fields } = read.await?;
    let call_id = usage.call_id.as_str().to_owned();
    let (mode, records) = (protection.mode(), vec![usage]);
    let (outcomes, sources) = match app.ledger.record_as(mode, caller.tenant_id, records).await {
        Ok(outcomes) => split(outcomes),
        Err(error) => {
            protection.note_overload(&app.protection, &error);
            return Err(error.into());
        }
    };
    protection.conclude(&app.protection, &outcomes)?;
    complete_onboarding(&app, &caller, &outcomes).await;
    let outcome = outcomes.into_iter().next().ok_or_else(|| ApiError::of(ErrorCode::Internal))?;
    let source = sources.into_iter().next().flatten();
    let answer = |status, id: EntryId| {
        let cost_source = source.ok_or_else(|| ApiError::of(ErrorCode::Internal))?.as_str();
        let (id, ignored_fields) = (id.to_string(), ignored_fields.into_names());
        Ok(RecordAnswer { status, id, call_id, cost_source, ignored_fields })
    };
    match outcome {
        RecordOutcome::Accepted(id) => answer(ACCEPTED, id).map(Answer::created),
        RecordOutcome::Duplicate(id) => answer(DUPLICATE, id).map(Answer::ok),
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
    responses((status = 200, body = BatchAnswer, description = "The result of each record.")),
)]
pub(crate) async fn record_usage_batch(
    State(app): State<App>,
    caller: Authorized,
    protection: RecordsProtection,
    body: Text<BATCH>,
) -> Result<Answer<BatchAnswer>, ApiError> {
    let (tenant_id, mode) = (caller.tenant_id, protection.mode());
    let author = (caller.restricted_to, caller.key);
    let reading = app.clone();
    // The body is dropped here: records that wait in the queue are not kept twice.
    let checked = body.read(move |text| check_batch(&reading, (tenant_id, mode), author, text));
    let CheckedBatch { slots, records } = checked.await?;
    let outcomes = match records.len() {
        0 => Vec::new(),
        _ => match app.ledger.record_as(mode, tenant_id, records).await {
            Ok(outcomes) => split(outcomes).0,
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
            Slot::Sent { call_id, ignored_fields } => {
                let outcome = outcomes.next().ok_or_else(|| ApiError::of(ErrorCode::Internal))?;
                let result = BatchResult::recorded(index, call_id, outcome, throttled.as_ref());
                BatchResult { ignored_fields: ignored_fields.into_names(), ..result }
            }
        });
    }
    Ok(Answer::ok(BatchAnswer::of(results)))
}

/// The names of ignored fields that a batch keeps while it waits, in bytes.
const IGNORED_BYTES_MAX: usize = 64 * 1024;

/// What became of records, and what counts as their costs.
fn split(outcomes: Vec<CostedOutcome>) -> (Vec<RecordOutcome>, Vec<Option<CostSource>>) {
    outcomes.into_iter().map(|costed| (costed.outcome, costed.cost_source)).unzip()
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
    Sent { call_id: String, ignored_fields: IgnoredFields },
}

/// The only integration of the author of a record, and the key that writes it.
type Author = (Option<IntegrationId>, Option<CallerKey>);

/// Reads and checks a record, and notes who wrote it.
fn check_record_of((restricted_to, key): Author, text: &str) -> Result<CheckedRecord, ApiError> {
    let mut record = check_record(text, restricted_to)?;
    record.usage.key_id = key.map(|key| key.key_id);
    record.usage.account_key_id = key.map(|key| key.account_key_id);
    Ok(record)
}

/// Reads and checks the records of a batch, if the queue has room for them.
fn check_batch(
    app: &App,
    (tenant_id, mode): (TenantId, RecordMode),
    author: Author,
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
    let mut names_left = IGNORED_BYTES_MAX;
    for record in kept {
        slots.push(match check_record_of(author, record.get()) {
            Ok(CheckedRecord { usage, ignored_fields }) => {
                let call_id = usage.call_id.as_str().to_owned();
                records.push(usage);
                names_left = names_left.saturating_sub(ignored_fields.bytes());
                let ignored_fields =
                    if names_left > 0 { ignored_fields } else { IgnoredFields::default() };
                Slot::Sent { call_id, ignored_fields }
            }
            Err(error) => Slot::Refused { call_id: sent_call_id(record.get()), error },
        });
    }
    Ok(CheckedBatch { slots, records })
}

impl BatchResult {
    /// A record that was refused before it reached the ledger.
    fn refused(index: usize, call_id: Option<String>, error: ApiError) -> Self {
        let ignored_fields = Vec::new();
        Self { index, call_id, status: ERROR, id: None, error: Some(error), ignored_fields }
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
        Self { index, call_id: Some(call_id), status, id, error, ignored_fields: Vec::new() }
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

fn conflict() -> ApiError {
    ApiError::of(ErrorCode::CallIdConflict).on("call_id", "is used by a record with other content")
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

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(INGEST).traffic().refused_unless_known(), routes!(record_usage))
        .add(Rule::of(INGEST).traffic().refused_unless_known(), routes!(record_usage_batch))
}
