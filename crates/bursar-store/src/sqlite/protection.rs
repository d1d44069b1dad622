//! Signals and overrides of protection, and the cost of a day.

use bursar_core::{Day, SignalId, TenantId, Timestamp};
use rusqlite::{Connection, params};

use super::error::store_error;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::protection::{
    OverrideRow, SignalRow, cost_nanos, override_row, signal_row, stored_decision,
};

const UPSERT_SIGNAL: &str = "insert into signals (tenant_id, signal_id, dimension, action, \
     endpoint, operation, retry_after_ms, current_value, allowed_value, times, first_at, last_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
     on conflict (tenant_id, signal_id) do update set retry_after_ms = excluded.retry_after_ms, \
     current_value = excluded.current_value, allowed_value = excluded.allowed_value, \
     times = excluded.times, last_at = excluded.last_at";
const DROP_SIGNALS: &str = "delete from signals where tenant_id = ?1 and signal_id <= \
     (select signal_id from signals where tenant_id = ?1 \
     order by signal_id desc limit 1 offset ?2)";
const LIST_SIGNALS: &str = "select tenant_id, signal_id, dimension, action, endpoint, operation, \
     retry_after_ms, current_value, allowed_value, times, first_at, last_at from signals \
     where tenant_id = ?1 and signal_id < ?2 order by signal_id desc limit ?3";
const UPSERT_OVERRIDE: &str = "insert into protection_overrides (tenant_id, dimension, \
     allowed_value, expires_at, reason, created_at, created_by) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
     on conflict (tenant_id, dimension) do update set allowed_value = excluded.allowed_value, \
     expires_at = excluded.expires_at, reason = excluded.reason, \
     created_at = excluded.created_at, created_by = excluded.created_by";
const LIST_OVERRIDES: &str = "select tenant_id, dimension, allowed_value, expires_at, reason, \
     created_at, created_by from protection_overrides where tenant_id = ?1 and expires_at > ?2 \
     order by dimension";
const SUM_COST: &str = "select coalesce(sum(cost_nanos / 1000000000), 0), \
     coalesce(sum(cost_nanos % 1000000000), 0) from rollups indexed by rollups_by_day \
     where tenant_id = ?1 and grain = 2 and start = ?2";

pub(super) fn put_signal(db: &Connection, row: &SignalRow) -> Result<(), StoreError> {
    let Some(stored) = stored_decision(&row.decision) else { return Ok(()) };
    let (dimension, action, retry_after_ms, current_value, allowed_value) = stored;
    let mut upsert = db.prepare_cached(UPSERT_SIGNAL).map_err(store_error)?;
    upsert
        .execute(params![
            row.tenant_id.number(),
            row.signal_id.number(),
            dimension,
            action,
            row.endpoint,
            row.operation,
            retry_after_ms,
            current_value,
            allowed_value,
            row.times,
            row.first_at.micros(),
            row.last_at.micros(),
        ])
        .map(|_| ())
        .map_err(store_error)
}

pub(super) fn drop_old(db: &Connection, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached(DROP_SIGNALS).map_err(store_error)?;
    delete.execute(params![tenant_id.number(), kept]).map(|_| ()).map_err(store_error)
}

pub(super) fn put_override(db: &Connection, row: &OverrideRow) -> Result<(), StoreError> {
    let OverrideRow {
        tenant_id,
        dimension,
        allowed_value,
        expires_at,
        reason,
        created_at,
        created_by,
    } = row;
    let mut upsert = db.prepare_cached(UPSERT_OVERRIDE).map_err(store_error)?;
    upsert
        .execute(params![
            tenant_id.number(),
            codec::dimension_code(*dimension),
            allowed_value,
            expires_at.micros(),
            reason,
            created_at.micros(),
            created_by,
        ])
        .map(|_| ())
        .map_err(store_error)
}

pub(super) fn signals(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    before: Option<SignalId>,
    limit: u32,
) -> Result<Vec<SignalRow>, StoreError> {
    let before = before.map_or(i64::MAX, SignalId::number);
    let mut statement = db.prepare_cached(LIST_SIGNALS).map_err(store_error)?;
    let mut rows =
        statement.query(params![tenant_id.number(), before, limit]).map_err(store_error)?;
    let mut signals = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        db.take_row(row)?;
        signals.push(signal_row(row)?);
    }
    Ok(signals)
}

pub(super) fn overrides(
    db: &Connection,
    tenant_id: TenantId,
    now: Timestamp,
) -> Result<Vec<OverrideRow>, StoreError> {
    let mut statement = db.prepare_cached(LIST_OVERRIDES).map_err(store_error)?;
    let mut rows =
        statement.query(params![tenant_id.number(), now.micros()]).map_err(store_error)?;
    let mut overrides = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        overrides.push(override_row(row)?);
    }
    Ok(overrides)
}

pub(super) fn cost_of_day(
    db: &Connection,
    tenant_id: TenantId,
    day: Day,
) -> Result<i128, StoreError> {
    let mut statement = db.prepare_cached(SUM_COST).map_err(store_error)?;
    let mut rows =
        statement.query(params![tenant_id.number(), day.number()]).map_err(store_error)?;
    // The query always returns one row.
    rows.next().map_err(store_error)?.map_or(Ok(0), |row| cost_nanos(row, 0))
}
