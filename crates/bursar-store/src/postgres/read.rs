//! Rows, lists and sums for readers. Sums come from rollups only.
//!
//! Independent statements are sent together, so that a read takes one round trip.

use std::collections::BTreeMap;

use bursar_core::{Account, Counter, Day, IntegrationId, Month, TenantId, Timestamp, Totals};
use tokio::try_join;
use tokio_postgres::{Client, Row};

use super::ask::{each, listed, number, one, rows};
use super::load::due_of_day;
use super::query::typed;
use super::readers::Reader;
use super::tx::{Param, params};
use crate::error::StoreError;
use crate::read::aggregate::IntegrationSums;
use crate::read::store::{AccountSnapshot, IntegrationUsage, OpenReservation, Page, Paged};
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::row::{IntegrationRow, TenantRow};
use crate::tables::integrations::SELECT_INTEGRATION;
use crate::tables::tenants::SELECT_TENANT;
use crate::tables::value::{FromRow, values};

const COUNTERS_SINCE: &str = "select month, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls, last_at from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month >= $3";
const SELECT_COUNTER: &str = "select used_cost_nanos, used_tokens, used_calls, held_cost_nanos, \
     held_tokens, held_calls, last_at from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month = $3";
const SELECT_RATE: &str = "select second, calls from rate_slots \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2";
/// What is due at an instant, or at the last one that the account was decided at on a server whose
/// time is a moment ahead, by the day on which it was reserved.
///
/// An instant that is computed stands in a query of its own: the database does not let other
/// expressions choose rows before row level security did, and would look at all that the tenant
/// holds.
const SUM_DUE: &str = "select reserved_at / 86400000000, sum(estimated_cost_nanos)::bigint, \
     sum(estimated_tokens)::bigint, count(*) from calls \
     where tenant_id = $1 and integration_id = $2 and reservation_state = 1 \
     and expires_at <= (select greatest($3, (select max(last_at) from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month >= $4 \
     and last_at <= $5))) group by reserved_at / 86400000000";
/// The sum of due holds that were made in a month; due at the same instant.
const SUM_DUE_OF_MONTH: &str = "select coalesce(sum(estimated_cost_nanos), 0)::bigint, \
     coalesce(sum(estimated_tokens), 0)::bigint, count(*) from calls \
     where tenant_id = $1 and integration_id = $2 and reservation_state = 1 \
     and expires_at <= (select greatest($3, (select max(last_at) from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month >= $6 \
     and last_at <= $7))) and reserved_at >= $4 and reserved_at < $5";
const COUNT_OPEN: &str = "select count(*) from calls \
     where tenant_id = $1 and reservation_state = 1 \
     and expires_at > $2";
const LIST_OPEN: &str = "select call_id, integration_id, estimated_cost_nanos, estimated_tokens, \
     model, ttl_seconds, decision, reserved_at, expires_at, reservation_state, ended_at \
     from calls where tenant_id = $1 and reservation_state = 1 \
     and expires_at > $2 \
     order by expires_at, call_key limit $3 offset $4";
const COUNT_OPEN_OF: &str = "select count(*) from calls \
     where tenant_id = $1 and integration_id = $2 and reservation_state = 1 \
     and expires_at > $3";
const LIST_OPEN_OF: &str = "select call_id, integration_id, estimated_cost_nanos, \
     estimated_tokens, model, ttl_seconds, decision, reserved_at, expires_at, reservation_state, \
     ended_at from calls where tenant_id = $1 and integration_id = $2 and reservation_state = 1 \
     and expires_at > $3 \
     order by expires_at, call_key limit $4 offset $5";
const SUM_CALLS: &str = "select coalesce(sum(used_calls), 0)::bigint from counters \
     where tenant_id = $1 and scope_kind = 1 and ($2 is null or scope_id = $2)";
const LIST_DAYS: &str = "select i.integration_id, i.name, i.provider_type, r.start, r.calls, \
     r.succeeded, r.errors, r.blocked, r.unpriced, r.tokens_in, r.tokens_out, \
     r.tokens_cache_read, r.tokens_cache_write, r.tokens_reasoning, r.cost_nanos, \
     r.latency_calls, r.latency_sum_ms, r.latency_00, r.latency_01, r.latency_02, r.latency_03, \
     r.latency_04, r.latency_05, r.latency_06, r.latency_07, r.latency_08, r.latency_09, \
     r.latency_10, r.latency_11, r.latency_12, r.latency_13, r.latency_14, r.latency_15 \
     from rollups r join integrations i \
     on i.tenant_id = r.tenant_id and i.integration_id = r.integration_id \
     where r.tenant_id = $1 and r.integration_id = any (array (select integration_id \
     from integrations where tenant_id = $1 and ($2 is null or integration_id = $2))) \
     and r.grain = 2 and r.start between $3 and $4";

