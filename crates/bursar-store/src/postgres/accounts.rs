//! Reads of accounts and open reservations.

use super::fetch::{fetch_all, fetch_optional};
use super::limits::{self, KnownSets};
use super::load::due_of_day;
use super::open::PostgresStore;
use super::query::typed;
use super::readers::Reader;
use super::summaries::{bounds, page};
use super::tx::params;
use crate::error::StoreError;
use crate::read::accounts::{AccountReads, AccountSnapshot, OpenReservation};
use crate::read::page::{Page, Paged};
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::reservation_columns::reservation_columns;
use crate::rows::row::{IntegrationRow, TenantRow};
use crate::tables::integrations::SELECT_INTEGRATION;
use crate::tables::tenants::SELECT_TENANT;
use crate::tables::value::{FromRow, values};
use async_trait::async_trait;
use bursar_core::{
    Account, Calendar, Caps, Counter, IntegrationId, LimitBook, Month, OwnedSubject, TenantId,
    Timestamp, Totals,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::try_join;
use tokio_postgres::{Client, Row};

const COUNTERS_SINCE: &str = "select month, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls, last_at from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month >= $3";
const SELECT_COUNTER: &str = "select used_cost_nanos, used_tokens, used_calls, held_cost_nanos, \
     held_tokens, held_calls, last_at from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month = $3";
const SELECT_RATE: &str = "select second, calls from rate_slots \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2";
/// The sums of due holds, by the day of their reservation.
///
/// A hold is due at the given instant, or at the account's last decision, which can be later if it
/// was made on a server whose time is ahead.
///
/// The computed instant is a subquery. Row level security evaluates its policy before other
/// expressions, so with a plain expression the database would read all holds of the tenant.
const SUM_DUE: &str = "select reserved_at / 86400000000, sum(estimated_cost_nanos)::bigint, \
     sum(estimated_tokens)::bigint, count(*) from reservations \
     where tenant_id = $1 and integration_id = $2 and state = 1 \
     and expires_at <= (select greatest($3, (select max(last_at) from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month >= $4 \
     and last_at <= $5))) group by reserved_at / 86400000000";
/// The sum of due holds that were made in a month.
const SUM_DUE_OF_MONTH: &str = "select coalesce(sum(estimated_cost_nanos), 0)::bigint, \
     coalesce(sum(estimated_tokens), 0)::bigint, count(*) from reservations \
     where tenant_id = $1 and integration_id = $2 and state = 1 \
     and expires_at <= (select greatest($3, (select max(last_at) from counters \
     where tenant_id = $1 and scope_kind = 1 and scope_id = $2 and month >= $6 \
     and last_at <= $7))) and reserved_at >= $4 and reserved_at < $5";
const COUNT_OPEN: &str = "select count(*) from reservations \
     where tenant_id = $1 and state = 1 \
     and expires_at > $2";
const LIST_OPEN: &str = concat!(
    "select ",
    reservation_columns!(entry_names),
    " from reservations where tenant_id = $1 and state = 1 and expires_at > $2 \
     order by expires_at, call_key limit $3 offset $4"
);
const COUNT_OPEN_OF: &str = "select count(*) from reservations \
     where tenant_id = $1 and integration_id = $2 and state = 1 \
     and expires_at > $3";
const LIST_OPEN_OF: &str = concat!(
    "select ",
    reservation_columns!(entry_names),
    " from reservations where tenant_id = $1 and integration_id = $2 and state = 1 \
     and expires_at > $3 order by expires_at, call_key limit $4 offset $5"
);

#[async_trait]
impl AccountReads for PostgresStore {
    async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        subject: OwnedSubject,
    ) -> Result<Option<AccountSnapshot>, StoreError> {
        let now = self.clock.now();
        let (sets, calendar) = (Arc::clone(&self.limit_sets), Arc::clone(&self.calendar));
        self.readers
            .look_up(Some(tenant_id), async move |db| {
                let of = (tenant_id, &subject);
                account_snapshot(db.client()?, (&sets, &*calendar), of, now).await
            })
            .await
    }

    async fn counter(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
    ) -> Result<Counter, StoreError> {
        let (now, of) = (self.clock.now(), (integration_id, month));
        self.readers
            .look_up(Some(tenant_id), async move |db| {
                counter(db.client()?, tenant_id, of, now).await
            })
            .await
    }

    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError> {
        let now = self.clock.now();
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                open_reservations(&db, tenant_id, integration_id, now, page).await
            })
            .await
    }
}

