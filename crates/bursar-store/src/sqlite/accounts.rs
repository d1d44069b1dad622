//! Reads of accounts and open reservations.

use super::open::SqliteStore;
use super::readers::Snapshot;
use super::summaries::page;
use super::{limits, load};
use crate::error::StoreError;
use crate::read::accounts::{AccountReads, AccountSnapshot, OpenReservation};
use crate::read::page::{Page, Paged};
use crate::rows::decode;
use crate::rows::reservation_columns::reservation_columns;
use async_trait::async_trait;
use bursar_core::{
    Account, Caps, Counter, IntegrationId, LimitBook, LoadedLimits, Month, OwnedSubject, TenantId,
    Timestamp,
};
use rusqlite::{Row, named_params};
use std::sync::Arc;

const COUNT_OPEN: &str = "select count(*) from reservations indexed by reservations_open \
     where tenant_id = :tenant and state = 1 and expires_at > :now";
/// Sorts keys only, because sorting whole rows would read all rows up to the end of the page.
const LIST_OPEN: &str = concat!(
    "select ",
    reservation_columns!(entry_names, "c."),
    " from (select call_key, expires_at \
     from reservations indexed by reservations_open \
     where tenant_id = :tenant and state = 1 and expires_at > :now \
     order by expires_at, call_key limit :limit offset :offset) page cross join reservations c \
     on c.tenant_id = :tenant and c.call_key = page.call_key \
     order by page.expires_at, page.call_key"
);
const COUNT_OPEN_OF: &str = "select count(*) from reservations indexed by reservations_open \
     where tenant_id = :tenant and integration_id = :integration \
     and state = 1 and expires_at > :now";
const LIST_OPEN_OF: &str = concat!(
    "select ",
    reservation_columns!(entry_names),
    " from reservations indexed by reservations_open \
     where tenant_id = :tenant and integration_id = :integration \
     and state = 1 and expires_at > :now \
     order by expires_at, call_key limit :limit offset :offset"
);

impl SqliteStore {
    fn snapshot(
        &self,
        account: Account,
        limits: LoadedLimits,
        now: Timestamp,
    ) -> Result<AccountSnapshot, StoreError> {
        let limits = LimitBook::open(now, Caps::DEFAULT.values_per_limit, &*self.calendar, limits)?;
        Ok(AccountSnapshot { account, limits, now })
    }
}

#[async_trait]
impl AccountReads for SqliteStore {
    async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        subject: OwnedSubject,
    ) -> Result<Option<AccountSnapshot>, StoreError> {
        let (now, integration_id) = (self.clock.now(), subject.integration_id);
        let cached = self.accounts.current_account(tenant_id, integration_id, now)?;
        let is_cached = cached.is_some();
        if let Some(account) = cached
            && let Some(limits) = self.limits.loaded(tenant_id, &subject.as_subject(), now)?
        {
            return self.snapshot(account, limits, now).map(Some);
        }
        let guard = Arc::clone(&self.guard);
        let stored = move |db: &Snapshot<'_>| {
            let account = load::open_account(db, tenant_id, integration_id, now)?;
            Ok((account, limits::snapshot(db, &guard, tenant_id, &subject.as_subject(), now)?))
        };
        let (account, limits) = self.readers.look_up(stored).await?;
        let snapshot = account.map(|account| self.snapshot(account, limits, now)).transpose()?;
        if snapshot.is_some() && !is_cached {
            // The next sweep loads the account into the cache; this read does not wait for it.
            self.accounts.miss(tenant_id, integration_id);
        }
        Ok(snapshot)
    }

    async fn counter(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
    ) -> Result<Counter, StoreError> {
        let (now, of) = (self.clock.now(), (integration_id, month));
        self.readers.look_up(move |db| load::open_counter(db, tenant_id, of, now)).await
    }

    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError> {
        let now = self.clock.now();
        self.read(tenant_id, move |db| open_reservations(db, tenant_id, integration_id, now, page))
            .await
    }
}

pub(super) fn open_reservations(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    now: Timestamp,
    of: Page,
) -> Result<Paged<OpenReservation>, StoreError> {
    let read = |row: &Row<'_>| decode::open_reservation(row, tenant_id);
    let (tenant, now) = (tenant_id.number(), now.micros());
    let Some(integration_id) = integration_id else {
        let key = named_params! { ":tenant": tenant, ":now": now };
        return page(db, (COUNT_OPEN, LIST_OPEN), key, of, read);
    };
    let key =
        named_params! { ":tenant": tenant, ":integration": integration_id.number(), ":now": now };
    page(db, (COUNT_OPEN_OF, LIST_OPEN_OF), key, of, read)
}
