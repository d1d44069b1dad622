//! Stored decisions, which explain refusals and warnings. Their number is limited for each tenant.

use bursar_core::{DecisionId, IntegrationId, TenantId};
use rusqlite::{Connection, named_params, params};

use super::error::store_error;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::tables::decisions::DecisionFilter;
use crate::rows::codec;
use crate::rows::decode;
use crate::rows::row::DecisionRow;

const UPSERT_DECISION: &str = "insert into decisions (tenant_id, decision_id, kind, \
     integration_id, verdict, code, decision, call_id, estimated_cost_nanos, estimated_tokens, \
     times, first_at, last_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
     on conflict (tenant_id, decision_id) do update set verdict = excluded.verdict, \
     code = excluded.code, decision = excluded.decision, \
     estimated_cost_nanos = excluded.estimated_cost_nanos, \
     estimated_tokens = excluded.estimated_tokens, times = excluded.times, \
     last_at = excluded.last_at";
const DROP_DECISIONS: &str = "delete from decisions where tenant_id = ?1 and decision_id <= \
     (select decision_id from decisions where tenant_id = ?1 \
     order by decision_id desc limit 1 offset ?2)";
const LIST_DECISIONS: &str = "select tenant_id, decision_id, kind, integration_id, decision, \
     call_id, estimated_cost_nanos, estimated_tokens, times, first_at, last_at from decisions \
     where tenant_id = :tenant and decision_id < :before \
     and (:integration is null or integration_id = :integration) \
     and (:call is null or call_id = :call) and (:verdict is null or verdict = :verdict) \
     and (:code is null or code = :code) and last_at >= :start and first_at < :end \
     order by decision_id desc limit :limit";

pub(super) fn put(db: &Connection, row: &DecisionRow) -> Result<(), StoreError> {
    let DecisionRow {
        tenant_id,
        decision_id,
        kind,
        integration_id,
        decision,
        call_id,
        estimate,
        times,
        first_at,
        last_at,
    } = row;
    let mut upsert = db.prepare_cached(UPSERT_DECISION).map_err(store_error)?;
    upsert
        .execute(params![
            tenant_id.number(),
            decision_id.number(),
            codec::decision_kind_code(*kind),
            integration_id.map(IntegrationId::number),
            decision.verdict.as_str(),
            decision.reasons.first().map_or("", |reason| reason.code.as_str()),
            codec::decision_text(decision).unwrap_or_default(),
            call_id,
            estimate.cost.get(),
            estimate.tokens,
            times,
            first_at.micros(),
            last_at.micros(),
        ])
        .map_err(store_error)?;
    Ok(())
}

pub(super) fn drop_old(db: &Connection, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached(DROP_DECISIONS).map_err(store_error)?;
    delete.execute(params![tenant_id.number(), kept]).map_err(store_error)?;
    Ok(())
}

pub(super) fn list(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    filter: &DecisionFilter,
    limit: u32,
) -> Result<Vec<DecisionRow>, StoreError> {
    let mut statement = db.prepare_cached(LIST_DECISIONS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":before": filter.before.map_or(i64::MAX, DecisionId::number),
        ":integration": filter.integration_id.map(IntegrationId::number),
        ":call": filter.call_id,
        ":verdict": filter.verdict.map(bursar_core::Verdict::as_str),
        ":code": filter.code.map(bursar_core::ReasonCode::as_str),
        ":start": filter.start.map_or(i64::MIN, |start| start.micros()),
        ":end": filter.end.map_or(i64::MAX, |end| end.micros()),
        ":limit": limit,
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    let mut decisions = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        db.take_row(row)?;
        decisions.push(decode::decision_row(row)?);
    }
    Ok(decisions)
}
