//! Statistics over all tenants: integrations near their limits, and sizes.

use std::path::Path;

use bursar_core::Timestamp;
use rusqlite::{Connection, params};

use super::error::store_error;
use super::files::beside;
use crate::error::StoreError;
use crate::read::near_limit::{NearLimit, NearLimits};
use crate::read::store::StoreStats;
use crate::rows::decode;
use crate::tables::tenants::COUNT_TENANTS;

/// The cross join keeps the order: integrations are fewer than counters, which have every month.
/// The sums of due holds are computed besides those of all holds.
const LIST_LIMITED: &str = "select i.tenant_id, i.integration_id, i.budget_limit_cents, \
     i.token_limit_month, i.rate_limit_rpm, c.used_cost_nanos, c.used_tokens, c.used_calls, \
     c.held_cost_nanos, c.held_tokens, c.held_calls, c.last_at, \
     coalesce(sum(d.estimated_cost_nanos), 0), coalesce(sum(d.estimated_tokens), 0), \
     count(d.expires_at) from integrations i cross join counters c on c.tenant_id = i.tenant_id \
     and c.scope_kind = 1 and c.scope_id = i.integration_id and c.month = ?1 \
     left join reservations d indexed by reservations_open on c.held_calls > 0 \
     and d.tenant_id = i.tenant_id and d.integration_id = i.integration_id \
     and d.state = 1 and d.expires_at <= ?2 \
     and d.reserved_at >= ?3 and d.reserved_at < ?4 \
     where i.deleted_at is null and (i.budget_limit_cents > 0 or i.token_limit_month > 0) \
     group by i.tenant_id, i.integration_id";
const COUNT_OPEN_OF_ALL: &str = "select count(*) from reservations indexed by reservations_due \
     where state = 1 and expires_at > ?1";

pub(super) fn near_limits(
    db: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<NearLimit>, StoreError> {
    let mut statement = db.prepare_cached(LIST_LIMITED).map_err(store_error)?;
    let month = now.month();
    let (start, end) = (month.start().micros(), month.end().micros());
    let key = params![month.number(), now.micros(), start, end];
    let mut rows = statement.query(key).map_err(store_error)?;
    let mut near_limits = NearLimits::new(limit);
    while let Some(row) = rows.next().map_err(store_error)? {
        near_limits.offer(decode::near_limit(row, month)?);
    }
    Ok(near_limits.into_rows())
}

pub(super) fn stats(
    db: &Connection,
    path: &Path,
    now: Timestamp,
) -> Result<StoreStats, StoreError> {
    let mut tenants = db.prepare_cached(COUNT_TENANTS).map_err(store_error)?;
    let mut open = db.prepare_cached(COUNT_OPEN_OF_ALL).map_err(store_error)?;
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    Ok(StoreStats {
        tenants: tenants.query_row([], |row| row.get(0)).map_err(store_error)?,
        open_reservations: open
            .query_row(params![now.micros()], |row| row.get(0))
            .map_err(store_error)?,
        data_bytes: size(path),
        log_bytes: size(&beside(path, "-wal")),
        is_log_kept: false,
    })
}
