//! The implementation of [`Store`] for SQLite: each read runs on a snapshot, beside the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bursar_core::{ClockState, Counter, Day, IntegrationId, KeyId, Month, TenantId};
use rustix::fs::StatVfsMountFlags;

use super::open::SqliteStore;
use super::query;
use super::readers::Snapshot;
use super::{audit, days, history, keys, load, protection, read, series, store_stats};
use crate::audit::chain::{AuditEntry, AuditFilter, AuditPage};
use crate::cache::Cache;
use crate::error::StoreError;
use crate::read::breakdown::{Breakdown, BreakdownFilter, GroupBy, Series, SeriesFilter};
use crate::read::history::Cut;
use crate::read::near_limit::NearLimit;
use crate::read::read_context::ReadContext;
use crate::read::store::{
    AccountSnapshot, CallFilter, DayFilter, DayPage, HistoryFilter, HistoryPage, HistoryPart,
    IntegrationUsage, OpenReservation, Page, Paged, Store, StoreStats,
};
use crate::rows::row::{IntegrationRow, KeyRow};
use crate::tables::integrations::SELECT_INTEGRATION;
use crate::tables::value::values;
use crate::write::writable::WRITE_PROBE_BYTES;

/// Free bytes of the disk below which it is in doubt whether it takes writes: a probe in the log,
/// and once more in the file.
const LOW_DISK_BYTES: u64 = 2 * WRITE_PROBE_BYTES as u64;

impl SqliteStore {
    /// Asks for a list or a sum of a tenant.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        tenant_id: TenantId,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read(&self.context, tenant_id, question).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn clock(&self) -> ClockState {
        self.clock.state()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.readers.probe(|db| read::ping(db)).await
    }

    fn doubts_writes(&self) -> bool {
        // A file system that cannot say is asked by the next write.
        rustix::fs::statvfs(&self.path).is_ok_and(|disk| {
            let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
            free_bytes < LOW_DISK_BYTES || disk.f_flag.contains(StatVfsMountFlags::RDONLY)
        })
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
        let (now, of) = (self.now(), (integration_id, month));
        self.readers.look_up(move |db| load::open_counter(db, tenant_id, of, now)).await
    }

    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError> {
        let now = self.now();
        self.read(tenant_id, move |db| {
            read::open_reservations(db, tenant_id, integration_id, now, page)
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
            .look_up(move |db| {
                if let Some(integration_id) = integration_id {
                    let owner = values![tenant_id, integration_id];
                    let owner: Option<IntegrationRow> =
                        query::row(db, SELECT_INTEGRATION.plain, &owner)?;
                    if owner.is_none_or(|owner| owner.deleted_at.is_some()) {
                        return Ok(None);
                    }
                }
                let key = keys::key(db, tenant_id, key_id)?;
                Ok(key.filter(|key| key.integration_id == integration_id))
            })
            .await
    }

    async fn keys(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<KeyRow>, StoreError> {
        self.read(tenant_id, move |db| keys::list(db, tenant_id, integration_id, page)).await
    }

    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError> {
        self.read(tenant_id, move |db| {
            read::usage_by_integration(db, tenant_id, integration_id, (first, last))
        })
        .await
    }

    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError> {
        self.read(tenant_id, move |db| days::usage_by_day(db, tenant_id, filter, page)).await
    }

    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError> {
        self.read(tenant_id, move |db| read::recorded_calls(db, tenant_id, integration_id)).await
    }

    async fn usage_history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        part: HistoryPart,
    ) -> Result<HistoryPage, StoreError> {
        self.read(tenant_id, move |db| history::usage_history(db, tenant_id, &filter, part.into()))
            .await
    }

    async fn export_page(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
    ) -> Result<HistoryPage, StoreError> {
        self.read(tenant_id, move |db| history::usage_history(db, tenant_id, &filter, Cut::EXPORT))
            .await
    }

    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError> {
        self.read(tenant_id, move |db| series::counted_calls(db, tenant_id, &filter)).await
    }

    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError> {
        let question = move |db: &Snapshot<'_>| series::usage_breakdown(db, tenant_id, filter);
        if filter.by == GroupBy::Session {
            self.readers.read_much(&self.context, tenant_id, question).await
        } else {
            self.read(tenant_id, question).await
        }
    }

    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError> {
        self.read(tenant_id, move |db| series::usage_series(db, tenant_id, filter)).await
    }

    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError> {
        self.read(tenant_id, move |db| audit::list(db, tenant_id, &filter, limit)).await
    }

    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(tenant_id, move |db| audit::chain(db, tenant_id, after, limit)).await
    }

    async fn cost_of_day(&self, tenant_id: TenantId, day: Day) -> Result<i128, StoreError> {
        self.readers.look_up(move |db| protection::cost_of_day(db, tenant_id, day)).await
    }

    fn caches(&self) -> Vec<&dyn Cache> {
        vec![self.accounts.as_ref()]
    }

    async fn near_limits(&self, limit: usize) -> Result<Vec<NearLimit>, StoreError> {
        let now = self.now();
        self.readers.read_all(move |db| store_stats::near_limits(db, now, limit)).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let (path, now) = (self.path.clone(), self.now());
        let stats = self.readers.read_all(move |db| store_stats::stats(db, &path, now)).await?;
        let is_log_kept = self.is_log_kept.load(Ordering::Relaxed);
        Ok(StoreStats { is_log_kept, ..stats })
    }
}
