//! Stored decisions, which explain refusals and warnings. Their number is limited for each tenant.

use async_trait::async_trait;
use bursar_core::{DecisionId, IntegrationId, ReasonCode, TenantId, Timestamp, Verdict};

use super::query::Query;
use super::value::{FromRow, values};
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::row::DecisionRow;
use crate::write::writer_connection::ControlTx;

const UPSERT_DECISION: &str = "insert into decisions (tenant_id, decision_id, kind, \
     integration_id, verdict, code, decision, call_id, estimated_cost_nanos, estimated_tokens, \
     times, first_at, last_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
     on conflict (tenant_id, decision_id) do update set verdict = excluded.verdict, \
     code = excluded.code, decision = excluded.decision, \
     estimated_cost_nanos = excluded.estimated_cost_nanos, \
     estimated_tokens = excluded.estimated_tokens, times = excluded.times, \
     last_at = excluded.last_at";
const DROP_DECISIONS: &str = "delete from decisions where tenant_id = $1 and decision_id <= \
     (select decision_id from decisions where tenant_id = $1 \
     order by decision_id desc limit 1 offset $2)";
const LIST_DECISIONS: &str = "select tenant_id, decision_id, kind, integration_id, decision, \
     call_id, estimated_cost_nanos, estimated_tokens, times, first_at, last_at from decisions \
     where tenant_id = $1 and decision_id < $2 \
     and ($3 is null or integration_id = $3) and ($4 is null or call_id = $4) \
     and ($5 is null or verdict = $5) and ($6 is null or code = $6) \
     and last_at >= $7 and first_at < $8 order by decision_id desc limit $9";

/// A filter of stored decisions.
#[derive(Clone, Debug, Default)]
pub struct DecisionFilter {
    pub integration_id: Option<IntegrationId>,
    pub call_id: Option<String>,
    pub verdict: Option<Verdict>,
    /// The first reason of the decision.
    pub code: Option<ReasonCode>,
    /// Only decisions that last occurred at this instant or later.
    pub start: Option<Timestamp>,
    /// Only decisions that first occurred before this instant.
    pub end: Option<Timestamp>,
    /// Only decisions older than this one.
    pub before: Option<DecisionId>,
}

/// Reads of stored decisions.
#[async_trait]
pub trait DecisionReads: Send + Sync {
    /// Decisions other than "allowed", newest first.
    async fn decisions(
        &self,
        tenant_id: TenantId,
        filter: DecisionFilter,
        limit: u32,
    ) -> Result<Vec<DecisionRow>, StoreError>;
}

#[async_trait]
impl<S: Query> DecisionReads for S {
    async fn decisions(
        &self,
        tenant_id: TenantId,
        filter: DecisionFilter,
        limit: u32,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        let values = values![
            tenant_id,
            filter.before.map_or(i64::MAX, DecisionId::number),
            filter.integration_id,
            filter.call_id,
            filter.verdict.map(Verdict::as_str),
            filter.code.map(ReasonCode::as_str),
            filter.start.map_or(i64::MIN, Timestamp::micros),
            filter.end.map_or(i64::MAX, Timestamp::micros),
            limit,
        ];
        self.list(tenant_id, LIST_DECISIONS, values).await
    }
}

impl dyn ControlTx + '_ {
    /// Stores a decision, new or repeated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_decision(&mut self, row: &DecisionRow) -> Result<(), StoreError> {
        let values = values![
            row.tenant_id,
            row.decision_id,
            codec::decision_kind_code(row.kind),
            row.integration_id,
            row.decision.verdict.as_str(),
            row.decision.reasons.first().map_or("", |reason| reason.code.as_str()),
            codec::decision_text(&row.decision).unwrap_or_default(),
            row.call_id,
            row.estimate.cost.get(),
            row.estimate.tokens,
            row.times,
            row.first_at,
            row.last_at,
        ];
        self.execute(row.tenant_id, UPSERT_DECISION.into(), &values)
    }

    /// Drops all but the newest decisions of a tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drop_decisions(&mut self, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        self.execute(tenant_id, DROP_DECISIONS.into(), &values![tenant_id, kept])
    }
}

impl FromRow for DecisionRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        Ok(Self {
            tenant_id: row.id(0, TenantId::from_number)?,
            decision_id: row.id(1, DecisionId::from_number)?,
            kind: codec::decision_kind(row.int(2)?)?,
            integration_id: row.opt_id(3, IntegrationId::from_number)?,
            decision: codec::decision(Some(row.str(4)?).filter(|text| !text.is_empty()))?,
            call_id: row.opt_text(5)?,
            estimate: decode::estimate(row, 6)?,
            times: row.int(8)?,
            first_at: row.instant(9)?,
            last_at: row.instant(10)?,
        })
    }
}
