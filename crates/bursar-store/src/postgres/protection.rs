//! The cost of a day, which the cost guard asks for.

use bursar_core::{Day, TenantId};
use tokio_postgres::Client;

use super::ask::one;
use super::tx::params;
use crate::error::StoreError;
use crate::rows::protection::cost_nanos;

const SUM_COST: &str = "select coalesce(sum(cost_nanos / 1000000000), 0)::bigint, \
     coalesce(sum(cost_nanos % 1000000000), 0)::bigint from rollups \
     where tenant_id = $1 and integration_id = any (array (select integration_id \
     from integrations where tenant_id = $1)) and grain = 2 and start = $2";

pub(super) async fn cost_of_day(
    db: &Client,
    tenant_id: TenantId,
    day: Day,
) -> Result<i128, StoreError> {
    let (tenant, day) = (tenant_id.number(), i64::from(day.number()));
    // Sums have one row always.
    Ok(one(db, SUM_COST, params![tenant, day], |row| cost_nanos(row, 0)).await?.unwrap_or_default())
}
