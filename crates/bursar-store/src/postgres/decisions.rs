//! Decisions that were kept so that someone can ask why. Bounded for each tenant.

use bursar_core::{DecisionId, IntegrationId, ReasonCode, TenantId, Timestamp, Verdict};

use super::ask::listed;
use super::readers::Reader;
use super::tx::params;
use crate::error::StoreError;
use crate::read::store::DecisionFilter;
use crate::rows::decode;
use crate::rows::row::DecisionRow;

const LIST_DECISIONS: &str = "select tenant_id, decision_id, kind, integration_id, decision, \
     call_id, estimated_cost_nanos, estimated_tokens, times, first_at, last_at from decisions \
     where tenant_id = $1 and decision_id < $2 \
     and ($3 is null or integration_id = $3) and ($4 is null or call_id = $4) \
     and ($5 is null or verdict = $5) and ($6 is null or code = $6) \
     and last_at >= $7 and first_at < $8 order by decision_id desc limit $9";

pub(super) async fn list(
    db: &Reader,
    tenant_id: TenantId,
    filter: &DecisionFilter,
    limit: u32,
) -> Result<Vec<DecisionRow>, StoreError> {
    listed(
        db,
        LIST_DECISIONS,
        params![
            tenant_id.number(),
            filter.before.map_or(i64::MAX, DecisionId::number),
            filter.integration_id.map(IntegrationId::number),
            filter.call_id.as_deref(),
            filter.verdict.map(Verdict::as_str),
            filter.code.map(ReasonCode::as_str),
            filter.start.map_or(i64::MIN, Timestamp::micros),
            filter.end.map_or(i64::MAX, Timestamp::micros),
            i64::from(limit),
        ],
        decode::decision_row,
    )
    .await
}
