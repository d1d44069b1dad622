//! Statistics over all tenants: integrations near their limits, and sizes.
//!
//! No statement crosses tenants. A read about all of them scans the tenants, many in one round
//! trip, and sets the tenant of the transaction before each statement. With very many tenants, a
//! read scans some of them, and the next read continues.

use bursar_core::{TenantId, Timestamp};
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::join;
use tokio_postgres::Client;

use super::fetch::{fetch_all, fetch_number};
use super::readers::read_error;
use super::tx::{self, params};
use crate::error::StoreError;
use crate::read::near_limit::{NearLimit, NearLimits};
use crate::read::store::StoreStats;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::tables::tenants::COUNT_TENANTS;

/// Tenants in one round trip.
const TENANTS_AT_ONCE: usize = 256;
/// The limit on the tenants of one read.
const TENANTS_MAX: usize = 4_096;

const NEXT_TENANTS: &str =
    "select tenant_id from tenants where tenant_id > $1 order by tenant_id limit $2";
/// The sums of due holds are computed besides those of all holds.
const LIST_LIMITED: &str = "select i.tenant_id, i.integration_id, i.budget_limit_cents, \
     i.token_limit_month, i.rate_limit_rpm, c.used_cost_nanos, c.used_tokens, c.used_calls, \
     c.held_cost_nanos, c.held_tokens, c.held_calls, c.last_at, d.cost_nanos, d.tokens, d.calls \
     from counters c join integrations i \
     on i.tenant_id = c.tenant_id and i.integration_id = c.scope_id \
     cross join lateral (select coalesce(sum(estimated_cost_nanos), 0)::bigint as cost_nanos, \
     coalesce(sum(estimated_tokens), 0)::bigint as tokens, count(*) as calls from reservations \
     where tenant_id = $1 and integration_id = c.scope_id and state = 1 \
     and expires_at <= $3 and reserved_at >= $4 and reserved_at < $5 and c.held_calls > 0) d \
     where c.tenant_id = $1 and c.scope_kind = 1 and c.month = $2 \
     and c.scope_id = any (array (select integration_id from integrations \
     where tenant_id = $1 and deleted_at is null \
     and (budget_limit_cents > 0 or token_limit_month > 0)))";
const COUNT_OPEN: &str = "select count(*) from reservations where tenant_id = $1 \
     and state = 1 and expires_at > $2";
const DATA_BYTES: &str = "select pg_database_size(current_database())";

/// The states of the scans of all tenants.
#[derive(Default)]
pub(super) struct TenantScans {
    near_limits: Mutex<TenantScan<NearLimits>>,
    open: Mutex<TenantScan<i64>>,
}

/// A scan of all tenants, which may take several reads.
struct TenantScan<T> {
    /// The tenant at which the last read stopped; 0 at the start.
    after: i64,
    /// The result of this scan so far.
    partial: Option<T>,
    /// The result of the last complete scan.
    complete: Option<T>,
}

impl<T> Default for TenantScan<T> {
    fn default() -> Self {
        Self { after: 0, partial: None, complete: None }
    }
}

impl<T: Clone> TenantScan<T> {
    /// Continues the scan, and returns the result of the last complete scan, or the partial one
    /// if there is none.
    ///
    /// A new scan starts with `initial`. `query` reads about one tenant, and `add` adds its rows.
    async fn advance<Rows, Fut>(
        &mut self,
        db: &Client,
        initial: T,
        query: impl Fn(TenantId) -> Fut,
        mut add: impl FnMut(&mut T, Rows),
    ) -> Result<T, StoreError>
    where
        Fut: Future<Output = Result<Rows, StoreError>>,
    {
        // After any error, the next scan begins at the start, so that no tenant is left out.
        let mut after = std::mem::take(&mut self.after);
        let mut result = self.partial.take().unwrap_or(initial);
        for _ in 0..TENANTS_MAX / TENANTS_AT_ONCE {
            let tenants = next_tenants(db, after, TENANTS_AT_ONCE).await?;
            let queries =
                tenants.iter().map(|tenant_id| with_tenant(db, *tenant_id, query(*tenant_id)));
            for rows in try_join_all(queries).await? {
                add(&mut result, rows);
            }
            if tenants.len() < TENANTS_AT_ONCE {
                self.complete = Some(result.clone());
                return Ok(result);
            }
            after = tenants.last().map_or(0, |tenant_id| tenant_id.number());
        }
        self.after = after;
        self.partial = Some(result.clone());
        Ok(self.complete.clone().unwrap_or(result))
    }
}

/// The tenants after a number.
pub(super) async fn next_tenants(
    db: &Client,
    after: i64,
    limit: usize,
) -> Result<Vec<TenantId>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    fetch_all(db, NEXT_TENANTS, params![after, limit], |row| row.id(0, TenantId::from_number)).await
}

/// Runs a query while the transaction sees the rows of this tenant.
///
/// The first poll of `query` must send all of its statements, because other tenants follow at once.
async fn with_tenant<T>(
    db: &Client,
    tenant_id: TenantId,
    query: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let set_tenant = tx::set_tenant(tenant_id);
    let (set, result) = join!(biased; db.batch_execute(&set_tenant), query);
    set.map_err(read_error)?;
    result
}

pub(super) async fn near_limits(
    db: &Client,
    scans: &TenantScans,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<NearLimit>, StoreError> {
    let mut scan = std::mem::take(&mut *scans.near_limits.lock());
    let month = now.month();
    let (at, start, end) = (now.micros(), month.start().micros(), month.end().micros());
    let query = |tenant_id: TenantId| async move {
        let (tenant, number) = (tenant_id.number(), i64::from(month.number()));
        let key = params![tenant, number, at, start, end];
        fetch_all(db, LIST_LIMITED, key, |row| decode::near_limit(row, month)).await
    };
    let add = |near_limits: &mut NearLimits, found: Vec<NearLimit>| {
        found.into_iter().for_each(|account| near_limits.offer(account));
    };
    let near_limits = scan.advance(db, NearLimits::new(limit), query, add).await;
    *scans.near_limits.lock() = scan;
    Ok(near_limits?.into_rows())
}

pub(super) async fn stats(
    db: &Client,
    scans: &TenantScans,
    now: Timestamp,
) -> Result<StoreStats, StoreError> {
    let mut scan = std::mem::take(&mut *scans.open.lock());
    let query = |tenant_id: TenantId| async move {
        let (tenant, now) = (tenant_id.number(), now.micros());
        fetch_number(db, COUNT_OPEN, params![tenant, now]).await
    };
    let open_reservations = scan.advance(db, 0, query, |sum, open: i64| *sum += open).await;
    *scans.open.lock() = scan;
    let open_reservations = open_reservations?;
    let tenants = fetch_number(db, COUNT_TENANTS, params![]).await?;
    let data_bytes = fetch_number(db, DATA_BYTES, params![]).await?;
    Ok(StoreStats {
        tenants,
        open_reservations,
        data_bytes: u64::try_from(data_bytes).unwrap_or_default(),
        // All databases of the server share one log, whose size most roles cannot read.
        log_bytes: 0,
        is_log_kept: false,
    })
}
