//! One entry of the ledger on the wire and in files.

use bursar_store::UsageRow;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::wire::enums;
use crate::wire::enums::entry_kind_name;
use crate::wire::format::{cents, usd};
use crate::wire::scalars;
use crate::wire::scalars::{FreeObject, Id, Instant, Tags, Units, Usd};
use crate::wire::timestamps;

/// One entry of the history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageView {
    #[schema(value_type = Id)]
    pub(crate) id: String,
    #[schema(value_type = enums::EntryKind)]
    pub(crate) kind: &'static str,
    #[schema(value_type = Id)]
    pub(crate) integration_id: String,
    #[schema(value_type = scalars::CallId)]
    pub(crate) call_id: String,
    #[schema(required)]
    pub(crate) session_id: Option<String>,
    #[schema(required)]
    pub(crate) agent_id: Option<String>,
    pub(crate) provider: String,
    pub(crate) model: String,
    #[schema(required)]
    pub(crate) response_model: Option<String>,
    #[schema(required)]
    pub(crate) region: Option<String>,
    #[schema(required)]
    pub(crate) provider_request_id: Option<String>,
    #[schema(required)]
    pub(crate) service_tier: Option<String>,
    pub(crate) tokens_in: i64,
    pub(crate) tokens_out: i64,
    pub(crate) total_tokens: i64,
    pub(crate) tokens_cache_read: i64,
    pub(crate) tokens_cache_write: i64,
    pub(crate) tokens_cache_write_long: i64,
    pub(crate) tokens_audio_in: i64,
    pub(crate) tokens_image_in: i64,
    pub(crate) tokens_reasoning: i64,
    pub(crate) tokens_audio_out: i64,
    pub(crate) tokens_image_out: i64,
    #[schema(value_type = Units)]
    pub(crate) units: Box<RawValue>,
    #[schema(value_type = Tags)]
    pub(crate) tags: Box<RawValue>,
    /// Rounded half up. `cost_usd` is exact.
    #[schema(value_type = i64)]
    pub(crate) cost_cents: i128,
    /// The cost that counts towards limits and sums.
    #[schema(value_type = Usd)]
    pub(crate) cost_usd: String,
    /// Where that cost comes from.
    #[schema(value_type = enums::CostSource)]
    pub(crate) cost_source: &'static str,
    #[schema(value_type = Option<Usd>, required)]
    pub(crate) reported_cost_usd: Option<String>,
    #[schema(value_type = Option<Usd>, required)]
    pub(crate) computed_cost_usd: Option<String>,
    #[schema(value_type = enums::UsageStatus)]
    pub(crate) usage_status: &'static str,
    #[schema(required)]
    pub(crate) latency_ms: Option<i64>,
    #[schema(value_type = enums::PolicyResult)]
    pub(crate) policy_result: &'static str,
    #[schema(required)]
    pub(crate) error_code: Option<String>,
    #[schema(required)]
    pub(crate) error_message: Option<String>,
    #[schema(value_type = FreeObject)]
    pub(crate) metadata: Box<RawValue>,
    #[schema(value_type = enums::RecordSource)]
    pub(crate) source: &'static str,
    /// The key that wrote the record; null if a person or the operator did.
    #[schema(value_type = Option<Id>, required)]
    pub(crate) key_id: Option<String>,
    #[schema(value_type = Instant)]
    pub(crate) occurred_at: String,
    #[schema(value_type = Instant)]
    pub(crate) created_at: String,
}

impl From<UsageRow> for UsageView {
    fn from(row: UsageRow) -> Self {
        let dollars = |cost: bursar_core::Nanos| usd(cost.get().into());
        let tokens = row.tokens.counts();
        Self {
            id: row.entry_id.to_string(),
            kind: entry_kind_name(row.kind),
            integration_id: row.integration_id.to_string(),
            call_id: row.call_id,
            session_id: row.session_id,
            agent_id: row.agent_id,
            provider: row.provider,
            model: row.model,
            response_model: row.response_model,
            region: row.region,
            provider_request_id: row.provider_request_id,
            service_tier: row.service_tier,
            tokens_in: tokens.tokens_in,
            tokens_out: tokens.tokens_out,
            total_tokens: row.tokens.total(),
            tokens_cache_read: tokens.cache_read,
            tokens_cache_write: tokens.cache_write,
            tokens_cache_write_long: tokens.cache_write_long,
            tokens_audio_in: tokens.audio_in,
            tokens_image_in: tokens.image_in,
            tokens_reasoning: tokens.reasoning,
            tokens_audio_out: tokens.audio_out,
            tokens_image_out: tokens.image_out,
            units: object(row.units.json()),
            tags: object(row.tags.json()),
            cost_cents: cents(row.cost.get().into()),
            cost_usd: dollars(row.cost),
            cost_source: row.cost_source.as_str(),
            reported_cost_usd: row.reported_cost.map(dollars),
            computed_cost_usd: row.computed_cost.map(dollars),
            usage_status: row.usage_status.as_str(),
            latency_ms: row.latency_ms,
            policy_result: row.policy_result.as_str(),
            error_code: row.error_code,
            error_message: row.error_message,
            metadata: object(row.metadata),
            source: row.source.as_str(),
            key_id: row.key_id.map(|key_id| key_id.to_string()),
            occurred_at: timestamps::text(row.occurred_at),
            created_at: timestamps::text(row.created_at),
        }
    }
}

/// The object of a JSON text; an empty one for none.
fn object(text: Option<String>) -> Box<RawValue> {
    let text = text.unwrap_or_else(|| "{}".to_owned());
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