async fn tenant_row(db: &Client, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError> {
    let key = values![tenant_id];
    fetch_optional(db, SELECT_TENANT.plain, &typed(&key), |row| TenantRow::from_row(row)).await
}

/// An integration, deleted ones included.
pub(super) async fn integration_row(
    db: &Client,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Result<Option<IntegrationRow>, StoreError> {
    let key = values![tenant_id, integration_id];
    fetch_optional(db, SELECT_INTEGRATION.plain, &typed(&key), |row| IntegrationRow::from_row(row))
        .await
}

pub(super) async fn open_reservations(
    db: &Reader,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    now: Timestamp,
    of: Page,
) -> Result<Paged<OpenReservation>, StoreError> {
    let (tenant, now, (limit, offset)) = (tenant_id.number(), now.micros(), bounds(of));
    let read = |row: &Row| decode::open_reservation(row, tenant_id);
    let Some(integration_id) = integration_id else {
        let key = params![tenant, now, limit, offset];
        return page(db, (COUNT_OPEN, LIST_OPEN), key, read).await;
    };
    let integration = integration_id.number();
    let key = params![tenant, integration, now, limit, offset];
    page(db, (COUNT_OPEN_OF, LIST_OPEN_OF), key, read).await
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
        fetch_optional(db, SELECT_COUNTER, key, |row| decode::counter(row, 0)),
        fetch_optional(db, SUM_DUE_OF_MONTH, due, |row| decode::totals(row, 0)),
    )?;
    Ok(stored.unwrap_or_default().without_due(due.unwrap_or_default())?)
}

/// The account at the current time.
pub(super) async fn account_snapshot(
    db: &Client,
    (sets, calendar): (&KnownSets, &dyn Calendar),
    (tenant_id, subject): (TenantId, &OwnedSubject),
    now: Timestamp,
) -> Result<Option<AccountSnapshot>, StoreError> {
    let integration_id = subject.integration_id;
    let (of_tenant, of_integration) = (tenant_id.number(), integration_id.number());
    let since = i64::from(now.month().number());
    let latest = now.plus_seconds(Counter::APART_SECONDS_MAX).micros();
    let counters = params![of_tenant, of_integration, since];
    let at = now.micros();
    let due = params![of_tenant, of_integration, at, since, latest];
    let (tenant, integration, counters, slots, due, version) = try_join!(
        tenant_row(db, tenant_id),
        integration_row(db, tenant_id, integration_id),
        fetch_all(db, COUNTERS_SINCE, counters, month_counter),
        fetch_all(db, SELECT_RATE, counters, |row| Ok((row.int(0)?, row.int(1)?))),
        fetch_all(db, SUM_DUE, due, |row| due_of_day(row, 0)),
        limits::select_version(db, &of_tenant),
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
    let set = sets.at_version(db, tenant_id, &version).await?;
    let loaded = limits::snapshot(db, set, tenant_id, &subject.as_subject(), now).await?;
    let limits = LimitBook::open(now, Caps::DEFAULT.values_per_limit, calendar, loaded)?;
    Ok(Some(AccountSnapshot { account, limits, now }))
}

fn month_counter(row: &Row) -> Result<(Month, Counter), StoreError> {
    Ok((Month::from_number(row.int(0)?), decode::counter(row, 1)?))
}
