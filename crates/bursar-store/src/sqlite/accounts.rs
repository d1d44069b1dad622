//! Reads of accounts and open reservations.

use super::load;
use super::open::SqliteStore;
use super::readers::Snapshot;
use super::summaries::page;
use crate::error::StoreError;
use crate::read::accounts::{AccountReads, AccountSnapshot, OpenReservation};
use crate::read::page::{Page, Paged};
use crate::rows::decode;
use async_trait::async_trait;
use bursar_core::{Counter, IntegrationId, Month, TenantId, Timestamp};
use rusqlite::{Row, named_params};

const COUNT_OPEN: &str = "select count(*) from reservations indexed by reservations_open \
     where tenant_id = :tenant and state = 1 and expires_at > :now";
/// Sorts keys only, because sorting whole rows would read all rows up to the end of the page.
const LIST_OPEN: &str = "select c.call_id, c.integration_id, c.estimated_cost_nanos, \
     c.estimated_tokens, c.model, c.ttl_seconds, c.decision, c.reserved_at, c.expires_at, \
     c.state, c.ended_at from (select call_key, expires_at \
     from reservations indexed by reservations_open \
     where tenant_id = :tenant and state = 1 and expires_at > :now \
     order by expires_at, call_key limit :limit offset :offset) page cross join reservations c \
     on c.tenant_id = :tenant and c.call_key = page.call_key \
     order by page.expires_at, page.call_key";
const COUNT_OPEN_OF: &str = "select count(*) from reservations indexed by reservations_open \
     where tenant_id = :tenant and integration_id = :integration \
     and state = 1 and expires_at > :now";
const LIST_OPEN_OF: &str = "select call_id, integration_id, estimated_cost_nanos, \
     estimated_tokens, model, ttl_seconds, decision, reserved_at, expires_at, state, \
     ended_at from reservations indexed by reservations_open \
     where tenant_id = :tenant and integration_id = :integration \
     and state = 1 and expires_at > :now \
     order by expires_at, call_key limit :limit offset :offset";

#[async_trait]
impl AccountReads for SqliteStore {
    async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<AccountSnapshot>, StoreError> {
        let now = self.clock.now();
        if let Some(snapshot) = self.accounts.account_snapshot(tenant_id, integration_id, now)? {
            return Ok(Some(snapshot));
        }
        let stored =
            move |db: &Snapshot<'_>| load::account_snapshot(db, tenant_id, integration_id, now);
        let snapshot = self.readers.look_up(stored).await?;
        if snapshot.is_some() {
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
