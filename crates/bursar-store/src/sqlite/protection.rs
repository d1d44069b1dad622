//! The cost of a day, which the cost guard asks for.

use bursar_core::{Day, TenantId};
use rusqlite::{Connection, params};

use super::error::store_error;
use crate::error::StoreError;
use crate::rows::protection::cost_nanos;

const SUM_COST: &str = "select coalesce(sum(cost_nanos / 1000000000), 0), \
     coalesce(sum(cost_nanos % 1000000000), 0) from rollups indexed by rollups_by_day \
     where tenant_id = ?1 and grain = 2 and start = ?2";

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