/// A page of a statement, and the number of all rows. Both statements take the same values; the
/// first one has no use for the page.
pub(super) async fn page<T>(
    db: &Reader,
    (count, list): (&str, &str),
    params: &[Param<'_>],
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Paged<T>, StoreError> {
    let (total, rows) =
        try_join!(number(db.client()?, count, params), listed(db, list, params, read))?;
    Ok(Paged { rows, total })
}

/// The values of a page.
pub(super) fn bounds(page: Page) -> (i64, i64) {
    (page.limit.into(), page.offset.into())
}

async fn tenant_row(db: &Client, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError> {
    let key = values![tenant_id];
    one(db, SELECT_TENANT.plain, &typed(&key), |row| TenantRow::from_row(row)).await
}

/// An integration, deleted ones included.
pub(super) async fn integration_row(
    db: &Client,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Result<Option<IntegrationRow>, StoreError> {
    let key = values![tenant_id, integration_id];
    one(db, SELECT_INTEGRATION.plain, &typed(&key), |row| IntegrationRow::from_row(row)).await
}

pub(super) async fn open_reservations(
    db: &Reader,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    now: Timestamp,
    of: Page,
) -> Result<Paged<OpenReservation>, StoreError> {
    let (tenant, now, (limit, offset)) = (tenant_id.number(), now.micros(), bounds(of));
    let Some(integration_id) = integration_id else {
        let key = params![tenant, now, limit, offset];
        return page(db, (COUNT_OPEN, LIST_OPEN), key, decode::open_reservation).await;
    };
    let integration = integration_id.number();
    let key = params![tenant, integration, now, limit, offset];
    page(db, (COUNT_OPEN_OF, LIST_OPEN_OF), key, decode::open_reservation).await
}

/// A month's counter without due holds; a month without a row has the default counter.
pub(super) async fn counter(
    db: &Client,
    tenant_id: TenantId,
    (integration_id, month): (IntegrationId, Month),
    now: Timestamp,
) -> Result<Counter, StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.number());
    let since = i64::from(now.month().number());
    let latest = now.plus_seconds(Counter::APART_SECONDS_MAX).micros();
    let (now, start, end) = (now.micros(), month.start().micros(), month.end().micros());
    let month = i64::from(month.number());
    let key = params![tenant, integration, month];
    let due = params![tenant, integration, now, start, end, since, latest];
    let (stored, due) = try_join!(
        one(db, SELECT_COUNTER, key, |row| decode::counter(row, 0)),
        one(db, SUM_DUE_OF_MONTH, due, |row| decode::totals(row, 0)),
    )?;
    Ok(stored.unwrap_or_default().without_due(due.unwrap_or_default())?)
}

/// The account at the current time.
pub(super) async fn account_snapshot(
    db: &Client,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    now: Timestamp,
) -> Result<Option<AccountSnapshot>, StoreError> {
    let (of_tenant, of_integration) = (tenant_id.number(), integration_id.number());
    let since = i64::from(now.month().number());
    let latest = now.plus_seconds(Counter::APART_SECONDS_MAX).micros();
    let counters = params![of_tenant, of_integration, since];
    let at = now.micros();
    let due = params![of_tenant, of_integration, at, since, latest];
    let (tenant, integration, counters, slots, due) = try_join!(
        tenant_row(db, tenant_id),
        integration_row(db, tenant_id, integration_id),
        rows(db, COUNTERS_SINCE, counters, month_counter),
        rows(db, SELECT_RATE, counters, |row| Ok((row.int(0)?, row.int(1)?))),
        rows(db, SUM_DUE, due, |row| due_of_day(row, 0)),
    )?;
    let (Some(tenant), Some(integration)) = (tenant, integration) else { return Ok(None) };
    let last_at = counters.iter().map(|(_, counter)| counter.last_at);
    let last_at = last_at.filter(|last_at| Counter::holds_back(*last_at, now)).max();
    let now = last_at.unwrap_or(now);
    let month = now.month();
    let mut account = Account::new(tenant_id, tenant.lifecycle, integration.rules);
    for (second, calls) in slots {
        account.rate.restore(second, calls);
    }
    let of_month = counters.iter().find(|(of, _)| *of == month);
    account.restore(month, of_month.map_or_else(Counter::default, |(_, counter)| *counter));
    let mut months: BTreeMap<Month, Totals> = BTreeMap::new();
    for (month, amount) in due {
        let sum = months.entry(month).or_default();
        *sum = sum.plus(amount)?;
    }
    account.restore_due(months.into_iter().collect());
    Ok(Some(AccountSnapshot { account, now }))
}

fn month_counter(row: &Row) -> Result<(Month, Counter), StoreError> {
    Ok((Month::from_number(row.int(0)?), decode::counter(row, 1)?))
}

pub(super) async fn recorded_calls(
    db: &Client,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
) -> Result<i64, StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    number(db, SUM_CALLS, params![tenant, integration]).await
}

pub(super) async fn usage_by_integration(
    db: &Reader,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    (first, last): (Day, Day),
) -> Result<Vec<IntegrationUsage>, StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    let (first, last) = (i64::from(first.number()), i64::from(last.number()));
    let mut sums = IntegrationSums::new(db.memory());
    let key = params![tenant, integration, first, last];
    each(db.client()?, LIST_DAYS, key, |row| sums.add(row)).await?;
    Ok(sums.into_usage())
}
