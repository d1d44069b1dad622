//! Finds due holds for the sweep. One node at a time does so, tenant after tenant.

use std::hash::{BuildHasher, RandomState};

use bursar_core::{ClockState, Hold, TenantId};
use parking_lot::Mutex;
use tokio_postgres::Client;

use super::clock;
use super::pipeline::{Sent, in_order};
use super::readers::OPERATOR_TIME_MAX;
use super::tx::{self, Messages, params, store_error};
use crate::clock::{StoredClock, decidable};
use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::write::writer_connection::SweepWork;

/// The limit on the tenants of one sweep.
const TENANTS_MAX: i64 = 512;
/// How many tenants are checked for due holds in one round trip.
const CHECKED_AT_ONCE: usize = 64;
/// For how many tenants due holds are read in one round trip.
const READ_AT_ONCE: usize = 4;
/// How long a node owns the sweep, in microseconds.
///
/// Each sweep, one a second, renews the lease. After a node is killed, no node sweeps for this
/// long.
const LEASE_MICROS: i64 = 10_000_000;

/// How far a lease may exceed its length because clocks differ, in microseconds.
///
/// A longer lease is from before an operator set the clock back, and is void.
const CLOCK_SKEW_MAX_MICROS: i64 = 60_000_000;

const LEASE: &str = "insert into leases (name, holder, until_at) values ('sweep', $1, $2::bigint + $3::bigint) \
     on conflict (name) do update set holder = excluded.holder, until_at = excluded.until_at \
     where leases.holder = excluded.holder or leases.until_at < $2 \
     or leases.until_at > $2::bigint + $3::bigint + $4::bigint returning name";
const NEXT_TENANTS: &str =
    "select tenant_id from tenants where tenant_id > $1 order by tenant_id limit $2";
const IS_DUE: &str = "select 1 from reservations where tenant_id = $1 \
     and state = 1 and expires_at <= $2 limit 1";
const DUE: &str = "select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at, integration_id, postings from reservations where tenant_id = $1 \
     and state = 1 and expires_at <= $2 order by expires_at limit $3";

/// The sweep of a node, shared by its writers.
pub(super) struct Sweep {
    /// Identifies the node as the holder of the lease.
    holder: String,
    cursor: Mutex<SweepCursor>,
}

/// The position of the scan of the tenants.
#[derive(Clone, Copy, Default)]
struct SweepCursor {
    /// The tenant at which the last sweep stopped.
    after: i64,
    /// Whether a tenant of this scan had more due holds than were read.
    is_cut: bool,
}

impl Sweep {
    pub(super) fn new() -> Self {
        let random = || RandomState::new().hash_one(std::process::id());
        Self { holder: format!("{:016x}{:016x}", random(), random()), cursor: Mutex::default() }
    }

    /// The due holds of the next tenants; none while another node owns the sweep.
    ///
    /// A tenant with more than `limit` due holds gets its next turn after all other tenants. After
    /// an error, the client may be inside a transaction.
    pub(super) async fn sweep_work(
        &self,
        client: &Client,
        messages: Messages,
        (state, stored): (ClockState, StoredClock),
        limit: usize,
    ) -> Result<SweepWork, StoreError> {
        let now = state.now.micros();
        let lease = params![self.holder, now, LEASE_MICROS, CLOCK_SKEW_MAX_MICROS];
        let leased = client.query_typed_opt(LEASE, lease).await.map_err(store_error)?;
        if leased.is_none() {
            return Ok(SweepWork::default());
        }
        clock::save(client, stored).await?;
        if decidable(&state).is_err() {
            return Ok(SweepWork::default());
        }
        let cursor = *self.cursor.lock();
        let DueHolds { cursor, holds, more } =
            due_holds(client, messages, cursor, now, limit).await?;
        *self.cursor.lock() = cursor;
        Ok(SweepWork { holds, missed: Vec::new(), more })
    }
}

/// The due holds of some tenants.
struct DueHolds {
    /// The next position; the beginning after the last tenant.
    cursor: SweepCursor,
    holds: Vec<Hold>,
    /// Whether there may be more due holds.
    more: bool,
}

/// Reads the due holds of the tenants after a position.
async fn due_holds(
    client: &Client,
    messages: Messages,
    SweepCursor { mut after, mut is_cut }: SweepCursor,
    now: i64,
    limit: usize,
) -> Result<DueHolds, StoreError> {
    let rows = client.query_typed(NEXT_TENANTS, params![after, TENANTS_MAX]).await;
    let rows = rows.map_err(store_error)?;
    let tenants: Vec<TenantId> =
        rows.iter().map(|row| row.id(0, TenantId::from_number)).collect::<Result<_, _>>()?;
    let is_last = tenants.len() < usize::try_from(TENANTS_MAX).unwrap_or(usize::MAX);
    let begin = tx::begin_read(None, OPERATOR_TIME_MAX);
    tx::set(client, &begin, messages).await.map_err(store_error)?;
    let mut holds = Vec::new();
    'tenants: for part in tenants.chunks(CHECKED_AT_ONCE) {
        let checks = part.iter().map(|tenant_id| -> Sent<'_, Option<TenantId>> {
            Box::pin(tenant_if_due(client, *tenant_id, now))
        });
        let due: Vec<TenantId> = in_order(checks.collect()).await?.into_iter().flatten().collect();
        for some in due.chunks(READ_AT_ONCE) {
            let reads = some.iter().map(|tenant_id| -> Sent<'_, Vec<Hold>> {
                Box::pin(due_holds_of(client, *tenant_id, now, limit))
            });
            let read = in_order(reads.collect()).await?;
            is_cut |= read.iter().any(|of_tenant| of_tenant.len() >= limit);
            holds.extend(read.into_iter().flatten());
            after = some.last().map_or(after, |tenant_id| tenant_id.number());
            if holds.len() >= limit {
                break 'tenants;
            }
        }
        after = part.last().map_or(after, |tenant_id| tenant_id.number());
    }
    client.batch_execute("commit").await.map_err(store_error)?;
    let is_through = is_last && tenants.last().is_none_or(|last| last.number() == after);
    let more = holds.len() >= limit || is_cut;
    let cursor = if is_through { SweepCursor::default() } else { SweepCursor { after, is_cut } };
    Ok(DueHolds { cursor, holds, more })
}

/// The tenant, if it has a due hold.
async fn tenant_if_due(
    client: &Client,
    tenant_id: TenantId,
    now: i64,
) -> Result<Option<TenantId>, StoreError> {
    let (tenant, set_tenant) = (tenant_id.number(), tx::set_tenant(tenant_id));
    let (set, rows) = futures_util::future::join(
        client.batch_execute(&set_tenant),
        client.query_typed(IS_DUE, params![tenant, now]),
    )
    .await;
    set.map_err(store_error)?;
    Ok(rows.map_err(store_error)?.first().map(|_| tenant_id))
}

async fn due_holds_of(
    client: &Client,
    tenant_id: TenantId,
    now: i64,
    limit: usize,
) -> Result<Vec<Hold>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (tenant, set_tenant) = (tenant_id.number(), tx::set_tenant(tenant_id));
    let (set, rows) = futures_util::future::join(
        client.batch_execute(&set_tenant),
        client.query_typed(DUE, params![tenant, now, limit]),
    )
    .await;
    set.map_err(store_error)?;
    let hold = |row: &tokio_postgres::Row| decode::posted_hold(row, tenant_id);
    rows.map_err(store_error)?.iter().map(hold).collect()
}
