//! Finding the accounts whose holds are due: one node at a time, tenant after tenant.

use std::hash::{BuildHasher, RandomState};

use bursar_core::{IntegrationId, TenantId};
use parking_lot::Mutex;
use tokio_postgres::Client;

use super::clock;
use super::lane::PostgresLane;
use super::pipeline::{Sent, in_order};
use super::tx::{self, params, store_error};
use crate::clock::decidable;
use crate::columns::Columns;
use crate::error::StoreError;

/// Tenants that one sweep looks at, and how many of them are asked about at once.
const TENANTS_MAX: i64 = 512;
const ASKED_AT_ONCE: usize = 64;
/// For how long a node has the sweep to itself, in microseconds: each sweep renews it, one a second,
/// and nobody sweeps for as long after a node that was killed.
const LEASE_MICROS: i64 = 10_000_000;

/// How much longer than a lease lasts one may seem to last. A longer one is of a time that was taken
/// back, and nobody has it any more.
const APART_MICROS: i64 = 60_000_000;

const LEASE: &str = "insert into leases (name, holder, until_at) values ('sweep', $1, $2 + $3) \
     on conflict (name) do update set holder = excluded.holder, until_at = excluded.until_at \
     where leases.holder = excluded.holder or leases.until_at < $2 \
     or leases.until_at > $2 + $3 + $4 returning name";
const NEXT_TENANTS: &str =
    "select tenant_id from tenants where tenant_id > $1 order by tenant_id limit $2";
const DUE: &str = "select distinct integration_id from calls where tenant_id = $1 \
     and reservation_state = 1 and expires_at <= $2 limit $3";

/// The sweep of a node, whichever of its lanes does it.
pub(super) struct Sweep {
    /// The node, among all that take the lease.
    holder: String,
    /// The tenant at which the last one ended.
    after: Mutex<i64>,
}

impl Sweep {
    pub(super) fn new() -> Self {
        let random = || RandomState::new().hash_one(std::process::id());
        Self { holder: format!("{:016x}{:016x}", random(), random()), after: Mutex::default() }
    }
}

/// The accounts of the next tenants that have a hold which is due; none while another node sweeps.
pub(super) fn due(
    lane: &mut PostgresLane,
    limit: usize,
) -> Result<Vec<(TenantId, IntegrationId)>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (state, sweep) = (lane.clock.state(), lane.sweep.clone());
    let (now, stored) = (state.now.micros(), lane.clock.stored());
    let after = *sweep.after.lock();
    let found = lane.ask(async |client| {
        let lease = params![sweep.holder, now, LEASE_MICROS, APART_MICROS];
        let leased = client.query_typed_opt(LEASE, lease).await.map_err(store_error)?;
        if leased.is_none() {
            return Ok((after, Vec::new()));
        }
        clock::note(client, stored).await?;
        if decidable(&state).is_err() {
            return Ok((after, Vec::new()));
        }
        walk(client, after, now, limit).await
    });
    if found.is_err() {
        // It may be in the middle of a transaction.
        lane.disconnect();
    }
    let (after, due) = found?;
    *sweep.after.lock() = after;
    Ok(due)
}

/// Goes through the tenants after one; where it ended, which is the beginning after the last.
async fn walk(
    client: &Client,
    mut after: i64,
    now: i64,
    limit: i64,
) -> Result<(i64, Vec<(TenantId, IntegrationId)>), StoreError> {
    let rows = client.query_typed(NEXT_TENANTS, params![after, TENANTS_MAX]).await;
    let rows = rows.map_err(store_error)?;
    let tenants: Vec<TenantId> =
        rows.iter().map(|row| row.id(0, TenantId::from_number)).collect::<Result<_, _>>()?;
    let is_last = tenants.len() < usize::try_from(TENANTS_MAX).unwrap_or(usize::MAX);
    client.batch_execute(&tx::begin_read(None)).await.map_err(store_error)?;
    let mut due = Vec::new();
    for part in tenants.chunks(ASKED_AT_ONCE) {
        let asked = part.iter().map(|tenant_id| -> Sent<'_, Vec<_>> {
            Box::pin(due_of(client, *tenant_id, now, limit))
        });
        due.extend(in_order(asked.collect()).await?.into_iter().flatten());
        after = part.last().map_or(after, |tenant_id| tenant_id.number());
        if i64::try_from(due.len()).unwrap_or(i64::MAX) >= limit {
            break;
        }
    }
    client.batch_execute("commit").await.map_err(store_error)?;
    let is_through = is_last && tenants.last().is_none_or(|last| last.number() == after);
    Ok((if is_through { 0 } else { after }, due))
}

async fn due_of(
    client: &Client,
    tenant_id: TenantId,
    now: i64,
    limit: i64,
) -> Result<Vec<(TenantId, IntegrationId)>, StoreError> {
    let (tenant, naming) = (tenant_id.number(), tx::name_tenant(tenant_id));
    let key = params![tenant, now, limit];
    let (named, rows) =
        futures_util::future::join(client.batch_execute(&naming), client.query_typed(DUE, key))
            .await;
    named.map_err(store_error)?;
    let rows = rows.map_err(store_error)?;
    rows.iter().map(|row| Ok((tenant_id, row.id(0, IntegrationId::from_number)?))).collect()
}
