//! Lists and sums for readers. Sums come from rollups only.

use bursar_core::{Day, IntegrationId, TenantId, Timestamp};
use rusqlite::{Connection, Row, ToSql, named_params};

use super::error::store_error;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::read::aggregate::IntegrationSums;
use crate::read::store::{IntegrationUsage, OpenReservation, Page, Paged};
use crate::rows::decode;

const PING: &str = "select value from server where name = 'oldest_known'";
const COUNT_OPEN: &str = "select count(*) from calls indexed by calls_open \
     where tenant_id = :tenant and reservation_state = 1 and expires_at > :now";
/// Sorts keys only, because sorting whole rows would read all rows up to the end of the page.
const LIST_OPEN: &str = "select c.call_id, c.integration_id, c.estimated_cost_nanos, \
     c.estimated_tokens, c.model, c.ttl_seconds, c.decision, c.reserved_at, c.expires_at, \
     c.reservation_state, c.ended_at from (select call_key, expires_at \
     from calls indexed by calls_open \
     where tenant_id = :tenant and reservation_state = 1 and expires_at > :now \
     order by expires_at, call_key limit :limit offset :offset) page cross join calls c \
     on c.tenant_id = :tenant and c.call_key = page.call_key \
     order by page.expires_at, page.call_key";
const COUNT_OPEN_OF: &str = "select count(*) from calls indexed by calls_open \
     where tenant_id = :tenant and integration_id = :integration \
     and reservation_state = 1 and expires_at > :now";
const LIST_OPEN_OF: &str = "select call_id, integration_id, estimated_cost_nanos, \
     estimated_tokens, model, ttl_seconds, decision, reserved_at, expires_at, reservation_state, \
     ended_at from calls indexed by calls_open \
     where tenant_id = :tenant and integration_id = :integration \
     and reservation_state = 1 and expires_at > :now \
     order by expires_at, call_key limit :limit offset :offset";
const SUM_CALLS: &str = "select coalesce(sum(used_calls), 0) from counters \
     where tenant_id = :tenant and scope_kind = 1";
const SUM_CALLS_OF: &str = "select coalesce(sum(used_calls), 0) from counters \
     where tenant_id = :tenant and scope_kind = 1 and scope_id = :integration";
/// The days of each integration, one integration after the other.
const LIST_DAYS: &str = "select i.integration_id, i.name, i.provider_type, r.start, r.calls, \
     r.succeeded, r.errors, r.blocked, r.unpriced, r.tokens_in, r.tokens_out, \
     r.tokens_cache_read, r.tokens_cache_write, r.tokens_reasoning, r.cost_nanos, \
     r.latency_calls, r.latency_sum_ms, r.latency_00, r.latency_01, r.latency_02, r.latency_03, \
     r.latency_04, r.latency_05, r.latency_06, r.latency_07, r.latency_08, r.latency_09, \
     r.latency_10, r.latency_11, r.latency_12, r.latency_13, r.latency_14, r.latency_15 \
     from integrations i cross join rollups r \
     on r.tenant_id = i.tenant_id and r.integration_id = i.integration_id \
     where i.tenant_id = :tenant and (:integration is null or i.integration_id = :integration) \
     and r.grain = 2 and r.start between :first and :last";

/// A page of a statement, and the total.
pub(super) fn page<T>(
    db: &Snapshot<'_>,
    (count, list): (&str, &str),
    key: &[(&str, &dyn ToSql)],
    page: Page,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Paged<T>, StoreError> {
    let mut statement = db.prepare_cached(count).map_err(store_error)?;
    let total = statement.query_row(key, |row| row.get(0)).map_err(store_error)?;
    let mut key = key.to_vec();
    key.push((":limit", &page.limit));
    key.push((":offset", &page.offset));
    let mut statement = db.prepare_cached(list).map_err(store_error)?;
    let mut found = statement.query(key.as_slice()).map_err(store_error)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(store_error)? {
        db.take_row(row)?;
        rows.push(read(row)?);
    }
    Ok(Paged { rows, total })
}

/// Reads a minimal part of the file, to check that it can be read.
pub(super) fn ping(db: &Connection) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(PING).map_err(store_error)?;
    statement.query_row([], |_| Ok(())).map_err(store_error)
}

pub(super) fn open_reservations(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    now: Timestamp,
    of: Page,
) -> Result<Paged<OpenReservation>, StoreError> {
    let read = |row: &Row<'_>| decode::open_reservation(row);
    let (tenant, now) = (tenant_id.number(), now.micros());
    let Some(integration_id) = integration_id else {
        let key = named_params! { ":tenant": tenant, ":now": now };
        return page(db, (COUNT_OPEN, LIST_OPEN), key, of, read);
    };
    let key =
        named_params! { ":tenant": tenant, ":integration": integration_id.number(), ":now": now };
    page(db, (COUNT_OPEN_OF, LIST_OPEN_OF), key, of, read)
}

pub(super) fn recorded_calls(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
) -> Result<i64, StoreError> {
    let tenant = tenant_id.number();
    let Some(integration_id) = integration_id else {
        let mut sum = db.prepare_cached(SUM_CALLS).map_err(store_error)?;
        let key = named_params! { ":tenant": tenant };
        return sum.query_row(key, |row| row.get(0)).map_err(store_error);
    };
    let mut sum = db.prepare_cached(SUM_CALLS_OF).map_err(store_error)?;
    let key = named_params! { ":tenant": tenant, ":integration": integration_id.number() };
    sum.query_row(key, |row| row.get(0)).map_err(store_error)
}

pub(super) fn usage_by_integration(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    (first, last): (Day, Day),
) -> Result<Vec<IntegrationUsage>, StoreError> {
    let mut sums = IntegrationSums::new(db.memory());
    let mut statement = db.prepare_cached(LIST_DAYS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": integration_id.map(IntegrationId::number),
        ":first": first.number(),
        ":last": last.number(),
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        sums.add(row)?;
    }
    Ok(sums.into_usage())
}
