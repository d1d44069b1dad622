//! The implementation of [`Store`] for SQLite: each read runs on a snapshot, beside the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bursar_core::{ClockState, TenantId};
use rusqlite::Connection;
use rustix::fs::StatVfsMountFlags;

use super::error::store_error;
use super::open::SqliteStore;
use super::readers::Snapshot;
use super::store_stats;
use crate::cache::Cache;
use crate::error::StoreError;
use crate::read::near_limit::NearLimit;
use crate::read::read_context::ReadContext;
use crate::read::store::{Store, StoreStats};
use crate::write::writable::WRITE_PROBE_BYTES;

/// With fewer free bytes on the disk, writes are probed: a probe is written to the log and then to
/// the file.
const LOW_DISK_BYTES: u64 = 2 * WRITE_PROBE_BYTES as u64;

const PING: &str = "select value from server where name = 'oldest_known'";

impl SqliteStore {
    /// Runs a list or a report of a tenant.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        tenant_id: TenantId,
        query: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read(&self.context, tenant_id, query).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn clock(&self) -> ClockState {
        self.clock.state()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.readers.probe(|db| ping(db)).await
    }

    fn doubts_writes(&self) -> bool {
        // If the file system does not report its space, the next write shows whether it is full.
        rustix::fs::statvfs(&self.path).is_ok_and(|disk| {
            let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
            free_bytes < LOW_DISK_BYTES || disk.f_flag.contains(StatVfsMountFlags::RDONLY)
        })
    }

    fn with_context(&self, context: ReadContext) -> Arc<dyn Store> {
        Arc::new(Self { context, ..self.clone() })
    }

    fn caches(&self) -> Vec<&dyn Cache> {
        vec![self.accounts.as_ref(), self.limits.as_ref()]
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

/// Reads a minimal part of the file, to check that it can be read.
pub(super) fn ping(db: &Connection) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(PING).map_err(store_error)?;
    statement.query_row([], |_| Ok(())).map_err(store_error)
}
