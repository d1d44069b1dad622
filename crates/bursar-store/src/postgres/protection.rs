//! What protection did, what it was told otherwise, and what it asks: a day's cost.

use bursar_core::{Day, SignalId, TenantId, Timestamp};
use tokio_postgres::Client;

use super::ask::{listed, one, rows};
use super::readers::Reader;
use super::tx::params;
use crate::error::StoreError;
use crate::rows::protection::{OverrideRow, SignalRow, cost_nanos, override_row, signal_row};

pub(super) const UPSERT_SIGNAL: &str = "insert into signals (tenant_id, signal_id, dimension, \
     action, endpoint, operation, retry_after_ms, current_value, allowed_value, times, first_at, \
     last_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
     on conflict (tenant_id, signal_id) do update set retry_after_ms = excluded.retry_after_ms, \
     current_value = excluded.current_value, allowed_value = excluded.allowed_value, \
     times = excluded.times, last_at = excluded.last_at";
pub(super) const DROP_SIGNALS: &str = "delete from signals where tenant_id = $1 and signal_id <= \
     (select signal_id from signals where tenant_id = $1 \
     order by signal_id desc limit 1 offset $2)";
pub(super) const UPSERT_OVERRIDE: &str = "insert into protection_overrides (tenant_id, dimension, \
     allowed_value, expires_at, reason, created_at, created_by) \
     values ($1, $2, $3, $4, $5, $6, $7) \
     on conflict (tenant_id, dimension) do update set allowed_value = excluded.allowed_value, \
     expires_at = excluded.expires_at, reason = excluded.reason, \
     created_at = excluded.created_at, created_by = excluded.created_by";
const LIST_SIGNALS: &str = "select tenant_id, signal_id, dimension, action, endpoint, operation, \
     retry_after_ms, current_value, allowed_value, times, first_at, last_at from signals \
     where tenant_id = $1 and signal_id < $2 order by signal_id desc limit $3";
const LIST_OVERRIDES: &str = "select tenant_id, dimension, allowed_value, expires_at, reason, \
     created_at, created_by from protection_overrides where tenant_id = $1 and expires_at > $2 \
     order by dimension";
const SUM_COST: &str = "select coalesce(sum(cost_nanos / 1000000000), 0)::bigint, \
     coalesce(sum(cost_nanos % 1000000000), 0)::bigint from rollups \
     where tenant_id = $1 and integration_id = any (array (select integration_id \
     from integrations where tenant_id = $1)) and grain = 2 and start = $2";

pub(super) async fn signals(
    db: &Reader,
    tenant_id: TenantId,
    before: Option<SignalId>,
    limit: u32,
) -> Result<Vec<SignalRow>, StoreError> {
    let before = before.map_or(i64::MAX, SignalId::number);
    let (tenant, limit) = (tenant_id.number(), i64::from(limit));
    listed(db, LIST_SIGNALS, params![tenant, before, limit], signal_row).await
}

pub(super) async fn overrides(
    db: &Client,
    tenant_id: TenantId,
    now: Timestamp,
) -> Result<Vec<OverrideRow>, StoreError> {
    rows(db, LIST_OVERRIDES, params![tenant_id.number(), now.micros()], override_row).await
}

pub(super) async fn cost_of_day(
    db: &Client,
    tenant_id: TenantId,
    day: Day,
) -> Result<i128, StoreError> {
    let (tenant, day) = (tenant_id.number(), i64::from(day.number()));
    // Sums have one row always.
    Ok(one(db, SUM_COST, params![tenant, day], |row| cost_nanos(row, 0)).await?.unwrap_or_default())
}
