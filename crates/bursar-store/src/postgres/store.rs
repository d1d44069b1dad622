//! What can be asked of the store: each question one transaction that only reads.

use std::sync::Arc;

use async_trait::async_trait;
use bursar_core::{ClockState, Counter, Day, IntegrationId, KeyId, Month, TenantId};

use super::open::PostgresStore;
use super::readers::{Pong, Reader};
use super::{audit, days, history, keys, protection, read, series, store_stats};
use crate::audit::chain::{AuditEntry, AuditFilter, AuditPage};
use crate::error::StoreError;
use crate::read::breakdown::{Breakdown, BreakdownFilter, GroupBy, Series, SeriesFilter};
use crate::read::history::Cut;
use crate::read::near_limit::NearLimit;
use crate::read::read_context::ReadContext;
use crate::read::store::{
    AccountSnapshot, CallFilter, DayFilter, DayPage, HistoryFilter, HistoryPage, HistoryPart,
    IntegrationUsage, OpenReservation, Page, Paged, Store, StoreStats,
};
use crate::rows::row::KeyRow;

#[async_trait]
impl Store for PostgresStore {
    fn clock(&self) -> ClockState {
        self.clock.state()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let Pong { clock: (wall, confirmations), writable } = self.readers.ping().await?;
        self.clock.heard(wall, confirmations);
        writable
    }

    fn with_context(&self, context: ReadContext) -> Arc<dyn Store> {
        Arc::new(Self { context, ..self.clone() })
    }

    async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<AccountSnapshot>, StoreError> {
        let now = self.now();
        self.readers
            .look_up(Some(tenant_id), async move |db| {
                read::account_snapshot(db.client()?, tenant_id, integration_id, now).await
            })
            .await
    }

    async fn counter(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
    ) -> Result<Counter, StoreError> {
        let (now, of) = (self.now(), (integration_id, month));
        self.readers
            .look_up(Some(tenant_id), async move |db| {
                read::counter(db.client()?, tenant_id, of, now).await
            })
            .await
    }

    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError> {
        let now = self.now();
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                read::open_reservations(&db, tenant_id, integration_id, now, page).await
            })
            .await
    }

    async fn key(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        key_id: KeyId,
    ) -> Result<Option<KeyRow>, StoreError> {
        self.readers
            .look_up(Some(tenant_id), async move |db| {
                keys::key(db.client()?, tenant_id, integration_id, key_id).await
            })
            .await
    }

    async fn keys(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<KeyRow>, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                keys::list(&db, tenant_id, integration_id, page).await
            })
            .await
    }

    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                let days = (first, last);
                read::usage_by_integration(&db, tenant_id, integration_id, days).await
            })
            .await
    }

    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                days::usage_by_day(&db, tenant_id, filter, page).await
            })
            .await
    }

    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                read::recorded_calls(db.client()?, tenant_id, integration_id).await
            })
            .await
    }

    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                series::counted_calls(db.client()?, tenant_id, &filter).await
            })
            .await
    }

    async fn usage_history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        part: HistoryPart,
    ) -> Result<HistoryPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                history::usage_history(&db, tenant_id, &filter, part.into()).await
            })
            .await
    }

    async fn export_page(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
    ) -> Result<HistoryPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                history::usage_history(&db, tenant_id, &filter, Cut::EXPORT).await
            })
            .await
    }

    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError> {
        let question =
            async move |db: Arc<Reader>| series::usage_breakdown(&db, tenant_id, &filter).await;
        if filter.by == GroupBy::Session {
            self.readers.read_much(&self.context, tenant_id, question).await
        } else {
            self.readers.read(&self.context, tenant_id, question).await
        }
    }

    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                series::usage_series(&db, tenant_id, &filter).await
            })
            .await
    }

    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                audit::list(&db, tenant_id, &filter, limit).await
            })
            .await
    }

    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                audit::chain(&db, tenant_id, after, limit).await
            })
            .await
    }

    async fn cost_of_day(&self, tenant_id: TenantId, day: Day) -> Result<i128, StoreError> {
        self.readers
            .look_up(Some(tenant_id), async move |db| {
                protection::cost_of_day(db.client()?, tenant_id, day).await
            })
            .await
    }

    async fn near_limits(&self, limit: usize) -> Result<Vec<NearLimit>, StoreError> {
        let (walks, now) = (Arc::clone(&self.walks), self.now());
        self.readers
            .read_all(async move |db| {
                store_stats::near_limits(db.client()?, &walks, now, limit).await
            })
            .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let (walks, now) = (Arc::clone(&self.walks), self.now());
        self.readers
            .read_all(async move |db| store_stats::stats(db.client()?, &walks, now).await)
            .await
    }
}
